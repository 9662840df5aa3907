"""Speed and fidelity of the LLMPert ensemble against a plain sequential PyTorch loop.

    python benchmarks/ensemble.py            # everything, about 10 minutes on 2 cores
    python benchmarks/ensemble.py --quick    # one data seed, 40 epochs, 3 rounds: about 1 minute

SIMULATED data: responses of rank 30 that depend non-linearly on 60 latent factors, plus noise, for
1,075 perturbations x 5,000 features; inputs are 2,560 noisy mixtures of the factors.
The plain loop and the ensemble see the same arrays (inputs centred and scaled, targets scaled by
one number each) and are scored on the perturbations not trained on.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pertwise.models.llmpert.ensemble import FittedEnsemble, fit_ensemble
from pertwise.models.llmpert.train import EnsembleSettings

POOL, INPUTS, FEATURES = 1075, 2560, 5000
Array = NDArray[np.float32]


def simulate(seed: int) -> tuple[Array, Array]:
    """Inputs (1075, 2560) and log-expression-like deltas (1075, 5000), noise variance 0.0025."""
    rng = np.random.default_rng(seed)
    decay = 1 / np.sqrt(1 + np.arange(60))
    latent = rng.standard_normal((POOL, 60)) * decay / np.sqrt((decay**2).sum())
    x = latent @ rng.standard_normal((60, INPUTS)) + 0.5 * rng.standard_normal((POOL, INPUTS))
    programs = np.tanh(2 * latent @ rng.standard_normal((60, 30)))
    programs /= np.sqrt(30 * (1 + np.arange(30)))
    y = 0.35 * programs @ rng.standard_normal((30, FEATURES))
    return x.astype("f4"), (y + 0.05 * rng.standard_normal(y.shape)).astype("f4")


class PlainMember(torch.nn.Module):
    """One LLMPert network as one would write it."""

    def __init__(self, d: int, f: int, settings: EnsembleSettings) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for a, b in zip((d, *settings.hidden), settings.hidden, strict=False):
            layers += [torch.nn.Linear(a, b), torch.nn.LayerNorm(b)]
            layers += [torch.nn.LeakyReLU(settings.slope), torch.nn.Dropout(settings.dropout)]
        self.net = torch.nn.Sequential(*layers, torch.nn.Linear(settings.hidden[-1], f))

    def forward(self, x: Any) -> Any:
        return self.net(x)


def fit_plain(x: Array, y: Array, settings: EnsembleSettings, seed: int) -> list[PlainMember]:
    """Members trained one after the other with autograd and the default torch.optim.AdamW."""
    torch.manual_seed(seed)
    xt, yt = torch.from_numpy(x), torch.from_numpy(y)
    members = []
    for _ in range(settings.members):
        model = PlainMember(x.shape[1], y.shape[1], settings)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, settings.epochs, eta_min=settings.final_learning_rate
        )
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(xt)).split(settings.batch_size):
                optimiser.zero_grad()
                torch.nn.functional.mse_loss(model(xt[rows]), yt[rows]).backward()
                optimiser.step()
            schedule.step()
        members.append(model.eval())
    return members


def predict_plain(members: list[PlainMember], x: Array) -> tuple[Array, Array]:
    """Ensemble mean (n, F) and u(p) (n,)."""
    with torch.no_grad():
        out = torch.stack([m(torch.from_numpy(x)) for m in members])
    return out.mean(0).numpy(), out.var(0).mean(1).numpy()


def fit_reduced(x: Array, y: Array, settings: EnsembleSettings, seed: int) -> FittedEnsemble:
    """The ensemble under test, on arrays that are scaled already."""
    return fit_ensemble(
        x,
        y,
        rng=np.random.default_rng([seed, 77]),
        settings=settings,
        center_inputs=False,
        scale_inputs=False,
        scale_targets=False,
    )


def prepare(x: Array, y: Array, train: NDArray[np.intp], raw: bool) -> tuple[Array, Array, float]:
    """Scaled inputs and targets, and the number that turns squared errors back."""
    x = x - x[train].mean(axis=0)
    x /= np.sqrt(np.mean(x[train] ** 2))
    scale = np.float32(1.0 if raw else np.sqrt(np.mean(y[train] ** 2)))
    return x, y / scale, float(scale**2)


def products_per_epoch(
    n: int, d: int, f: int, settings: EnsembleSettings
) -> list[tuple[int, int, int]]:
    """Shapes (rows, inner, columns) of all products of one full-batch step of one member."""
    sizes = [d, *settings.hidden, f]
    shapes = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        shapes += [(n, a, b), (a, n, b)] + ([(n, b, a)] if i else [])
    return shapes


def measured_floor(n: int, fitted: FittedEnsemble, repeats: int) -> tuple[float, float, float]:
    """Seconds of the bare matrix products of one fit, their rate (GFLOP/s), seconds of AdamW.

    Every product runs at its own shape, batched over the members as in training; AdamW is the fused
    kernel over the number of trained parameters, that is memory traffic of 28 bytes a parameter.
    """
    settings = fitted.settings
    shapes = products_per_epoch(n, fitted.n_inputs, fitted.n_outputs, settings)
    operands = [
        (torch.randn(settings.members, a, b), torch.randn(settings.members, b, c))
        for a, b, c in shapes
    ]
    results = [torch.empty(settings.members, a, c) for a, _, c in shapes]
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for (left, right), out in zip(operands, results, strict=True):
            torch.bmm(left, right, out=out)
        best = min(best, time.perf_counter() - start)
    operations = 2.0 * settings.members * sum(a * b * c for a, b, c in shapes)
    sizes = [fitted.n_inputs, *settings.hidden, fitted.n_outputs]
    count = settings.members * sum(a * b for a, b in itertools.pairwise(sizes))
    parameters = torch.nn.Parameter(torch.randn(count))
    parameters.grad = torch.randn(count)
    optimiser = torch.optim.AdamW([parameters], fused=True)
    step = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        optimiser.step()
        step = min(step, time.perf_counter() - start)
    return best * settings.epochs, operations / best / 1e9, step * settings.epochs


def compare(n: int, seeds: range, settings: EnsembleSettings, raw: bool) -> None:
    """Plain loop against reduced ensemble on the same data; prints one block of lines."""
    rows = []
    for seed in seeds:
        x, y = simulate(seed)
        order = np.random.default_rng(seed).permutation(POOL)
        train, test = order[:n], order[n:]
        x, y, unit = prepare(x, y, train, raw)
        start, start_cpu = time.perf_counter(), time.process_time()
        plain = fit_plain(x[train], y[train], settings, seed)
        middle, middle_cpu = time.perf_counter(), time.process_time()
        reduced = fit_reduced(x[train], y[train], settings, seed)
        end, end_cpu = time.perf_counter(), time.process_time()
        mean_plain, u_plain = predict_plain(plain, x[test])
        mean_reduced, u_reduced = reduced.moments(x[test])[0], reduced.uncertainty(x[test])
        error_plain = unit * np.mean((mean_plain - y[test]) ** 2)
        error_reduced = unit * np.mean((mean_reduced - y[test]) ** 2)
        baseline = unit * np.mean((y[train].mean(axis=0) - y[test]) ** 2)
        agreement = spearmanr(u_plain, u_reduced).statistic
        same = np.corrcoef(mean_plain.ravel(), mean_reduced.ravel())[0, 1]
        rows.append(
            [
                middle - start,
                end - middle,
                error_plain,
                error_reduced,
                baseline,
                agreement,
                same,
                unit * u_plain.mean(),
                unit * u_reduced.mean(),
                middle_cpu - start_cpu,
                end_cpu - middle_cpu,
            ]
        )
        if seed == seeds[0]:
            again, u_again = predict_plain(
                fit_plain(x[train], y[train], settings, seed + 1000), x[test]
            )
            between = spearmanr(u_plain, u_again).statistic
            between_mean = np.corrcoef(mean_plain.ravel(), again.ravel())[0, 1]
            twice = unit * np.mean((again - y[test]) ** 2)
    table = np.array(rows)
    t_plain, t_reduced = table[:, 0].min(), table[:, 1].min()
    difference = table[:, 3] - table[:, 2]
    root = np.sqrt(len(table))
    spread = table[:, 2].std(ddof=1) / root if len(table) > 1 else np.nan
    paired = difference.std(ddof=1) / root if len(table) > 1 else np.nan
    floor, rate, optimiser = measured_floor(n, reduced, repeats=5)
    print(f"\nn = {n}: {reduced.n_inputs} of {INPUTS} inputs, {reduced.n_outputs} of {FEATURES}")
    print(f"  plain loop      {t_plain:7.1f} s   (best of {len(table)})")
    print(f"  ensemble        {t_reduced:7.1f} s   {t_plain / t_reduced:.1f}x faster")
    cpu = table[:, 9].min(), table[:, 10].min()
    print(f"  processor time  {cpu[0]:.1f} s against {cpu[1]:.1f} s, {cpu[0] / cpu[1]:.1f}x less")
    ratios = table[:, 0] / table[:, 1]
    print(
        f"  ratio per run   {' '.join(f'{r:.1f}' for r in ratios)}  median {np.median(ratios):.1f}"
    )
    print(
        f"  floor           {floor:7.1f} s   products at {rate:.0f} GFLOP/s, + {optimiser:.1f} s "
        f"AdamW; the ensemble takes {t_reduced / floor:.2f}x the products, "
        f"{t_reduced / (floor + optimiser):.2f}x both"
    )
    print(
        f"  held-out MSE    plain {table[:, 2].mean():.6f}, ensemble {table[:, 3].mean():.6f}, "
        f"training mean {table[:, 4].mean():.6f}"
    )
    print(
        f"  difference      {difference.mean():+.6f}; standard error of the plain MSE over data "
        f"seeds {spread:.6f}, of the paired difference {paired:.6f}"
    )
    print(f"  plain, second training seed (first data seed): {twice:.6f}, first {table[0, 2]:.6f}")
    print(
        f"  u(p)            Spearman ensemble-plain {table[:, 5].mean():.3f} "
        f"(lowest {table[:, 5].min():.3f}); two plain training seeds {between:.3f}"
    )
    print(
        f"  mean prediction correlation ensemble-plain {table[:, 6].mean():.4f}; two plain seeds "
        f"{between_mean:.4f};  mean u(p) plain {table[:, 7].mean():.2e}, "
        f"ensemble {table[:, 8].mean():.2e}",
        flush=True,
    )


def acquisition(rounds: int, batch: int, settings: EnsembleSettings) -> None:
    """Rounds of fit, predict the whole pool, take the `batch` most uncertain."""
    x, y = simulate(100)
    measured = np.random.default_rng(0).permutation(POOL)[:batch]
    print(f"\n{rounds} rounds, pool {POOL}, batch {batch} (most uncertain first)")
    total, cpu = 0.0, time.process_time()
    for number in range(1, rounds + 1):
        rest = np.setdiff1d(np.arange(POOL), measured)
        start = time.perf_counter()
        rng = np.random.default_rng(number)
        fitted = fit_ensemble(x[measured], y[measured], rng=rng, settings=settings)
        mean, variance = fitted.moments(x)
        u = variance.mean(axis=1)
        taken = time.perf_counter() - start
        total += taken
        error = np.mean((mean[rest] - y[rest]) ** 2)
        print(
            f"  round {number:2d}  n = {len(measured):3d}  {taken:6.1f} s  MSE {error:.6f}",
            flush=True,
        )
        measured = np.concatenate([measured, rest[np.argsort(-u[rest])[:batch]]])
    cpu = time.process_time() - cpu
    print(f"  total {total:.1f} s, processor time {cpu:.1f} s", flush=True)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[20, 100, 200])
    parser.add_argument("--seeds", type=int, default=5, help="number of data seeds")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10, help="0 skips the acquisition run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--raw-targets", action="store_true", help="do not scale the targets")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs, args.rounds = 1, min(args.epochs, 40), min(args.rounds, 3)
    torch.set_num_threads(args.threads)
    settings = EnsembleSettings(epochs=args.epochs)
    print(
        f"SIMULATED data. torch {torch.__version__}, {args.threads} threads, "
        f"{settings.members} members x {settings.epochs} epochs, {INPUTS} inputs, {FEATURES} "
        f"features, targets {'as they are' if args.raw_targets else 'scaled to mean square 1'}"
    )
    # The first call pays for loading kernels; neither side should.
    tiny = np.random.default_rng(0).standard_normal((8, 16)).astype("f4")
    warm = EnsembleSettings(epochs=2, members=2)
    fit_plain(tiny, tiny, warm, 0)
    fit_reduced(tiny, tiny, warm, 0)
    for n in args.sizes:
        compare(n, range(args.seeds), settings, args.raw_targets)
    if args.rounds:
        acquisition(args.rounds, 20, settings)


if __name__ == "__main__":
    main()
