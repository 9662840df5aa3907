"""A configuration or flag names classes of the right protocol; nothing else is called."""

import pytest
from typer.testing import CliRunner

from pertwise import parts
from pertwise._external import load_class
from pertwise.acquire.base import Strategy
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.models.base import Predictor

#: What a hostile configuration would name: functions, foreign classes, instances, modules.
NOT_OURS = (
    "subprocess:run",
    "subprocess:Popen",
    "os:system",
    "os:path",
    "builtins:exec",
    "builtins:type",
    "shutil:rmtree",
    "collections:OrderedDict",
    "random:Random",
    "pertwise.models.recipes:np",
    "pertwise.cli.main:main",
    "pathlib:Path.unlink",
)
DOORS = {
    "predictor": lambda use: parts.load("predictor", use),
    "strategy": lambda use: parts.load("strategy", use),
}

OWN = """
from pathlib import Path
HERE = Path(__file__).with_name("called")

def make(**settings):
    HERE.touch()

class Careless:
    def __init__(self, **settings):
        HERE.touch()

class Half(Careless):
    name = "half"
    def fit(self, screen, knowledge=None): return self

class Short(Careless):
    name = "short"
    def fit(self): return self
    def predict(self, perturbations): return None
    def choose(self, state): return None

instance = object()

class Good:
    name = "good"
    def fit(self, screen, knowledge=None): return self
    def predict(self, perturbations): return None
    def choose(self, state, n): return None
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


@pytest.fixture
def forbidden(monkeypatch):
    """Calls that the tests must never see."""
    seen = []
    for name in ("os.system", "subprocess.run", "subprocess.Popen.__init__", "shutil.rmtree"):
        monkeypatch.setattr(name, lambda *a, _n=name, **k: seen.append(_n))
    return seen


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("use", NOT_OURS)
def test_nothing_foreign_is_called(door, use, forbidden):
    with pytest.raises(InputError):
        DOORS[door](use)
    assert not forbidden


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "name", ["make", "Careless", "Half", "Short", "instance", "Absent", "HERE"]
)
def test_own_file_is_checked_before_anything_is_called(door, name, own):
    with pytest.raises(InputError, match=str(own)):
        DOORS[door](f"{own}:{name}")
    assert not own.with_name("called").exists()


@pytest.mark.parametrize("door", DOORS)
def test_a_class_of_the_protocol_is_taken(door, own):
    assert DOORS[door](f"{own}:Good").name == "good"


def test_what_is_missing_is_said(own):
    with pytest.raises(InputError, match=r"has no method 'predict'; it needs fit\(screen, know"):
        load_class(f"{own}:Half", lambda _: Predictor, "method")
    with pytest.raises(InputError, match="takes other arguments in 'choose'"):
        load_class(f"{own}:Short", lambda _: Strategy, "strategy")
    with pytest.raises(InputError, match="is a function, not a class"):
        load_class(f"{own}:make", lambda _: Strategy, "strategy")


@pytest.mark.parametrize(
    "text", ["raise SystemExit(0)", "1 / 0", "def broken(", "import no_such_thing"]
)
def test_a_file_that_cannot_be_imported(text, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(InputError, match="cannot import"):
        parts.load("predictor", f"{tmp_path / 'bad.py'}:X")


@pytest.mark.parametrize("use", ["..:X", ".x:Y", ":X", "x:", "a b:C", "\x00:X"])
def test_odd_names(use):
    for door in DOORS.values():
        with pytest.raises(InputError):
            door(use)


def write_screen(path):
    rows = ["perturbation,F1,F2,F3", "control,0,0,0"]
    rows += [f"GENE{i},{i},{-i},{i % 3}" for i in range(12)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("command", ["predict", "bench acquisition", "bench prediction"])
def test_commands_refuse_functions(command, tmp_path, forbidden):
    screen = write_screen(tmp_path / "means.csv")
    toml = tmp_path / "run.toml"
    if command == "predict":
        given = ["predict", screen, "--genes", "NEW", "--method", "subprocess:run"]
        given += ["--out", tmp_path / "out", "--set", "args=['touch', 'x']"]
    elif command == "bench acquisition":
        toml.write_text(
            f"screen = '{screen}'\n[[targets]]\nname = 'all'\n[protocol]\nseeds = 2\nbatch = 2\n"
            "rounds = 1\n[strategies.random]\n[predictors.mine]\nuse = 'subprocess:run'\n"
            "args = ['touch', 'x']\n"
        )
        given = ["bench", "acquisition", toml, "--out", tmp_path / "out", "--executor", "serial"]
    else:
        toml.write_text(
            f"screen = '{screen}'\n[split]\nfolds = 2\nshuffles = 1\n"
            "[[methods]]\nuse = 'subprocess:run'\n[methods.settings]\nargs = ['touch', 'x']\n"
        )
        given = ["bench", "prediction", toml, "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(g) for g in given])
    assert isinstance(result.exception, InputError)
    assert "subprocess:run is a function, not a class" in str(result.exception)
    assert not forbidden
