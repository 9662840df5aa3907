"""Replays with a predictor that learns from another line: what is hidden, what is scored."""

import numpy as np
import pytest

from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.acquisition.world import make_world
from pertwise.errors import InputError
from pertwise.screen import make_screen


@pytest.fixture
def two_lines(simulated):
    """Lines that share what knowledge does not tell."""
    screen, knowledge = simulated
    rng = np.random.default_rng(5)
    names = list(screen.perturbations)
    hidden = rng.normal(size=(len(names), 2))
    here = make_screen(hidden @ rng.normal(size=(2, 6)), names, list("abcdef"), context="here")
    there = make_screen(hidden @ rng.normal(size=(2, 5)), names, list("uvwxy"), context="there")
    return here, there, knowledge


def played(tmp_path, lines, setting, other, context="there"):
    here, _, knowledge = lines
    other.save(tmp_path / f"{context}.h5ad")
    here.save(tmp_path / "here.h5ad")
    config = AcquisitionConfig(
        screen=str(tmp_path / "here.h5ad"),
        strategies={"random": {}},
        predictors={
            "alone": {"use": "kernel-ridge"},
            "with": {"use": "kernel-ridge", "other": [str(tmp_path / f"{context}.h5ad")]},
        },
        protocol={"heldout": 0.3, "batch": 20, "rounds": 1, "seeds": 1, "setting": setting},
    )
    task = AcquisitionTask(config)
    task.world = make_world(config, here, knowledge)
    rounds = [task.play(u, None)["rounds"] for u in task.units()]
    return [float(r.loc[r["metric"] == "mse", "value"].iloc[-1]) for r in rounds]


def test_held_out_perturbations_are_hidden_or_looked_up(tmp_path, two_lines):
    alone, helped = played(tmp_path, two_lines, "elsewhere", two_lines[1])
    assert helped < 0.7 * alone
    alone, helped = played(tmp_path, two_lines, "anywhere", two_lines[1])
    assert helped > 0.9 * alone


def test_only_what_was_measured_elsewhere_is_scored_there(tmp_path, two_lines):
    here, there, _ = two_lines
    few = there.take(list(range(3)))
    with pytest.raises(InputError, match=r"held-out .*were measured in other screens.* needs 2"):
        played(tmp_path, two_lines, "elsewhere", few.of_perturbations(few.perturbations))
    with pytest.raises(InputError, match="is of the line that is asked about"):
        played(tmp_path, two_lines, "elsewhere", here, context="same")
