import numpy as np
import pytest
from scipy import stats

from pertwise.errors import InputError
from pertwise.screen import make_screen, simulate_screen
from pertwise.screen.degs import adjust_fdr, compare_to_control, differential_features


def test_statistic_is_welchs_and_p_is_not_smaller():
    rng = np.random.default_rng(0)
    cells, control = rng.normal(0.3, 1, (12, 50)), rng.normal(0, 1, (200, 50))
    delta = cells.mean(0) - control.mean(0)
    variance = cells.var(0, ddof=1) / 12 + control.var(0, ddof=1) / 200
    got = compare_to_control(delta[None], variance[None], [12])
    t, p = stats.ttest_ind(cells, control, equal_var=False)
    np.testing.assert_allclose(got.t[0], t)
    assert (got.p[0] >= p - 1e-12).all()
    np.testing.assert_allclose(got.p[0], p, atol=0.02)


def test_q_by_hand_with_a_gap():
    q = adjust_fdr([[0.01, np.nan, 0.04, 0.03]])
    # m = 3: 0.01 * 3/1, min(0.03 * 3/2, 0.04 * 3/3) = 0.04, 0.04.
    np.testing.assert_allclose(q, [[0.03, np.nan, 0.04, 0.04]])


def test_what_cannot_be_tested_is_nan():
    got = compare_to_control([[1.0, np.nan], [1.0, 1.0]], [[0.0, 1.0], [1.0, 1.0]], [5, 1])
    assert np.isnan(got.p[0]).all()
    assert np.isnan(got.p[1]).all()
    normal = compare_to_control([[1.96]], [[1.0]])
    assert normal.kind == "normal"
    assert normal.p[0, 0] == pytest.approx(0.05, abs=1e-3)


def test_false_discoveries_are_controlled_and_effects_found():
    made = simulate_screen(0, n_perturbations=60, n_features=200, n_pathways=4)
    table = differential_features(made.screen, q_below=0.1)
    names = list(made.screen.obs.index)
    column = {f: i for i, f in enumerate(made.screen.features)}
    effect = made.truth.effect
    size = np.array(
        [
            abs(effect[names.index(p), column[f]])
            for p, f in zip(table["perturbation"], table["feature"], strict=True)
        ]
    )
    # Nearly everything found has a true effect beyond the diffuse background.
    assert (size < 0.01).mean() < 0.1
    assert len(table) > 500
    assert (
        table.groupby("perturbation")["t"].apply(lambda t: (-t.abs()).is_monotonic_increasing)
    ).all()
    assert not (table["perturbation"] == table["feature"]).any()
    with_own = differential_features(made.screen, q_below=0.1, own_target=True)
    assert (with_own["perturbation"] == with_own["feature"]).any()
    assert differential_features(made.screen, top=3)["rank"].max() == 3


def test_screen_without_variance_says_what_to_do():
    screen = make_screen(np.ones((1, 2)), ["A"], ["f", "g"])
    with pytest.raises(InputError, match=r"need the sampling variance.*pertwise screen pseudobulk"):
        differential_features(screen)
    with pytest.raises(InputError, match="shape"):
        compare_to_control([[1.0]], [[1.0, 2.0]])
    with pytest.raises(InputError, match="negative"):
        compare_to_control([[1.0]], [[-1.0]])
