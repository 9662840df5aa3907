from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from drug_example import DRUGS, drug_table
from scipy.sparse import csr_matrix

from pertwise.errors import InputError
from pertwise.kernels.base import Kernel
from pertwise.kernels.drugs import (
    ListKernel,
    MeanKernel,
    chemistry_similarity,
    diffuse,
    mechanism_similarity,
    neighbour_features,
    pathway_similarity,
    target_graph_similarity,
    target_sets,
    target_similarity,
    text_similarity,
)
from pertwise.knowledge.types import Graph

NAMES = [row[0] for row in DRUGS]


class SmallGenes:
    """The three answers of a knowledge folder that drug kernels ask for."""

    def resolve(self, names):
        return SimpleNamespace(approved={n: n for n in names if n != "PTGS2"} | {"PTGS2": "COX2"})

    def table(self, name):
        assert name == "gene_set_members"
        rows = [("P1", "EGFR"), ("P1", "ERBB2"), ("P2", "ERBB2"), ("P3", "HDAC1")]
        return pd.DataFrame(rows, columns=["name", "symbol"])

    def graph(self, name):
        nodes = ("COX2", "EGFR", "ERBB2", "HDAC1", "KRAS")
        a = np.zeros((5, 5), dtype=np.float32)
        for i, j in [(1, 2), (1, 4), (2, 4)]:
            a[i, j] = a[j, i] = 1.0
        return Graph(name, nodes, csr_matrix(a))


def lists():
    return {NAMES[0]: (NAMES[2], NAMES[3]), NAMES[2]: (NAMES[0],), NAMES[4]: (NAMES[5], NAMES[6])}


def kernels():
    table = drug_table()
    genes = SmallGenes()
    targets = target_sets(table, genes)
    return [
        chemistry_similarity(table),
        chemistry_similarity(table, counts=True, kind="cosine"),
        mechanism_similarity(table),
        target_similarity(targets),
        pathway_similarity(targets, genes),
        target_graph_similarity(targets, genes),
        text_similarity("text", {n: f"drug {m}" for n, _, _, m in DRUGS}),
        ListKernel("chat", lists()),
        MeanKernel((chemistry_similarity(table), mechanism_similarity(table)), (2.0, 1.0)),
    ]


@pytest.mark.parametrize("kernel", kernels(), ids=lambda k: k.name)
def test_every_kernel_is_one(kernel):
    assert isinstance(kernel, Kernel)
    names = [*NAMES, "not in any table"]
    k = kernel.between(names, names, NAMES)
    np.testing.assert_allclose(k, k.T, atol=1e-12)
    np.testing.assert_allclose(np.diag(k), 1.0)
    assert k.min() >= 0
    assert np.linalg.eigvalsh(k).min() > -1e-9
    assert "not in any table" in kernel.missing(names)
    np.testing.assert_array_equal(k[-1, :-1], 0.0)
    part = kernel.between(names[2:4], names[5:9], NAMES)
    np.testing.assert_allclose(part, k[2:4, 5:9], atol=1e-12)


def test_values_by_hand():
    table = drug_table()
    targets = target_sets(table, SmallGenes())
    assert targets["Aspirin"] == ("PTGS1", "COX2")
    k = target_similarity(targets)
    assert k.between(["Gefitinib"], ["Lapatinib"], [])[0, 0] == pytest.approx(1 / np.sqrt(2))
    m = mechanism_similarity(table, label_weight=0.5)
    assert m.between(["Aspirin"], ["Ibuprofen"], [])[0, 0] == pytest.approx(1.0)
    assert 0 < m.between(["Aspirin"], ["Vorinostat"], [])[0, 0] < 0.5
    assert "Caffeine" in m.missing(NAMES)


def test_graph_proximity_goes_beyond_shared_targets():
    """EGFR and KRAS share no gene, but are neighbours; HDAC1 is in another component."""
    k = target_graph_similarity({"a": ("EGFR",), "b": ("KRAS",), "c": ("HDAC1",)}, SmallGenes())
    values = k.between(["a"], ["b", "c"], [])[0]
    assert values[0] > 0.5
    assert values[1] == pytest.approx(0.0)
    with pytest.raises(InputError, match="no drug target is a node"):
        target_graph_similarity({"a": ("NOPE",)}, SmallGenes())


def test_diffusion_against_the_closed_form():
    rng = np.random.default_rng(1)
    a = rng.random((6, 6))
    a = (a + a.T) / 2
    seeds = np.eye(6)[:2]
    walk = a / a.sum(axis=1, keepdims=True)
    exact = 0.6 * seeds @ np.linalg.inv(np.eye(6) - 0.4 * walk)
    found = diffuse(csr_matrix(a), csr_matrix(seeds), restart=0.6, steps=60)
    np.testing.assert_allclose(found, exact, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_neighbour_features_read_nothing_outside_the_pool():
    given = {"q": ("out", "a", "b"), "a": ("b", "q"), "out": ("a",)}
    pool = ["a", "b", "c"]
    first = neighbour_features(given, ["q", "a"], pool)
    changed = {**given, "out": ("c",), "elsewhere": ("q",)}
    np.testing.assert_array_equal(first, neighbour_features(changed, ["q", "a"], pool))
    assert first[0, 2] == 0


def test_neighbour_features_by_hand():
    """Without lists in the pool, a query is its own list, decaying, at length 1."""
    found = neighbour_features({"q": ("out", "a", "b")}, ["q", "a"], ["a", "b", "c"], decay=7.0)
    weights = np.array([1.0, np.exp(-1 / 7), 0.0])
    np.testing.assert_allclose(found[0], weights / np.linalg.norm(weights))
    np.testing.assert_allclose(found[1], [1, 0, 0])
    # With "a names c", q reaches c in one step over a, by the weight of a.
    found = neighbour_features({"q": ("a", "b"), "a": ("c",)}, ["q"], ["a", "b", "c"])
    np.testing.assert_allclose(found[0], weights / np.linalg.norm(weights) + [0, 0, found[0, 2]])
    assert found[0, 2] == pytest.approx(weights[0] / np.linalg.norm(weights))


def test_combined_refuses_wrong_weights():
    part = chemistry_similarity(drug_table())
    for weights in [(1.0, 2.0), (-1.0,), (0.0,)]:
        with pytest.raises(InputError):
            MeanKernel((part,), weights)
    with pytest.raises(InputError, match="at least one"):
        MeanKernel(())
