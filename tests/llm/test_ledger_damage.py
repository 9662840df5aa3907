"""A ledger that is no ledger, or no longer whole: one line with the file and what to do."""

import os
import random
import sqlite3
import subprocess
import sys

import pytest

from pertwise.errors import InputError, LedgerError, PertwiseError
from pertwise.llm import ChatReply, ChatRequest, Ledger, Message, open_chat, run_sync
from pertwise.testing.server import ScriptedServer


def request(i):
    message = Message(role="user", content=f"question {i} " * 40)
    return ChatRequest(protocol="openai", endpoint="http://h/v1", model="m", messages=(message,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / "l.sqlite"
    book = Ledger(path)
    for i in range(60):
        book.put(request(i), ChatReply(text=f"GENE{i} " * 30, prompt_tokens=9, completion_tokens=9))
    book.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


def test_another_programs_database_is_refused_untouched(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE genes (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for replay in (False, True):
        with pytest.raises(LedgerError, match=r"other\.sqlite is not a pertwise ledger"):
            Ledger(path, replay=replay)
    assert path.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, and long enough to look like a file of some kind\n" * 30)
    with pytest.raises(LedgerError, match=r"notes\.txt is not a pertwise ledger"):
        Ledger(text)
    with pytest.raises(LedgerError, match=r"cannot be used|a directory"):
        Ledger(tmp_path)


def test_flipped_and_cut_ledgers_are_told_or_read_right(whole, tmp_path):
    """Each damage is either told as such, or every answer that is given is the one stored."""
    rng, said = random.Random(5), []
    for case in range(60):
        data = bytearray(whole)
        if case % 3 == 0:
            data = data[: rng.randrange(100, len(data))]
        else:
            for _ in range(rng.choice([1, 20])):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{case}.sqlite"
        path.write_bytes(data)
        for replay in (True, False):
            try:
                book = Ledger(path, replay=replay)
                for i in range(60):
                    stored = book.get(request(i).key())
                    assert stored is None or stored.text == f"GENE{i} " * 30
                book.summary()
                book.export_jsonl(tmp_path / "out.jsonl")
            except PertwiseError as error:
                said.append((path, str(error)))
    assert len(said) > 20
    assert all(str(path) in text and "\n" not in text for path, text in said)


@pytest.mark.parametrize("command", ["ledger", "export"])
def test_a_damaged_ledger_is_one_line_and_status_2(whole, command, tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_bytes(whole[: len(whole) // 2])
    code = "from pertwise.cli.main import main; main()"
    call = [sys.executable, "-c", code, "llm", command, str(path)]
    if command == "export":
        call.append(str(tmp_path / "out.jsonl"))
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ledger ")
    assert done.stderr.count("\n") == 1


def test_export_never_overwrites_its_source(whole, tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_bytes(whole)
    (tmp_path / "link.sqlite").symlink_to(path)
    os.link(path, tmp_path / "hard.sqlite")
    book = Ledger(path, replay=True)
    for name in (
        "l.sqlite",
        "link.sqlite",
        "hard.sqlite",
        "l.sqlite-wal",
        "../" + tmp_path.name + "/l.sqlite",
    ):
        with pytest.raises(InputError, match="is the ledger itself"):
            book.export_jsonl(tmp_path / name)
    assert path.read_bytes() == whole
    assert book.export_jsonl(tmp_path / "out.jsonl") == 60


def test_a_changed_answer_is_not_replayed(tmp_path):
    with ScriptedServer() as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "l.sqlite")
        asked = chat.request((Message(role="user", content="ping"),))
        run_sync(chat.complete(asked))
        with sqlite3.connect(tmp_path / "l.sqlite") as connection:
            connection.execute("UPDATE exchanges SET reply = replace(reply, 'pong', 'pung')")
        connection.close()
        with pytest.raises(LedgerError, match="has changed"):
            run_sync(chat.complete(asked))
        assert server.count == 1
