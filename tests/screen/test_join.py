import numpy as np
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.screen import make_screen, read_screen
from pertwise.screen.core import Screen, make_obs
from pertwise.screen.join import join, join_screens


def test_screens_of_two_lines_become_one_of_two_contexts():
    a = make_screen([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ["A", "B"], ["f", "g", "h"])
    b = make_screen([[7.0, 8.0]], ["A"], ["g", "f"], context="RPE1", control_mean=[[1.0, 2.0]])
    both = join_screens({"K562": a, "x": b})
    assert both.contexts == ("K562", "RPE1")
    assert both.features == ("f", "g")
    assert list(both.obs.index) == ["A|K562", "B|K562", "A|RPE1"]
    np.testing.assert_array_equal(both.responses, [[1, 2], [4, 5], [8, 7]])
    np.testing.assert_array_equal(both.control_mean[1], [2, 1])


def test_what_cannot_be_joined_is_told():
    a = make_screen([[1.0]], ["A"], ["f"], context="L")
    with pytest.raises(InputError, match="stands in two"):
        join_screens({"a": a, "b": a})
    with pytest.raises(InputError, match="no feature in common"):
        join_screens({"a": a, "b": make_screen([[1.0]], ["A"], ["g"])})
    ranked = make_screen([[1.0]], ["A"], ["f"], context="M", meta={"ranked": True})
    with pytest.raises(InputError, match="ranks and another screen magnitudes"):
        join_screens({"a": a, "b": ranked})
    with pytest.raises(InputError, match="no screen"):
        join_screens({})


# -- rounds ----------------------------------------------------------------------------------------


def round_of(names, y, features, *, control, cells=20.0, variance=0.04, m=100, **meta):
    """A pseudobulk screen of one line."""
    y = np.asarray(y, dtype=np.float32)
    v = np.full(y.shape, variance, dtype=np.float32)
    return Screen(
        responses=y,
        obs=make_obs(
            names,
            context="K562",
            n_cells=[cells] * len(names),
            sampling_variance=[variance * y.shape[1]] * len(names),
        ),
        features=tuple(features),
        control_mean=np.array([control], dtype=np.float32),
        sampling_variance=v,
        meta={
            "unit": "log-normalised expression",
            "target_sum": 1e4,
            "control_cells": {"K562": m},
            "source": "round",
            "notes": ["own note"],
        }
        | meta,
    )


@pytest.fixture
def rounds():
    one = round_of(["A", "B"], [[1, 2, 3], [4, 5, 6]], ["f", "g", "h"], control=[1, 2, 3])
    two = round_of(["C"], [[7, 8, 9]], ["h", "f", "x"], control=[4, 1, 9], m=300, variance=0.01)
    return {"r1": one, "r2": two}


def test_intersection_and_union_of_features(rounds):
    both = join(rounds)
    assert both.features == ("f", "h")
    np.testing.assert_array_equal(both.responses, [[1, 3], [4, 6], [8, 7]])
    assert list(both.obs.index) == ["A", "B", "C"]
    assert list(both.obs["experiment"]) == ["r1", "r1", "r2"]
    np.testing.assert_allclose(both.sampling_variance[:, 0], [0.04, 0.04, 0.01])
    # the sum is that of the two features that are left
    np.testing.assert_allclose(both.obs["sampling_variance"], [0.08, 0.08, 0.02], rtol=1e-6)
    every = join(rounds, features="union")
    assert every.features == ("f", "g", "h", "x")
    np.testing.assert_array_equal(every.responses[2], [8, np.nan, 7, 9])
    assert np.isnan(every.sampling_variance[2, 1])
    np.testing.assert_allclose(every.obs["sampling_variance"], [0.12, 0.12, 0.03], rtol=1e-6)


def test_controls_are_kept_apart_and_their_difference_is_told(rounds):
    both = join(rounds)
    # weighted by 100 and 300 control cells
    np.testing.assert_allclose(both.control_mean, [[1.0, (3 * 100 + 4 * 300) / 400]])
    assert both.meta["control_cells"] == {"K562": 400}
    np.testing.assert_array_equal(both.feature_table["control_mean[r1|K562]"], [1, 3])
    np.testing.assert_array_equal(both.feature_table["control_mean[r2|K562]"], [1, 4])
    assert both.meta["experiments"]["r2"]["control_cells"] == {"K562": 300}
    assert "own note" in both.meta["notes"]
    wide = {
        n: round_of(["ABC"[i]], np.ones((1, 4)), "fghi", control=c)
        for i, (n, c) in enumerate({"r1": [1, 2, 3, 4], "r2": [1, 2, 3, 6]}.items())
    }
    effect = join(wide).meta["batch_effect"]
    assert len(effect) == 1
    assert effect[0]["rms"] == pytest.approx(1.0)  # sqrt(2^2 / 4)
    assert next(iter(effect[0]["most"])) == "i"
    assert any("differ between r1 and r2 by 1 " in n for n in join(wide).meta["notes"])


def test_a_joined_screen_is_saved_and_joined_again(rounds, tmp_path):
    both = join(rounds, features="union")
    both.save(tmp_path / "both.h5ad")
    again = read_screen(tmp_path / "both.h5ad")
    np.testing.assert_array_equal(again.responses, both.responses)
    assert list(again.feature_table.columns) == list(both.feature_table.columns)
    third = round_of(["D"], [[0, 1]], ["f", "h"], control=[1, 3])
    three = join({"earlier": again, "r3": third})
    assert list(three.obs["experiment"]) == ["r1", "r1", "r2", "r3"]
    assert set(three.meta["experiments"]) == {"r1", "r2", "r3"}
    assert three.meta["control_cells"] == {"K562": 500}


def test_a_perturbation_of_two_rounds_needs_a_rule(rounds):
    two = round_of(["B"], [[8, 9, 10]], ["f", "g", "h"], control=[1, 2, 3], cells=60, variance=0.01)
    given = {"r1": rounds["r1"], "r2": two}
    with pytest.raises(InputError, match=r"'B' \(context 'K562'\).*--duplicates"):
        join(given)
    mean = join(given, duplicates="average")
    assert list(mean.obs.index) == ["A", "B"]
    # weights 1 / 0.04 and 1 / 0.01: 0.2 and 0.8
    np.testing.assert_allclose(mean.responses[1], [7.2, 8.2, 9.2], rtol=1e-6)
    np.testing.assert_allclose(mean.sampling_variance[1], 0.2**2 * 0.04 + 0.8**2 * 0.01, rtol=1e-5)
    assert mean.obs.loc["B", "n_cells"] == 80
    assert mean.obs.loc["B", "experiment"] == "r1 + r2"
    assert any("1 perturbations stand in several experiments" in n for n in mean.meta["notes"])
    assert list(join(given, duplicates="first").responses[1]) == [4, 5, 6]
    assert list(join(given, duplicates="last").responses[1]) == [8, 9, 10]


def test_an_average_over_a_union_takes_what_there_is(rounds):
    two = round_of(["B"], [[8, 9]], ["f", "x"], control=[1, 2], variance=0.04)
    mean = join({"r1": rounds["r1"], "r2": two}, features="union", duplicates="average")
    assert mean.features == ("f", "g", "h", "x")
    np.testing.assert_allclose(mean.responses[1], [6, 5, 6, 9])
    np.testing.assert_allclose(mean.sampling_variance[1], [0.02, 0.04, 0.04, 0.04], rtol=1e-5)


def test_scales_units_and_names_that_do_not_fit_are_refused(rounds):
    other = round_of(["D"], [[1, 1]], ["f", "h"], control=[1, 3], target_sum=1e6)
    with pytest.raises(InputError, match=r"counts a cell was scaled to is 10000.0 .* 1000000.0"):
        join({"a": rounds["r1"], "b": other})
    units = round_of(["D"], [[1, 1]], ["f", "h"], control=[1, 3], unit="z-score")
    with pytest.raises(InputError, match="unit is 'log-normalised expression'"):
        join({"a": rounds["r1"], "b": units})
    names = [f"f{i}" for i in range(60)]
    low = round_of(["A"], np.ones((1, 60)), names, control=np.log1p(np.ones(60)), target_sum=None)
    high = round_of(["B"], np.ones((1, 60)), names, control=np.log1p(np.full(60, 100.0)))
    with pytest.raises(InputError, match=r"two scales: their controls sum to 6000 and 60 over"):
        join({"low": low, "high": high})
    unnamed = make_screen([[1.0, 2.0]], ["Z"], ["f", "h"], meta={"unit": rounds["r1"].meta["unit"]})
    with pytest.raises(InputError, match=r"'K562' and 'z' names none.*--context"):
        join({"a": rounds["r1"], "z": unnamed})
    named = join({"a": rounds["r1"], "z": unnamed}, context="K562")
    assert named.contexts == ("K562",)
    assert np.isnan(named.sampling_variance[2]).all()
    for wrong in ({"features": "all"}, {"duplicates": "sum"}):
        with pytest.raises(InputError, match="must be one of"):
            join(rounds, **wrong)


def test_anndata_concat_of_screens_is_refused_in_words(rounds, tmp_path):
    import anndata

    data = [s.to_anndata() for s in rounds.values()]
    with pytest.raises(InputError, match="pertwise screen join"):
        read_screen(anndata.concat(data))
    whole = anndata.concat(data, join="outer", uns_merge="first")
    with pytest.raises(InputError, match="pertwise screen join"):
        read_screen(whole)
    file = tmp_path / "both.h5ad"
    anndata.concat(data).write_h5ad(file)
    with pytest.raises(InputError, match="pertwise screen join"):
        read_screen(file)
    # rows of one context with all that belongs to them are a screen
    one = data[0][["B"]].copy()
    assert read_screen(one).perturbations == ("B",)


def test_the_command_joins_files(rounds, tmp_path):
    for name, screen in rounds.items():
        screen.save(tmp_path / f"{name}.h5ad")
    files = [str(tmp_path / f"{n}.h5ad") for n in rounds]
    out = tmp_path / "both.h5ad"
    run = CliRunner().invoke(app, ["screen", "join", *files, "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "2 experiments joined on 2 features" in run.output
    assert read_screen(out).obs["experiment"].tolist() == ["r1", "r1", "r2"]
    other = tmp_path / "other.h5ad"
    assert CliRunner().invoke(app, ["screen", "join", *files, str(other)]).exit_code == 0
    refused = CliRunner().invoke(app, ["screen", "join", *files])
    assert isinstance(refused.exception, InputError)
    assert "is there already" in str(refused.exception)
