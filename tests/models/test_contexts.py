import numpy as np
import pytest
from drug_example import DRUGS, LINES, cell_table, drug_knowledge, drug_screen, drug_table

from pertwise import parts
from pertwise.arrays import component_scales
from pertwise.arrays.component_scales import (
    best_scale,
    block_products,
    block_scales,
    component_block,
    leading_maps,
    rescaled,
)
from pertwise.arrays.folds import group_folds
from pertwise.arrays.gaussian_process import fit_weights
from pertwise.errors import InputError
from pertwise.kernels.drugs import ListKernel, chemistry_similarity, mechanism_similarity
from pertwise.models.base import Prediction, Predictor
from pertwise.models.context_kernel import ContextKernelPredictor, pair_kernels
from pertwise.models.context_means import AdditiveContexts, ContextMean, PerturbationMean
from pertwise.models.contexts import ContextData, Contexts, context_means
from pertwise.models.dose import RULES, DosePredictor
from pertwise.models.feature_ridge import FeatureRidge
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.models.per_context import ByContexts, PerContext, borrowed_context
from pertwise.screen import make_screen
from pertwise.screen.core import Screen, make_obs
from pertwise.select.kernel import KernelSelector

TABLE = drug_table()
SCREEN = drug_screen()
HELD = ["Vorinostat", "Gefitinib"]
CHEMISTRY, MECHANISM = chemistry_similarity(TABLE), mechanism_similarity(TABLE)
KNOWN, NO_LINES = drug_knowledge(), drug_knowledge(lines=False)


def retrieve(selector, k=10):
    return PerContext(lambda text: NeighbourPredictor(selector, k=k), name="retrieval")


METHODS = {
    "context mean": (lambda: ContextMean(), KNOWN),
    "context mean shrunk": (lambda: ContextMean(prior=3.0), None),
    "perturbation mean": (lambda: PerturbationMean(), None),
    "additive contexts": (lambda: AdditiveContexts(), None),
    "PCA + ridge": (lambda: FeatureRidge(n_components=5), NO_LINES),
    "chemistry kNN": (lambda: retrieve(KernelSelector(CHEMISTRY), k=3), KNOWN),
    "mechanism kNN": (lambda: retrieve(KernelSelector(MECHANISM, above=0.3), k=3), None),
    "kernel ridge": (lambda: ContextKernelPredictor(["chemistry", "mechanism"]), KNOWN),
}


@pytest.mark.parametrize("name", METHODS)
def test_contract(name):
    """Every method answers known and unknown drugs and lines, states fallbacks, is stable."""
    make, known = METHODS[name]
    model = make()
    assert isinstance(model, Predictor)
    train = SCREEN.hide(HELD)
    before = np.array(train.responses)
    assert model.fit(train, known) is model
    asked = [*HELD, "NoSuchDrug", "Ethanol"]
    found = model.predict(asked, "A549")
    assert isinstance(found, Prediction)
    assert found.perturbations == tuple(asked)
    assert found.mean.dtype == np.float32
    assert np.isfinite(found.mean).all()
    np.testing.assert_array_equal(before, train.responses)
    if not name.startswith("context mean"):
        assert "context mean" in found.support.loc["NoSuchDrug", "fallback"]
        np.testing.assert_allclose(
            found.mean[2],
            model.contexts.mean("A549")[0],
            atol=1e-5,
        )
    alone = model.predict(["Ethanol"], "A549")
    np.testing.assert_allclose(found.mean[3], alone.mean[0], atol=1e-5)
    order = np.random.default_rng(0).permutation(len(train))
    other = make().fit(train.take(order), known).predict(asked, "A549")
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-4)
    borrowed = model.predict(asked, "SW480")
    assert np.isfinite(borrowed.mean).all()
    assert borrowed.support["fallback"].str.contains("context not measured").any()
    assert model.predict([], "A549").mean.shape == (0, SCREEN.n_features)


def test_unfitted_and_empty_are_told():
    with pytest.raises(InputError, match="call fit first"):
        ContextMean().predict(["a"], "A549")
    empty = make_screen(np.full((2, 3), np.nan), ["a", "b"], ["x", "y", "z"])
    with pytest.raises(InputError, match="no measured response"):
        ContextMean().fit(empty)


def test_several_doses_are_refused_with_advice():
    obs = make_obs(["a", "a"], context="X", dose=[1.0, 5.0])
    screen = Screen(
        np.ones((2, 2), np.float32), obs, ("f", "g"), np.full((1, 2), np.nan, np.float32)
    )
    with pytest.raises(InputError, match="several doses"):
        ContextMean().fit(screen)


def test_context_means_by_hand():
    y = np.array([[1.0, np.nan], [3.0, np.nan], [8.0, 4.0]])
    line = np.array([0, 0, 1])
    np.testing.assert_allclose(context_means(y, line, 2), [[2, 4], [8, 4]])
    # Mean of the line means 5 and 4; two pseudo-rows of it.
    expected = [[(4 + 2 * 5) / 4, 4], [(8 + 2 * 5) / 3, (4 + 2 * 4) / 3]]
    np.testing.assert_allclose(context_means(y, line, 2, prior=2.0), expected)
    np.testing.assert_allclose(context_means(np.full((1, 2), np.nan), np.array([0]), 1), [[0, 0]])


def test_related_lines_carry_an_unmeasured_one():
    lines = Contexts(LINES, np.arange(8.0).reshape(4, 2), cell_table(), n_related=5)
    weights = lines.related("SW480")
    assert weights == {"HCT116": pytest.approx(2 / 3), "A549": pytest.approx(1 / 3)}
    mean, note = lines.mean("SW480")
    np.testing.assert_allclose(mean, 2 / 3 * lines.means[1] + 1 / 3 * lines.means[0])
    assert "borrowed from 2 contexts (HCT116, A549)" in note
    assert Contexts(LINES, lines.means).related("odd") == dict.fromkeys(LINES, 0.25)
    assert lines.mean("MCF7")[1] == ""


def test_drug_mean_and_additive_by_hand():
    y = np.array([[1.0, 1.0], [3.0, 3.0], [0.0, 2.0], [4.0, 6.0]])
    screen = make_screen(y, ["a", "b", "a", "b"], ["f", "g"], context=["X", "X", "Y", "Y"])
    held = screen.take([1, 2, 3])  # a is measured in Y only
    np.testing.assert_allclose(PerturbationMean().fit(held).predict(["a"], "X").mean, [[0, 2]])
    # Y mean (2, 4), a deviates by (-2, -2) in one line: half of it counts; X mean (3, 3).
    np.testing.assert_allclose(AdditiveContexts().fit(held).predict(["a"], "X").mean, [[2, 2]])
    own = PerturbationMean().fit(screen).predict(["a"], "X")
    np.testing.assert_allclose(own.mean, [[0, 2]])
    assert own.support["n_support"].tolist() == [1]


def test_retrieval_is_the_mean_of_the_named_drugs_in_the_same_line():
    model = retrieve(KernelSelector(MECHANISM, above=0.9)).fit(SCREEN.hide(["Vorinostat"]))
    found = model.predict(["Vorinostat"], "MCF7")
    line = SCREEN.in_context("MCF7")
    rows = line.obs["perturbation"].isin(["Belinostat", "Panobinostat"]).to_numpy()
    np.testing.assert_allclose(found.mean[0], line.responses[rows].mean(axis=0), atol=1e-5)
    assert found.support.loc["Vorinostat", "n_support"] == 2
    assert set(found.neighbours["neighbour"]) == {"Belinostat", "Panobinostat"}


def test_a_line_with_fewer_than_k_drugs_uses_what_there_is():
    obs = SCREEN.obs
    few = (obs["context"] != "K562") | obs["perturbation"].isin(["Belinostat", "Aspirin"])
    model = retrieve(KernelSelector(CHEMISTRY), k=10).fit(SCREEN.take(few.to_numpy()))
    found = model.predict(["Vorinostat", "Aspirin"], "K562")
    assert found.support["n_support"].max() <= 2
    assert found.support["n_support"].min() >= 1


def test_borrowed_pool_of_an_unmeasured_line():
    data = ContextData.of(SCREEN)
    means = context_means(data.responses, data.where, len(data.contexts))
    lines = Contexts(data.contexts, means, cell_table())
    pool = borrowed_context(data, lines, "SW480")
    assert set(pool.perturbations) == set(SCREEN.perturbations)
    assert pool.contexts == ("SW480",)
    assert sorted(pool.meta["borrowed"]) == ["A549", "HCT116"]
    rest = []
    for name in ("A549", "HCT116"):
        own = SCREEN.in_context(name)
        row = own.responses[list(own.obs["perturbation"]).index("Caffeine")]
        rest.append(row - means[data.contexts.index(name)])
    expected = lines.mean("SW480")[0] + np.mean(rest, axis=0)
    at = list(pool.obs["perturbation"]).index("Caffeine")
    np.testing.assert_allclose(pool.responses[at], expected, atol=1e-5)
    own = borrowed_context(data, lines, "MCF7")
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
    model = ContextKernelPredictor([CHEMISTRY]).fit(SCREEN, KNOWN)
    data = model.training
    line = np.array([data.contexts.index(n) for n in ("A549", "MCF7", "K562")])
    same = model._context_weights(data, line, line)
    np.testing.assert_array_equal(same, np.eye(3))
    mixed = model._context_weights(data, np.array([data.contexts.index("HCT116")]), line)
    np.testing.assert_allclose(mixed, [[1, 0, 0]])


def test_component_blocks_and_axes():
    blocks = component_block(300)
    assert blocks[:9].tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4]
    assert blocks[127] == 7
    assert blocks[128] == 8
    assert blocks[256] == blocks[299] == 9
    x = np.random.default_rng(0).normal(size=(6, 9))

    def leading_axes(rows):
        return leading_maps(rows @ rows.T).T @ rows

    axes = leading_axes(x)
    np.testing.assert_allclose(axes @ axes.T, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(np.abs(axes), np.abs(np.linalg.svd(x)[2][:6]), atol=1e-8)
    assert leading_axes(np.vstack([x[:1], 2 * x[:1]])).shape == (1, 9)
    assert leading_axes(np.zeros((2, 3))).shape == (0, 3)


def test_ridge_against_a_naive_reference():
    """The whole prediction from its definition, with the learned weights and scale."""
    train = SCREEN.hide(HELD)
    model = ContextKernelPredictor([CHEMISTRY, MECHANISM]).fit(train, NO_LINES)
    data = ContextData.of(train)
    means = context_means(data.responses, data.where, len(data.contexts), 3.0)
    rest = np.nan_to_num(data.responses - means[data.where])
    pairs = [(data.names[d], data.contexts[c]) for d, c in zip(data.who, data.where, strict=True)]
    names = ["chemistry", "mechanism"]

    def kernel(a, b):
        total = model.weights["same perturbation"] * (a[0] == b[0])
        for name, k in zip(names, [CHEMISTRY, MECHANISM], strict=True):
            value = k.between([a[0]], [b[0]], [])[0, 0]
            total += model.weights[name] * value
            total += model.weights[f"{name} x context"] * value * (a[1] == b[1])
        return total

    system = np.array([[kernel(a, b) for b in pairs] for a in pairs])
    solved = np.linalg.solve(system + model.noise * np.eye(len(pairs)), rest)
    axes = np.linalg.svd(rest, full_matrices=False)[2]
    blocks = [0, 1, 2, 2, 3, 3, 3, 3, *[4] * 8, *[5] * 16, *[6] * 32][: len(axes)]
    project = (axes.T * model.scales[blocks]) @ axes
    cross = np.array([[kernel((d, "MCF7"), b) for b in pairs] for d in HELD])
    expected = means[data.contexts.index("MCF7")] + cross @ solved @ project
    found = model.predict(HELD, "MCF7")
    np.testing.assert_allclose(found.mean, expected, atol=1e-4)


def test_ridge_learns_mechanism_and_beats_the_cell_mean():
    """Simulated responses follow the mechanism; structure alone says less."""
    errors = {"mean": 0.0, "ridge": 0.0}
    for drug in ["Vorinostat", "Belinostat", "Gefitinib", "Lapatinib", "Ibuprofen"]:
        train = SCREEN.hide([drug])
        truth = SCREEN.of_perturbations([drug])
        for name, model in [
            ("mean", ContextMean().fit(train)),
            ("ridge", ContextKernelPredictor([MECHANISM]).fit(train, NO_LINES)),
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
    model = ContextKernelPredictor([CHEMISTRY]).fit(noise, NO_LINES)
    shift = model.predict(["Aspirin"], "A549").mean - model.contexts.mean("A549")[0]
    assert (shift**2).mean() < 0.05, "of a noise variance of 1"


def test_scale_never_sees_the_held_out_fold():
    """Changing responses of drugs outside the training rows cannot change the model."""
    train = SCREEN.hide(HELD)
    again = drug_screen(seed=5)
    both = np.array(SCREEN.responses)
    rows = SCREEN.obs["perturbation"].isin(HELD).to_numpy()
    both[rows] = again.responses[rows]
    changed = Screen(both, SCREEN.obs, SCREEN.features, np.array(SCREEN.control_mean))
    a = ContextKernelPredictor([CHEMISTRY]).fit(train, NO_LINES)
    b = ContextKernelPredictor([CHEMISTRY]).fit(changed.hide(HELD), NO_LINES)
    np.testing.assert_array_equal(a.scales, b.scales)
    np.testing.assert_array_equal(a.predict(HELD, "A549").mean, b.predict(HELD, "A549").mean)


def test_chat_lists_become_a_kernel_that_helps():
    lists = {
        a: tuple(b for b, _, _, m in DRUGS if m == mechanism and b != a)
        for a, _, _, mechanism in DRUGS
    }
    chat = ListKernel("chat", lists)
    train, truth = SCREEN.hide(["Vorinostat"]), SCREEN.of_perturbations(["Vorinostat"])
    fused = ContextKernelPredictor([CHEMISTRY, chat], name="fused").fit(train, NO_LINES)
    mean = ContextMean().fit(train)
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
        ({"kernels": []}, "no kernel that fits"),
        ({"kernels": [CHEMISTRY, CHEMISTRY]}, "share a name"),
        ({"kernels": [CHEMISTRY], "hold_out": "x"}, "hold_out"),
        ({"kernels": [CHEMISTRY], "n_folds": 1}, "n_folds"),
        ({"kernels": [CHEMISTRY], "prior": -1.0}, "prior"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        ContextKernelPredictor(**settings).fit(SCREEN)


def test_weights_are_the_gene_sides():
    """Nothing is written twice: the weights are those of the shared marginal likelihood."""
    data = ContextData.of(SCREEN)
    model = ContextKernelPredictor([CHEMISTRY]).fit(SCREEN, NO_LINES)
    means = context_means(data.responses, data.where, len(data.contexts), 3.0)
    rest = data.residuals(means)
    drugs = CHEMISTRY.between(data.names, data.names, [])[np.ix_(data.who, data.who)]
    same_line = (data.where[:, None] == data.where[None]).astype(float)
    same_drug = (data.who[:, None] == data.who[None]).astype(float)
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


# -- genes over contexts ---------------------------------------------------------------------------


def gene_lines(seed=0, n=24, d=20):
    """Knock-downs of two lines: what a module does is shared, each line has a mean. SIMULATED."""
    rng = np.random.default_rng(seed)
    module = rng.normal(size=(4, d))
    names = [f"G{i:03d}" for i in range(n)]
    y = [
        rng.normal(size=d) * 0 + line + module[i // 2 % 4] + 0.1 * rng.normal(size=d)
        for line in (0.5, -1.0)
        for i in range(n)
    ]
    screen = make_screen(
        np.array(y), names * 2, [f"f{j}" for j in range(d)], context=["L1"] * n + ["L2"] * n
    )
    lists = {a: tuple(b for j, b in enumerate(names) if j // 2 % 4 == i // 2 % 4 and b != a)
             for i, a in enumerate(names)}  # fmt: skip
    return screen, ListKernel("alike", lists)


def error(model, screen, train, names, context):
    truth = screen.in_context(context).of_perturbations(names).responses
    return float(((model.fit(train).predict(names, context).mean - truth) ** 2).mean())


def test_genes_are_predicted_in_a_line_where_nothing_was_measured_of_them():
    screen, alike = gene_lines()
    held = list(screen.perturbations[:6])
    here = (screen.obs["context"] == "L2") & screen.obs["perturbation"].isin(held)
    pair = screen.take((~here).to_numpy())
    mean = error(ContextMean(), screen, pair, held, "L2")
    assert error(AdditiveContexts(), screen, pair, held, "L2") < 0.5 * mean
    unseen = screen.hide(held)
    assert error(ContextKernelPredictor([alike]), screen, unseen, held, "L2") < 0.3 * mean
    assert error(AdditiveContexts(), screen, unseen, held, "L2") == pytest.approx(mean, rel=0.2)


def test_a_context_must_be_said_where_there_are_several():
    screen, _ = gene_lines()
    with pytest.raises(InputError, match="learned 2 contexts"):
        ContextMean().fit(screen).predict(["G000"])
    one = ContextMean().fit(screen.in_context("L1"))
    assert one.predict(["G000"]).provenance["context"] == "L1"


@pytest.mark.parametrize("use", ["neighbours", "multi-kernel", "kernel ridge"])
def test_one_name_serves_genes_and_compounds(use):
    """In several lines of compounds the kernels are those of compounds."""
    settings = {"selector": "kernel:mechanism>0.3"} if use == "neighbours" else {}
    model = parts.load("predictor", use, **settings).fit(SCREEN.hide(HELD), KNOWN)
    found = model.predict([*HELD, "NoSuchDrug"], "A549")
    assert "context mean" in found.support["fallback"].iloc[2]
    assert set(found.neighbours["neighbour"]) <= set(SCREEN.perturbations)
    told = " ".join(found.neighbours["reason"])
    assert ("chemistry" in told) == (use != "neighbours")


def test_a_predictor_of_one_context_refuses_another():
    screen = gene_lines()[0].in_context("L1")
    model = NeighbourPredictor(KernelSelector(gene_lines()[1])).fit(screen)
    assert model.predict(["G000"], "L1").mean.shape == (1, 20)
    with pytest.raises(InputError, match="learned the context 'L1' and cannot predict in 'L2'"):
        model.predict(["G000"], "L2")


def test_a_line_is_predicted_from_the_only_other_one():
    """With one line to learn from, the model of contexts takes over when another is asked for."""
    screen, alike = gene_lines()
    one = screen.in_context("L1")
    model = ByContexts(NeighbourPredictor(KernelSelector(alike)), ContextKernelPredictor([alike]))
    here = model.fit(one).predict(["G000"], "L1")
    assert here.provenance["method"].startswith("neighbours")
    there = model.predict(["G000"], "L2")
    assert (
        "context not measured: borrowed from 1 contexts (L1)" in there.support["fallback"].iloc[0]
    )
    tuned = ContextKernelPredictor([alike], hold_out="context").fit(one)
    assert tuned.scales.max() > 0, "what one line says is not thrown away"


def test_the_last_block_is_what_the_leading_axes_leave(monkeypatch):
    """Scales of all components, as if every axis had been computed."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(320, 400)) * np.geomspace(3, 0.3, 320)[:, None]
    all_axes = np.linalg.svd(rows, full_matrices=False)[2]
    block = component_block(320)
    weights, truth = rng.normal(size=(30, 320)), rng.normal(size=(30, 400))
    guess = weights @ rows
    scales = rng.uniform(size=component_scales.N_BLOCKS)
    maps = leading_maps(rows @ rows.T)
    axes = maps.T @ rows
    assert axes.shape == (256, 400)
    products = ((guess @ all_axes.T) * (truth @ all_axes.T)).sum(axis=0)
    found = block_products(guess @ axes.T, truth @ axes.T, float(np.vdot(guess, truth)))
    np.testing.assert_allclose(found, np.bincount(block, products), rtol=1e-6)
    wanted = (guess @ all_axes.T * scales[block]) @ all_axes
    scaled = rescaled(weights, guess @ axes.T, maps, scales) @ rows
    np.testing.assert_allclose(scaled, wanted, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr(component_scales, "EXACT_ROWS", 10)
    low = rows[:, :40] @ rng.normal(size=(40, 400))
    found = leading_maps(low @ low.T).T @ low
    assert found.shape == (40, 400)
    np.testing.assert_allclose(found.T @ found, np.linalg.pinv(low, rcond=1e-8) @ low, atol=1e-6)
