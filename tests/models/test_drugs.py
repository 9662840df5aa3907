import numpy as np
import pytest
from drug_example import DRUGS, LINES, cell_table, drug_screen, drug_table

from pertwise.arrays.gaussian_process import fit_weights
from pertwise.errors import InputError
from pertwise.kernels.drugs import (
    NeighbourSimilarity,
    chemistry_similarity,
    mechanism_similarity,
)
from pertwise.models.base import Prediction
from pertwise.models.drugs import (
    CellMean,
    DrugMean,
    DrugPlusCell,
    DrugPredictor,
    Lines,
    Training,
    line_means,
)
from pertwise.models.drugs_dose import RULES, DosePredictor
from pertwise.models.drugs_linear import FingerprintRidge
from pertwise.models.drugs_lines import borrowed_line, retrieve
from pertwise.models.drugs_ridge import (
    DrugKernelRidge,
    best_scale,
    block_scales,
    component_block,
    group_folds,
    pair_kernels,
    principal_axes,
)
from pertwise.screen import make_screen
from pertwise.screen.core import Screen, make_obs
from pertwise.select.drugs import DrugSelector

TABLE = drug_table()
SCREEN = drug_screen()
HELD = ["Vorinostat", "Gefitinib"]
CHEMISTRY, MECHANISM = chemistry_similarity(TABLE), mechanism_similarity(TABLE)
COMPOUNDS = TABLE.compounds(SCREEN.perturbations)


METHODS = {
    "cell mean": lambda: CellMean(cells=cell_table()),
    "cell mean shrunk": lambda: CellMean(prior=3.0),
    "drug mean": lambda: DrugMean(),
    "drug + cell": lambda: DrugPlusCell(),
    "PCA + ridge": lambda: FingerprintRidge(CHEMISTRY, n_components=5, compounds=COMPOUNDS),
    "chemistry kNN": lambda: retrieve(DrugSelector(CHEMISTRY), k=3, cells=cell_table()),
    "mechanism kNN": lambda: retrieve(DrugSelector(MECHANISM, above=0.3), k=3),
    "kernel ridge": lambda: DrugKernelRidge(
        [CHEMISTRY, MECHANISM], compounds=COMPOUNDS, cells=cell_table()
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_contract(name):
    """Every method answers known and unknown drugs and lines, states fallbacks, is stable."""
    model = METHODS[name]()
    assert isinstance(model, DrugPredictor)
    train = SCREEN.hide(HELD)
    before = np.array(train.responses)
    assert model.fit(train) is model
    asked = [*HELD, "NoSuchDrug", "Ethanol"]
    found = model.predict(asked, "A549")
    assert isinstance(found, Prediction)
    assert found.perturbations == tuple(asked)
    assert found.mean.dtype == np.float32
    assert np.isfinite(found.mean).all()
    np.testing.assert_array_equal(before, train.responses)
    if name not in ("cell mean", "cell mean shrunk"):
        assert "cell mean" in found.support.loc["NoSuchDrug", "fallback"]
        np.testing.assert_allclose(
            found.mean[2],
            model.lines.mean("A549")[0],
            atol=1e-5,
        )
    alone = model.predict(["Ethanol"], "A549")
    np.testing.assert_allclose(found.mean[3], alone.mean[0], atol=1e-5)
    order = np.random.default_rng(0).permutation(len(train))
    other = METHODS[name]().fit(train.take(order)).predict(asked, "A549")
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-4)
    borrowed = model.predict(asked, "SW480")
    assert np.isfinite(borrowed.mean).all()
    assert borrowed.support["fallback"].str.contains("line not measured").any()
    assert model.predict([], "A549").mean.shape == (0, SCREEN.n_features)


def test_unfitted_and_empty_are_told():
    with pytest.raises(InputError, match="call fit first"):
        CellMean().predict(["a"], "A549")
    empty = make_screen(np.full((2, 3), np.nan), ["a", "b"], ["x", "y", "z"])
    with pytest.raises(InputError, match="no measured response"):
        CellMean().fit(empty)


def test_several_doses_are_refused_with_advice():
    obs = make_obs(["a", "a"], context="X", dose=[1.0, 5.0])
    screen = Screen(
        np.ones((2, 2), np.float32), obs, ("f", "g"), np.full((1, 2), np.nan, np.float32)
    )
    with pytest.raises(InputError, match="several doses"):
        CellMean().fit(screen)


def test_line_means_by_hand():
    y = np.array([[1.0, np.nan], [3.0, np.nan], [8.0, 4.0]])
    line = np.array([0, 0, 1])
    np.testing.assert_allclose(line_means(y, line, 2), [[2, 4], [8, 4]])
    # Mean of the line means 5 and 4; two pseudo-rows of it.
    expected = [[(4 + 2 * 5) / 4, 4], [(8 + 2 * 5) / 3, (4 + 2 * 4) / 3]]
    np.testing.assert_allclose(line_means(y, line, 2, prior=2.0), expected)
    np.testing.assert_allclose(line_means(np.full((1, 2), np.nan), np.array([0]), 1), [[0, 0]])


def test_related_lines_carry_an_unmeasured_one():
    lines = Lines(LINES, np.arange(8.0).reshape(4, 2), cell_table(), n_related=5)
    weights = lines.related("SW480")
    assert weights == {"HCT116": pytest.approx(2 / 3), "A549": pytest.approx(1 / 3)}
    mean, note = lines.mean("SW480")
    np.testing.assert_allclose(mean, 2 / 3 * lines.means[1] + 1 / 3 * lines.means[0])
    assert "borrowed from 2 lines (HCT116, A549)" in note
    assert Lines(LINES, lines.means).related("odd") == dict.fromkeys(LINES, 0.25)
    assert lines.mean("MCF7")[1] == ""


def test_drug_mean_and_additive_by_hand():
    y = np.array([[1.0, 1.0], [3.0, 3.0], [0.0, 2.0], [4.0, 6.0]])
    screen = make_screen(y, ["a", "b", "a", "b"], ["f", "g"], context=["X", "X", "Y", "Y"])
    held = screen.take([1, 2, 3])  # a is measured in Y only
    np.testing.assert_allclose(DrugMean().fit(held).predict(["a"], "X").mean, [[0, 2]])
    # Y mean (2, 4), a deviates by (-2, -2) in one line: half of it counts; X mean (3, 3).
    np.testing.assert_allclose(DrugPlusCell().fit(held).predict(["a"], "X").mean, [[2, 2]])
    own = DrugMean().fit(screen).predict(["a"], "X")
    np.testing.assert_allclose(own.mean, [[0, 2]])
    assert own.support["n_support"].tolist() == [1]


def test_retrieval_is_the_mean_of_the_named_drugs_in_the_same_line():
    model = retrieve(DrugSelector(MECHANISM, above=0.9), k=10).fit(SCREEN.hide(["Vorinostat"]))
    found = model.predict(["Vorinostat"], "MCF7")
    line = SCREEN.in_context("MCF7")
    rows = line.obs["perturbation"].isin(["Belinostat", "Panobinostat"]).to_numpy()
    np.testing.assert_allclose(found.mean[0], line.responses[rows].mean(axis=0), atol=1e-5)
    assert found.support.loc["Vorinostat", "n_support"] == 2
    assert set(found.neighbours["neighbour"]) == {"Belinostat", "Panobinostat"}


def test_a_line_with_fewer_than_k_drugs_uses_what_there_is():
    obs = SCREEN.obs
    few = (obs["context"] != "K562") | obs["perturbation"].isin(["Belinostat", "Aspirin"])
    model = retrieve(DrugSelector(CHEMISTRY), k=10).fit(SCREEN.take(few.to_numpy()))
    found = model.predict(["Vorinostat", "Aspirin"], "K562")
    assert found.support["n_support"].max() <= 2
    assert found.support["n_support"].min() >= 1


def test_borrowed_pool_of_an_unmeasured_line():
    data = Training.of(SCREEN)
    means = line_means(data.responses, data.line, len(data.lines))
    lines = Lines(data.lines, means, cell_table())
    pool = borrowed_line(data, lines, "SW480")
    assert set(pool.perturbations) == set(SCREEN.perturbations)
    assert pool.contexts == ("SW480",)
    assert sorted(pool.meta["borrowed"]) == ["A549", "HCT116"]
    rest = []
    for name in ("A549", "HCT116"):
        own = SCREEN.in_context(name)
        row = own.responses[list(own.obs["perturbation"]).index("Caffeine")]
        rest.append(row - means[data.lines.index(name)])
    expected = lines.mean("SW480")[0] + np.mean(rest, axis=0)
    at = list(pool.obs["perturbation"]).index("Caffeine")
    np.testing.assert_allclose(pool.responses[at], expected, atol=1e-5)
    own = borrowed_line(data, lines, "MCF7")
    np.testing.assert_allclose(
        own.of_perturbations(SCREEN.perturbations).responses,
        SCREEN.in_context("MCF7").responses,
        atol=1e-5,
    )


def test_group_folds_keep_groups_and_ignore_order():
    groups = ["a", "b", "a", "c", "d", "e", "b"]
    fold = group_folds(groups, 3, seed=1)
    assert fold[0] == fold[2]
    assert fold[1] == fold[6]
    back = group_folds(groups[::-1], 3, seed=1)[::-1]
    np.testing.assert_array_equal(fold, back)
    assert set(fold) == {0, 1, 2}


def test_pair_kernels_and_scale_by_hand():
    k = pair_kernels(np.array([[[1.0, 0.5]]]), np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(k, [[[1, 0.5]], [[1, 0]], [[1, 0]]])
    assert best_scale(2.0, 4.0) == 0.5
    assert best_scale(-1.0, 4.0) == 0.0
    assert best_scale(0.0, 0.0) == 0.0


def test_block_scales_keep_only_differences_that_the_folds_agree_on():
    square = np.ones((5, 3))
    sure = np.tile([1.5, 1.0, 0.2], (5, 1)) + 0.01 * np.arange(5)[:, None]
    np.testing.assert_allclose(block_scales(sure, square), [1.52, 1.02, 0.22], atol=0.01)
    # The same means with folds that disagree: all blocks get the common scale.
    noise = np.array([3.0, -2.0, 0.5, -3.0, 1.5])[:, None]
    unsure = np.tile([1.1, 1.0, 0.9], (5, 1)) + noise * [[1.0, -1.0, 1.0]]
    np.testing.assert_allclose(block_scales(unsure, square), 1.0, atol=1e-6)
    never = block_scales(
        np.column_stack([sure, np.zeros(5)]), np.column_stack([square, np.zeros(5)])
    )
    assert never[3] == pytest.approx(best_scale(float(sure.sum()), 15.0))
    np.testing.assert_array_equal(block_scales(-sure, square), [0, 0, 0])
    np.testing.assert_array_equal(block_scales(np.zeros((5, 2)), np.zeros((5, 2))), [0, 0])


def test_an_unmeasured_line_mixes_its_related_lines_in_the_kernel():
    model = DrugKernelRidge([CHEMISTRY], cells=cell_table()).fit(SCREEN)
    data = model.training
    line = np.array([data.lines.index(n) for n in ("A549", "MCF7", "K562")])
    same = model._line_weights(data, line, line)
    np.testing.assert_array_equal(same, np.eye(3))
    mixed = model._line_weights(data, np.array([data.lines.index("HCT116")]), line)
    np.testing.assert_allclose(mixed, [[1, 0, 0]])


def test_component_blocks_and_axes():
    blocks = component_block(300)
    assert blocks[:9].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert blocks[127] == 7
    assert blocks[128] == 8
    assert blocks[256] == blocks[299] == 9
    x = np.random.default_rng(0).normal(size=(6, 9))
    axes = principal_axes(x)
    np.testing.assert_allclose(axes @ axes.T, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(np.abs(axes), np.abs(np.linalg.svd(x)[2][:6]), atol=1e-8)
    assert principal_axes(np.vstack([x[:1], 2 * x[:1]])).shape == (1, 9)
    assert principal_axes(np.zeros((2, 3))).shape == (0, 3)


def test_ridge_against_a_naive_reference():
    """The whole prediction from its definition, with the learned weights and scale."""
    train = SCREEN.hide(HELD)
    model = DrugKernelRidge([CHEMISTRY, MECHANISM], compounds=COMPOUNDS).fit(train)
    data = Training.of(train)
    means = line_means(data.responses, data.line, len(data.lines), 3.0)
    rest = np.nan_to_num(data.responses - means[data.line])
    pairs = [(data.drugs[d], data.lines[c]) for d, c in zip(data.drug, data.line, strict=True)]
    names = ["chemistry", "mechanism"]

    def kernel(a, b):
        total = model.weights["same drug"] * (a[0] == b[0])
        for name, k in zip(names, [CHEMISTRY, MECHANISM], strict=True):
            value = k.matrix([a[0]], [b[0]], [])[0, 0]
            total += model.weights[name] * value
            total += model.weights[f"{name} x line"] * value * (a[1] == b[1])
        return total

    system = np.array([[kernel(a, b) for b in pairs] for a in pairs])
    solved = np.linalg.solve(system + model.noise * np.eye(len(pairs)), rest)
    axes = np.linalg.svd(rest, full_matrices=False)[2]
    blocks = [0, 1, 2, 2, 3, 3, 3, 3, *[4] * 8, *[5] * 16, *[6] * 32][: len(axes)]
    project = (axes.T * model.scales[blocks]) @ axes
    cross = np.array([[kernel((d, "MCF7"), b) for b in pairs] for d in HELD])
    expected = means[data.lines.index("MCF7")] + cross @ solved @ project
    found = model.predict(HELD, "MCF7")
    np.testing.assert_allclose(found.mean, expected, atol=1e-4)


def test_ridge_learns_mechanism_and_beats_the_cell_mean():
    """Simulated responses follow the mechanism; structure alone says less."""
    errors = {"mean": 0.0, "ridge": 0.0}
    for drug in ["Vorinostat", "Belinostat", "Gefitinib", "Lapatinib", "Ibuprofen"]:
        train = SCREEN.hide([drug])
        truth = SCREEN.of_perturbations([drug])
        for name, model in [
            ("mean", CellMean().fit(train)),
            ("ridge", DrugKernelRidge([MECHANISM], compounds=COMPOUNDS).fit(train)),
        ]:
            for line in LINES:
                row = truth.in_context(line).responses[0]
                errors[name] += np.nansum((model.predict([drug], line).mean[0] - row) ** 2)
    assert errors["ridge"] < 0.6 * errors["mean"]


def test_noise_is_shrunk_to_the_cell_mean():
    """Responses that no kernel explains: the scales go to (nearly) nothing."""
    rng = np.random.default_rng(3)
    names = [d for _ in LINES for d, *_ in DRUGS]
    lines = [line for line in LINES for _ in DRUGS]
    noise = make_screen(
        rng.normal(size=(len(names), 80)), names, [f"f{i}" for i in range(80)], context=lines
    )
    model = DrugKernelRidge([CHEMISTRY], compounds=COMPOUNDS).fit(noise)
    shift = model.predict(["Aspirin"], "A549").mean - model.lines.mean("A549")[0]
    assert (shift**2).mean() < 0.05, "of a noise variance of 1"


def test_scale_never_sees_the_held_out_fold():
    """Changing responses of drugs outside the training rows cannot change the model."""
    train = SCREEN.hide(HELD)
    again = drug_screen(seed=5)
    both = np.array(SCREEN.responses)
    rows = SCREEN.obs["perturbation"].isin(HELD).to_numpy()
    both[rows] = again.responses[rows]
    changed = Screen(both, SCREEN.obs, SCREEN.features, np.array(SCREEN.control_mean))
    a = DrugKernelRidge([CHEMISTRY], compounds=COMPOUNDS).fit(train)
    b = DrugKernelRidge([CHEMISTRY], compounds=COMPOUNDS).fit(changed.hide(HELD))
    np.testing.assert_array_equal(a.scales, b.scales)
    np.testing.assert_array_equal(a.predict(HELD, "A549").mean, b.predict(HELD, "A549").mean)


def test_chat_lists_become_a_kernel_that_helps():
    lists = {
        a: tuple(b for b, _, _, m in DRUGS if m == mechanism and b != a)
        for a, _, _, mechanism in DRUGS
    }
    chat = NeighbourSimilarity("chat", lists)
    train, truth = SCREEN.hide(["Vorinostat"]), SCREEN.of_perturbations(["Vorinostat"])
    fused = DrugKernelRidge([CHEMISTRY, chat], compounds=COMPOUNDS, name="fused").fit(train)
    mean = CellMean().fit(train)
    for line in LINES:
        row = truth.in_context(line).responses[0]
        error = np.nansum((fused.predict(["Vorinostat"], line).mean[0] - row) ** 2)
        assert error < np.nansum((mean.predict(["Vorinostat"], line).mean[0] - row) ** 2)
    table = fused.predict(["Vorinostat"], "A549").neighbours
    assert set(table["neighbour"][:2]) == {"Belinostat", "Panobinostat"}
    assert "chat" in table["reason"].iloc[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarities": []}, "at least one"),
        ({"similarities": [CHEMISTRY, CHEMISTRY]}, "share a name"),
        ({"similarities": [CHEMISTRY], "hold_out": "x"}, "hold_out"),
        ({"similarities": [CHEMISTRY], "n_folds": 1}, "n_folds"),
        ({"similarities": [CHEMISTRY], "prior": -1.0}, "prior"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        DrugKernelRidge(**settings)


def test_weights_are_the_gene_sides():
    """Nothing is written twice: the weights are those of the shared marginal likelihood."""
    data = Training.of(SCREEN)
    model = DrugKernelRidge([CHEMISTRY], compounds=COMPOUNDS).fit(SCREEN)
    means = line_means(data.responses, data.line, len(data.lines), 3.0)
    rest = data.residuals(means)
    drugs = CHEMISTRY.matrix(data.drugs, data.drugs, [])[np.ix_(data.drug, data.drug)]
    same_line = (data.line[:, None] == data.line[None]).astype(float)
    same_drug = (data.drug[:, None] == data.drug[None]).astype(float)
    kernels = np.array([drugs, drugs * same_line, same_drug])
    found = fit_weights(kernels, rest @ rest.T, rest.shape[1], max_iterations=20)
    np.testing.assert_allclose(list(model.weights.values()), found.weights, rtol=1e-6)


def dose_screen():
    """y = a + b log10 dose for two drugs; slopes 1 and 3."""
    obs = make_obs(["a", "a", "b", "b"], context="X", dose=[1.0, 10.0, 1.0, 10.0])
    y = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 0.0], [5.0, 3.0]], dtype=np.float32)
    return Screen(y, obs, ("f", "g"), np.full((1, 2), np.nan, np.float32))


def test_dose_rules_by_hand():
    screen = dose_screen()
    expected = {
        "dose mean": [3.0, 2.5],
        "same as highest": [1.0, 2.0],
        "log-linear": [2.0, 3.0],
        "shifted": [3.0, 4.0],  # own 10-fold dose plus the mean slope 2
    }
    for rule in RULES:
        found = DosePredictor(rule).fit(screen).predict(["a", "new"], "X", 100.0)
        np.testing.assert_allclose(found.mean[0], expected[rule], atol=1e-6, err_msg=rule)
        np.testing.assert_allclose(found.mean[1], [3.0, 2.5], atol=1e-6)
        assert (found.support["fallback"].iloc[1] != "") == (rule != "dose mean")
    with pytest.raises(InputError, match="need > 0"):
        DosePredictor().fit(make_screen(np.ones((1, 2)), ["a"], ["f", "g"]))
    with pytest.raises(InputError, match="unknown dose rule"):
        DosePredictor("steep")
