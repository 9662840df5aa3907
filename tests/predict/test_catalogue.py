"""Every named predictor runs through the conformance suite; names and files are resolved."""

import json

import pytest
from predict.conformance import CHECKS, example_screen

from pertwise.errors import InputError, UnknownNameError
from pertwise.predict import CATALOGUE, make_predictor

CONSTANT = {"control", "training mean"}
NEEDS_ANSWERS = {"langpert (recorded)", "fused"}
#: Tried in tests of their own.
ELSEWHERE = {"LLMPert", "langpert", "graph+edit"}
#: Fewer trees: the suite checks the contract, not the accuracy.
SETTINGS = {"forest": {"n_trees": 4}, "stacked": {"n_trees": 4}, "fused": {"n_trees": 4}}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", [n for n in CATALOGUE if n not in ELSEWHERE])
def test_conformance(name, check, simulated, answers):
    if check == "unknown_name" and name in CONSTANT:
        pytest.skip("a constant knows every name")
    screen, knowledge = simulated
    data = example_screen(names=screen.perturbations[:24])
    given = {"answers": answers} if name in NEEDS_ANSWERS else {}
    if name == "cross-line transfer":
        # The line to predict has one perturbation that the other never saw.
        given = {"other": example_screen(seed=1, names=screen.perturbations[1:25])}
    CHECKS[check](lambda: make_predictor(name, **given, **SETTINGS.get(name, {})), data, knowledge)


@pytest.fixture(scope="module")
def answers(simulated, tmp_path_factory):
    """Every perturbation names the three after it, with a reason."""
    names = simulated[0].perturbations[:24]
    file = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    with open(file, "w") as out:
        for i, subject in enumerate(names):
            near = [names[(i + k) % len(names)] for k in (1, 2, 3)]
            row = {"subject": subject, "neighbours": near, "reason": f"group {i % 4} protein"}
            out.write(json.dumps(row) + "\n")
    return file


def test_unknown_names_are_suggested():
    with pytest.raises(UnknownNameError, match="multi-kernel"):
        make_predictor("multikernel")


def test_a_class_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from pertwise.predict import TrainingMeanPredictor\n"
        "class Mine(TrainingMeanPredictor):\n    name = 'mine'\n"
    )
    assert make_predictor(f"{file}:Mine").name == "mine"
    with pytest.raises(UnknownNameError, match="Mine"):
        make_predictor(f"{file}:Mien")
    with pytest.raises(InputError, match="no such file"):
        make_predictor(f"{tmp_path / 'no.py'}:Mine")
    with pytest.raises(InputError, match="does not take the settings"):
        make_predictor("gp text", nonsense=1)
