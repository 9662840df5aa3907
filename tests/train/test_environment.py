"""The verifiers environment against the scripted server, in an environment that has verifiers.

Runs where verifiers is installed beside pertwise, or where PERTWISE_VERIFIERS_PYTHON names the
interpreter of such an environment.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pertwise.testing import ScriptedServer
from pertwise.train.gold import edit_text, gold_answer
from pertwise.train.grading import Grader
from pertwise.train.making import make_tasks
from pertwise.train.rewards import reward
from pertwise.train.tasks import write_tasks

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PERTWISE_VERIFIERS_PYTHON", "")
if not PYTHON and importlib.util.find_spec("verifiers") is not None:
    PYTHON = sys.executable
needs_verifiers = pytest.mark.skipif(
    not PYTHON,
    reason="verifiers is not installed: pip install ./environments/pertwise_edit into an "
    "environment and name its interpreter in PERTWISE_VERIFIERS_PYTHON",
)


def run(module, *arguments, cwd):
    code = f"import sys; from {module} import main; sys.argv[0] = 'vf'; main()"
    places = [str(ROOT / "src"), str(ROOT / "environments" / "pertwise_edit")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "SCRIPTED_KEY": "none"}
    return subprocess.run(
        [PYTHON, "-c", code, *arguments],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment")
    screen, knowledge = simulated
    tasks = [t for t in make_tasks(screen, knowledge, ("edit",)) if t.split == "test"][:4]
    write_tasks(folder / "tasks.jsonl", tasks)
    screen.save(folder / "screen.h5ad")
    return folder, tasks, Grader.of(screen)


@needs_verifiers
def test_every_rollout_is_worth_what_the_reward_says(world):
    folder, tasks, grader = world
    gold = gold_answer(tasks[0], grader)
    answers = [gold, "no answer", edit_text([tasks[2].allowed[0]], []), edit_text([], [])]
    by_question = {t.messages[-1].content: a for t, a in zip(tasks, answers, strict=True)}
    with ScriptedServer(lambda asked: by_question[asked.first]) as server:
        done = run(
            "verifiers.v1.cli.eval.main", "pertwise-edit",
            "--env.taskset.tasks", str(folder / "tasks.jsonl"), "--env.taskset.split", "test",
            "--env.taskset.task.screen", json.dumps([str(folder / "screen.h5ad")]),
            "--model", "scripted", "--client.base-url", server.openai().partition("@")[2],
            "--client.api-key-var", "SCRIPTED_KEY", "--no-push", "--no-rich",
            "--output-dir", "out", cwd=folder,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    traces = next((folder / "out").rglob("traces.jsonl")).read_text().splitlines()
    found = {}
    for line in traces:
        episode = json.loads(line)
        for trace in episode.get("traces", [episode]):
            found[trace["task"]["data"]["row"]["id"]] = trace
    assert set(found) == {t.id for t in tasks}
    for task, answer in zip(tasks, answers, strict=True):
        wanted = reward(task, answer, grader)
        trace = found[task.id]
        got = trace["rewards"]["measured"]
        assert got["score"] == pytest.approx(wanted.total)
        assert {k: trace["metrics"][k] for k in wanted.parts} == pytest.approx(wanted.parts)
    assert found[tasks[0].id]["rewards"]["measured"]["score"] == pytest.approx(1.0)


@needs_verifiers
def test_best_answers_are_valid_by_its_own_check(world):
    folder, tasks, _ = world
    done = run(
        "verifiers.v1.cli.validate", "pertwise-edit",
        "--taskset.tasks", str(folder / "tasks.jsonl"), "--taskset.split", "test",
        "--taskset.task.screen", json.dumps([str(folder / "screen.h5ad")]),
        "--runtime.type", "subprocess", "--no-rich", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    said = json.loads(done.stdout[done.stdout.index("{") :])
    assert said["total"] == len(tasks)
    assert said["valid_rate"] == 1.0
