"""Names and user files become predictors; mistakes are told with their place."""

import pytest

from pertwise import parts
from pertwise._io import sha256_file
from pertwise.errors import InputError, UnknownNameError
from pertwise.models.methods import file_checksums, make_method, placed_settings, setting_files

OWN = """
from pertwise.models import TrainingMeanPredictor

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


NEED_A_FILE = (
    "langpert-recorded", "chat-kernel", "external", "cross-line-transfer", "lgr",
    "lgr-shrunk", "hybrid",
)  # fmt: skip


@pytest.mark.parametrize("name", NEED_A_FILE)
def test_methods_that_need_a_file_say_so(name):
    answers = "answers=FILE.*pertwise ask"
    needed = {"cross-line-transfer": "other", "external": "file"}.get(name, answers)
    with pytest.raises(InputError, match=f"needs the setting {needed}"):
        make_method(name)


@pytest.mark.parametrize("name", [n for n in parts.names("predictor") if n not in NEED_A_FILE])
def test_every_name_of_the_catalogue_can_be_built(name):
    method = make_method(name)
    assert parts.slugify(method.label) == method.use == name
    assert callable(method.build().fit)


def test_own_class_in_one_file(own):
    method = make_method(f"{own}:Half", factor=0.25)
    assert method.label == "Half"
    assert method.build().factor == 0.25
    assert method.build() is not method.build()
    assert len(method.sha256) == 64
    assert make_method("pertwise.models:ControlPredictor").label == "ControlPredictor"


def test_mistakes(own, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'training-mean'"):
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


ANSWERS = '{"subject": "A", "neighbours": ["B"]}\n'


def test_files_in_settings_are_found_placed_and_summed(own, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(ANSWERS)
    for use, settings in (
        ("fused", {"answers": str(file), "n_trees": 3}),
        ("langpert (recorded)", {"answers": str(file)}),
        ("cross-line transfer", {"other": str(file)}),
        ("neighbours", {"selector": f"graph:string or recorded:{file}"}),
        ("neighbours", {"selector": "graph:string", "fallbacks": [f"recorded:{file}"]}),
        (f"{own}:Half", {"factor": str(file)}),
        (f"{own}:Half", {"factor": ["x", str(file)]}),
    ):
        assert setting_files(use, settings) == [str(file)], use
        assert file_checksums(use, settings) == {str(file): sha256_file(file)}
    # written to, or no file at all
    assert setting_files("langpert", {"ledger": str(file)}) == []
    assert setting_files(f"{own}:Half", {"ledger": str(file), "factor": "nofile"}) == []
    assert make_method("fused", answers=str(file)).files == {str(file): sha256_file(file)}

    def place(value):
        return f"/base/{value}"

    assert placed_settings("fused", {"answers": "a", "n_trees": 3}, place) == {
        "answers": "/base/a", "n_trees": 3,
    }  # fmt: skip
    assert placed_settings("cross-line transfer", {"other": "b", "context": "c"}, place) == {
        "other": "/base/b", "context": "c",
    }  # fmt: skip
    words = {
        "selector": "recorded:a without graph:string,go",
        "fallbacks": ["embedding:text", "langpert:m@http://h/v1 and recorded:b c.jsonl"],
        "ledger": "l.sqlite",
    }
    assert placed_settings("neighbours", words, place) == {
        "selector": "recorded:/base/a without graph:string,go",
        "fallbacks": ["embedding:text", "langpert:m@http://h/v1 and recorded:/base/b c.jsonl"],
        "ledger": "/base/l.sqlite",
    }
    assert placed_settings(f"{own}:Half", {"answers": "a"}, place) == {"answers": "a"}


def test_a_missing_file_in_settings_is_named(tmp_path):
    for use, settings in (
        ("fused", {"answers": str(tmp_path / "gone.jsonl")}),
        ("neighbours", {"selector": f"recorded:{tmp_path / 'gone.jsonl'}"}),
    ):
        with pytest.raises(InputError, match=r"no such file: .*gone.jsonl"):
            make_method(use, **settings)


def test_a_folder_is_summed_over_its_files(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("1")
    settings = {"other": str(tmp_path / "other")}
    first = file_checksums("cross-line transfer", settings)
    (tmp_path / "other" / "x").write_text("2")
    assert file_checksums("cross-line transfer", settings) != first
