"""The chat strategy in a whole run against the scripted server: pay once, kill, replay, judge."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.judged import JudgeConfig, JudgeTask
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import run_task
from pertwise.config import check_settings
from pertwise.errors import InputError
from pertwise.report.acquisition_page import verdict_text, write_page
from pertwise.testing.server import ScriptedServer, first_alphabetical, listed

TESTS = Path(__file__).parents[2]
SCRIPT = """
import sys
from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import run_task
config = AcquisitionConfig.model_validate_json(open(sys.argv[1]).read())
run_task(AcquisitionTask(config), sys.argv[2])
"""


def llm_config(settings, simulated, address):
    model = {"model": address, "use": "llm", "k": 30}
    return check_settings(
        {
            **settings,
            "targets": [{"name": "pathway", "pathway": simulated[2]}],
            "strategies": {
                "random": {},
                "llm": {**model},
                "llm without uncertainty": {**model, "hide_uncertainty": True},
                "llm on a random shortlist": {**model, "random_shortlist": 20},
                "symbols only": {
                    **model,
                    "show": {"go": False, "relation": False, "summary": False},
                },
                "anonymised": {**model, "show": {"anonymise": True}},
                "shuffled annotations": {**model, "shuffle_annotations": True},
                "other order": {**model, "order_seed": 1},
            },
            "protocol": {"seeds": 1, "batch": 6, "rounds": 2},
        },
        AcquisitionConfig,
    )


def play(config, folder, **how):
    replay = how.pop("replay", False)
    return run_task(AcquisitionTask(config, replay=replay), folder, **how)


def judge_run(folder, judges, **settings):
    given = {"run": str(folder), "judges": judges, **settings}
    return JudgeTask(check_settings(given, JudgeConfig), addresses=judges)


def judged(task):
    return run_task(task, task.place)


def comparable(folder):
    return pd.read_parquet(folder / "rounds.parquet").to_csv(), pd.read_parquet(
        folder / "picks.parquet"
    ).to_csv()


def test_pays_once_survives_kills_and_replays_without_the_server(settings, simulated, tmp_path):
    with ScriptedServer(first_alphabetical) as server:
        config = llm_config(settings, simulated, server.openai())
        whole = play(config, tmp_path / "whole")
        asked_once = server.paid
        # Equal questions are one exchange: the cold first round hides nothing that is there.
        assert 7 <= asked_once <= 7 * 2
        play(config, tmp_path / "whole", resume=True)
        assert server.paid == asked_once

        (tmp_path / "config.json").write_text(config.model_dump_json())
        folder = tmp_path / "broken"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.json"), str(folder)]
        for goal in (3, 8):
            process = subprocess.Popen(command, env=env)
            while process.poll() is None and server.paid < asked_once + goal:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        lost = server.paid - asked_once
        subprocess.run(command, env=env, check=True)
        # An exchange whose answer had not reached the ledger when the kill came is asked again.
        assert server.paid - asked_once <= asked_once + 2
        assert lost >= 8
        assert comparable(folder) == comparable(whole.folder)

    # The server is down. From the ledger alone, into a fresh folder: bit for bit the same.
    (tmp_path / "replayed").mkdir()
    for file in whole.folder.glob("ledger.sqlite*"):
        shutil.copy(file, tmp_path / "replayed" / file.name)
    replayed = play(config, tmp_path / "replayed", replay=True)
    assert comparable(replayed.folder) == comparable(whole.folder)


def test_ablations_change_what_the_prompt_shows(settings, simulated, tmp_path):
    prompts = {}

    def script(asked):
        prompts[asked.first] = asked
        return first_alphabetical(asked)

    with ScriptedServer(script) as server:
        config = llm_config(settings, simulated, server.openai())
        for label in ("llm", "symbols only", "anonymised", "llm without uncertainty"):
            prompts.clear()
            one = config.model_copy(update={"strategies": {label: config.strategies[label]}})
            run = play(one, tmp_path / label)
            second = list(prompts)[-1]
            names = set(run.read("picks.parquet")["perturbation"])
            if label == "anonymised":
                assert not any(f" {n} " in second or f"| {n}" in second for n in names)
            if label == "llm":
                assert "uncertainty" in second.lower()
                plain = second
            if label == "llm without uncertainty":
                assert len(second) < len(plain) or "score" not in second.lower()
            if label == "symbols only":
                assert len(second) < len(plain)
            assert all(r for r in run.read("picks.parquet")["reason"])


def test_llm_without_a_model_is_refused(settings, tmp_path):
    config = check_settings({**settings, "strategies": ["llm"]}, AcquisitionConfig)
    with pytest.raises(InputError, match="set model"):
        play(config, tmp_path / "run")


@pytest.fixture
def finished(settings, simulated, tmp_path):
    config = check_settings(
        {
            **settings,
            "targets": [{"name": "pathway", "pathway": simulated[2]}],
            "strategies": ["random", "typiclust", "knowledge"],
        },
        AcquisitionConfig,
    )
    return play(config, tmp_path / "run")


def test_judges_of_a_run_are_asked_once_and_recovered(finished):
    """A judge that prefers the set with the first gene of the alphabet; asked only once."""

    def script(asked):
        a, b = listed(asked.first, "set_a"), listed(asked.first, "set_b")
        preference = "A" if min(a) < min(b) else "B"
        return json.dumps({"preference": preference, "confidence": 0.7, "reasons": ["scripted"]})

    with ScriptedServer(script) as one, ScriptedServer(lambda _: '{"preference": "A"}') as two:
        judges = [one.openai("first-letter"), two.anthropic("always-a")]
        dry = judge_run(finished.folder, judges, reference="random")
        assert set(dry.estimates()) == set(judges)
        assert one.paid == two.paid == 0
        made = judged(judge_run(finished.folder, judges, reference="random", seed=4))
        paid = one.paid
        again = judged(judge_run(finished.folder, judges, reference="random", seed=4))
        assert one.paid == paid
    pd.testing.assert_frame_equal(made.read("votes.csv"), again.read("votes.csv"))
    position = made.read("position.csv").set_index("judge")
    assert position.loc[judges[0], "share_a"] == pytest.approx(0.5)
    picks = finished.read("picks.parquet")
    wins = made.read("per_judge.csv").set_index(["first", "judge"])
    row = wins.loc[("knowledge", judges[0])]
    # By hand: for each (seed, round), which of the thinned sets holds the earlier name?
    assert row["wins"] + row["losses"] + row["ties"] == 2 * 3
    assert row["ties"] == 0
    assert (finished.folder / "judge" / "answers.csv").is_file()
    assert len(picks) == 3 * 2 * 3 * 8
    # A judge without "confidence" gives no usable answer: counted, not dropped.
    silent = made.read("per_judge.csv").set_index(["first", "judge"]).loc[("knowledge", judges[1])]
    assert silent["failed"] == 6


def test_judge_needs_distinct_judges(finished):
    with pytest.raises(InputError, match="at least one judge"):
        judge_run(finished.folder, [])
    with pytest.raises(InputError, match="named once"):
        judge_run(finished.folder, ["m@http://x/v1", "m@http://x/v1"])


def test_page_is_one_file_with_verdicts_and_escaped_names(finished, tmp_path):
    page = write_page([finished], tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert not re.search(r"(src|href)=.https?:", page)
    assert "knowledge" in page
    text = verdict_text(finished.read("differences.csv"))
    assert text.split(".")[0] in page
    two = write_page([finished, finished], tmp_path / "two.html").read_text()
    assert two.count("<svg") == 2 * page.count("<svg")
