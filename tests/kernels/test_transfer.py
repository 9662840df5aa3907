"""Other screens as kernels: posterior on their own line, hiding, signs, labels and ranks."""

import gzip

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.splits import SETTINGS, Split, asked_elsewhere
from pertwise.evaluate.units import run_unit
from pertwise.kernels.posterior import LinePosterior, components
from pertwise.kernels.transfer import (
    OtherScreen,
    measured_in,
    of_line,
    open_others,
    other_screens,
    without,
)
from pertwise.models.methods import make_method, placed_settings, setting_files
from pertwise.screen import make_screen, read_screen
from pertwise.screen.training import TrainingData


@pytest.fixture(scope="module")
def lines(simulated):
    """Two lines that share what each perturbation does, which knowledge says nothing about."""
    screen, knowledge = simulated
    rng = np.random.default_rng(7)
    names = list(screen.perturbations)
    hidden = rng.normal(size=(len(names), 3))
    here = hidden @ rng.normal(size=(3, 20)) + 0.1 * rng.normal(size=(len(names), 20))
    there = hidden @ rng.normal(size=(3, 9)) + 0.1 * rng.normal(size=(len(names), 9))
    one = make_screen(here, names, [f"a{i}" for i in range(20)], context="here")
    other = make_screen(there, names, [f"b{i}" for i in range(9)], context="there")
    return one, other, knowledge


def error(scores):
    return float(scores.loc[scores["metric"] == "mse", "value"].mean())


def test_unseen_anywhere_hides_the_held_out_in_other_screens(lines):
    one, other, knowledge = lines
    names = one.perturbations
    split = Split("folds", 0, 0, names[12:], names[:12])
    (seen,) = asked_elsewhere([split], names)
    metrics = MetricSpec(tops=(), retrieval=("l2",))
    done = {}
    for label, settings in {"alone": {}, "with": {"other": [other]}}.items():
        method = make_method("multi-kernel", label, **settings)
        for which in (split, seen):
            scores = run_unit(method, which, one, one, knowledge, metrics).scores
            done[label, which.elsewhere] = error(scores)
            word = SETTINGS["elsewhere" if which.elsewhere else "anywhere"]
            assert set(scores["setting"]) == {word}
    # Looking the answer up halves the error; where that is forbidden, nothing can be gained.
    assert done["with", True] < 0.5 * done["alone", True]
    assert done["with", False] > 0.9 * done["alone", False]


def test_hiding_removes_rows_under_any_name(lines):
    _one, other, knowledge = lines
    names = list(other.perturbations)
    kept = without({"L": other, "small": other.take([0, 1, 2])}, [names[0], "NOT+THERE"], knowledge)
    assert set(kept) == {"L"}
    assert names[0] not in kept["L"].perturbations
    assert measured_in(kept, names[:2], knowledge) == {"L": {names[1]}}

    class Spelt:
        def canonical(self, some):
            return {n: "APPROVED" for n in some if n in ("OLD", "APPROVED")}

    old = make_screen(np.eye(4, 3), ["OLD", "B", "C", "D"], ["x", "y", "z"])
    assert "OLD" not in without([old], ["APPROVED"], Spelt())["another line"].perturbations
    assert measured_in([old], ["APPROVED", "Z"], Spelt()) == {"another line": {"APPROVED"}}


def test_posterior_means_of_measured_genes_solve_the_normal_equations(lines):
    _, other, knowledge = lines
    data = TrainingData.from_screen(other, "test")
    line = LinePosterior(data, knowledge)
    k = sum(w * g for w, g in zip(line._fit.weights[1:], line._blocks.gram(), strict=True)) + float(
        line._fit.weights[0]
    )
    y = components(data.y).astype(float)
    want = k @ np.linalg.solve(k + line._fit.noise * np.eye(len(k)), y)
    np.testing.assert_allclose(line.expected, want, atol=1e-4)
    # What is kept lies between the posterior mean and the measurement, 0.3 of the way back.
    np.testing.assert_allclose(line.kept, y + 0.3 * (want - y), atol=1e-4)
    assert line.predict(["TP53", "NOSUCHGENE"]).shape == (2, y.shape[1])
    assert line.expected.dtype == np.float32


def test_every_gene_has_an_expectation_and_only_measured_ones_a_measurement(lines):
    _, other, knowledge = lines
    names = list(other.perturbations)
    source = OtherScreen(other.hide(names[:5]), knowledge=knowledge)
    assert source.kinds == (
        "there: expected", "there: expected, near", "there: measured", "there: measured, near",
    )  # fmt: skip
    for kind in source.kinds:
        rows = source.rows(kind, names).toarray()
        known = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(known[5:], 1.0, atol=1e-5)
        assert (known[:5] > 0.99).all() if "expected" in kind else not rows[:5].any()
        # A row does not depend on who else is asked for.
        np.testing.assert_allclose(source.rows(kind, names[3:7]).toarray(), rows[3:7], atol=1e-6)
    assert not any(
        "measured" in k for k in OtherScreen(other, knowledge=knowledge, look_up=False).kinds
    )
    assert not any(source.rows(kind, ["NOSUCHGENE"]).nnz for kind in source.kinds)
    assert OtherScreen(other).kinds == ("there: measured", "there: measured, near")
    with pytest.raises(InputError, match="at least 3"):
        OtherScreen(other.take([0, 1]))


def test_components_keep_products_and_take_gaps_for_the_mean():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(6, 200))
    np.testing.assert_allclose(components(y), y, rtol=1e-5)
    wide = rng.normal(size=(100, 5)) @ rng.normal(size=(5, 300))
    few = components(wide, 8)
    assert few.shape == (100, 8)
    np.testing.assert_allclose(few @ few.T, wide @ wide.T, rtol=1e-3, atol=1e-2)
    gaps = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 8.0]])
    np.testing.assert_allclose(components(gaps), [[-1, 0], [1, -2], [0, 2]])


def test_signs_labels_and_ranks_are_screens(tmp_path, lines):
    _, other, knowledge = lines
    names = list(other.perturbations)[:6]
    labels = tmp_path / "line-dir.csv.gz"
    rows = [
        f"{p},G{j},{(i + j) % 2},train" for i, p in enumerate(names) for j in range(4) if i != j
    ]
    with gzip.open(labels, "wt") as file:
        file.write("pert,gene,label,split\n" + "\n".join(rows) + "\n")
    ranks = tmp_path / "up.tsv"
    lists = [f"{p}\t{','.join(f'G{(i + j) % 7}' for j in range(5))}" for i, p in enumerate(names)]
    ranks.write_text("perturbation\tranked\n" + "\n".join(lists) + "\n")
    found = open_others({"A": labels, "B": str(ranks), "C": other})
    assert list(found) == ["A", "B", "C"]
    signs = read_screen(labels)
    assert signs.n_features == 4
    assert np.isnan(signs.responses).sum() == 4
    assert np.nanmax(signs.responses) == 1.0
    made = other_screens(knowledge, found)
    assert [m.label for m in made] == ["A", "B", "C"]
    assert other_screens(knowledge, found) == made  # fitted once
    two = open_others([labels, labels])
    assert list(two) == ["line-dir", "line-dir (2)"]


def test_several_contexts_of_a_file_are_several_screens(lines):
    _one, other, _ = lines
    from pertwise.screen.join import join_screens

    same = make_screen(other.responses, list(other.perturbations), list(other.features))
    joined = join_screens({"K": same, "R": same})
    assert list(open_others(joined)) == ["K", "R"]
    assert list(open_others({"mine": joined})) == ["mine K", "mine R"]
    assert [of_line(x, "K562") for x in ("K562 programs", "k562", "RPE1")] == [True, True, False]
    assert not of_line("K562", "")


@pytest.mark.parametrize(
    "method", ["kernel-ridge", "multi-kernel", "stacked", "cross-line-transfer", "kernel-vote"]
)
def test_methods_take_other_screens(method, lines):
    one, other, knowledge = lines
    names = one.perturbations
    few = {"n_trees": 20} if method == "stacked" else {}
    model = parts.load("predictor", method, other={"X": other.hide(names[:2])}, **few)
    found = model.fit(one.hide(names[:4]), knowledge).predict(names[:4])
    assert found.perturbations == tuple(names[:4])
    assert np.isfinite(found.mean).all()
    alone = model.predict(names[2:3])
    np.testing.assert_allclose(alone.mean[0], found.mean[2], rtol=1e-4, atol=1e-5)


def test_files_of_lists_and_tables_are_found_placed_and_read_at_once(tmp_path, lines):
    _, other, _ = lines
    for name in ("a.h5ad", "b.h5ad"):
        other.save(tmp_path / name)
    both = [str(tmp_path / "a.h5ad"), str(tmp_path / "b.h5ad")]
    assert setting_files("stacked", {"other": both}) == both
    assert setting_files("fused", {"other": {"X": both[0]}}) == both[:1]
    placed = placed_settings("multi-kernel", {"other": {"X": "a", "Y": "b"}}, lambda x: f"/f/{x}")
    assert placed == {"other": {"X": "/f/a", "Y": "/f/b"}}
    assert len(make_method("multi-kernel", other=both).files) == 2
    broken = tmp_path / "broken.csv"
    broken.write_text("1,2\n3,4\n")
    with pytest.raises(InputError, match=r"broken\.csv"):
        make_method("multi-kernel", other=[str(broken)])
    with pytest.raises(InputError, match=r"no such file.*absent\.csv"):
        make_method("multi-kernel", other=[str(tmp_path / "absent.csv")])
