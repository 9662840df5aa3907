"""One registry: every form of every kind finds its part, and nothing foreign is called."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from typer.testing import CliRunner

from pertwise import parts
from pertwise.cli.main import app
from pertwise.errors import InputError, UnknownNameError
from pertwise.parts.built_in import BUILT_IN

#: One class of every kind, as a stranger writes them: no import of the registry.
OWN = '''
import hashlib

import numpy as np
from scipy.sparse import csr_matrix
from pertwise.acquire.strategies.random import Random
from pertwise.evaluate.splits import Split
from pertwise.models import TrainingMeanPredictor
from pertwise.select import Pick, Selection
from pertwise.select.closed_list import checked_candidates


class Half(TrainingMeanPredictor):
    """Half of the training mean."""

    name = "half"
    needs = ("knowledge",)
    reads = ("table",)

    def __init__(self, factor=0.5, table=None):
        self.factor = factor


class Last(Random):
    """Whatever comes last in the alphabet."""

    name = "last"

    def choose(self, state, n):
        return super().choose(state, n)


class Twin:
    """The candidates that share the last digit."""

    name = "twin"

    def __init__(self, screen, max_neighbours=3):
        self.known, self.most = set(screen.perturbations), max_neighbours

    def select(self, query, candidates, n):
        candidates = checked_candidates(candidates, n)
        same = [c for c in sorted(candidates) if c[-1] == query.subject[-1] and c in self.known]
        picks = tuple(Pick(c, "same last digit") for c in same if c != query.subject)
        return Selection(picks[: min(n, self.most)], "twin")


class Digit:
    """Alike by the last digit."""

    kinds = ("digit",)
    source = "names"

    def rows(self, kind, genes):
        out = np.zeros((len(genes), 10))
        for i, gene in enumerate(genes):
            out[i, int(gene[-1]) if gene[-1].isdigit() else 0] = 1
        return csr_matrix(out)


class Alphabet:
    """Alike by how near the first letters are."""

    name = "alphabet"

    def between(self, rows, others, pool):
        a, b = (np.array([ord(n[0]) for n in names], float) for names in (rows, others))
        return np.exp(-np.abs(a[:, None] - b[None, :]).reshape(len(a), len(b)) / 5)

    def missing(self, names):
        return ()


class Worst:
    """Largest error of any feature."""

    better = "low"
    undefined = 9.0

    def __call__(self, truth, prediction):
        return np.nanmax(np.abs(truth - prediction), axis=1)


class Odd:
    """Every other name is held out."""

    def __init__(self, start=0):
        self.start = start

    def __call__(self, perturbations, seed):
        names = sorted(perturbations)
        held = names[self.start :: 2]
        return [Split("odd", seed, 0, tuple(n for n in names if n not in held), tuple(held))]
'''
CLASS_OF = {
    "predictor": "Half",
    "strategy": "Last",
    "selector": "Twin",
    "kernel": "Digit",
    "metric": "Worst",
    "split": "Odd",
}


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return file


def test_listing_names_imports_nothing_heavy():
    code = (
        "import sys; from pertwise import parts; "
        "print([len(parts.names(k)) > 0 for k in parts.KINDS].count(False), "
        "[m for m in ('numpy','pandas','scipy') if m in sys.modules]); "
        "parts.find('metric', 'cosine'); parts.table('selector'); parts.table('predictor'); "
        "print([m for m in ('torch','rdkit','sklearn','anndata','openai','matplotlib') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["0 []", "[]"]


def test_every_line_of_the_table_is_there_and_says_what_it_is():
    found = parts.table()
    assert list(zip(found["kind"], found["name"], strict=True)) == [
        (kind, name) for kind in parts.KINDS for name in BUILT_IN[kind]
    ]
    assert (found["about"].str.len() > 5).all()
    assert not found["about"].str.contains("cannot be loaded").any()
    assert all(name == parts.slugify(name) for name in found["name"])
    needs = found.set_index(["kind", "name"])["needs"]
    assert needs["predictor", "graph-edit"] == "knowledge, chat"
    assert needs["strategy", "llm"] == "prediction, chat"
    assert needs["selector", "oracle"] == "truth"
    reads = found.set_index(["kind", "name"])["reads"]
    assert reads["predictor", "cross-line-transfer"] == "other, ratings"
    assert reads["predictor", "neighbours"] == "selector, fallbacks, prefilter"


@pytest.mark.parametrize(
    ("given", "slug"),
    [
        ("Kernel ridge", "kernel-ridge"),
        ("LLMPert", "llmpert"),
        ("graph+edit", "graph-edit"),
        ("langpert (recorded)", "langpert-recorded"),
        ("cross-line_transfer", "cross-line-transfer"),
        ("cell mean", "context-mean"),
        ("cell mean (shrunk)", "context-mean-shrunk"),
        ("drug mean", "perturbation-mean"),
        ("drug + cell", "additive-contexts"),
        ("chemistry kNN", "chemistry-knn"),
        ("LGR (shrunk)", "lgr-shrunk"),
    ],
)
def test_old_words_find_their_part(given, slug):
    assert parts.describe("predictor", given).name == slug


def test_labels_stay_the_words_of_the_tables():
    assert parts.label("predictor", "training-mean") == "training mean"
    assert parts.label("predictor", "langpert_recorded") == "langpert (recorded)"
    assert parts.label("predictor", "graph-neighbours:go") == "graph neighbours (go)"
    assert parts.label("predictor", "not/there.py:Mine") == "Mine"


def test_an_argument_fills_the_setting_that_the_part_names():
    part = parts.describe("selector", "graph:string,go")
    assert (part.name, part.settings, part.use) == (
        "graph", {"graphs": ["string", "go"]}, "graph:string,go",
    )  # fmt: skip
    assert parts.describe("selector", "langpert:m@http://h:1/v1").given == "m@http://h:1/v1"
    assert parts.load("predictor", "additive:training-mean").single().name == "training mean"
    with pytest.raises(InputError, match="'control' takes no argument 'x'"):
        parts.load("predictor", "control:x")


@pytest.mark.parametrize("kind", CLASS_OF)
def test_a_class_of_ones_own_in_every_kind(kind, own, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for use in (f"{own}:{CLASS_OF[kind]}", f"mine:{CLASS_OF[kind]}"):
        part = parts.describe(kind, use)
        assert part.own
        assert part.label == CLASS_OF[kind]
        assert part.about[:4] in OWN
    for other in set(CLASS_OF) - {kind, "metric", "split"}:
        with pytest.raises(InputError, match=f"no {other}"):
            parts.describe(other, f"{own}:{CLASS_OF[kind]}")


def test_what_ones_own_class_says_of_itself(own):
    part = parts.describe("predictor", f"{own}:Half")
    assert (part.facts.needs, part.facts.reads) == (("knowledge",), ("table",))
    assert part.file == str(own)


def test_functions_only_when_declared(tmp_path):
    file = tmp_path / "made.py"
    file.write_text(
        "from pathlib import Path\n"
        "from pertwise.models import TrainingMeanPredictor\n"
        "from pertwise.parts import part\n"
        "def plain(): Path(__file__).with_name('called').touch()\n"
        "@part(label='the mean')\n"
        "def declared(): return TrainingMeanPredictor()\n"
    )
    with pytest.raises(InputError, match=r"a function, not a class.*pertwise\.parts\.part"):
        parts.load("predictor", f"{file}:plain")
    assert not (tmp_path / "called").exists()
    part = parts.describe("predictor", f"{file}:declared")
    assert part.label == "the mean"
    assert part.load().name == "training mean"
    with pytest.raises(InputError, match="so it is no strategy"):
        parts.load("strategy", f"{file}:declared")


@pytest.mark.parametrize("kind", parts.KINDS)
def test_nothing_foreign_is_called(kind, monkeypatch):
    seen = []
    monkeypatch.setattr("subprocess.run", lambda *a, **k: seen.append(a))
    with pytest.raises(InputError, match="not a class"):
        parts.load(kind, "subprocess:run")
    assert not seen


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="unknown strategy 'bold'; did you mean 'bald'"):
        parts.find("strategy", "bold")
    with pytest.raises(UnknownNameError, match="unknown selector 'grph:go'; did you mean 'graph'"):
        parts.find("selector", "grph:go")
    with pytest.raises(UnknownNameError, match=r"known: .*cosine.*path/to/file.py:Class"):
        parts.find("metric", "xyzzy")
    with pytest.raises(UnknownNameError, match="did you mean 'predictor'"):
        parts.names("predictors")
    with pytest.raises(InputError, match="'bald' does not take the settings weight"):
        parts.load("strategy", "bald", weight=3)


@pytest.fixture
def offered(monkeypatch):
    """Entry points of two packages: one good, one broken, one with a name that is taken."""
    here = {
        "pertwise.predictors": [
            EntryPoint("My Mean", "pertwise.models:TrainingMeanPredictor", "pertwise.predictors"),
            EntryPoint("broken", "no_such_package.at_all:Thing", "pertwise.predictors"),
            EntryPoint("call-me", "subprocess:run", "pertwise.predictors"),
            EntryPoint("control", "no_such_package:Thing", "pertwise.predictors"),
        ]
    }
    monkeypatch.setattr(parts, "entry_points", lambda group: here.get(group, []))
    parts._offered.cache_clear()
    yield
    parts._offered.cache_clear()


def test_entry_points_of_other_packages(offered):
    assert parts.names("predictor")[-3:] == ("my-mean", "broken", "call-me")
    assert parts.load("predictor", "my mean").name == "training mean"
    assert parts.load("predictor", "control").name == "control"
    with pytest.raises(InputError, match=r"'broken'.*no_such_package.*cannot be imported: Module"):
        parts.load("predictor", "broken")
    with pytest.raises(InputError, match="not a class"):
        parts.load("predictor", "call-me")


def test_a_broken_entry_point_is_told_and_not_fatal(offered):
    result = CliRunner().invoke(app, ["parts", "predictor"])
    assert result.exit_code == 0, result.output
    assert "multi-kernel" in result.output
    assert "cannot be loaded" in result.output
    told = parts.table("predictor").set_index("name")["about"]
    assert "no_such_package" in told["broken"]


def test_parts_lists_one_kind_and_refuses_another():
    result = CliRunner().invoke(app, ["parts", "kernel"])
    assert result.exit_code == 0, result.output
    assert "diffusion" in result.output
    assert "bald" not in result.output
    assert isinstance(CliRunner().invoke(app, ["parts", "kernels"]).exception, InputError)


def test_a_subclass_inherits_needs_but_not_the_name(tmp_path):
    file = tmp_path / "sub.py"
    file.write_text(
        "from pertwise.models.radial import RadialPredictor\n"
        "class Mine(RadialPredictor):\n    '''My own. More.'''\n"
    )
    part = parts.describe("predictor", f"{file}:Mine")
    assert part.facts.needs == ("knowledge",)
    assert (part.label, part.about) == ("Mine", "My own")


def test_metrics_are_the_functions_themselves():
    truth = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(parts.load("metric", "mse")(truth, truth + 1), [1.0, 1.0])
    np.testing.assert_allclose(parts.load("metric", "cosine")(truth, 2 * truth), [1.0, 1.0])
