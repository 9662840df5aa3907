"""Kernels of genes from a knowledge folder: a gene, its neighbours, and both together."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from pertwise import parts
from pertwise.arrays import memory
from pertwise.errors import InputError, UnknownNameError
from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    GeneBlocks,
    available,
    gene_blocks,
    linked,
    product,
)
from pertwise.knowledge.genes.features import unit_rows
from pertwise.models import kernel_model
from pertwise.models.radial import SCALES, radial_kernels
from pertwise.screen.core import make_screen


def unit(x):
    return x / np.linalg.norm(x)


def test_partners_alone_and_together_with_the_gene(simulated):
    """NAME@GRAPH = weighted mean of the neighbours, NAME&GRAPH = the gene plus its neighbours."""
    _, knowledge = simulated
    graph = knowledge.graph("shared_promoter", True)
    gene = graph.nodes[0]
    row = graph.adjacency[0]
    partners = [graph.nodes[j] for j in row.indices]
    rows = knowledge.features("go", [gene, *partners], True, weighted=True).toarray()
    blocks = gene_blocks(knowledge, [gene], ["go@shared_promoter", "go&shared_promoter"]).blocks
    np.testing.assert_allclose(blocks[0].toarray()[0], unit(row.data @ rows[1:]), atol=1e-6)
    np.testing.assert_allclose(blocks[1].toarray()[0], unit(rows.sum(axis=0)), atol=1e-6)
    without = next(g for g in knowledge.graph("string").nodes if g not in graph.nodes)
    alone = gene_blocks(knowledge, [without], ["go", "go@shared_promoter", "go&shared_promoter"])
    assert not alone.blocks[1].nnz
    np.testing.assert_allclose(alone.blocks[2].toarray(), alone.blocks[0].toarray(), atol=1e-6)


def test_what_is_available_and_what_is_not(simulated):
    _, knowledge = simulated
    assert available(knowledge, "diffusion:string")
    assert available(knowledge, "go&shared_promoter")
    assert not available(knowledge, "go&nowhere")
    assert not available(knowledge, "diffusion:nowhere")
    names = list(simulated[0].perturbations[:3])
    used = gene_blocks(knowledge, names, DEFAULT_KERNELS, skip_missing=True).kinds
    assert set(used) <= set(DEFAULT_KERNELS)
    assert {"go&shared_promoter", "text@string"} <= set(used)
    with pytest.raises(UnknownNameError, match="nowhere"):
        gene_blocks(knowledge, names, ["go&nowhere"])
    with pytest.raises(InputError, match="at least one kernel"):
        gene_blocks(knowledge, names, [])


def test_a_gene_alike_to_nothing_measured_gets_the_declared_mean(simulated):
    screen, knowledge = simulated
    names = list(screen.perturbations[:6])
    train = make_screen(np.eye(6), names, [f"f{i}" for i in range(6)], meta={"simulated": True})
    alike = np.zeros((2, 3, 4))
    alike[0, 0, 3], alike[1, 2, 1] = 0.5, -0.1
    assert linked(alike).tolist() == [True, False, True]
    # One kernel that knows the asked gene, but links it to nobody measured.
    far = next(
        g
        for g in screen.perturbations[6:]
        if not gene_blocks(knowledge, [g], ["string"])
        .cross(gene_blocks(knowledge, names, ["string"]))
        .any()
    )
    model = parts.load("predictor", "multi-kernel", kernels=["string"]).fit(train, knowledge)
    found = model.predict([far])
    assert found.support["fallback"].tolist() == ["training mean"]
    np.testing.assert_allclose(found.mean[0], train.responses.mean(axis=0), atol=1e-6)


def test_radial_kernels_by_hand():
    a, b = np.array([[0.0, 0.0], [1.0, 2.0]]), np.array([[1.0, 0.0]])
    got = radial_kernels(a, b, unit=2.0)
    assert got.shape == (2 + len(SCALES), 2, 1)
    np.testing.assert_allclose(got[0], 1.0)
    np.testing.assert_allclose(got[1, :, 0], np.exp(-np.array([1.0, 4.0]) / (0.1 * 2.0)))
    np.testing.assert_allclose(got[-1, :, 0], [0.0, 1.0])


def test_radial_finds_a_group_that_is_linear_in_nothing(simulated):
    """Held out genes get the response of their group; the training mean cannot know it."""
    screen, knowledge = simulated
    names = screen.perturbations
    held = list(names[::6])
    model = parts.load("predictor", "radial").fit(screen.hide(held), knowledge)
    found = model.predict(held)
    mean = parts.load("predictor", "training mean").fit(screen.hide(held)).predict(held)
    truth = screen.of_perturbations(held).responses
    assert ((found.mean - truth) ** 2).sum() < 0.95 * ((mean.mean - truth) ** 2).sum()
    assert (found.spread > 0).all()


def test_products_are_the_same_dense_and_sparse():
    rng = np.random.default_rng(1)
    thin, full = csr_matrix(rng.binomial(1, 0.05, (9, 40)).astype(float)), rng.normal(size=(7, 40))
    for a, b in ((thin, csr_matrix(full)), (csr_matrix(full), csr_matrix(full)), (thin, thin)):
        np.testing.assert_allclose(product(a, b), a.toarray() @ b.toarray().T, atol=1e-12)
    none = csr_matrix((0, 40))
    assert product(none, csr_matrix(full)).shape == (0, 7)


def mixed_kernels(n, seed=0):
    """One sparse kernel with an empty row, and one dense kernel."""
    rng = np.random.default_rng(seed)
    sparse = rng.random((n, 300)) * (rng.random((n, 300)) < 0.05)
    sparse[0] = 0.0
    blocks = (csr_matrix(sparse), csr_matrix(rng.standard_normal((n, 20))))
    return GeneBlocks(
        tuple(f"g{i}" for i in range(n)),
        ("sparse", "dense"),
        tuple(unit_rows(b) for b in blocks),
    )


@pytest.mark.parametrize("rows", [1, 7, 30, 1000])
def test_kernels_in_blocks_are_the_kernels_at_once(monkeypatch, rows):
    known, asked = mixed_kernels(30), mixed_kernels(23, 1)
    monkeypatch.setattr(memory, "BLOCK_BYTES", rows * 8 * 2 * 30)
    for whole, pieces in (
        (asked.cross(known), list(asked.cross_blocks(known))),
        (known.gram(), list(known.gram_blocks())),
    ):
        assert all(kernels.shape[1] <= rows for _, kernels in pieces)
        together = np.concatenate([kernels for _, kernels in pieces], axis=1)
        np.testing.assert_array_equal(together[0], whole[0])
        np.testing.assert_allclose(together[1], whole[1], atol=1e-6)
    half = np.zeros_like(known.gram())
    for at, kernels in known.gram_blocks(lower=True):
        half[:, at, : at.stop] = kernels
        half[:, : at.stop, at] = kernels.transpose(0, 2, 1)
    np.testing.assert_allclose(half, known.gram(), atol=1e-6)
    np.testing.assert_array_equal(np.stack(list(known.grams())), known.gram())
    part, whole = known.take([4, 0, 9]).gram(), known.gram()[:, [[4], [0], [9]], [4, 0, 9]]
    np.testing.assert_array_equal(part[0], whole[0])
    # Dense products of single-precision features depend, in their last bits, on the shape.
    np.testing.assert_allclose(part[1], whole[1], atol=1e-6)


def test_nobody_asked_is_one_empty_block():
    known = mixed_kernels(5)
    (piece,) = known.take([]).cross_blocks(known)
    assert piece[1].shape == (2, 0, 5)


@pytest.mark.parametrize(
    "method", ["multi-kernel", "radial", "forest", "kernel-vote", "learned-neighbours"]
)
def test_predictions_do_not_depend_on_the_size_of_blocks(simulated, monkeypatch, method):
    screen, knowledge = simulated
    names = screen.perturbations
    settings = {"n_trees": 5} if method == "forest" else {}

    def made():
        model = parts.load("predictor", method, **settings)
        model.fit(screen.of_perturbations(names[:45]), knowledge)
        return model.predict(names[40:])

    whole = made()
    monkeypatch.setattr(memory, "BLOCK_BYTES", 26 * 8 * 45 * 4)
    found = made()
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-5, atol=1e-6)
    if whole.spread is not None:
        np.testing.assert_allclose(found.spread, whole.spread, rtol=1e-5)
    pd.testing.assert_frame_equal(found.support, whole.support)
    if whole.neighbours is not None:
        pd.testing.assert_frame_equal(found.neighbours, whole.neighbours)


@pytest.mark.parametrize("method", ["multi-kernel", "radial", "forest"])
def test_a_fit_that_cannot_fit_is_refused_before_it_starts(simulated, monkeypatch, method):
    screen, knowledge = simulated
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    monkeypatch.setattr(kernel_model, "gene_blocks", None)
    with pytest.raises(InputError, match=r"60 training .* needs about 0\.8 GB .* 0\.1 GB .* fewer"):
        parts.load("predictor", method).fit(screen, knowledge)


def test_available_memory_is_read_where_it_is_told(monkeypatch, tmp_path):
    told = tmp_path / "meminfo"
    told.write_text("MemTotal:  9 kB\nMemAvailable:   2048 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", told)
    assert memory.available_memory() == 2048 * 1024
    told.write_text("MemAvailable: unknown\n")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 50, "SC_PAGE_SIZE": 10}.get)
    assert memory.available_memory() == 500
    monkeypatch.setattr(memory.os, "sysconf", lambda name: -1)
    assert memory.available_memory() is None
    memory.require_memory(10**15, "work", "do less")


def test_frequent_columns_are_multiplied_densely_with_the_same_result(monkeypatch):
    rng = np.random.default_rng(5)
    share = np.r_[np.full(20, 0.9), np.full(60, 0.02), np.zeros(10)]
    left, right = (
        csr_matrix((rng.random((n, 90)) < share) * rng.random((n, 90))).astype(np.float32)
        for n in (70, 40)
    )
    wanted = left.toarray().astype(float) @ right.toarray().T.astype(float)
    np.testing.assert_allclose(product(left, right), wanted, rtol=1e-5)
    monkeypatch.setattr("pertwise.kernels.genes.MANY_PAIRS", 0)
    np.testing.assert_allclose(product(left, right), wanted, rtol=1e-5)
    # None and all of the columns are frequent.
    for some in (left[:, 20:], left[:, :20]):
        np.testing.assert_allclose(product(some, some), (some @ some.T).toarray(), rtol=1e-5)
