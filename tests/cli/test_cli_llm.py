"""`pertwise llm`, as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import ChatError, InputError
from pertwise.llm import open_chat
from pertwise.select import Query
from pertwise.select.chat.similar import langpert_selector
from pertwise.testing.server import Fault


def run(*arguments):
    return CliRunner().invoke(app, ["llm", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_ping(protocol, scripted_llm):
    result = run("ping", scripted_llm.address(protocol))
    assert result.exit_code == 0
    assert "json schema  accepted" in result.output
    assert "answer       MYC" in result.output


def test_ping_says_what_is_wrong(scripted_llm):
    scripted_llm.script = lambda a: Fault(400, "no schema") if a.schema else "hello"
    result = run("ping", scripted_llm.openai())
    assert result.exit_code == 1
    assert "rejected, asked plainly" in result.output
    assert "NOT USABLE: your answer holds no complete JSON object" in result.output
    scripted_llm.script = lambda a: Fault(500)
    failed = run("ping", scripted_llm.openai())
    assert isinstance(failed.exception, ChatError)
    assert scripted_llm.count == 3


@pytest.mark.parametrize("name", ["<name>", "TP53", "MYC or TABLE"])
def test_ping_refuses_what_is_not_on_its_list(name, scripted_llm):
    scripted_llm.script = lambda a: json.dumps({"picks": [{"name": name, "reason": "why"}]})
    result = run("ping", scripted_llm.openai())
    assert result.exit_code == 1
    assert "answer       NOT USABLE" in result.output
    assert name in result.output


def test_ledger_and_export(tmp_path, scripted_llm):
    path = tmp_path / "l.sqlite"
    selector = langpert_selector(open_chat(scripted_llm.openai("mymodel"), ledger=path))
    genes = [f"GENE{i}" for i in range(8)]
    selector.select_many([(Query(g), genes) for g in genes], 5)
    result = run("ledger", path)
    assert result.exit_code == 0
    assert "8 exchanges" in result.output
    assert "mymodel" in result.output
    result = run("export", path, tmp_path / "out.jsonl")
    assert "8 records" in result.output
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert {json.loads(x)["request"]["model"] for x in lines} == {"mymodel"}


def test_ledger_with_nothing_but_failures(tmp_path, scripted_llm):
    scripted_llm.script = lambda a: Fault(400, "no")
    chat = open_chat(scripted_llm.openai("mymodel"), ledger=tmp_path / "l.sqlite")
    assert langpert_selector(chat).select(Query("X"), ["A", "B"], 2).fallback
    output = run("ledger", tmp_path / "l.sqlite").output
    assert "0 exchanges, 1 failed attempts, 1 failed calls" in output
    assert "nan" not in output


def test_missing_ledger(tmp_path):
    result = run("ledger", tmp_path / "none.sqlite")
    assert isinstance(result.exception, InputError)
    assert not (tmp_path / "none.sqlite").exists()


def test_prompt_is_printed_as_it_is():
    result = run("prompt", "langpert")
    assert "{% block user %}" in result.output
