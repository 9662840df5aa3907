"""Planning where torch is not installed: finished by regressions, and said in one line."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from pertwise import plan, simulate
from pertwise.acquire import Plan
from pertwise.errors import MissingDependencyError
from pertwise.knowledge import build_knowledge
from pertwise.models.llmpert.bagged import BaggedRidge

BLOCK = """
import importlib.util
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
look = importlib.util.find_spec  # who asks first is told that it is not there
importlib.util.find_spec = lambda name, *more: None if name in {blocked!r} else look(name, *more)
sys.argv = ["pertwise", *{args!r}]
from pertwise.cli.main import main
main()
"""
#: What the extras bring.
EXTRAS = ("torch", "rdkit", "sentence_transformers", "starlette", "uvicorn", "openpyxl")


def run(*args):
    code = textwrap.dedent(BLOCK.format(blocked=EXTRAS, args=list(map(str, args))))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    made = simulate(4, n_perturbations=70, n_features=60, knowledge_completeness=0.95)
    made.screen.save(folder / "screen.h5ad")
    build_knowledge(made.write_sources(folder / "sources"), folder / "kb", label="simulated")
    return made, folder


def test_the_demo_finishes_without_any_extra_and_says_what_torch_would_add(tmp_path):
    done = run("demo", "--out", tmp_path / "demo", "--batch", "4", "--genes", "60")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "torch is not installed" in said
    assert sum("torch is not" in line for line in done.stdout.splitlines()) == 2  # one a round
    assert "pip install 'pertwise[torch]'" in said
    panel = Plan.load(tmp_path / "demo" / "round2")
    assert len(panel.picks) == 4
    assert panel.settings["ensemble"] == "ridge"


def test_a_default_plan_finishes_without_torch(made, tmp_path):
    _, folder = made
    done = run(
        "plan", folder / "screen.h5ad", "--knowledge", folder / "kb", "--batch", "5",
        "--out", tmp_path / "plan",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    panel = Plan.load(tmp_path / "plan")
    assert len(panel.picks) == 5
    assert [r.kind for r in panel.repairs if "torch" in r.action] == ["stand-in"]
    assert sum("torch" in line for line in done.stdout.splitlines()) >= 1


class NoTorch:
    """Finds no torch. (``sys.modules["torch"] = None`` trips scipy, which looks there.)"""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without_torch(monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])


def test_published_networks_are_not_replaced(made, without_torch):
    simulated, folder = made
    with pytest.raises(MissingDependencyError, match=r"pip install 'pertwise\[torch\]'"):
        plan(simulated.screen, folder / "kb", ensemble="published", batch=3)


@pytest.mark.parametrize("strategy", ["uncertainty", "bald", "badge", "lcmd"])
def test_strategies_that_look_at_members_run_on_regressions(made, without_torch, strategy):
    simulated, folder = made
    panel = plan(simulated.screen, folder / "kb", strategy=strategy, batch=4)
    assert len(panel.picks) == 4
    again = plan(simulated.screen, folder / "kb", strategy=strategy, batch=4, ensemble="ridge")
    assert panel.genes == again.genes
    assert not [r for r in again.repairs if r.kind == "stand-in"]


def test_bagged_ridge_learns_and_is_unsure_where_it_saw_nothing(made):
    """Inputs that span two directions, one of them hardly seen: members disagree along it."""
    simulated, _ = made
    rng = np.random.default_rng(0)
    names = list(simulated.screen.perturbations)
    vectors = {g: np.array([rng.normal(), 0.05 * rng.normal()]) for g in names}
    vectors |= {"SEEN": np.array([2.0, 0.0]), "UNSEEN": np.array([0.0, 2.0])}
    weights = rng.normal(size=(2, simulated.screen.n_features))
    y = np.array([vectors[g] @ weights for g in simulated.screen.obs["perturbation"]])
    y += rng.normal(0, 0.1, y.shape)
    from dataclasses import replace

    screen = replace(simulated.screen, responses=y.astype(np.float32), sampling_variance=None)
    fitted = BaggedRidge(vectors, seed=1).fit(screen)
    prediction = fitted.predict(["SEEN", "UNSEEN"])
    truth = vectors["SEEN"] @ weights
    assert np.corrcoef(prediction.mean[0], truth)[0, 1] > 0.99
    u = fitted.uncertainty(["SEEN", "UNSEEN"])
    assert u["UNSEEN"] > 3 * u["SEEN"]
    assert prediction.members.shape == (10, 2, screen.n_features)
    np.testing.assert_allclose(prediction.members.mean(axis=0), prediction.mean, atol=1e-5)
    same = BaggedRidge(vectors, seed=1).fit(screen).predict(["SEEN", "UNSEEN"])
    np.testing.assert_array_equal(same.members, prediction.members)


def test_torch_is_asked_for_only_when_networks_are_needed(made, tmp_path, monkeypatch):
    _, folder = made
    pytest.importorskip("torch")
    file, store = folder / "screen.h5ad", tmp_path / "store"
    first = plan(file, folder / "kb", strategy="uncertainty", batch=4, store=store)

    def asked(module):
        raise AssertionError(f"asked whether {module} is there")

    monkeypatch.setattr("pertwise.acquire.planning.installed", asked)
    plan(file, folder / "kb", strategy="random", batch=4)
    # What networks said before is read again, torch or not.
    again = plan(file, folder / "kb", strategy="uncertainty", batch=4, store=store)
    assert again.genes == first.genes
    assert again.settings["ensemble"] == "quick"
