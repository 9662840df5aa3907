"""Best of n, scored by reward; where a model is needed, the scripted server answers."""

import json

import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.testing import ScriptedServer
from pertwise.train.gold import edit_text, gold_answer
from pertwise.train.grading import Grader
from pertwise.train.making import make_tasks
from pertwise.train.rewards import reward
from pertwise.train.sampling import best_rows, preference_rows, score_answers, write_samples
from pertwise.train.tasks import write_tasks


@pytest.fixture(scope="module")
def world(simulated):
    screen, knowledge = simulated
    return make_tasks(screen, knowledge, n_folds=3), Grader.of(screen, knowledge=knowledge)


def test_best_is_kept_and_worst_rejected(world, tmp_path):
    made, arrays = world
    task = next(t for t in made if t.split == "train")
    gold, same = gold_answer(task, arrays), edit_text([], [])
    scored = score_answers([task], {task.id: [same, "no idea", gold]}, arrays)
    assert [s.number for s in scored] == [0, 1, 2]
    assert best_rows(scored)[0]["messages"][-1] == {"role": "assistant", "content": gold}
    assert best_rows(scored)[0]["messages"][0]["content"] == task.messages[0].content
    assert not best_rows(scored[:2], least=0.99)
    (pair,) = preference_rows(scored)
    assert pair["chosen"][0]["content"] == gold
    assert pair["rejected"][0]["content"] == "no idea"
    assert pair["margin"] == pytest.approx(reward(task, gold, arrays).total)
    assert not preference_rows(scored[:1])
    assert not preference_rows(scored, margin=1.1)
    assert set(write_samples(tmp_path, scored).values()) == {1, 3}
    hosted = json.loads((tmp_path / "preferences_hosted.jsonl").read_text(encoding="utf-8"))
    assert hosted["preferred_output"][0]["content"] == gold


def test_test_tasks_are_refused(world):
    made, arrays = world
    task = next(t for t in made if t.split == "test")
    with pytest.raises(InputError, match="test task"):
        score_answers([task], {}, arrays)


def test_command_line(simulated, world, tmp_path):
    screen, knowledge = simulated
    screen.save(tmp_path / "s.h5ad")
    write_tasks(tmp_path / "t.jsonl", world[0])
    given = ["train", "sample", str(tmp_path / "t.jsonl"), "--screen", str(tmp_path / "s.h5ad"),
             "--knowledge", str(knowledge.path), "--limit", "3", "--out"]  # fmt: skip
    runner = CliRunner()
    with ScriptedServer() as server:
        asked = [*given, str(tmp_path / "out"), "--llm", server.openai(), "-n", "2"]
        dry = runner.invoke(app, [*asked, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert server.count == 0
        done = runner.invoke(app, asked)
        assert done.exit_code == 0, done.output
        assert "6 answers to 3 tasks" in done.output
        before = (tmp_path / "out" / "answers.jsonl").read_bytes()
        paid = server.count
        assert runner.invoke(app, asked).exit_code == 0
        # Resuming pays nothing and writes the same.
        assert (server.count, (tmp_path / "out" / "answers.jsonl").read_bytes()) == (paid, before)
    first = next(t for t in world[0] if t.split == "train")
    (tmp_path / "r.jsonl").write_text(
        json.dumps({"id": first.id, "answer": gold_answer(first, world[1])}), encoding="utf-8"
    )
    told = runner.invoke(
        app, [*given, str(tmp_path / "o"), "--recorded", str(tmp_path / "r.jsonl")]
    )
    assert told.exit_code == 0, told.output
    assert "sft.jsonl (1 rows)" in told.output
    wrong = runner.invoke(
        app, [*given, str(tmp_path), "--recorded", str(tmp_path / "r.jsonl"), "--dry-run"]
    )
    assert isinstance(wrong.exception, InputError)
