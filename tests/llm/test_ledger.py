"""The ledger: committed at once, safe for several writers, replayable, exportable."""

import json
import multiprocessing
import sqlite3
import threading

import pytest

from pertwise.errors import InputError
from pertwise.llm import ChatReply, ChatRequest, Ledger, Message
from pertwise.llm.ledger import Failure


def request(text="hello", **settings):
    return ChatRequest(
        protocol="openai",
        endpoint="http://h/v1",
        model="m",
        messages=(Message(role="user", content=text),),
        **settings,
    )


def reply(text="hi", **values):
    return ChatReply(text=text, prompt_tokens=10, completion_tokens=5, **values)


def test_first_answer_counts_and_the_second_payment_is_not_forgotten(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    assert ledger.put(request(), reply("first", cost_usd=0.5)).text == "first"
    assert ledger.put(request(), reply("second", cost_usd=0.25)).text == "first"
    stored = ledger.get(request().key())
    assert (stored.text, stored.from_ledger, stored.request_key) == ("first", True, request().key())
    assert ledger.spent() == (30, 0.75)
    assert ledger.summary().loc[0, "paid_twice"] == 1


def test_key_depends_on_everything_that_decides_the_answer():
    variants = [
        request(),
        request("other"),
        request(temperature=0.0),
        request(temperature=1.0),
        request(seed=0),
        request(reasoning=False),
        request(reasoning=True),
        request(max_tokens=5),
        request(json_schema={"type": "object"}),
        request(replicate=1),
        request().model_copy(update={"model": "n"}),
        request().model_copy(update={"endpoint": "http://g/v1"}),
        request().model_copy(update={"protocol": "anthropic"}),
    ]
    assert len({v.key() for v in variants}) == len(variants)
    assert request().key() == request(temperature=None, replicate=0).key()


def test_a_stored_key_never_changes():
    # Changing how keys are made would orphan every ledger: this value is fixed for good.
    assert request().key() == "6f523161d62f144d1b1f30622f960d96c27a03045d3f567e9c65a65aaaa261b6"


def test_request_survives_the_ledger(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    asked = request(temperature=0.0, json_schema={"type": "object", "enum": ["ä"]}, seed=3)
    ledger.put(asked, reply())
    (record,) = ledger.exchanges()
    assert ChatRequest.model_validate(record["request"]).key() == record["key"] == asked.key()


def test_replay_ledger_is_read_only_and_needs_a_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Ledger(tmp_path / "none.sqlite", replay=True)
    assert not (tmp_path / "none.sqlite").exists()
    Ledger(tmp_path / "l.sqlite").put(request(), reply())
    book = Ledger(tmp_path / "l.sqlite", replay=True)
    assert book.get(request().key()).text == "hi"
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        book.put(request("other"), reply())


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to have a header" * 20)
    with pytest.raises(InputError, match=r"notes\.txt is not a pertwise ledger"):
        Ledger(text)
    other = tmp_path / "other.sqlite"
    Ledger(other).close()
    with sqlite3.connect(other) as connection:
        connection.execute("UPDATE about SET value='pertwise-ledger-99'")
    with pytest.raises(InputError, match="pertwise-ledger-99"):
        Ledger(other)


def test_failures_are_kept(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put_failure(request(), Failure("rate_limit", "429", False))
    assert ledger.final_failure(request().key()) is None
    ledger.put_failure(request(), Failure("timeout", "no answer", True))
    assert ledger.final_failure(request().key()) == Failure("timeout", "no answer", True)
    row = ledger.summary().iloc[0]
    assert (row["exchanges"], row["failed_attempts"], row["failed_calls"]) == (0, 2, 1)


def test_export(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put(request("a"), reply("1"), run="r1")
    ledger.put(request("b"), reply("2"))
    ledger.put_failure(request("c"), Failure("server", "500", True))
    assert ledger.export_jsonl(tmp_path / "out.jsonl") == 3
    lines = [json.loads(x) for x in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [x["kind"] for x in lines] == ["exchange", "exchange", "failure"]
    assert lines[0]["reply"]["text"] == "1"
    assert lines[0]["run"] == "r1"
    assert lines[2]["error"] == "server"


def _write(path, start, stop):
    ledger = Ledger(path)
    for i in range(start, stop):
        ledger.put(request(f"text {i}"), reply(f"answer {i}"))


def test_processes_and_threads_write_together(tmp_path):
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path)
    ledger.put(request("before the fork"), reply())
    # Ranges overlap, so that the same request is also written by two at once.
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_write, args=(path, 20 * i, 20 * i + 40)) for i in range(3)
    ] + [threading.Thread(target=_write, args=(path, 20 * i, 20 * i + 40)) for i in range(3, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(ledger) == 121
    for i in range(120):
        assert ledger.get(request(f"text {i}").key()).text == f"answer {i}"
    assert ledger.summary().loc[0, "paid_twice"] == 5 * 40 - 120


def test_a_ledger_object_works_after_a_fork(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put(request("parent"), reply())
    child = multiprocessing.get_context("fork").Process(
        target=lambda: ledger.put(request("child"), reply("from child"))
    )
    child.start()
    child.join()
    assert child.exitcode == 0
    assert ledger.get(request("child").key()).text == "from child"


def test_money_and_tokens_by_run(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.put(request("a"), reply(cost_usd=1.0), run="x")
    ledger.put(request("b"), reply(), run="x")
    ledger.put(request("c"), reply(cost_usd=4.0), run="y")
    assert ledger.spent("x") == (30, 1.0)
    assert ledger.spent() == (45, 5.0)
