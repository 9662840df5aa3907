"""Advice on cells is true: what is stated as power is found in simulated experiments."""

import json

import numpy as np
import pytest
from fake_knowledge import FakeKnowledge
from typer.testing import CliRunner

import pertwise
from pertwise.acquire.design import design
from pertwise.acquire.noise import screen_noise
from pertwise.arrays.power import fdr_level, null_share, t_power
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.report.plan_page import render_plan
from pertwise.screen import make_screen, simulate_screen
from pertwise.screen.core import Screen, make_obs
from pertwise.screen.degs import compare_to_control


def measured(rng, effects, sd, n, m):
    """Means, variances and cells of one experiment: normal cells with `sd`, `m` controls."""
    rows, d = effects.shape
    control = rng.normal(size=(m, d)) * sd
    s0, c = control.var(axis=0, ddof=1), control.mean(axis=0)
    delta, variance = np.empty((rows, d)), np.empty((rows, d))
    for i in range(rows):
        cells = effects[i] + rng.normal(size=(n, d)) * sd
        delta[i] = cells.mean(axis=0) - c
        variance[i] = cells.var(axis=0, ddof=1) / n + s0 / m
    return delta, variance


def as_screen(delta, variance, n, m):
    obs = make_obs(
        [f"P{i}" for i in range(len(delta))],
        context="K",
        n_cells=[float(n)] * len(delta),
        sampling_variance=variance.sum(axis=1).tolist(),
    )
    return Screen(
        responses=delta.astype(np.float32),
        obs=obs,
        features=tuple(f"f{j}" for j in range(delta.shape[1])),
        control_mean=np.zeros((1, delta.shape[1]), np.float32),
        sampling_variance=variance.astype(np.float32),
        meta={"control_cells": {"K": m}, "unit": "log-normalised expression"},
    )


@pytest.fixture(scope="module")
def pilot():
    """30 perturbations, 40 cells each, 400 controls; 10 % of 300 features move by 0.5."""
    rng = np.random.default_rng(1)
    sd = np.exp(rng.normal(0, 0.3, size=300))
    effects = np.where(rng.random((30, 300)) < 0.1, 0.5, 0.0) * rng.choice([-1, 1], (30, 300))
    return as_screen(*measured(rng, effects, sd, 40, 400), 40, 400), sd


def test_noise_and_effects_are_recovered(pilot):
    screen, sd = pilot
    noise = screen_noise(screen)
    assert np.allclose(np.quantile(sd, [0.25, 0.5, 0.75]), np.quantile(noise.sd, [0.25, 0.5, 0.75]),
                       rtol=0.05)  # fmt: skip
    assert noise.cells == 40
    # of share and effect the product is certain: mean square of the true effects
    assert noise.changed * noise.effect**2 == pytest.approx(0.1 * 0.25, rel=0.25)


@pytest.mark.parametrize("kind", ["alpha", "fdr"])
@pytest.mark.parametrize("cells", [25, 60, 150])
def test_stated_power_is_found_in_new_experiments(pilot, kind, cells):
    screen, sd = pilot
    size, share, batch = 0.5, 0.1, 40
    given = {"alpha": 0.01} if kind == "alpha" else {"fdr": 0.05, "changed": share}
    advice = design(screen, effect=size, perturbations=batch, **given)
    controls = int(np.ceil(cells * np.sqrt(batch)))
    noise = screen_noise(screen)
    level = 0.01 if kind == "alpha" else fdr_level(
        size, noise.sd, cells, controls, 0.05 * (1 - share), share
    )  # fmt: skip
    stated = float(t_power(size, noise.sd, cells, controls, level).mean())
    rng = np.random.default_rng(cells)
    true = np.where(rng.random((batch, len(sd))) < share, size, 0.0)
    delta, variance = measured(rng, true, sd, cells, controls)
    tests = compare_to_control(delta, variance, np.full(batch, cells))
    called = tests.p < 0.01 if kind == "alpha" else tests.q < 0.05
    assert called[true > 0].mean() == pytest.approx(stated, abs=0.05)
    assert advice.kind == kind


def test_advised_cells_reach_the_wanted_power(pilot):
    screen, sd = pilot
    advice = design(screen, effect=0.5, changed=0.1, power=0.8, perturbations=25)
    assert advice.controls == int(np.ceil(advice.cells * 5))
    rng = np.random.default_rng(5)
    true = np.where(rng.random((25, len(sd))) < 0.1, 0.5, 0.0)
    delta, variance = measured(rng, true, sd, advice.cells, advice.controls)
    q = compare_to_control(delta, variance, np.full(25, advice.cells)).q
    assert (q < 0.05)[true > 0].mean() == pytest.approx(0.8, abs=0.05)
    assert f"{advice.cells} cells a perturbation" in " ".join(advice.lines)


def test_power_holds_on_cells_of_counts():
    """Log-normalised counts are neither normal nor alike between genes; the pilot is pseudobulk."""
    made = simulate_screen(4, n_perturbations=40, n_features=150, n_pathways=4)
    data = made.cells(4, n_batches=1)
    settings = pertwise.PseudobulkSettings(n_hvg=0)
    screen = pertwise.pseudobulk(data, settings)
    x = np.asarray(data.X.todense(), dtype=float)
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4)
    own = x[(data.obs["perturbation"] == "control").to_numpy()]
    n, m, size, level = 60, 240, 0.4, 0.01
    noise = screen_noise(screen)
    stated = float(t_power(size, noise.sd, n, m, level).mean())
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        a, b = own[rng.integers(len(own), size=n)] + size, own[rng.integers(len(own), size=m)]
        v = a.var(axis=0, ddof=1) / n + b.var(axis=0, ddof=1) / m
        tests = compare_to_control((a.mean(0) - b.mean(0))[None], v[None], np.array([n]))
        found.append(np.nanmean(np.where(np.isfinite(tests.p), tests.p < level, np.nan)))
    assert np.mean(found) == pytest.approx(stated, abs=0.05)


def test_power_by_hand():
    # alpha 0.05, many cells: error 0.1, effect 0.28 -> Phi(2.8 - 1.96) = 0.7995
    assert float(t_power(0.28, 10.0, 20_000, 20_000, 0.05)) == pytest.approx(0.7995, abs=2e-3)
    assert float(t_power(0.0, 1.0, 50, 50, 0.05)) == pytest.approx(0.05, abs=1e-6)
    assert float(t_power(50.0, 1.0, 50, 50, 0.05)) == 1.0
    # all power at level a: (1-c) a / ((1-c) a + c) = r
    level = fdr_level(100.0, 1.0, 50, 50, 0.05, 0.2)
    assert 0.8 * level / (0.8 * level + 0.2) == pytest.approx(0.05, rel=1e-3)
    assert fdr_level(1e-9, 1.0, 5, 5, 0.01, 1e-4) == 0.0
    assert null_share(np.linspace(0, 1, 1001)) == pytest.approx(1.0, abs=0.01)
    assert null_share([0.01] * 3 + [0.2, 0.7, 0.9, np.nan]) == pytest.approx(2 / 6 / 0.5)


def test_what_more_cells_or_more_perturbations_buy(pilot):
    screen, _ = pilot
    trade = design(screen, effect=0.5, changed=0.1, perturbations=16).trade.set_index("what")
    assert trade["total"].tolist()[0] == trade["cells"].iloc[0] * 16 + trade["controls"].iloc[0]
    same = trade.loc["twice the perturbations, same cells in all"]
    assert same["perturbations"] == 32
    assert same["power"] < trade["power"].iloc[0] < trade.loc["twice the cells", "power"]
    assert trade.loc["twice the perturbations", "found"] > 1.9 * trade["found"].iloc[0]


def test_a_budget_is_spent_and_not_exceeded(pilot):
    screen, _ = pilot
    given = {"effect": 0.5, "changed": 0.1}
    held = design(screen, budget_cells=20_000, **given).batch
    needed = design(screen, perturbations=held, **given)
    assert needed.cells * held + needed.controls <= 20_000
    more = design(screen, perturbations=held + 1, **given)
    assert more.cells * (held + 1) + more.controls > 20_000
    money = design(screen, budget=1000, cost_cell=0.05, **given)
    assert money.batch == held  # 20,000 cells at 0.05
    fewer = design(screen, budget=1000, cost_cell=0.05, cost_perturbation=5, **given)
    assert fewer.batch < held
    assert design(screen, budget_cells=3, **given).batch == 0
    with pytest.raises(InputError, match="cost of a cell"):
        design(screen, budget=10, **given)


def test_what_cannot_be_advised_is_said(pilot):
    bare = make_screen(np.ones((2, 3)), ["A", "B"], ["f", "g", "h"])
    with pytest.raises(InputError, match="pseudobulk records both"):
        design(bare)
    screen, _ = pilot
    for name, value in (("power", 1.0), ("fdr", 0.0), ("alpha", -1.0), ("changed", 2.0)):
        with pytest.raises(InputError, match=f"{name} must be between 0 and 1"):
            design(screen, **{name: value})
    with pytest.raises(InputError, match="effect must be a positive number"):
        design(screen, effect=-0.1)
    tiny = design(screen, effect=1e-6, changed=0.1)
    assert tiny.cells is None
    assert "is not seen" in " ".join(tiny.lines)


def test_command_and_plan_page(pilot, tmp_path):
    screen, _ = pilot
    screen.save(tmp_path / "pilot.h5ad")
    run = CliRunner().invoke(app, ["design", str(tmp_path / "pilot.h5ad"), "--effect", "0.5",
                                   "--budget-cells", "20000", "--json"])  # fmt: skip
    assert run.exit_code == 0, run.output
    told = json.loads(run.output)
    assert told["batch"] > 0
    assert told["effect"] == 0.5
    assert any("Jung 2005" in s for s in told["sources"])
    shown = CliRunner().invoke(app, ["design", str(tmp_path / "pilot.h5ad")])
    assert "twice the cells" in shown.output
    assert pertwise.design is design
    made = pertwise.plan(
        screen, FakeKnowledge(), candidates=["G000", "G001"], strategy="random", batch=2
    )
    assert made.design["perturbations"] == 2
    page = render_plan(made)
    assert "How many cells" in page
    assert "Dunnett 1955" in page
    bare = make_screen(np.ones((1, 3)), ["G005"], ["f", "g", "h"])
    without = pertwise.plan(bare, FakeKnowledge(), candidates=["G000"], strategy="random", batch=1)
    assert without.design == {}
    assert "How many cells" not in render_plan(without)
