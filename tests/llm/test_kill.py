"""kill -9 in the middle of a run: what was answered is never paid again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pertwise.llm import Ledger, open_chat
from pertwise.select import Query
from pertwise.select.chat.similar import langpert_selector
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical

RUN = """
import sys
from pertwise.llm import open_chat
from pertwise.select import Query
from pertwise.select.chat.similar import langpert_selector
address, ledger = sys.argv[1:]
chat = open_chat(address, ledger=ledger, concurrency=4)
genes = [f"GENE{i:02d}" for i in range(40)]
questions = [(Query(g, "K562"), genes) for g in genes]
langpert_selector(chat, seed=5).select_many(questions, 10)
"""


def start(address, ledger):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, address, str(ledger)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def in_process(address, ledger, replay):
    chat = open_chat(address, ledger=ledger, replay=replay)
    genes = [f"GENE{i:02d}" for i in range(40)]
    questions = [(Query(g, "K562"), genes) for g in genes]
    chosen = langpert_selector(chat, seed=5).select_many(questions, 10)
    return [[list(c.items), [p.reason for p in c.picks]] for c in chosen]


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_killed_and_resumed(tmp_path, protocol):
    path = tmp_path / "l.sqlite"

    def script(asked):
        return Answer(first_alphabetical(asked), delay=0.02)

    with ScriptedServer(script) as server:
        address = server.address(protocol)
        with start(address, path) as process:
            while server.paid < 12:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.005)
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.1)  # what was under way at the kill reaches the server's count
        before, stored = server.paid, len(Ledger(path))
        kept = {r["request"]["messages"][-1]["content"] for r in Ledger(path).exchanges()}
        # Lost are at most the calls under way at the kill: one a place.
        assert before - 4 <= stored <= before
        resumed = in_process(address, path, replay=False)
        assert len(Ledger(path)) == 40
        # Nothing that stood in the ledger was asked again.
        assert not kept & {a.first for a in server.asked[before:]}
        assert server.paid == 40 + (before - stored)
        unbroken = in_process(address, tmp_path / "fresh.sqlite", replay=False)
    assert resumed == unbroken
    assert in_process(address, path, replay=True) == unbroken
