"""Everything a model or an endpoint can do wrong, end to end, with both protocols.

Each case is a row of the table in docs/llm.md.
"""

import json
import logging
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pertwise.errors import BudgetError
from pertwise.llm import FatalChatError, Ledger, open_chat
from pertwise.select import Query, RandomSelector
from pertwise.select.chat.acquire import acquisition_selector, candidate_facts
from pertwise.select.chat.similar import langpert_selector
from pertwise.testing.server import Answer, Fault, ScriptedServer, listed, picks_json

GENES = [f"GENE{i:02d}" for i in range(20)]
OLD_NAMES = {"OLD07": "GENE07", "GENE07": "GENE07"}
FAST = {"backoff_s": 0.001, "backoff_max_s": 0.002, "attempts": 3, "timeout_s": 5}


def resolve(names):
    return {n: OLD_NAMES[n] for n in names if n in OLD_NAMES}


def first(asked, n=5):
    return sorted(listed(asked.first))[:n]


def good(asked):
    return picks_json(first(asked))


def then_good(bad):
    """Misbehave on the first question, answer well when asked again."""
    return lambda asked: bad(asked) if asked.turn == 1 else good(asked)


GOOD_ITEMS = tuple(GENES[:5])


@dataclass
class Case:
    """A script and what must come out of asking for 5 of 20."""

    script: object
    items: tuple = GOOD_ITEMS
    repairs: dict = field(default_factory=dict)
    requests: int = 1
    fallback: bool = False
    re_ask: str = ""
    settings: dict = field(default_factory=dict)


CASES = {
    "well-behaved": Case(good),
    "prose around the JSON": Case(
        lambda a: f"Of course!\n```json\n{good(a)}\n```\nHope it {{helps}}."
    ),
    "draft list in the reasoning": Case(
        lambda a: f"<think>Maybe {picks_json(GENES[10:15])}</think>\n{good(a)}"
    ),
    "trailing commas": Case(lambda a: good(a).replace("]}", ",]}")),
    "malformed JSON": Case(
        then_good(lambda a: good(a)[:-10]),
        repairs={"unparsable": 1},
        requests=2,
        re_ask="no complete JSON object",
    ),
    "malformed JSON every time": Case(
        lambda a: good(a)[:-10],
        items=None,
        repairs={"unparsable": 3, "too_few": 1, "fallback": 1},
        requests=3,
        fallback=True,
    ),
    "gene that is not on the list": Case(
        then_good(lambda a: picks_json(["TP53", *first(a, 4)])),
        repairs={"out_of_list": 1, "too_few": 1},
        requests=2,
        re_ask="not in the list: TP53",
    ),
    "gene that is not on the list, every time": Case(
        lambda a: picks_json(["TP53", *first(a, 4)]),
        items=(*GENES[:4], None),
        repairs={"out_of_list": 3, "too_few": 3, "fallback": 1},
        requests=3,
        fallback=True,
    ),
    "alias": Case(
        lambda a: picks_json([*GENES[:4], "OLD07"]),
        items=(*GENES[:4], "GENE07"),
        repairs={"alias": 1},
    ),
    "other spelling": Case(
        lambda a: picks_json(["gene00", " GENE01 ", "GENE-02", "4. GENE03 (kinase)", "GENE04"]),
        repairs={"case": 4},
    ),
    "duplicates": Case(
        then_good(lambda a: picks_json([*GENES[:4], "GENE00"])),
        repairs={"duplicate": 1, "too_few": 1},
        requests=2,
        re_ask="named more than once: GENE00",
    ),
    "too few": Case(
        then_good(lambda a: picks_json(first(a, 2))),
        repairs={"too_few": 1},
        requests=2,
        re_ask="exactly 5 valid names are needed, but of the 2 you named only 2 can be used",
    ),
    "too many": Case(lambda a: picks_json(first(a, 9)), repairs={"too_many": 4}),
    "no reasons": Case(
        then_good(lambda a: json.dumps({"picks": first(a)})),
        repairs={"no_reason": 1},
        requests=2,
        re_ask="no reason of their own",
    ),
    "empty answer": Case(
        then_good(lambda a: ""), repairs={"empty": 1}, requests=2, re_ask="your answer was empty"
    ),
    "only reasoning, no answer": Case(
        then_good(lambda a: f"<think>{good(a)}"), repairs={"empty": 1}, requests=2
    ),
    "refusal in words": Case(
        then_good(lambda a: "I'm sorry, but I can't help with genetic modification."),
        repairs={"refusal": 1},
        requests=2,
        re_ask="You declined",
    ),
    "refusal by flag": Case(
        then_good(lambda a: Answer("No.", finish="refusal")),
        repairs={"refusal": 1},
        requests=2,
    ),
    "refusal every time": Case(
        lambda a: Answer("No.", finish="refusal"),
        items=None,
        repairs={"refusal": 3, "too_few": 1, "fallback": 1},
        requests=3,
        fallback=True,
    ),
    "cut off at the token limit": Case(
        then_good(lambda a: Answer(good(a)[:40], finish="length")),
        repairs={"truncated": 1},
        requests=2,
        re_ask="cut off at the token limit",
    ),
    "429 storm that ends": Case(
        lambda a: Fault(429, "slow down") if a.number < 3 else good(a), requests=3
    ),
    "429 storm without end": Case(
        lambda a: Fault(429, "slow down"),
        items=None,
        repairs={"call_failed": 1, "too_few": 1, "fallback": 1},
        requests=3,
        fallback=True,
    ),
    "500 once": Case(lambda a: Fault(500) if a.number == 1 else good(a), requests=2),
    "500 without end": Case(
        lambda a: Fault(503),
        items=None,
        repairs={"call_failed": 1, "too_few": 1, "fallback": 1},
        requests=3,
        fallback=True,
    ),
    "hang past the timeout once": Case(
        lambda a: Answer(good(a), delay=0.6 if a.number == 1 else 0),
        requests=2,
        settings={"timeout_s": 0.3},
    ),
    "hang past the timeout every time": Case(
        lambda a: Answer(good(a), delay=0.5),
        items=None,
        repairs={"call_failed": 1, "too_few": 1, "fallback": 1},
        requests=2,
        fallback=True,
        settings={"timeout_s": 0.15, "attempts": 2},
    ),
    "response that is no chat completion": Case(
        lambda a: Fault(200, raw=b"<html>gateway</html>") if a.number == 1 else good(a),
        requests=2,
    ),
    "schema unsupported": Case(
        lambda a: Fault(400, "json_schema is not supported") if a.schema else good(a), requests=2
    ),
    "failure after a partial answer": Case(
        lambda a: picks_json(first(a, 3)) if a.turn == 1 else Fault(500),
        items=(*GENES[:3], None, None),
        repairs={"too_few": 2, "call_failed": 1, "fallback": 1},
        requests=4,
        fallback=True,
    ),
}


def selector_for(chat):
    return acquisition_selector(
        chat,
        candidate_facts(GENES),
        objective="Learn.",
        resolve=resolve,
        fallback=RandomSelector(7),
    )


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("name", CASES)
def test_case(name, protocol, tmp_path):
    case = CASES[name]
    path = tmp_path / "ledger.sqlite"
    with ScriptedServer(case.script) as server:
        address = server.address(protocol)
        chat = open_chat(address, ledger=path, **{**FAST, **case.settings})
        chosen = selector_for(chat).select(Query(), GENES, 5)
        assert server.count == case.requests
        if case.re_ask:
            assert case.re_ask in server.asked[-1].last
            # The same conversation goes on: question, answer, correction.
            roles = [m["role"] for m in server.asked[-1].messages if m["role"] != "system"]
            assert roles == ["user", "assistant", "user"]
        paid = server.paid
        again = selector_for(open_chat(address, ledger=path, **FAST))
        if "call_failed" not in case.repairs:
            assert again.select(Query(), GENES, 5) == chosen
            assert server.paid == paid, "an answered exchange was paid twice"
    assert len(chosen.picks) == 5
    assert chosen.fallback == case.fallback
    assert chosen.repair_counts() == case.repairs
    if case.items is not None:
        expected = [i for i in case.items if i is not None]
        assert list(chosen.items[: len(expected)]) == expected
    assert all(p.reason for p in chosen.picks)
    from_fallback = [p for p in chosen.picks if p.extra.get("fallback")]
    assert bool(from_fallback) == case.fallback
    # Replay from the ledger alone, the server gone: the same, bit for bit.
    replay = selector_for(open_chat(address, ledger=path, replay=True))
    replayed = replay.select(Query(), GENES, 5)
    assert replayed.picks == chosen.picks
    assert replayed.repair_counts() == chosen.repair_counts()


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_query_itself(protocol):
    """Asked for genes like GENE03, the model names GENE03."""
    names = [f"GENE{i:02d}" for i in range(8)]
    with ScriptedServer(lambda a: picks_json([*names[:5], "gene03"])) as server:
        chat = open_chat(server.address(protocol), **FAST)
        chosen = langpert_selector(chat, max_reasks=0).select(Query("GENE03", "K562"), names, 10)
    assert chosen.items == ("GENE00", "GENE01", "GENE02", "GENE04")
    assert chosen.repair_counts() == {"query_itself": 2, "too_few": 1}
    assert not chosen.fallback


def test_query_under_an_alias_is_not_shown():
    with ScriptedServer(good) as server:
        selector = langpert_selector(open_chat(server.openai(), **FAST), resolve=resolve)
        chosen = selector.select(Query("OLD07", "K562"), GENES, 10)
        assert "GENE07" not in listed(server.asked[0].first)
    assert chosen.provenance["same_as_query"] == ["GENE07"]


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_budget_exhausted(protocol, tmp_path):
    """The run stops before the call; nothing is papered over; a rerun goes on."""
    path = tmp_path / "ledger.sqlite"
    questions = [(Query(f"GENE{i:02d}", "K562"), GENES) for i in range(10)]
    with ScriptedServer(good) as server:
        address = server.address(protocol)
        poor = open_chat(address, ledger=path, budget_tokens=4000, max_tokens=500, **FAST)
        with pytest.raises(BudgetError, match=r"budget reached.*of 4000 tokens") as caught:
            langpert_selector(poor).select_many(questions, 10)
        assert "larger budget goes on from here" in str(caught.value)
        paid = server.paid
        assert 0 < paid < 10
        assert poor.budget.spent.tokens <= 4000
        rich = open_chat(address, ledger=path, max_tokens=500, **FAST)
        chosen = langpert_selector(rich).select_many(questions, 10)
        assert server.paid == 10
    assert all(len(c.picks) == 5 and not c.fallback for c in chosen)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_wrong_key_is_never_echoed(protocol, tmp_path, monkeypatch, caplog, capsys):
    """The server repeats the key in its error; nothing we write or raise does."""
    secret = "pw-very-secret-0123456789"
    monkeypatch.setenv("PERTWISE_API_KEY", secret)
    path = tmp_path / "ledger.sqlite"
    with ScriptedServer(good, key="the right key") as server, caplog.at_level(logging.DEBUG):
        chat = open_chat(server.address(protocol), ledger=path, **FAST)
        with pytest.raises(FatalChatError, match=r"key was refused.*redacted") as caught:
            selector_for(chat).select(Query(), GENES, 5)
        # It was sent, and refused without a retry.
        assert secret in str(server.asked[0].headers)
        assert server.count == 1
    assert "PERTWISE_API_KEY" in str(caught.value)
    error = caught.value
    seen = []
    while error is not None:
        seen.append(repr(error) + str(error.args))
        error = error.__cause__ or error.__context__
    told = "".join(traceback.format_exception(caught.value))
    Ledger(path).export_jsonl(tmp_path / "out.jsonl")
    everything = [*seen, told, caplog.text, *capsys.readouterr(), repr(chat)]
    everything += [p.read_bytes().decode("latin-1") for p in tmp_path.iterdir()]
    for text in everything:
        assert secret not in text
    assert "[redacted]" in (tmp_path / "out.jsonl").read_text()


def test_a_key_inside_an_answer_is_removed(tmp_path, monkeypatch):
    secret = "pw-very-secret-0123456789"
    monkeypatch.setenv("PERTWISE_API_KEY", secret)
    with ScriptedServer(lambda a: good(a).replace("scripted", secret)) as server:
        chosen = selector_for(open_chat(server.openai(), ledger=tmp_path / "l")).select(
            Query(), GENES, 5
        )
    assert secret not in str(chosen)
    assert secret.encode() not in (tmp_path / "l").read_bytes()


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(404, "model not found"), "no such model or path"),
        (Fault(403, "forbidden"), "key was refused"),
        (Fault(429, "insufficient_quota: pay first"), "no credit left"),
    ],
)
def test_what_cannot_get_better_stops_the_run(protocol, fault, message):
    with ScriptedServer(lambda a: fault) as server:
        chat = open_chat(server.address(protocol), concurrency=1, **FAST)
        questions = [(Query(f"GENE{i:02d}"), GENES) for i in range(10)]
        with pytest.raises(FatalChatError, match=message):
            langpert_selector(chat).select_many(questions, 5)
        assert server.count < 10


def test_an_endpoint_that_is_gone_stops_the_run():
    """Not one fallback for each of hundreds of items."""
    with ScriptedServer() as server:
        address = server.openai()
    chat = open_chat(address, max_consecutive_failures=4, concurrency=1, **FAST)
    questions = [(Query(f"GENE{i:02d}"), GENES) for i in range(20)]
    with pytest.raises(FatalChatError, match="4 calls in a row failed"):
        langpert_selector(chat).select_many(questions, 5)


def test_docs_hold_every_case():
    text = (Path(__file__).parents[3] / "docs" / "llm.md").read_text()
    missing = [name for name in CASES if f"| {name} |" not in text]
    assert not missing
