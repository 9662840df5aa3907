"""Every named predictor runs through the conformance suite; names and files are resolved."""

import pytest
from predict.conformance import CHECKS, example_screen

from pertwise.errors import InputError, UnknownNameError
from pertwise.predict import CATALOGUE, make_predictor

CONSTANT = {"control", "training mean"}
NEEDS_MORE = {"langpert", "graph+edit", "fused", "cross-line transfer", "LLMPert"}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", [n for n in CATALOGUE if n not in NEEDS_MORE])
def test_conformance(name, check, simulated):
    if check == "unknown_name" and name in CONSTANT:
        pytest.skip("a constant knows every name")
    screen, knowledge = simulated
    data = example_screen(names=screen.perturbations[:24])
    CHECKS[check](lambda: make_predictor(name), data, knowledge)


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
