"""Every strategy through the conformance suite; every kernel against a naive reference."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pertwise import parts
from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import deviations, squared_distances_to, tie_order
from pertwise.acquire.strategies.acs_fw import expected_updates, frank_wolfe
from pertwise.acquire.strategies.badge import kmeans_plus_plus
from pertwise.acquire.strategies.bait import LeftOver, forward_backward, sketched
from pertwise.acquire.strategies.bald import bald
from pertwise.acquire.strategies.batchbald import greedy_logdet
from pertwise.acquire.strategies.coreset import k_centre_greedy
from pertwise.acquire.strategies.iterpert import PRIORS, iterpert
from pertwise.acquire.strategies.knowledge import KnowledgePicker, Weights, greedy_panel
from pertwise.acquire.strategies.lcmd import largest_cluster_maximum_distance
from pertwise.acquire.strategies.typiclust import typicality, typiclust_order
from pertwise.errors import InputError
from pertwise.kernels.genes import gene_blocks
from pertwise.testing.strategies import check_strategy, example_state

OFFLINE = [n for n in parts.names("strategy") if n != "llm"]
NO_TIES = np.arange(100)


@pytest.mark.parametrize("name", OFFLINE)
def test_conformance(name):
    check_strategy(lambda: parts.load("strategy", name))


@pytest.mark.parametrize("settings_", [{"use_uncertainty": False}, {"k": 5}, {"k": 1000}])
def test_conformance_of_knowledge_variants(settings_):
    check_strategy(lambda: KnowledgePicker(**settings_))


def test_strategy_by_path_and_unknown_names():
    strategy = parts.load("strategy", "pertwise.acquire.strategies.iterpert:IterPert", weight=0.5)
    assert strategy.weight == 0.5
    with pytest.raises(InputError, match="did you mean 'iterpert'"):
        parts.load("strategy", "iterprt")
    with pytest.raises(InputError, match="cannot import"):
        parts.load("strategy", "no.such.module:Thing")
    with pytest.raises(InputError, match="does not take"):
        parts.load("strategy", "bald", weight=3)
    with pytest.raises(InputError, match="no strategy"):
        parts.load("strategy", "collections:OrderedDict")


def test_bald_by_hand():
    # Two members, one candidate, two features: variances 2 and 0 around their means.
    members = np.array([[[1.0, 5.0]], [[3.0, 5.0]]])
    assert bald(members, 2.0) == pytest.approx([0.5 * (0.5 * np.log(2) + 0.0)])


def test_bald_prefers_broad_disagreement_where_mean_variance_does_not():
    one_wild = np.zeros((2, 10))
    one_wild[:, 0] = [-10, 10]
    broad = np.stack([np.full(10, -1.0), np.full(10, 1.0)])
    members = np.stack([one_wild, broad], axis=1)
    u = members.var(axis=0, ddof=1).mean(axis=1)
    assert u[0] > u[1]
    scores = bald(members, 1.0)
    assert scores[1] > scores[0]


def test_deviations_reproduce_variance_and_covariance():
    members = np.random.default_rng(0).normal(size=(4, 6, 3))
    phi = deviations(members)
    gram = phi @ phi.T
    for p, q in itertools.product(range(6), repeat=2):
        naive = np.mean([np.cov(members[:, p, d], members[:, q, d])[0, 1] for d in range(3)])
        assert gram[p, q] == pytest.approx(naive)


def naive_logdet_gain(phi, noise, chosen, p):
    def value(batch):
        k = phi[batch] @ phi[batch].T
        return 0.5 * np.linalg.slogdet(np.eye(len(batch)) + k / noise)[1] if batch else 0.0

    return value([*chosen, p]) - value(chosen)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.1, 10))
def test_greedy_logdet_equals_naive_determinants(seed, n, noise):
    phi = np.random.default_rng(seed).normal(size=(n, 4))
    order, gains, rest = greedy_logdet(phi, noise, n - 1, NO_TIES[:n])
    chosen = []
    for j, gain in zip(order, gains, strict=True):
        naive = {p: naive_logdet_gain(phi, noise, chosen, p) for p in range(n) if p not in chosen}
        assert gain == pytest.approx(max(naive.values()), abs=1e-9)
        assert naive[j] == pytest.approx(gain, abs=1e-9)
        chosen.append(j)
    left = (set(range(n)) - set(chosen)).pop()
    assert rest[left] == pytest.approx(naive_logdet_gain(phi, noise, chosen, left), abs=1e-9)


def test_batchbald_avoids_a_copy_that_top_n_would_take():
    # Candidates 0 and 1 say the same; 2 is a little less uncertain but says something else.
    phi = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.9]])
    assert greedy_logdet(phi, 0.1, 2, NO_TIES[:3])[0] == [0, 2]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(0, 3), st.floats(0, 3))
def test_iterpert_equals_its_formula(seed, n, n_acquired, weight):
    rng = np.random.default_rng(seed)
    u = rng.random(n)
    x, acquired = unit(rng.normal(size=(n, 3))), unit(rng.normal(size=(n_acquired, 3)))
    order, value, _ = iterpert(u, [np.vstack([x, acquired])], weight, n, NO_TIES[:n])
    scaled = (u - u.min()) / (u.max() - u.min()) if n > 1 else u * 0
    chosen = []
    for j in order:
        others = [*acquired, *x[chosen]]
        naive = {
            p: scaled[p] - weight * max([0.0, *(float(x[p] @ o) for o in others)])
            for p in range(n)
            if p not in chosen
        }
        assert value[j] == pytest.approx(max(naive.values()), abs=1e-6)
        assert naive[j] == pytest.approx(value[j], abs=1e-6)
        chosen.append(j)


def test_iterpert_with_weight_zero_is_top_n_uncertainty():
    state = example_state()
    assert (
        parts.load("strategy", "iterpert", weight=0).choose(state, 10).items
        == parts.load("strategy", "uncertainty").choose(state, 10).items
    )


def test_iterpert_refuses_negative_weight():
    with pytest.raises(InputError, match="weight >= 0, got -1"):
        parts.load("strategy", "iterpert", weight=-1)


def test_k_centre_greedy_is_farthest_first():
    x = np.array([[0.0], [1.0], [10.0], [4.0]])
    order, value = k_centre_greedy(x, np.array([[0.0]]), 2, NO_TIES[:4])
    assert order == [2, 3]
    assert value.tolist() == [0.0, 1.0, 10.0, 4.0]
    # Without a centre the first pick is the one nearest to the mean (3.75).
    assert k_centre_greedy(x, np.zeros((0, 1)), 2, NO_TIES[:4])[0] == [3, 2]


def test_typicality_by_hand():
    x = np.array([[0.0], [1.0], [3.0]])
    assert typicality(x) == pytest.approx([1 / 2, 1 / 1.5, 1 / 2.5])


def test_typiclust_visits_untouched_large_clusters_first():
    x = np.array([[0.0], [0.1], [5.0], [5.1], [5.2], [9.0]])
    labels = np.array([0, 0, 1, 1, 1, 2])
    order = typiclust_order(x, labels, np.array([1, 0, 0]), NO_TIES[:6])
    # Cluster 1 (3 members, none acquired), cluster 2 (1 member), then cluster 0 (one acquired).
    assert order.tolist()[:2] == [3, 5]
    assert sorted(order.tolist()) == list(range(6))


def test_lcmd_by_hand():
    # The origin owns all. Farthest: 3 (10). Then 2 (9.5) joins it; the origin's cluster {0, 1}
    # has mass 1 + 4 = 5, the new one 0.25: the next pick is 1.
    phi = np.array([[1.0], [2.0], [9.5], [10.0]])
    order, distance = largest_cluster_maximum_distance(phi, 3, NO_TIES[:4])
    assert order == [3, 1, 0]
    assert distance.tolist() == [0.0, 0.0, 0.25, 0.0]


def test_kmeans_plus_plus_never_draws_a_copy_while_others_remain():
    phi = np.array([[3.0, 0], [3.0, 0], [0, 1.0], [0, 0.5]])
    for seed in range(20):
        order, _ = kmeans_plus_plus(phi, 3, np.random.default_rng(seed))
        assert order[0] == 0
        assert 1 not in order
    assert sorted(kmeans_plus_plus(phi, 4, np.random.default_rng(0))[0]) == [0, 1, 2, 3]


def naive_panel(u, relation, module, measured_in, pinned_in, cosine, others, n, w):
    total = len(relation)
    rank = {int(p): i for i, p in enumerate(np.lexsort((NO_TIES[:total], -u)))}
    chosen, gains = [], []
    for _ in range(n):
        best = None
        for p in range(total):
            if p in chosen:
                continue
            g = w.uncertainty * (1 - rank[p] / (total - 1)) + w.relation * relation[p]
            if module[p] >= 0:
                inside = pinned_in[module[p]] + sum(module[q] == module[p] for q in chosen)
                g += w.module / (1 + inside + measured_in[module[p]])
            near = [cosine[p, q] for q in chosen]
            near += [o * cosine[p, total + i] for i, o in enumerate(others)]
            g *= 1 - w.redundancy * max([0.0, *near])
            if best is None or g > best[0] + 1e-12:
                best = (g, p)
        chosen.append(best[1])
        gains.append(best[0])
    return chosen, gains


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_greedy_panel_equals_its_formula(seed):
    rng = np.random.default_rng(seed)
    total, n_measured, n_modules = 9, 3, 2
    u = rng.random(total)
    relation = rng.choice([0.0, 0.4, 1.0], size=total)
    module = rng.integers(-1, n_modules, size=total)
    measured_in, pinned_in = rng.random(n_modules), rng.integers(0, 3, n_modules).astype(float)
    x = unit(rng.normal(size=(total + n_measured, 3)))
    others = rng.choice([0.5, 1.0], size=n_measured)
    edges = rng.random((total + n_measured,) * 2) * (rng.random((total + n_measured,) * 2) < 0.2)
    edges = np.triu(edges, 1) + np.triu(edges, 1).T
    weights = Weights(*rng.random(4))
    steps = greedy_panel(
        u, relation, module, measured_in, pinned_in, x, csr_matrix(edges), others, 5, weights,
        NO_TIES[:total],
    )  # fmt: skip
    similarity = np.maximum(x @ x.T, edges)
    chosen, gains = naive_panel(
        u, relation, module, measured_in, pinned_in, similarity, others, 5, weights
    )
    assert steps.order == chosen
    assert steps.gain[steps.order] == pytest.approx(gains, abs=1e-6)


def test_knowledge_panel_spreads_over_modules_and_avoids_a_second_of_a_complex():
    state = example_state(n_candidates=40, cold=True)
    panel = KnowledgePicker().choose(state, 8)
    modules = [p.extra["module"] for p in panel.picks]
    assert set(modules) >= {f"module {m}" for m in range(4)}
    complexes = [int(g[1:]) // 2 for g in panel.items]
    assert len(set(complexes)) == len(complexes)
    assert "(pick 1 for its module)" in panel.picks[0].reason


def test_pinned_gene_keeps_its_complex_off_the_panel():
    free = KnowledgePicker().choose(example_state(n_candidates=40, cold=True), 1).items[0]
    knowledge_free = example_state(n_candidates=40, cold=True)
    names = [c for c in knowledge_free.candidates if c != free]
    from dataclasses import replace

    rows = [knowledge_free.candidates.index(n) for n in names] + [
        knowledge_free.candidates.index(free)
    ]
    state = replace(
        knowledge_free,
        candidates=tuple(names),
        measured=(free,),
        pinned=(free,),
        embedding=knowledge_free.embedding[rows],
        neighbours=knowledge_free.neighbours[rows][:, rows],
    )
    panel = KnowledgePicker().choose(state, 4)
    partner = f"G{int(free[1:]) ^ 1:03d}"
    assert partner not in panel.items
    # The pinned pick counts for its module: the next three go elsewhere first.
    pinned_module = f"module {int(free[1:]) // 5}"
    assert pinned_module not in [p.extra["module"] for p in panel.picks[:3]]


def test_random_start_is_stated():
    for name in ("bald", "iterpert", "uncertainty", "batchbald", "badge", "lcmd"):
        cold = parts.load("strategy", name).choose(example_state(cold=True), 5)
        assert cold.fallback
        assert "drawn at random" in cold.repairs[0].action


def test_tie_order_is_a_permutation_and_not_alphabetical():
    names = [f"G{i:03d}" for i in range(50)]
    order = tie_order(names)
    assert sorted(order) == list(range(50))
    assert list(order) != list(range(50))
    reversed_order = tie_order(names[::-1])
    assert reversed_order[::-1].tolist() == order.tolist()


@pytest.fixture
def disagreement():
    """Deviations of 400 candidates with copies and zeros among them, as from an ensemble."""
    phi = np.random.default_rng(3).normal(size=(400, 60)) * np.geomspace(1, 1e-3, 400)[:, None]
    phi[50:60], phi[80:90] = phi[40], 0.0
    return phi


def plain_distance(phi, j):
    return ((phi - phi[j]) ** 2).sum(axis=1)


def test_distances_by_products_are_those_of_the_formula(disagreement):
    lengths = (disagreement**2).sum(axis=1)
    for j in (0, 45, 55, 85, 399):
        got = squared_distances_to(disagreement, lengths, j)
        want = plain_distance(disagreement, j)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-15)
        assert ((got == 0) == (want == 0)).all()


@pytest.mark.parametrize("module", ["lcmd", "badge", "coreset"])
def test_picks_by_products_are_those_of_the_formula(module, disagreement, monkeypatch):
    ties = np.arange(len(disagreement))

    def picks():
        if module == "lcmd":
            return largest_cluster_maximum_distance(disagreement, 120, ties)
        if module == "badge":
            return kmeans_plus_plus(disagreement, 120, np.random.default_rng(0))
        return k_centre_greedy(disagreement, disagreement[100:130] + 0.01, 120, ties)

    order, distance = picks()
    monkeypatch.setattr(
        f"pertwise.acquire.strategies.{module}.squared_distances_to",
        lambda phi, lengths, j: plain_distance(phi, j),
    )
    plain, wanted = picks()
    assert order == plain
    np.testing.assert_allclose(distance, wanted, rtol=1e-6, atol=1e-9)


def test_distance_to_the_nearest_centre_is_that_of_the_formula(disagreement):
    centres = disagreement[::7]
    _, value = k_centre_greedy(disagreement, centres, 1, np.arange(len(disagreement)))
    apart = np.linalg.norm(disagreement[:, None] - centres[None], axis=2).min(axis=1)
    order = int(apart.argmax())
    after = np.minimum(apart, np.linalg.norm(disagreement - disagreement[order], axis=1))
    after[order] = apart[order]
    np.testing.assert_allclose(value, after, rtol=1e-6, atol=1e-12)


def left_variance(phi, chosen, noise):
    """Sum of posterior variances of all rows by the textbook formula."""
    k = phi @ phi.T
    s = list(chosen)
    inner = np.linalg.inv(k[np.ix_(s, s)] + noise * np.eye(len(s))) if s else np.zeros((0, 0))
    return float(np.trace(k - k[:, s] @ inner @ k[s]))


@given(st.integers(0, 50), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_bait_keeps_exact_account_of_what_is_left_forward_and_backward(seed, n):
    phi = np.random.default_rng(seed).standard_normal((9, 5))
    left = LeftOver(phi, 0.7)
    chosen = []
    for j in (3, 0, 7, 5):
        before = left_variance(phi, chosen, 0.7)
        assert left.gain()[j] == pytest.approx(before - left_variance(phi, [*chosen, j], 0.7))
        left.measure(j)
        chosen.append(j)
    for j in (0, 5):
        rest = [c for c in chosen if c != j]
        more = left_variance(phi, rest, 0.7) - left_variance(phi, chosen, 0.7)
        assert left.loss(j) == pytest.approx(more)
        left.measure(j, -1.0)
        chosen = rest
    order, rest = forward_backward(LeftOver(phi, 0.7), n, np.arange(9))
    assert len(set(order)) == n
    assert np.argmax(rest) not in order
    if n == 1:
        # One pick: of the best two the one that alone leaves least.
        best = min(range(9), key=lambda j: left_variance(phi, [j], 0.7))
        assert left_variance(phi, order, 0.7) <= 1.5 * left_variance(phi, [best], 0.7)


def test_wide_deviations_are_sketched_without_losing_their_products():
    phi = np.random.default_rng(0).standard_normal((6, 4000)) / np.sqrt(4000)
    small = sketched(phi, np.random.default_rng(1))
    assert small.shape == (6, 512)
    np.testing.assert_allclose(small @ small.T, phi @ phi.T, atol=0.2)
    narrow = phi[:, :512]
    assert sketched(narrow, np.random.default_rng(1)) is narrow


def test_expected_updates_by_hand():
    # Two members at 1 and 3: mean 2, deviations 1, variance 2; noise 1/2.
    members = np.array([[[1.0]], [[3.0]]])
    one = 0.5 * np.log(1 + 2 / 0.5) - (1 + 2) / (2 * 0.5)
    np.testing.assert_allclose(expected_updates(members, 0.5), [[one / np.sqrt(2)] * 2])


def test_frank_wolfe_takes_one_of_each_group_and_never_one_twice():
    # Three groups of like candidates and one that does nothing.
    vectors = np.vstack([np.tile([10.0, 0, 0], (5, 1)), np.tile([0, 6.0, 0], (4, 1)),
                         np.tile([0, 0, 3.0], (3, 1)), np.zeros((1, 3))])  # fmt: skip
    order, _ = frank_wolfe(vectors, 3, np.arange(13))
    assert order == [0, 5, 9]
    order, _ = frank_wolfe(vectors, 13, np.arange(13))
    assert sorted(order) == list(range(13))
    assert frank_wolfe(np.zeros((3, 2)), 2, np.arange(3))[0] == [0, 1]


def test_fused_iterpert_is_the_mean_of_its_kernels_and_leaves_out_what_the_folder_lacks(simulated):
    screen, knowledge = simulated
    names = screen.perturbations
    rng = np.random.default_rng(0)
    candidates, measured = tuple(sorted(names[:30])), tuple(sorted(names[30:40]))
    members = rng.standard_normal((4, 30, 7)).astype(np.float32)
    u = pd.Series(members.var(axis=0, ddof=1).mean(axis=1), index=list(candidates))
    state = AcquisitionState(
        candidates, measured, rng, knowledge=knowledge, uncertainty=u, member_predictions=members
    )
    strategy = parts.load("strategy", "iterpert-fused")
    chosen = strategy.choose(state, 4)
    kinds = chosen.provenance["features"].split(", ")
    assert kinds[-1] == "the model's own"
    assert set(kinds[:-1]) <= set(PRIORS)
    blocks = gene_blocks(knowledge, (*candidates, *measured), kinds[:-1])
    own = deviations(members)
    own = own / np.linalg.norm(own, axis=1, keepdims=True)
    fused = sum((b @ b.T).toarray() for b in blocks.blocks)
    fused[:30, :30] += own @ own.T
    fused /= len(kinds)
    scaled = ((u - u.min()) / (u.max() - u.min())).to_numpy()
    taken = list(range(30, 40))
    for pick in chosen.picks:
        value = scaled - np.maximum(0.0, fused[:30, taken]).max(axis=1)
        value[[t for t in taken if t < 30]] = -np.inf
        assert candidates[int(value.argmax())] == pick.item
        assert pick.score == pytest.approx(value.max(), abs=1e-5)
        taken.append(int(value.argmax()))
    assert "mean cosine" in chosen.picks[1].reason
    with pytest.raises(InputError, match="knowledge folder"):
        strategy.choose(replace(state, knowledge=None), 4)
