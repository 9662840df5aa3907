"""paid <= budget + what was in flight, whatever the server says that it used."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pertwise.errors import BudgetError, ChatError
from pertwise.llm import Ledger, Message, open_chat, run_sync
from pertwise.llm.budget import prompt_tokens_at_most
from pertwise.testing.server import Answer, Fault, ScriptedServer, first_alphabetical

PROTOCOLS = ["openai", "anthropic"]
TEXT = "STAT1 IRF1 CDKN2AIPNL " * 20
#: What a call really costs here: the prompt at 2 bytes a token, 60 tokens of answer.
PROMPT, ANSWER = len(TEXT) // 2, 60


def reported(kind):
    """(prompt, completion) tokens that a server of this kind tells."""
    return {
        "honest": (PROMPT, ANSWER),
        "low": (3, 1),
        "nothing": (0, 0),
        "high": (PROMPT * 9, ANSWER * 9),
        "long": (PROMPT, ANSWER * 40),
    }[kind]


class Paying:
    """A server that counts what it really charges."""

    def __init__(self, kind):
        self.kind, self.paid, self.under_way, self.most_under_way = kind, 0, 0, 0
        self.lock = threading.Lock()

    def cost(self):
        if self.kind == "high":
            return sum(reported("high"))
        return PROMPT + (ANSWER * 40 if self.kind == "long" else ANSWER)

    def __call__(self, asked):
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(0.02)
        with self.lock:
            self.paid += self.cost()
            self.under_way -= 1
        if self.kind == "cuts":
            return Fault(200, raw=b'{"id": "x", "choices": [{"message": {"con')
        prompt, completion = reported(self.kind)
        return Answer("STAT1 is near", prompt_tokens=prompt, completion_tokens=completion)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("with_ledger", [True, False])
@pytest.mark.parametrize("kind", ["honest", "low", "nothing", "high", "long", "cuts"])
def test_a_budget_holds_with_64_calls_at_once(kind, with_ledger, protocol, tmp_path):
    server_side = Paying(kind)
    budget = 20_000
    with ScriptedServer(server_side) as server:
        chat = open_chat(
            server.address(protocol, "m"),
            ledger=tmp_path / "l.sqlite" if with_ledger else None,
            budget_tokens=budget,
            max_tokens=200,
            concurrency=64,
            attempts=3,
            backoff_s=0,
            max_consecutive_failures=1000,
        )

        async def all_of_them():
            import asyncio

            requests = [
                chat.request((Message(role="user", content=f"{i} {TEXT}"),)) for i in range(150)
            ]
            return await asyncio.gather(
                *(chat.complete(r) for r in requests), return_exceptions=True
            )

        done = run_sync(all_of_them())
    assert any(isinstance(d, BudgetError) for d in done)
    assert not any(
        isinstance(d, Exception) and not isinstance(d, ChatError | BudgetError) for d in done
    )
    in_flight = server_side.most_under_way * server_side.cost()
    assert server_side.paid <= budget + in_flight
    if kind in ("honest", "low", "nothing", "cuts"):
        # Nothing was used beyond what was reserved, so not even calls in flight overshoot.
        assert server_side.paid <= budget
    if kind == "honest":
        assert server_side.paid > budget // 2, "the budget is there to be used"


WORKER = """
import sys
from pertwise.errors import BudgetError
from pertwise.llm import Message, open_chat, run_sync
address, ledger, start = sys.argv[1:]
chat = open_chat(address, ledger=ledger, run="r", budget_tokens=20000, max_tokens=200,
                 concurrency=8)
text = "STAT1 IRF1 CDKN2AIPNL " * 20
try:
    run_sync(chat.complete_many([
        chat.request((Message(role="user", content=f"{start} {i} {text}"),)) for i in range(100)
    ]))
except BudgetError as error:
    print(error)
"""


def test_processes_share_the_budget_of_a_run(tmp_path):
    server_side = Paying("honest")
    with ScriptedServer(server_side) as server:
        calls = [
            [sys.executable, "-c", WORKER, server.openai("m"), str(tmp_path / "l.sqlite"), str(i)]
            for i in range(3)
        ]
        running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in calls]
        said = [process.communicate()[0] for process in running]
    assert all("budget reached" in text for text in said)
    assert 10_000 < server_side.paid <= 20_000
    # And a rerun under the same label has nothing left to spend.
    book = Ledger(tmp_path / "l.sqlite")
    assert book.spent("r")[0] == server_side.paid
    assert book.doubtful()[0] == 0


def test_calls_of_a_killed_process_stay_counted(tmp_path):
    with ScriptedServer(lambda a: Answer("x", delay=30)) as server:
        call = [sys.executable, "-c", WORKER, server.openai("m"), str(tmp_path / "l.sqlite"), "0"]
        with subprocess.Popen(call) as process:
            while not server.count:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        chat = open_chat(
            server.openai("m"),
            ledger=tmp_path / "l.sqlite",
            run="r",
            budget_tokens=900,
            max_tokens=200,
        )
        request = chat.request((Message(role="user", content=TEXT),))
        with pytest.raises(BudgetError, match="of 900 tokens used"):
            run_sync(chat.complete(request))
    calls, tokens, _ = Ledger(tmp_path / "l.sqlite").doubtful("r")
    assert calls == 1
    assert tokens >= prompt_tokens_at_most(request) + 200


# -- upper bound of the estimate -------------------------------------------------------------


def bits(text):
    return prompt_tokens_at_most(
        open_chat("m@http://127.0.0.1:1/v1").request((Message(role="user", content=text),))
    )


def test_the_estimate_bounds_lists_of_symbols_and_structures():
    # cl100k_base makes 1.55 bytes a token of symbol lists; no byte-level tokenizer less than 1.
    symbols = "\n".join(f"ZNF{i}P{i % 7}" for i in range(2000))
    assert bits(symbols) >= len(symbols) / 1.2
    smiles = "CC(=O)N[C@@H](Cc1ccc(O)cc1)C(=O)N[C@H](C(=O)O)[C@@H](C)O\n" * 50
    assert bits(smiles) >= len(smiles)
    assert bits("漢字かな交じり文" * 100) >= 800


def test_a_tokenizer_is_used_only_where_its_vocabulary_is_at_hand(monkeypatch, tmp_path):
    pytest.importorskip("tiktoken")
    from pertwise.llm.budget import _known_encoding

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    _known_encoding.cache_clear()
    assert _known_encoding("https://api.openai.com/v1", "gpt-4o") is None


# -- no more tokens than the answer needs ----------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_more_tokens_are_asked_for_than_the_answer_needs(protocol):
    from pertwise.select import Query
    from pertwise.select.chat.similar import langpert_selector

    with ScriptedServer() as server:
        chat = open_chat(server.address(protocol, "m"))
        genes = [f"GENE{i:02d}" for i in range(30)]
        langpert_selector(chat, k=5).select(Query("GENE00"), genes, 5)
    assert server.asked[0].body["max_tokens"] == 800


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_thinks_gets_all_of_its_tokens(protocol, tmp_path):
    def script(asked):
        if asked.body["max_tokens"] < 2000:
            return Answer("", finish="length", reasoning="hmm " * 300, completion_tokens=800)
        return Answer(first_alphabetical(asked), reasoning="hmm " * 900, completion_tokens=1500)

    with ScriptedServer(script) as server:
        chat = open_chat(
            server.address(protocol, "m"), ledger=tmp_path / "l.sqlite", budget_tokens=50_000
        )
        messages = (Message(role="user", content="<candidates>\nA\nB\n</candidates>"),)
        for text in "12":
            request = chat.request(
                (*messages, Message(role="user", content=text)), answer_tokens=800
            )
            reply = run_sync(chat.complete(request))
            assert reply.finish_reason == "stop"
        assert [a.body["max_tokens"] for a in server.asked] == [800, 4096, 4096]
    failed = list(Ledger(tmp_path / "l.sqlite").failures())
    assert [f["error"] for f in failed] == ["cut_while_thinking"]
    # The limit of the call is no part of what identifies it.
    assert request.key() == request.model_copy(update={"answer_tokens": None}).key()
    assert json.loads(request.model_dump_json())["max_tokens"] == 4096
