"""The engine with a task of its own: what is kept, what is told, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pandas as pd
import pytest

from pertwise import parts
from pertwise.benchmark import bench
from pertwise.benchmark.engine import BenchmarkRun, run_task
from pertwise.benchmark.task import Task, Unit
from pertwise.config import Settings, check_settings
from pertwise.errors import BudgetError, InputError
from pertwise.provenance import identity

TESTS = Path(__file__).parents[1]


class Sums(Settings):
    numbers: tuple[int, ...]
    bad: tuple[int, ...] = ()
    stop: int = -1
    slow: float = 0.0


class SumTask(Task):
    """Doubles numbers; `bad` ones fail and count as 0, `stop` ends the run."""

    name, mark, settings_of = "sums", "numbers", Sums
    played: typing.ClassVar = []

    @property
    def inputs(self):
        return {"nothing": {"path": "", "sha256": "0"}}

    def units(self):
        settings = self.settings.slow
        return [Unit(identity(n, settings), {"number": n}, n) for n in self.settings.numbers]

    def play(self, unit, place):
        self.played.append(unit.what)
        time.sleep(self.settings.slow)
        if unit.what == self.settings.stop:
            raise BudgetError("nothing left")
        if unit.what in self.settings.bad:
            raise InputError("no such number")
        return {"scores": pd.DataFrame({"number": [unit.what], "value": [2 * unit.what]})}

    def stand_in(self, unit, error, place):
        return {"scores": pd.DataFrame({"number": [unit.what], "value": [0]})}

    def gather(self, played):
        table = pd.concat([p.tables["scores"] for p in played], ignore_index=True)
        return {self.scores: table, self.summary: table[["value"]].mean().to_frame("mean")}


def sums(**settings):
    SumTask.played.clear()
    return SumTask(check_settings(settings, Sums))


def test_units_are_played_once_and_read_back(tmp_path):
    first = run_task(sums(numbers=[1, 2]), tmp_path)
    assert first.table["value"].tolist() == [2, 4]
    more = run_task(sums(numbers=[3, 2, 1]), tmp_path)
    assert SumTask.played == [3]
    assert more.table["value"].tolist() == [6, 4, 2]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["finished"]
    assert record["settings"]["numbers"] == [3, 2, 1]
    assert record["versions"]["python"].count(".") == 2
    again = BenchmarkRun.open(tmp_path, SumTask)
    pd.testing.assert_frame_equal(again.table, more.table)
    units = again.read("units.csv")
    assert units["number"].tolist() == [3, 2, 1]
    assert (units["seconds"] >= 0).all()


def test_nothing_is_kept_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_task(sums(numbers=[4]))
    assert run.table["value"].tolist() == [8]
    assert list(tmp_path.iterdir()) == []
    assert run.write(tmp_path / "later") == tmp_path / "later"
    assert BenchmarkRun.open(tmp_path / "later", SumTask).table["value"].tolist() == [8]


def test_a_failed_unit_stays_in_the_score_and_is_told_again(tmp_path):
    for _ in range(2):
        run = run_task(sums(numbers=[1, 2], bad=[2]), tmp_path)
        assert run.table["value"].tolist() == [2, 0]
        assert run.failed == [{"unit": "number 2", "error": "InputError: no such number"}]
    assert SumTask.played == [], "a failed unit is not played again"
    page = run.page(tmp_path / "page.html").read_text()
    assert "number 2: InputError: no such number" in page
    assert "Content-Security-Policy" in page


def test_what_must_stop_stops_and_keeps_what_is_done(tmp_path):
    with pytest.raises(BudgetError):
        run_task(sums(numbers=[1, 2, 3], stop=2), tmp_path)
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]
    with pytest.raises(InputError, match="is missing: the run is not finished"):
        _ = BenchmarkRun.open(tmp_path, SumTask).table
    run_task(sums(numbers=[1, 2, 3]), tmp_path)
    assert SumTask.played == [2, 3]


def test_a_folder_of_another_run_is_refused(tmp_path):
    run_task(sums(numbers=[1]), tmp_path / "a")
    with pytest.raises(InputError, match="--resume"):
        run_task(sums(numbers=[1]), tmp_path / "a", resume=False)
    with pytest.raises(InputError, match=r"other settings \(numbers\)"):
        run_task(sums(numbers=[2]), tmp_path / "a", resume=True)
    (tmp_path / "a" / "run.json").write_text('{"task": "other", "settings": {}, "inputs": {}}')
    with pytest.raises(InputError, match="holds a run of `bench other`"):
        run_task(sums(numbers=[1]), tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text("[]")
    with pytest.raises(InputError, match="was not written by pertwise"):
        run_task(sums(numbers=[1]), tmp_path / "a")
    with pytest.raises(InputError, match="unknown executor 'threads'"):
        run_task(sums(numbers=[1]), executor="threads")


def test_a_part_that_was_cut_short_is_named(tmp_path):
    run_task(sums(numbers=[1]), tmp_path)
    (part,) = (tmp_path / "units").glob("*.json")
    part.write_text('{"tables": ["scores"')
    with pytest.raises(InputError, match=r"cannot be read .*delete it"):
        run_task(sums(numbers=[1]), tmp_path)


SCRIPT = """
import sys
from benchmark.test_engine import SumTask, sums
from pertwise.benchmark.engine import run_task
run_task(sums(numbers=[*range(6)], slow=0.2), sys.argv[1], executor=sys.argv[2], workers=2)
"""


def test_a_killed_run_over_processes_goes_on_and_gives_the_same(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "processes"]
    process = subprocess.Popen(command, env=env)
    while process.poll() is None and not list(tmp_path.glob("units/[0-9a-f]*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_task(sums(numbers=[*range(6)], slow=0.2), tmp_path)
    assert len(SumTask.played) < 6
    assert done.table["value"].tolist() == [0, 2, 4, 6, 8, 10]


def test_the_front_finds_the_task_of_settings(tmp_path):
    with pytest.raises(InputError, match=r"belong to no benchmark.*methods \(prediction\)"):
        bench({"x": 1})
    with pytest.raises(InputError, match="did you mean 'prediction'"):
        bench({"x": 1}, task="predictionz")
    with pytest.raises(InputError, match="screen: Field required"):
        bench({"methods": ["control"]})
    labels = pd.DataFrame(
        [(p, g, (i + j) % 2, "test" if i > 2 else "train")
         for i, p in enumerate("ABCDEF") for j, g in enumerate("xyz")],
        columns=["pert", "gene", "label", "split"],
    )  # fmt: skip
    labels.to_csv(tmp_path / "k562-de.csv", index=False)
    (tmp_path / "qa.toml").write_text('labels = "."\nmethods = ["training-mean"]\n')
    run = bench(tmp_path / "qa.toml", tmp_path / "out")
    assert len(run.summary) == 2
    tasks = [parts.find("task", name) for name in parts.names("task")]
    assert len({t.mark for t in tasks}) == len(tasks)
