"""Smaller coordinates for the inputs and targets of a network trained on few perturbations.

With n training rows the first layer needs only r <= n input coordinates and the output layer only
n + h + 1 output coordinates (h = width of the last hidden layer), whatever the number of inputs
and features is:

* *inputs*: the gradient of the first layer lies in the span of the n input rows. Weights outside
  that span keep their initial value (times the weight decay), which is known in advance.
* *targets*: the gradient of the output layer is H^T (H W - Y). Its rows lie in the span of the rows
  of Y (at most n dimensions) and of the initial weights and biases (h + 1 rows), at every step.

Both are exact for plain gradients. AdamW depends on the coordinates it works in; `llmpert_train`
says what it does in these, and `docs/ensemble.md` what difference that makes.

Kernels of numpy arrays; nothing here knows about torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

#: Reduce only when the smaller problem has at most this part of the columns of the full one.
WORTHWHILE = 0.75
#: Directions with a singular value below this part of the largest are dropped: their share of the
#: squared norm is below 1e-10, beyond float32.
RANK_TOLERANCE = 1e-5


def row_space(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Orthonormal basis of the span of the rows.

    Parameters
    ----------
    matrix
        (n, d), finite, n usually much smaller than d.

    Returns
    -------
    (r, d) with orthonormal rows, r = numerical rank (see `RANK_TOLERANCE`). It comes from the
    n x n Gram matrix, so the cost is O(n^2 d).
    """
    a = np.asarray(matrix, dtype=np.float64)
    if a.size == 0:
        return np.zeros((0, a.shape[1]))
    values, vectors = np.linalg.eigh(a @ a.T)
    if values[-1] <= 0:
        return np.zeros((0, a.shape[1]))
    kept = values > RANK_TOLERANCE**2 * values[-1]
    basis = (vectors[:, kept] / np.sqrt(values[kept])).T @ a
    # The Gram matrix squares the condition number; one Cholesky pass restores orthogonality.
    gram = basis @ basis.T
    if np.abs(gram - np.eye(len(gram))).max() > 1e-9:
        basis = solve_triangular(np.linalg.cholesky(gram), basis, lower=True)
    return np.asarray(basis)


def input_basis(
    x: NDArray[np.float32], rng: np.random.Generator, wanted: bool = True
) -> NDArray[np.float32] | None:
    """Random orthonormal basis (r, d) of the span of the training inputs (n, d).

    The basis is uniformly distributed over all bases of the span, so that each coordinate is a
    mixture of many inputs, as each of the original coordinates is; principal axes would hand AdamW
    a few large coordinates and many that are nearly empty. None if it would save too little.
    """
    if not wanted or min(x.shape) > WORTHWHILE * x.shape[1]:
        return None
    basis = row_space(x)
    if not len(basis):
        return None
    q, r = np.linalg.qr(rng.standard_normal((len(basis), len(basis))))
    return np.asarray((q * np.sign(np.diag(r))) @ basis, dtype=np.float32)


@dataclass(frozen=True)
class OutputBlock:
    """Output features that are trained together, and the coordinates they are trained in.

    Attributes
    ----------
    features
        (F_b,) positions of the features in the full target matrix.
    observed
        (n, F_b) bool for a block with gaps in full coordinates, otherwise (n, 1).
    targets
        (n, K_b) coordinates of the targets, or the targets themselves; 0 where not observed.
    basis
        (K_b, F_b) orthonormal rows, or None for full coordinates.
    """

    features: NDArray[np.intp]
    observed: NDArray[np.bool_]
    targets: NDArray[np.float32]
    basis: NDArray[np.float32] | None


def target_blocks(
    y: NDArray[np.float32], hidden: int, wanted: bool = True
) -> tuple[OutputBlock, ...]:
    """Split the target features into blocks and choose the coordinates of each.

    A mask that differs between two features does not survive a rotation that mixes them. So
    features with the same missing rows form one block: on its rows S the targets span at most |S|
    dimensions. Features whose group is too small to gain are trained together in full coordinates
    with a mask.

    Parameters
    ----------
    y
        (n, F) targets, NaN = not measured.
    hidden
        Width of the last hidden layer: its initial output weights add ``hidden + 1`` coordinates.
    """
    finite = np.isfinite(y)
    filled = np.where(finite, y, 0).astype(np.float32)
    if finite.all():
        groups = [np.arange(y.shape[1])]
    else:
        _, inverse = np.unique(np.packbits(finite, axis=0), axis=1, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        cuts = np.flatnonzero(np.diff(inverse.ravel()[order])) + 1
        groups = np.split(order, cuts)
    blocks: list[OutputBlock] = []
    full: list[NDArray[np.intp]] = []
    for features in groups:
        rows = finite[:, features[0]]
        if not wanted or int(rows.sum()) + hidden + 1 > WORTHWHILE * len(features):
            full.append(features)
            continue
        part = filled[:, features]
        basis = row_space(part[rows])
        targets = (part.astype(np.float64) @ basis.T).astype(np.float32)
        blocks.append(OutputBlock(features, rows[:, None], targets, basis.astype(np.float32)))
    if full:
        features = np.sort(np.concatenate(full))
        observed = finite[:, features]
        if observed.all():
            observed = observed[:, :1]
        blocks.append(OutputBlock(features, observed, filled[:, features], None))
    return tuple(blocks)


def extend_basis(
    basis: NDArray[np.float32], rows: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add to an orthonormal basis what it lacks to hold some more rows.

    Parameters
    ----------
    basis
        (k, F) orthonormal rows (k may be 0).
    rows
        (m, F), the initial output weights and biases of one network.

    Returns
    -------
    extension
        (m, F) orthonormal rows, orthogonal to `basis`; zero rows where the span is smaller.
    coordinates
        (m, k + m) with rows = coordinates @ [basis; extension].
    """
    inside = rows @ basis.T
    rest = np.asarray(rows - inside @ basis, dtype=np.float64)
    found = row_space(rest)
    extension = np.zeros_like(rows)
    extension[: len(found)] = found
    outside = rest @ extension.T
    return extension, np.concatenate([inside, outside], axis=1).astype(np.float32)
