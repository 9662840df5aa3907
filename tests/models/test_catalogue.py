"""Every named predictor runs through the conformance suite; names and files are resolved."""

import json

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge.ratings import Ratings
from pertwise.testing.predictors import CHECKS, check_predictor, example_screen

CONSTANT = {"control", "training-mean", "context-mean", "context-mean-shrunk"}
NEEDS_ANSWERS = {"langpert-recorded", "fused", "chat-kernel", "lgr", "lgr-shrunk"}
#: Tried in tests of their own.
ELSEWHERE = {
    "llmpert", "langpert", "graph-edit", "dose", "external", "chemistry-knn", "mechanism-knn",
    "target-knn", "hybrid",
}  # fmt: skip
#: Fewer trees: the suite checks the contract, not the accuracy.
SETTINGS = {"forest": {"n_trees": 4}, "stacked": {"n_trees": 4}, "fused": {"n_trees": 4}}


#: A constant knows every name, so it has no fallback to declare.
PAIRS = [
    (name, check)
    for name in parts.names("predictor")
    for check in CHECKS
    if name not in ELSEWHERE and not (check == "unknown_name" and name in CONSTANT)
]


@pytest.mark.parametrize(("name", "check"), PAIRS)
def test_conformance(name, check, simulated, answers):
    screen, knowledge = simulated
    data = example_screen(names=screen.perturbations[:24])
    given = {"answers": answers} if name in NEEDS_ANSWERS else {}
    if name == "cross-line-transfer":
        # The line to predict has one perturbation that the other never saw.
        given = {"other": example_screen(seed=1, names=screen.perturbations[1:25])}
    if name == "marks":
        marks = np.random.default_rng(0).integers(-6, 7, (24, 3)) / 2
        given = {"ratings": (Ratings.from_marks(screen.perturbations[:24], list("abc"), marks),)}
    CHECKS[check](
        lambda: parts.load("predictor", name, **given, **SETTINGS.get(name, {})), data, knowledge
    )


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
        parts.load("predictor", "multikernel")


def test_a_class_in_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from pertwise.models import TrainingMeanPredictor\n"
        "class Mine(TrainingMeanPredictor):\n    name = 'mine'\n"
    )
    assert parts.load("predictor", f"{file}:Mine").name == "mine"
    with pytest.raises(UnknownNameError, match="Mine"):
        parts.load("predictor", f"{file}:Mien")
    with pytest.raises(InputError, match="no such file"):
        parts.load("predictor", f"{tmp_path / 'no.py'}:Mine")
    with pytest.raises(InputError, match="does not take the settings"):
        parts.load("predictor", "gp-text", nonsense=1)


OWN = """
import numpy as np
import pandas as pd
from pertwise.models import Prediction


class ByLength:
    \"\"\"Mean of the k names that are most alike in length.\"\"\"

    name = "by length"

    def __init__(self, k=5):
        self.k = k

    def fit(self, screen, knowledge=None):
        train = screen.only_measured()
        names = train.obs["perturbation"].to_numpy(dtype=object)
        order = np.argsort(names)
        self.size = np.array([len(n) for n in names[order]])
        self.y, self.features = train.responses[order].astype(float), screen.features
        return self

    def predict(self, perturbations):
        mean, said = [], []
        for name in perturbations:
            near = np.argsort(np.abs(self.size - len(name)), kind="stable")[: self.k]
            far = not (self.size == len(name)).any()
            mean.append(np.nan_to_num(np.nanmean(self.y[slice(None) if far else near], axis=0)))
            said.append("mean of all" if far else "")
        support = pd.DataFrame({"n_support": self.k, "fallback": said}, index=list(perturbations))
        rows = np.array(mean, dtype=np.float32).reshape(len(said), len(self.features))
        return Prediction(tuple(perturbations), self.features, rows, None, support)


class Silent(ByLength):
    def predict(self, perturbations):
        found = super().predict(perturbations)
        found.support["fallback"] = ""
        return found
"""


def test_a_class_of_a_user_passes_and_a_careless_one_does_not(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    check_predictor(lambda: parts.load("predictor", f"{file}:ByLength", k=3))
    with pytest.raises(AssertionError, match="declare its fallback"):
        check_predictor(lambda: parts.load("predictor", f"{file}:Silent"))
