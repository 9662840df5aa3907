"""One table for all who edit, on the same held-out perturbations."""

import functools
import gzip
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.evaluate.metrics import pearson_delta
from pertwise.llm import open_chat
from pertwise.testing import ScriptedServer
from pertwise.train import policy
from pertwise.train.answers import ask_tasks, read_answers, write_answers
from pertwise.train.evaluate import CEILING, GRAPH, MEAN, evaluate
from pertwise.train.gold import edit_text, gold_answer
from pertwise.train.grading import Grader
from pertwise.train.making import make_tasks


@pytest.fixture(scope="module")
def world(simulated):
    screen, knowledge = simulated
    # More than 13: of fewer with ties scipy tries all signs.
    tasks = [t for t in make_tasks(screen, knowledge, n_folds=3) if t.split == "test"]
    return tasks, Grader.of(screen, knowledge=knowledge)


def test_means_are_those_of_the_edited_neighbours(world):
    tasks, grader = world
    task = next(t for t in tasks if t.shown)
    added, removed = task.allowed[0], task.shown[0]
    found = evaluate(tasks, {"one": {task.id: [edit_text([added], [removed])]}}, grader)
    data = grader.lines[task.context]
    names = [*task.shown[1:], added]
    mean = np.mean([data.y[data.names.index(n)] for n in names], axis=0)
    own = data.names.index(task.subject)
    keep = [f != task.subject for f in data.features]
    wanted = pearson_delta(data.y[[own]][:, keep], mean[None, keep])[0]
    rows = found.scores.set_index(["arm", "subject"])
    assert rows.loc[("one", task.subject), "pearson_delta"] == pytest.approx(wanted)
    # What an arm did not answer keeps its neighbours and stays in the score.
    others = [t.subject for t in tasks if t is not task]
    np.testing.assert_allclose(
        rows.loc["one"].loc[others, "pearson_delta"], rows.loc[GRAPH].loc[others, "pearson_delta"]
    )
    assert (found.summary["n"] == len(tasks)).all()


def test_ceiling_bounds_everything_and_unreadable_is_the_graph(world):
    tasks, grader = world
    arms = {"noise": {t.id: ["I cannot say"] for t in tasks}}
    table = evaluate(tasks, arms, grader).scores
    wide = table.pivot_table(index="subject", columns="arm", values="pearson_delta")
    assert (wide[CEILING] >= wide[[GRAPH, "noise"]].max(axis=1) - 1e-9).all()
    np.testing.assert_allclose(wide["noise"], wide[GRAPH])
    noise = table[table["arm"] == "noise"]
    assert (noise["reward"] == 0).all()
    assert (noise["format"] == 0).all()


def test_best_of_n_says_that_the_truth_chose(world):
    tasks, grader = world
    arms = {"many": {t.id: [edit_text([], []), gold_answer(t, grader)] for t in tasks}}
    summary = evaluate(tasks, arms, grader).summary.set_index("arm")
    best = summary.loc["many, best of 2 (chosen by the truth)"]
    assert best["pearson_delta"] == pytest.approx(summary.loc[CEILING, "pearson_delta"])
    assert summary.loc["many", "pearson_delta"] == pytest.approx(
        summary.loc[GRAPH]["pearson_delta"]
    )


def test_comparison_is_paired_and_against_the_graph(world):
    tasks, grader = world
    arms = {"gold": {t.id: [gold_answer(t, grader)] for t in tasks}}
    found = evaluate(tasks, arms, grader, ceiling=False)
    row = found.comparison.query("method_a == 'gold' and metric == 'pearson_delta'").iloc[0]
    wide = found.scores.pivot_table(index="subject", columns="arm", values="pearson_delta")
    assert row["method_b"] == GRAPH
    assert row["difference"] == pytest.approx((wide["gold"] - wide[GRAPH]).mean())
    assert row["low"] > 0
    assert row["p"] < 0.01
    most = found.edits.query("edit == 'added'")
    assert set(most["arm"]) == {"gold"}


def test_wrong_arms_are_named(world):
    tasks, grader = world
    with pytest.raises(InputError, match="always there"):
        evaluate(tasks, {MEAN: {}}, grader)
    with pytest.raises(InputError, match="no test task"):
        evaluate([], {}, grader)


def test_recorded_edits_become_answers(tmp_path, world):
    tasks, _ = world
    edits = [{"gene": t.subject, "graph_neighbours": list(t.shown),
              "add": [{"name": t.allowed[0], "reason": "why"}], "remove": [*t.shown[:1]]}
             for t in tasks[:3]]  # fmt: skip
    path = tmp_path / "edits.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"folds": [{"edits": edits}]}).encode()))
    found = read_answers(path, tasks)
    assert set(found) == {t.id for t in tasks[:3]}
    first = json.loads(found[tasks[0].id][0])
    assert [a["name"] for a in first["add"]] == [tasks[0].allowed[0]]
    path.write_bytes(gzip.compress(json.dumps({"edits": edits + edits}).encode()))
    with pytest.raises(InputError, match="twice"):
        read_answers(path, tasks)
    path.write_bytes(gzip.compress(json.dumps({"folds": 3}).encode()))
    with pytest.raises(InputError, match="recorded edits"):
        read_answers(path, tasks)


@pytest.mark.parametrize("line", ["{", "3", '{"id": "x"}', '{"id": 1, "answer": "x"}', "[" * 99999])
def test_hostile_answers_are_named(tmp_path, world, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "answer": "y"}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_answers(path, world[0])
    path.write_text('{"id": "x", "answer": "y"}\n')
    with pytest.raises(InputError, match="none of the"):
        read_answers(path, world[0])


def test_endpoint_is_asked_as_the_task_says(tmp_path, world):
    tasks, _ = world
    with ScriptedServer() as server:
        chat = open_chat(server.openai())
        answers = ask_tasks(chat, tasks[:3], 2)
        chat.shutdown()
        sent = {a.last for a in server.asked}
    assert sent == {t.messages[-1].content for t in tasks[:3]}
    assert all(len(a) == 2 for a in answers.values())
    write_answers(tmp_path / "a.jsonl", answers)
    again = read_answers(tmp_path / "a.jsonl", tasks)
    assert {k: tuple(v) for k, v in again.items()} == dict(answers)


def test_command_line(tmp_path, simulated, monkeypatch):
    short = functools.partial(policy.train_policy, n_steps=3)
    monkeypatch.setattr(policy, "train_policy", short)
    screen, knowledge = simulated
    screen.save(tmp_path / "s.h5ad")
    given = [str(tmp_path / "s.h5ad"), "--knowledge", str(knowledge.path)]
    runner = CliRunner()
    made = runner.invoke(app, ["train", "tasks", *given, "--out", str(tmp_path / "t.jsonl")])
    assert made.exit_code == 0, made.output
    assert "edit, SimLine1, test: 12" in made.output
    with ScriptedServer() as server:
        done = runner.invoke(
            app,
            ["train", "evaluate", *given, "--folds", "3", "--fold", "0", "--policy",
             "--best-of", "2", "--llm", server.openai(), "--before", server.openai("other"),
             "--out", str(tmp_path / "out")],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    for said in ("edited before", "edited after", "policy without", "SIMULATED", "best of 2"):
        assert said in done.output
    for name in ("scores.csv", "summary.csv", "comparison.csv", "edits.csv", "edited-after.jsonl"):
        assert (tmp_path / "out" / name).is_file()
    wrong = runner.invoke(app, ["train", "evaluate", *given, "--replay", "--out", str(tmp_path)])
    assert isinstance(wrong.exception, InputError)
