"""Names and user files become predictors; mistakes are told with their place."""

import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.evaluate.methods import make_method
from pertwise.predict.catalogue import CATALOGUE

OWN = """
from pertwise.predict import TrainingMeanPredictor

class Half(TrainingMeanPredictor):
    name = "half"
    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = factor

class NotAPredictor:
    pass
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


NEED_A_FILE = ("langpert (recorded)", "fused", "cross-line transfer")


@pytest.mark.parametrize("name", NEED_A_FILE)
def test_methods_that_need_a_file_say_so(name):
    with pytest.raises(InputError, match=r"answers|other"):
        make_method(name)


@pytest.mark.parametrize("name", [n for n in CATALOGUE if n not in NEED_A_FILE])
def test_every_name_of_the_catalogue_can_be_built(name):
    method = make_method(name)
    assert method.label == name
    assert callable(method.build().fit)


def test_own_class_in_one_file(own):
    method = make_method(f"{own}:Half", factor=0.25)
    assert method.label == "Half"
    assert method.build().factor == 0.25
    assert method.build() is not method.build()
    assert len(method.sha256) == 64
    assert make_method("pertwise.predict:ControlPredictor").label == "ControlPredictor"


def test_mistakes(own, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'training mean'"):
        make_method("trainingmean")
    with pytest.raises(InputError, match="no such file"):
        make_method(str(tmp_path / "absent.py") + ":X")
    with pytest.raises(UnknownNameError, match="did you mean 'Half'"):
        make_method(f"{own}:Halv")
    with pytest.raises(InputError, match="does not take the settings"):
        make_method(f"{own}:Half", nosuch=1)
    with pytest.raises(InputError, match="has no method 'fit'"):
        make_method(f"{own}:NotAPredictor")
    with pytest.raises(InputError, match="cannot import module 'nosuchmodule'"):
        make_method("nosuchmodule:X")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        make_method(f"{broken}:X")
