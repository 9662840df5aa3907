"""One suite every predictor runs through.

Use: ``check_predictor(lambda: MyPredictor())`` in a test, or parametrise over `CHECKS` to see each
one by name. `knowledge` is passed to `fit` as it is. `unknown_fallback=False` is for methods that
know every name (a constant): they may answer an unknown name without declaring a fallback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pertwise.knowledge import Knowledge
from pertwise.models import Prediction, Predictor
from pertwise.screen import Screen
from pertwise.screen.core import make_screen

Factory = Callable[[], Predictor]
UNKNOWN = "NOSUCHGENE1"


def example_screen(n: int = 24, d: int = 12, seed: int = 0, names: tuple[str, ...] = ()) -> Screen:
    """A simulated screen with a shared response, groups of similar perturbations and NaN."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(4, d))
    x = 0.5 * rng.normal(size=d) + groups[np.arange(n) % 4] + 0.2 * rng.normal(size=(n, d))
    x[1, 2] = np.nan
    x[5, 7:9] = np.nan
    labels = list(names[:n]) if names else [f"G{i:03d}" for i in range(n)]
    return make_screen(x, labels, [f"f{i}" for i in range(d)], meta={"simulated": True})


def _fit(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> Predictor:
    return factory().fit(screen, knowledge)


def _split(screen: Screen) -> tuple[Screen, list[str]]:
    held_out = list(screen.perturbations[-4:])
    return screen.hide(held_out), held_out


def _same(a: Prediction, b: Prediction, tolerance: float = 0.0) -> None:
    first: Any = a.mean
    np.testing.assert_allclose(first, b.mean, rtol=tolerance, atol=tolerance)
    assert (a.spread is None) == (b.spread is None)
    if a.spread is not None and b.spread is not None:
        spread: Any = a.spread
        np.testing.assert_allclose(spread, b.spread, rtol=tolerance, atol=tolerance)


def check_shapes(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """Names, shapes, dtypes and the columns of support are as the contract says."""
    train, held_out = _split(screen)
    model = factory()
    assert isinstance(model, Predictor)
    assert isinstance(model.name, str)
    assert model.name
    assert model.fit(train, knowledge) is model, "fit must return self"
    p = model.predict(held_out)
    assert isinstance(p, Prediction)
    assert p.perturbations == tuple(held_out)
    assert p.features == screen.features
    assert p.mean.dtype == np.float32
    assert list(p.support.index) == held_out
    assert (p.support["n_support"] >= 0).all()
    assert p.support["fallback"].map(lambda v: isinstance(v, str)).all()
    if p.spread is not None:
        assert (p.spread >= 0).all()
        assert np.isfinite(p.spread).all()
    if p.neighbours is not None:
        assert {"perturbation", "neighbour", "rank", "weight"} <= set(p.neighbours.columns)
        assert set(p.neighbours["perturbation"]) <= set(held_out)
        assert set(p.neighbours["neighbour"]) <= set(train.perturbations)
    if p.members is not None:
        assert p.members.shape[1:] == p.mean.shape


def check_deterministic(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """Two fits give the same bits; predicting twice changes nothing."""
    train, held_out = _split(screen)
    model = _fit(factory, train, knowledge)
    first = model.predict(held_out)
    _same(first, model.predict(held_out))
    _same(first, _fit(factory, train, knowledge).predict(held_out))


def check_row_order(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """The order of the training rows does not matter."""
    train, held_out = _split(screen)
    order = np.random.default_rng(3).permutation(len(train))
    a = _fit(factory, train, knowledge).predict(held_out)
    b = _fit(factory, train.take(order), knowledge).predict(held_out)
    _same(a, b, tolerance=2e-4)


def check_query_order(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """Each answer depends on its own name only, not on what else is asked."""
    train, held_out = _split(screen)
    model = _fit(factory, train, knowledge)
    together = model.predict(held_out)
    backwards = model.predict(held_out[::-1])
    np.testing.assert_allclose(together.mean, backwards.mean[::-1], rtol=1e-5, atol=1e-5)
    for i, name in enumerate(held_out):
        np.testing.assert_allclose(
            together.mean[i], model.predict([name]).mean[0], rtol=1e-5, atol=1e-5
        )


def check_nan_targets(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """NaN targets are ignored: predictions stay finite, an all-NaN row changes nothing."""
    train, held_out = _split(screen)
    assert np.isnan(train.responses).any(), "the example must hold NaN for this check to bite"
    a = _fit(factory, train, knowledge).predict(held_out)
    assert np.isfinite(a.mean).all()
    with_empty = np.array(screen.responses)
    keep = np.isin(screen.obs["perturbation"], held_out)
    with_empty[keep] = np.nan
    blanked = make_screen(with_empty, list(screen.obs["perturbation"]), list(screen.features))
    _same(a, _fit(factory, blanked, knowledge).predict(held_out), tolerance=2e-4)


def check_unknown_name(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """An unknown name is answered with a declared fallback, never left out."""
    train, held_out = _split(screen)
    p = _fit(factory, train, knowledge).predict([held_out[0], UNKNOWN])
    assert p.perturbations == (held_out[0], UNKNOWN)
    assert np.isfinite(p.mean).all()
    assert p.support["fallback"].iloc[1] != "", "an unknown name must declare its fallback"


def check_inputs_untouched(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """Fit and predict change neither the screen nor the list of names."""
    train, held_out = _split(screen)
    before = np.array(train.responses)
    obs = train.obs.copy(deep=True)
    names = list(held_out)
    _fit(factory, train, knowledge).predict(names)
    np.testing.assert_array_equal(before, train.responses)
    assert obs.equals(train.obs)
    assert names == held_out


def check_single_row(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """One training perturbation is enough to answer (with that response or a fallback)."""
    train, held_out = _split(screen)
    p = _fit(factory, train.take([0]), knowledge).predict(held_out)
    assert p.mean.shape == (len(held_out), screen.n_features)
    assert np.isfinite(p.mean).all()


def check_nothing_asked(factory: Factory, screen: Screen, knowledge: Knowledge | None) -> None:
    """An empty list of names gives an empty prediction."""
    train, _ = _split(screen)
    p = _fit(factory, train, knowledge).predict([])
    assert p.mean.shape == (0, screen.n_features)


CHECKS = {
    "shapes": check_shapes,
    "deterministic": check_deterministic,
    "row_order": check_row_order,
    "query_order": check_query_order,
    "nan_targets": check_nan_targets,
    "unknown_name": check_unknown_name,
    "inputs_untouched": check_inputs_untouched,
    "single_row": check_single_row,
    "nothing_asked": check_nothing_asked,
}


def check_predictor(
    factory: Factory,
    screen: Screen | None = None,
    knowledge: Knowledge | None = None,
    *,
    unknown_fallback: bool = True,
) -> None:
    """Run every check; raises AssertionError at the first that fails."""
    data = example_screen() if screen is None else screen
    for name, check in CHECKS.items():
        if name == "unknown_name" and not unknown_fallback:
            continue
        check(factory, data, knowledge)
