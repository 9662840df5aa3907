"""The suite of kernels: ``check_kernel(kernel, names)``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pertwise.kernels.base import Kernel
from pertwise.kernels.genes import KernelSource, SourceKernel

#: A similarity below zero by more than rounding is none that a Gaussian process can use.
ROUNDING = 1e-6


def check_kernel(
    kernel: Kernel | KernelSource, names: Sequence[str], *, unknown: str = "NOSUCHGENE1"
) -> None:
    """Run every check; raises AssertionError at the first that fails.

    Parameters
    ----------
    kernel
        Similarities between names, or their feature rows (each kind is then checked).
    names
        At least four perturbations that the kernel knows; the first half are the pool.
    unknown
        A name that it does not know.
    """
    if not isinstance(kernel, Kernel):
        assert callable(getattr(kernel, "rows", None)), (
            "a kernel has a name and between(rows, others, pool), or kinds and rows(kind, names)"
        )
        assert kernel.kinds, "a kernel of feature rows names its kinds"
        assert isinstance(kernel.source, str), "a kernel of feature rows says its source"
        for kind in kernel.kinds:
            rows = kernel.rows(kind, [*names, unknown])
            length = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
            assert np.all((abs(length - 1) < 1e-5) | (length == 0)), "rows are of length 1, or zero"
            check_kernel(SourceKernel(kernel, kind), names, unknown=unknown)
        return
    assert isinstance(kernel.name, str)
    assert kernel.name, "a kernel says what tables call it"
    known = list(names)
    assert len(known) >= 4, "give at least four names"
    pool, asked = known[: len(known) // 2], known[len(known) // 2 :]
    k = np.asarray(kernel.between(known, known, pool), dtype=np.float64)
    assert k.shape == (len(known), len(known)), "one row a name, one column another"
    assert np.isfinite(k).all(), "a similarity is a number, also where nothing is known"
    np.testing.assert_allclose(k, k.T, atol=ROUNDING, err_msg="k(a, b) is k(b, a)")
    np.testing.assert_allclose(np.diag(k), 1.0, atol=1e-5, err_msg="a name is itself: 1")
    assert np.linalg.eigvalsh(k).min() > -1e-5, "positive semi-definite"
    # What else is asked, and in which order, changes nothing.
    cross = kernel.between(asked, pool, pool)
    np.testing.assert_allclose(cross, k[len(pool) :, : len(pool)], atol=1e-5)
    one = kernel.between(asked[:1], pool[::-1], pool)
    np.testing.assert_allclose(one[0][::-1], cross[0], atol=1e-5)
    np.testing.assert_array_equal(cross, kernel.between(asked, pool, pool), "the same twice")
    stranger = np.asarray(kernel.between([unknown], pool, pool))
    assert np.isfinite(stranger).all(), "an unknown name is alike to nothing, never an error"
    assert kernel.between([], pool, pool).shape == (0, len(pool))
