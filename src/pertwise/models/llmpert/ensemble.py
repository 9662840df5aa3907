"""The LLMPert ensemble on arrays: fit, predict, uncertainty. Names live in `llmpert`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.models.llmpert.reduce import input_basis, target_blocks
from pertwise.models.llmpert.train import EnsembleSettings, Networks, forward, train

#: Rows predicted at a time: keeps (members, rows, features) near 100 MB at 5 x 5,000.
_ROWS = 1024


@dataclass(frozen=True)
class FittedEnsemble:
    """Trained members: plain networks from d inputs to F outputs, with their scaling.

    Attributes
    ----------
    networks
        Parameters in original coordinates (torch tensors, member axis first); None for members
        that are no networks.
    input_mean, input_scale
        (d,) and scalar: inputs enter as (x - input_mean) / input_scale.
    target_scale
        Outputs leave multiplied by it.
    noise
        (F,) mean squared residual of the ensemble mean on the training rows.
    n_inputs, n_outputs
        Numbers of coordinates the first and the last layer were trained in.
    """

    networks: Networks | None
    settings: EnsembleSettings
    input_mean: NDArray[np.float32]
    input_scale: float
    target_scale: float
    noise: NDArray[np.float32]
    n_inputs: int
    n_outputs: int

    def members(
        self, x: NDArray[Any], features: NDArray[np.intp] | None = None
    ) -> NDArray[np.float32]:
        """Predictions of every member, (M, n, F) or (M, n, len(features))."""
        parts = [part for _, part in self._chunks(x, features)]
        return np.concatenate(parts, axis=1)

    def moments(
        self, x: NDArray[Any], features: NDArray[np.intp] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Ensemble mean and variance, each (n, F) or (n, len(features)).

        The variance over members is unbiased (divisor M - 1); 0 for a single member.
        """
        pairs = [mean_variance(part) for _, part in self._chunks(x, features)]
        return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])

    def uncertainty(
        self, x: NDArray[Any], features: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """u(p) = mean over features of the variance over members, (n,).

        Raises
        ------
        InputError
            With fewer than two members, which cannot disagree.
        """
        if self.settings.members < 2:
            raise InputError("uncertainty needs at least 2 members, this ensemble has 1")
        parts = [
            mean_variance(part)[1].mean(axis=1, dtype=np.float64)
            for _, part in self._chunks(x, features)
        ]
        return np.concatenate(parts)

    def _chunks(
        self, x: NDArray[Any], features: NDArray[np.intp] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        networks = self.networks
        if networks is None:
            raise InputError("these members are no networks")
        weight, bias = networks.out_weight, networks.out_bias
        if features is not None:
            index = np.asarray(features, dtype=np.intp)
            weight, bias = weight[:, :, index], bias[:, index]
        for start, rows in self._scaled(x):
            hidden = forward(networks, rows, self.settings)
            out = (hidden @ weight).add_(bias[:, None]).mul_(self.target_scale)
            yield start, out.cpu().numpy()

    def _scaled(self, x: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.input_mean):
            raise InputError(
                f"inputs have shape {x.shape}; the ensemble was fitted on {len(self.input_mean)} "
                "columns"
            )
        for start in range(0, max(len(x), 1), _ROWS):
            rows = (x[start : start + _ROWS] - self.input_mean) / np.float32(self.input_scale)
            yield start, np.ascontiguousarray(rows)


def mean_variance(
    members: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and unbiased variance over members: (M, n, F) -> twice (n, F)."""
    mean = members.mean(axis=0)
    total = np.zeros_like(mean)
    for member in members:
        total += np.square(member - mean)
    return mean, total / np.float32(max(len(members) - 1, 1))


def fit_ensemble(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    rng: np.random.Generator,
    settings: EnsembleSettings | None = None,
    center_inputs: bool = True,
    scale_inputs: bool = True,
    scale_targets: bool = True,
) -> FittedEnsemble:
    """Fit the ensemble on arrays.

    Parameters
    ----------
    x
        (n, d) finite inputs, one row per perturbation.
    y
        (n, F) deltas, NaN = not measured (masked in the loss).
    rng
        All randomness: same state, same machine and same number of threads, same result.
    center_inputs, scale_inputs
        Subtract the column means of the training inputs, and divide by one number, the root mean
        square of their entries (text embeddings share a large mean and have tiny entries).
    scale_targets
        Train on targets divided by one number, the root mean square of the observed ones. Initial
        outputs have a size of about 0.4; on log-expression deltas of about 0.1 much of the training
        would go into shrinking them.

    Raises
    ------
    InputError
        On shapes that do not match, inputs that are not finite, or targets that hold nothing.
    """
    settings = settings or EnsembleSettings()
    x = np.asarray(x, dtype=np.float32)
    y = np.asarray(y, dtype=np.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or min(*x.shape, *y.shape) == 0:
        raise InputError(f"inputs {x.shape} and targets {y.shape} must be tables with equal rows")
    if not np.isfinite(x).all():
        raise InputError(f"input row {int(np.argwhere(~np.isfinite(x))[0][0])} is not finite")
    if np.isinf(y).any():
        raise InputError(f"target row {int(np.argwhere(np.isinf(y))[0][0])} is infinite")
    observed = np.isfinite(y)
    rows = observed.any(axis=1)
    if not rows.all():
        raise InputError(
            f"target row {int(np.flatnonzero(~rows)[0])} holds no measured feature; leave such "
            "rows out"
        )
    if not observed.any(axis=0).all():
        raise InputError(
            f"feature {int(np.flatnonzero(~observed.any(axis=0))[0])} is measured in no row; leave "
            "such features out"
        )
    mean = x.mean(axis=0) if center_inputs else np.zeros(x.shape[1], dtype=np.float32)
    centred = x - mean
    x_scale = _root_mean_square(centred) if scale_inputs else 1.0
    y_scale = _root_mean_square(y[observed]) if scale_targets else 1.0
    centred /= np.float32(x_scale)
    basis = input_basis(centred, rng, settings.reduce)
    targets = np.divide(y, np.float32(y_scale), dtype=np.float32)
    blocks = target_blocks(targets, settings.hidden[-1], settings.reduce)
    networks = train(centred, blocks, basis, y.shape[1], settings, rng)
    extra = settings.hidden[-1] + 1
    fitted = FittedEnsemble(
        networks=networks,
        settings=settings,
        input_mean=mean,
        input_scale=x_scale,
        target_scale=y_scale,
        noise=np.zeros(y.shape[1], dtype=np.float32),
        n_inputs=x.shape[1] if basis is None else len(basis),
        n_outputs=sum(len(b.features) if b.basis is None else len(b.basis) + extra for b in blocks),
    )
    residual = fitted.moments(x)[0] - y
    noise = np.nanmean(np.square(residual, out=residual), axis=0)
    fitted.noise[:] = noise
    return fitted


def _root_mean_square(values: NDArray[np.float32]) -> float:
    size = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
    return size if size > 0 else 1.0
