"""Training several LLMPert networks at once: batched parameters, hand-written backward pass.

Network (per member): three times [linear, LayerNorm, LeakyReLU, dropout], then a linear output of
the delta; mean squared error over the observed entries; AdamW with a cosine schedule. All members
are leading slices of the same tensors, so one batched product serves them all.

A layer trained in a smaller basis (`llmpert_reduce`) keeps AdamW's behaviour in the original
coordinates as follows; everything else is stepped by plain AdamW.

* *Output layer*: its second moment is shared over the outputs,

      m <- b1 m + (1 - b1) g;  s <- b2 s + (1 - b2) mean_outputs(g^2)
      W <- (1 - lr wd) W - lr m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps)

  where the mean runs over all F outputs (g = 0 outside the basis). It is the same number in every
  basis, so the result is that of training all F outputs with this rule. Sharing second moments:
  Adafactor (Shazeer & Stern 2018), Adam-mini (Zhang et al. 2024).
* *First layer*: plain AdamW in a random basis of r coordinates, with the learning rate multiplied
  by sqrt(d / r): an AdamW step has about one size per coordinate, hence a norm that grows with the
  root of their number.

torch is an optional extra and is imported on first use.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._io import optional_import
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.models.llmpert.reduce import OutputBlock, extend_basis

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
LAYER_NORM_EPSILON = 1e-5


def import_torch() -> Any:
    """torch, or an error with its install line."""
    return optional_import("torch", "torch", "The LLMPert ensemble")


@dataclass(frozen=True)
class EnsembleSettings:
    """Hyper-parameters of the ensemble; the defaults are those of the LLMPert paper.

    Attributes
    ----------
    members, hidden, dropout, slope
        Number of networks, widths of the hidden layers, dropout rate, LeakyReLU slope.
    learning_rate, final_learning_rate, weight_decay, batch_size, epochs
        AdamW with one cosine step an epoch.
    bootstrap
        Each member sees its own resample (n out of n) of the training perturbations.
    reduce
        Train first and last layer in the span of the data where that is smaller. False trains the
        plain networks with plain AdamW.
    device
        "cpu", "cuda", "cuda:1" ...
    """

    members: int = 5
    hidden: tuple[int, ...] = (1024, 512, 256)
    dropout: float = 0.3
    slope: float = 0.01
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    weight_decay: float = 1e-3
    batch_size: int = 1024
    epochs: int = 200
    bootstrap: bool = False
    reduce: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(h) for h in self.hidden))
        for name in ("members", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.hidden or min(self.hidden) < 2:
            raise InputError(
                f"hidden needs at least one layer, each of 2 or more units (LayerNorm); got "
                f"{self.hidden}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be in [0, 1), got {self.dropout}")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise InputError(
                f"learning rates must satisfy 0 < final <= first, got first "
                f"{self.learning_rate} and final {self.final_learning_rate}"
            )
        if self.slope <= 0 or self.weight_decay < 0:
            raise InputError(
                f"slope must be positive and weight_decay not negative, got {self.slope} and "
                f"{self.weight_decay}"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able copy, for provenance."""
        return {**asdict(self), "hidden": list(self.hidden)}


@dataclass
class Networks:
    """Parameters of all members; tensors lead with the member axis.

    Attributes
    ----------
    weights, biases, gains, shifts
        Per hidden layer: (M, in, out), (M, out), and LayerNorm's (M, out) twice.
    out_weight, out_bias
        (M, h, F) and (M, F).
    """

    weights: list[Any] = field(default_factory=list)
    biases: list[Any] = field(default_factory=list)
    gains: list[Any] = field(default_factory=list)
    shifts: list[Any] = field(default_factory=list)
    out_weight: Any = None
    out_bias: Any = None


@dataclass
class _Head:
    """One output block in training coordinates."""

    weight: Any  # (M, h, K)
    bias: Any  # (M, K)
    targets: Any  # (n, K)
    observed: Any  # (n, 1) or (n, F_b) float
    block: OutputBlock
    extension: NDArray[np.float32] | None  # (M, h + 1, F_b)


def learning_rates(settings: EnsembleSettings) -> NDArray[np.float64]:
    """(epochs,) cosine schedule from `learning_rate` towards `final_learning_rate`."""
    turn = np.cos(np.pi * np.arange(settings.epochs) / settings.epochs)
    low, high = settings.final_learning_rate, settings.learning_rate
    return np.asarray(low + (high - low) * (1 + turn) / 2)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> NDArray[np.float32]:
    """PyTorch's default for nn.Linear: uniform on +-1/sqrt(fan_in), weights and biases alike."""
    bound = np.float32(1 / math.sqrt(fan_in))
    out = rng.random(shape, dtype=np.float32)
    out *= 2 * bound
    out -= bound
    return out


class _Dropout:
    """Scaled dropout masks; each member has its own stream of bits."""

    def __init__(self, seeds: list[int], rate: float, device: Any) -> None:
        self._torch = import_torch()
        self._rate, self._device = rate, device
        self._bits = [np.random.SFC64(s) for s in seeds]
        self._generator = None
        if device.type != "cpu":
            self._generator = self._torch.Generator(device=device)
            self._generator.manual_seed(seeds[0])
        # A 16-bit draw below the threshold drops a unit: the rate is exact to 1/65536, at a
        # quarter of the random numbers that a float per unit would need.
        self._threshold = round(rate * 65536) - 32768

    def __call__(self, rows: int, width: int) -> Any:
        """(M, rows, width) of 0 and 1 / (1 - rate)."""
        torch, size = self._torch, rows * width
        shape = (len(self._bits), rows, width)
        if self._generator is not None:
            mask = torch.empty(shape, device=self._device)
            mask.bernoulli_(1 - self._rate, generator=self._generator)
        else:
            draws = np.stack([b.random_raw((size + 3) // 4) for b in self._bits]).view(np.int16)
            mask = (torch.from_numpy(draws)[:, :size] >= self._threshold).view(shape).float()
        return mask.mul_(1 / (1 - self._rate))


class _SharedMomentAdamW:
    """AdamW whose second moment is a mean over all outputs, the last axis (see module)."""

    def __init__(self, tensor: Any, n_outputs: int, weight_decay: float) -> None:
        torch = import_torch()
        self.tensor, self.grad = tensor, torch.zeros_like(tensor)
        self._n_outputs, self._decay = n_outputs, weight_decay
        self._first = torch.zeros_like(tensor)
        self._second: Any = 0.0
        self._t = 0

    def step(self, lr: float) -> None:
        torch = import_torch()
        self._t += 1
        norm = torch.linalg.vector_norm(self.grad, dim=-1, keepdim=True)
        self._second = BETA2 * self._second + (1 - BETA2) / self._n_outputs * norm.square_()
        self._first.lerp_(self.grad, 1 - BETA1)
        scale = (self._second / (1 - BETA2**self._t)).sqrt_().add_(EPSILON)
        self.tensor.mul_(1 - lr * self._decay)
        self.tensor.addcdiv_(
            self._first, scale.expand_as(self._first), value=-lr / (1 - BETA1**self._t)
        )


class _FusedAdamW:
    """AdamW (Loshchilov & Hutter 2019) by torch's fused kernel, at `ratio` times the rate.

    ``torch.optim`` calls the same kernel, but loads torch's compiler first: longer than a short
    training takes.
    """

    def __init__(self, tensors: list[Any], ratio: float, decay: float) -> None:
        torch = import_torch()
        self._tensors, self._ratio, self._decay = tensors, ratio, decay
        self._first = [torch.zeros_like(t) for t in tensors]
        self._second = [torch.zeros_like(t) for t in tensors]
        self._steps = [torch.zeros((), device=t.device) for t in tensors]

    def step(self, lr: float) -> None:
        torch = import_torch()
        torch._foreach_add_(self._steps, 1)
        torch._fused_adamw_(
            self._tensors, [t.grad for t in self._tensors], self._first, self._second, [],
            self._steps, lr=lr * self._ratio, beta1=BETA1, beta2=BETA2,
            weight_decay=self._decay, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip


def train(
    x: NDArray[np.float32],
    blocks: tuple[OutputBlock, ...],
    basis: NDArray[np.float32] | None,
    n_features: int,
    settings: EnsembleSettings,
    rng: np.random.Generator,
) -> Networks:
    """Train all members and return them in the original coordinates.

    Parameters
    ----------
    x
        (n, d) training inputs, original coordinates.
    blocks
        Targets, from `target_blocks`.
    basis
        (r, d) from `input_basis`, or None.
    n_features
        F; every feature belongs to one block.
    rng
        Source of all randomness: initial values, dropout, batches and bootstrap differ between
        members. On one machine and number of threads the same state gives the same networks.
    """
    torch = import_torch()
    device = torch.device(settings.device)
    member_rngs = rng.spawn(settings.members)
    with torch.no_grad():
        start = [_initial(x.shape[1], n_features, settings.hidden, r) for r in member_rngs]
        nets, heads = _prepare(start, blocks, basis, settings, device)
        _optimise(x, basis, nets, heads, settings, member_rngs, device)
        return _unfold(start, nets, heads, basis, n_features, settings)


def _initial(
    d: int, f: int, hidden: tuple[int, ...], rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Initial (weight, bias) of every linear layer of one member."""
    sizes = [d, *hidden, f]
    return [
        (_uniform(rng, (a, b), a), _uniform(rng, (b,), a)) for a, b in itertools.pairwise(sizes)
    ]


def _prepare(
    start: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]],
    blocks: tuple[OutputBlock, ...],
    basis: NDArray[np.float32] | None,
    settings: EnsembleSettings,
    device: Any,
) -> tuple[Networks, list[_Head]]:
    """Initial tensors of all members, first and last layer rotated where a basis is given."""
    torch = import_torch()

    def tensor(arrays: list[NDArray[np.float32]]) -> Any:
        return torch.from_numpy(np.stack(arrays)).to(device)

    nets = Networks()
    for layer, width in enumerate(settings.hidden):
        weights = [member[layer][0] for member in start]
        if layer == 0 and basis is not None:
            weights = [basis @ w for w in weights]
        nets.weights.append(tensor(weights))
        nets.biases.append(tensor([member[layer][1] for member in start]))
        nets.gains.append(torch.ones(settings.members, width, device=device))
        nets.shifts.append(torch.zeros(settings.members, width, device=device))
    heads = []
    for block in blocks:
        rows = [np.vstack([m[-1][0], m[-1][1]])[:, block.features] for m in start]
        targets, extension = block.targets, None
        if block.basis is not None:
            pairs = [extend_basis(block.basis, r) for r in rows]
            extension, rows = np.stack([p[0] for p in pairs]), [p[1] for p in pairs]
            targets = np.pad(targets, ((0, 0), (0, extension.shape[1])))
        heads.append(
            _Head(
                weight=tensor([r[:-1] for r in rows]),
                bias=tensor([r[-1] for r in rows]),
                targets=torch.from_numpy(targets).to(device),
                observed=torch.from_numpy(block.observed.astype(np.float32)).to(device),
                block=block,
                extension=extension,
            )
        )
    return nets, heads


def _optimise(
    x: NDArray[np.float32],
    basis: NDArray[np.float32] | None,
    nets: Networks,
    heads: list[_Head],
    settings: EnsembleSettings,
    member_rngs: list[np.random.Generator],
    device: Any,
) -> None:
    """Run all epochs, in place."""
    torch = import_torch()
    n, members = len(x), settings.members
    coordinates = torch.from_numpy(x if basis is None else x @ basis.T).to(device)
    rotated: list[_SharedMomentAdamW] = []
    grads: dict[int, Any] = {}
    for head in heads:
        if head.block.basis is not None:
            size = len(head.block.features)
            for t in (head.weight, head.bias):
                rotated.append(_SharedMomentAdamW(t, size, settings.weight_decay))
    for shared in rotated:
        grads[id(shared.tensor)] = shared.grad
    plain = [*nets.weights, *nets.biases, *nets.gains, *nets.shifts]
    plain += [t for head in heads for t in (head.weight, head.bias)]
    plain = [t for t in plain if id(t) not in grads]
    for t in plain:
        t.grad = torch.zeros_like(t)
        grads[id(t)] = t.grad
    ratio = 1.0 if basis is None else math.sqrt(x.shape[1] / len(basis))
    # Decay is per learning rate, and must not grow with it.
    optimisers = [
        _FusedAdamW(plain[:1], ratio, settings.weight_decay / ratio),
        _FusedAdamW(plain[1:], 1.0, settings.weight_decay),
    ]
    dropout = None
    if settings.dropout > 0:
        seeds = [int(r.integers(2**63)) for r in member_rngs]
        dropout = _Dropout(seeds, settings.dropout, device)
    counts = None
    if settings.bootstrap:
        draws = [np.bincount(r.integers(n, size=n), minlength=n) for r in member_rngs]
        counts = torch.from_numpy(np.stack(draws).astype(np.float32)).to(device)[:, :, None]
    inputs = coordinates.expand(members, *coordinates.shape)
    for lr in track(learning_rates(settings).tolist(), "Training the ensemble"):
        for rows in _batches(n, settings.batch_size, member_rngs):
            if rows is None:
                batch, weight = inputs, counts
            else:
                index = torch.from_numpy(rows).to(device)
                batch = coordinates[index]
                weight = None
                if counts is not None:
                    weight = torch.gather(counts, 1, index[:, :, None])
                rows = index
            _gradients(batch, rows, weight, nets, heads, grads, settings, dropout)
            for own in optimisers:
                own.step(lr)
            for shared in rotated:
                shared.step(lr)
    for t in plain:
        t.grad = None


def _batches(n: int, size: int, rngs: list[np.random.Generator]) -> list[NDArray[np.int64] | None]:
    """Rows of each batch, (M, b); [None] when one batch holds everything (order is then moot)."""
    if n <= size:
        return [None]
    orders = np.stack([r.permutation(n) for r in rngs])
    return [orders[:, i : i + size] for i in range(0, n, size)]


def _gradients(
    batch: Any,
    rows: Any | None,
    weight: Any | None,
    nets: Networks,
    heads: list[_Head],
    grads: dict[int, Any],
    settings: EnsembleSettings,
    dropout: _Dropout | None,
) -> None:
    """Fill `grads` with the gradients of the mean squared error of one batch.

    Parameters
    ----------
    batch
        (M, b, r) inputs.
    rows
        (M, b) positions of the batch in the targets, or None for all rows.
    weight
        (M, b, 1) bootstrap counts, or None.
    """
    torch = import_torch()
    hidden = batch
    cache = []
    for w, b, gain, shift in zip(nets.weights, nets.biases, nets.gains, nets.shifts, strict=True):
        z = torch.baddbmm(b[:, None], hidden, w)
        unit, mean, rstd = torch.native_layer_norm(z, z.shape[-1:], None, None, LAYER_NORM_EPSILON)
        below, hidden = hidden, torch.addcmul(shift[:, None], unit, gain[:, None])
        torch.nn.functional.leaky_relu_(hidden, settings.slope)
        mask = None
        if dropout is not None:
            mask = dropout(z.shape[1], z.shape[2])
            hidden.mul_(mask)
        cache.append((below, z, unit, mean, rstd, mask, hidden))
    down = _output_gradients(hidden, rows, weight, heads, grads)
    for layer in range(len(cache) - 1, -1, -1):
        below, z, unit, mean, rstd, mask, above = cache[layer]
        if mask is not None:
            down.mul_(mask)
        # Dropout zeroes `above` only where `down` is zero too, so its sign still tells the side.
        down = torch.ops.aten.leaky_relu_backward(down, above, settings.slope, True)
        torch.sum(down, 1, out=grads[id(nets.shifts[layer])])
        torch.sum(down * unit, 1, out=grads[id(nets.gains[layer])])
        down.mul_(nets.gains[layer][:, None])
        down = torch.ops.aten.native_layer_norm_backward(
            down, z, z.shape[-1:], mean, rstd, None, None, [True, False, False]
        )[0]
        torch.bmm(below.transpose(1, 2), down, out=grads[id(nets.weights[layer])])
        torch.sum(down, 1, out=grads[id(nets.biases[layer])])
        if layer:
            down = torch.bmm(down, nets.weights[layer].transpose(1, 2))


def _output_gradients(
    hidden: Any, rows: Any | None, weight: Any | None, heads: list[_Head], grads: dict[int, Any]
) -> Any:
    """Gradients of all heads; returns the gradient (M, b, h) with respect to `hidden`."""
    torch = import_torch()
    parts, observed = [], 0.0
    for head in heads:
        seen = head.observed if rows is None else head.observed[rows]
        size = len(head.block.features)
        per_row = seen.sum(-1, keepdim=True) * (size if seen.shape[-1] == 1 else 1)
        if weight is not None:
            per_row = per_row * weight
        observed = observed + per_row.sum(-2, keepdim=True)
        parts.append(seen)
    down = None
    for head, seen in zip(heads, parts, strict=True):
        error = torch.baddbmm(head.bias[:, None], hidden, head.weight)
        error.sub_(head.targets if rows is None else head.targets[rows])
        # A bootstrap may leave a batch without any observed entry: its gradient is zero then.
        factor = 2 * seen / torch.clamp(torch.as_tensor(observed), min=1.0)
        if weight is not None:
            factor = factor * weight
        error.mul_(factor)
        torch.bmm(hidden.transpose(1, 2), error, out=grads[id(head.weight)])
        torch.sum(error, 1, out=grads[id(head.bias)])
        part = torch.bmm(error, head.weight.transpose(1, 2))
        down = part if down is None else down.add_(part)
    return down


def _unfold(
    start: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]],
    nets: Networks,
    heads: list[_Head],
    basis: NDArray[np.float32] | None,
    n_features: int,
    settings: EnsembleSettings,
) -> Networks:
    """The trained networks in the original coordinates: plain networks, nothing approximated."""
    torch = import_torch()
    device = nets.weights[0].device
    if basis is not None:
        # What lies outside the span of the inputs never had a gradient: weight decay only.
        steps = math.ceil(heads[0].targets.shape[0] / settings.batch_size)
        kept = np.prod(1 - learning_rates(settings) * settings.weight_decay) ** steps
        v = torch.from_numpy(basis).to(device)
        first = torch.from_numpy(np.stack([m[0][0] for m in start])).to(device).mul_(float(kept))
        first += v.T @ (nets.weights[0] - v @ first)
        nets.weights[0] = first
    members, h = settings.members, settings.hidden[-1]
    nets.out_weight = torch.empty(members, h, n_features, device=device)
    nets.out_bias = torch.empty(members, n_features, device=device)
    for head in heads:
        index = torch.from_numpy(head.block.features).to(device)
        rows = torch.cat([head.weight, head.bias[:, None]], 1)
        if head.block.basis is not None and head.extension is not None:
            k = len(head.block.basis)
            span = torch.from_numpy(head.block.basis).to(device)
            extension = torch.from_numpy(head.extension).to(device)
            rows = rows[:, :, :k] @ span + torch.bmm(rows[:, :, k:], extension)
        nets.out_weight[:, :, index] = rows[:, :-1]
        nets.out_bias[:, index] = rows[:, -1]
    return nets


def forward(nets: Networks, x: NDArray[np.float32], settings: EnsembleSettings) -> Any:
    """Hidden activations (M, n, h) of the last hidden layer, without dropout."""
    torch = import_torch()
    with torch.no_grad():
        hidden = torch.from_numpy(x).to(nets.weights[0].device)
        hidden = hidden.expand(settings.members, *hidden.shape)
        for w, b, gain, shift in zip(
            nets.weights, nets.biases, nets.gains, nets.shifts, strict=True
        ):
            z = torch.baddbmm(b[:, None], hidden, w)
            z = torch.nn.functional.layer_norm(z, z.shape[-1:], eps=LAYER_NORM_EPSILON)
            hidden = torch.addcmul(shift[:, None], z, gain[:, None])
            torch.nn.functional.leaky_relu_(hidden, settings.slope)
        return hidden
