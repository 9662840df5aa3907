"""A run in which no answer of the model could be used does not end with exit status 0."""

import json

import pytest
from typer.testing import CliRunner

from pertwise.cli.demo import blank
from pertwise.cli.main import app
from pertwise.knowledge import build_knowledge
from pertwise.screen import simulate_screen
from pertwise.testing.server import Answer, Fault, ScriptedServer, first_alphabetical

RUNNER = CliRunner()
PROTOCOLS = ["openai", "anthropic"]
#: Answers of no use, and what the terminal says of them.
USELESS = {
    "refusal": (lambda a: Answer("I am sorry, I cannot help with that."), "refusal"),
    "no call succeeded": (lambda a: Fault(400, "prompt too long"), "prompt too long"),
    "names from elsewhere": (
        lambda a: Answer(json.dumps({"picks": [{"name": "NOSUCH", "reason": "x"}]})),
        "out_of_list",
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    simulation = simulate_screen(3, n_perturbations=30, n_features=20, n_pathways=2)
    names = sorted(simulation.screen.perturbations)
    simulation.screen.save(folder / "whole.h5ad")
    blank(simulation.screen, names[::3]).save(folder / "screen.h5ad")
    build_knowledge(simulation.write_sources(folder / "sources"), folder / "knowledge")
    return folder, names


def commands(folder, names, address, out):
    screen, gene = str(folder / "screen.h5ad"), ["--names", names[0]]
    common = [screen, "--knowledge", str(folder / "knowledge"), "--llm", address, "--out"]
    return {
        "plan": ["plan", *common, str(out / "plan"), "--batch", "3"],
        "ask": ["ask", *common, str(out / "a.jsonl"), *gene, "--no-measured"],
        "rate": ["rate", *common, str(out / "r.csv"), *gene],
        "predict": ["predict", *common, str(out / "p"), *gene],
        "predict, graph+edit": [
            "predict",
            *common,
            str(out / "e"),
            *gene,
            "--method",
            "graph+edit",
        ],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("command", ["plan", "ask", "rate", "predict", "predict, graph+edit"])
@pytest.mark.parametrize("case", list(USELESS))
def test_useless_answers_end_a_command_with_status_1(case, command, protocol, world, tmp_path):
    script, said = USELESS[case]
    if command == "predict, graph+edit" and case == "names from elsewhere":
        script, said = (lambda a: Answer('{"add": 3}')), "unparsable"
    if command == "rate" and case == "names from elsewhere":
        script, said = (
            (lambda a: Answer('{"marks": [{"name": "NOSUCH", "isr": 1}]}')),
            "out_of_list",
        )
    with ScriptedServer(script) as server:
        call = commands(*world, server.address(protocol), tmp_path)[command]
        done = RUNNER.invoke(app, call)
    assert done.exit_code == 1, done.output
    assert "error: no answer of " in done.output
    assert said in done.output


def test_one_useful_answer_is_enough(world, tmp_path):
    folder, names = world
    with ScriptedServer(
        lambda a: Fault(400, "no") if names[0] in a.first.splitlines()[0] else first_alphabetical(a)
    ) as server:
        call = commands(folder, names, server.openai(), tmp_path)["ask"]
        call[call.index(names[0])] = ",".join(names[:4])
        done = RUNNER.invoke(app, call)
    assert done.exit_code == 0, done.output


def test_benchmarks_and_judges_without_answers_end_with_status_1(world, tmp_path):
    folder, _ = world
    with ScriptedServer(first_alphabetical) as server:
        (tmp_path / "acquisition.toml").write_text(
            f"""
screen = "{folder / "whole.h5ad"}"
knowledge = "{folder / "knowledge"}"
predictors = ["kernel ridge"]
targets = [{{name = "all"}}]
[strategies.random]
[strategies.chat]
use = "llm"
model = "{server.openai()}"
[protocol]
seeds = 1
batch = 3
rounds = 1
"""
        )
        (tmp_path / "prediction.toml").write_text(
            f"""
screen = "{folder / "whole.h5ad"}"
methods = ["training mean", {{use = "langpert", settings = {{llm = "{server.openai()}"}}}}]
[split]
folds = 2
shuffles = 1
[metrics]
tops = []
"""
        )
        runs = {
            "acquisition": ["bench", "acquisition", str(tmp_path / "acquisition.toml")],
            "prediction": ["bench", "prediction", str(tmp_path / "prediction.toml")],
        }
        serial = {"acquisition": ["--executor", "serial"], "prediction": []}
        for name, call in runs.items():
            done = RUNNER.invoke(app, [*call, *serial[name], "--out", str(tmp_path / name)])
            assert done.exit_code == 0, done.output
        server.script = USELESS["refusal"][0]
        for name, call in runs.items():
            out = str(tmp_path / f"{name}-none")
            done = RUNNER.invoke(app, [*call, *serial[name], "--out", out])
            assert done.exit_code == 1, done.output
            assert "error: no answer of " in done.output
            assert "refusal" in done.output
        judged = ["judge", str(tmp_path / "acquisition"), "--llm", server.openai("judge")]
        done = RUNNER.invoke(app, judged)
        assert done.exit_code == 1, done.output
        assert "no verdict" in done.output
        assert "declined" in done.output
