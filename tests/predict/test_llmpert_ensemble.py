"""The reduced, batched ensemble against a plain PyTorch network with autograd."""

import math

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.predict.llmpert_ensemble import fit_ensemble
from pertwise.predict.llmpert_train import EnsembleSettings, learning_rates

torch = pytest.importorskip("torch")

SMALL = {"members": 2, "hidden": (24, 16, 12), "epochs": 12, "dropout": 0.0}


def data(seed=0, n=10, d=40, f=60, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(np.float32)
    y = (np.tanh(x[:, :5] @ rng.standard_normal((5, 4))) @ rng.standard_normal((4, f))) * scale
    return x, (y + 0.1 * rng.standard_normal((n, f))).astype(np.float32)


def raw_fit(x, y, seed=3, **settings):
    return fit_ensemble(
        x,
        y,
        rng=np.random.default_rng(seed),
        settings=EnsembleSettings(**{**SMALL, **settings}),
        center_inputs=False,
        scale_inputs=False,
        scale_targets=False,
    )


def naive_member(x, y, settings, member, seed=3, share=(), batches=None, counts=None):
    """One plain network in full coordinates, by autograd; `share` names layers ("first", "last")
    whose AdamW second moment is averaged over the inputs (first) or the outputs (last)."""
    rng = np.random.default_rng(seed).spawn(settings.members)[member]
    sizes = [x.shape[1], *settings.hidden, y.shape[1]]
    parameters = []
    for a, b in zip(sizes[:-1], sizes[1:], strict=True):
        for shape in ((a, b), (b,)):
            u = rng.random(shape, dtype=np.float32)
            parameters.append(torch.tensor((2 * u - 1) / math.sqrt(a), requires_grad=True))
    norms = [
        (torch.ones(h, requires_grad=True), torch.zeros(h, requires_grad=True))
        for h in settings.hidden
    ]

    def run(inputs):
        hidden = inputs
        for i, (gain, shift) in enumerate(norms):
            z = hidden @ parameters[2 * i] + parameters[2 * i + 1]
            z = torch.nn.functional.layer_norm(z, z.shape[-1:], gain, shift)
            hidden = torch.nn.functional.leaky_relu(z, settings.slope)
        return hidden @ parameters[-2] + parameters[-1]

    everything = [*parameters, *(p for pair in norms for p in pair)]
    shared = {}
    if "first" in share:
        shared[id(parameters[0])] = 0
    if "last" in share:
        shared[id(parameters[-2])] = 1
        shared[id(parameters[-1])] = 0
    state = {id(p): [torch.zeros_like(p), 0.0] for p in everything}
    xt, yt = torch.tensor(x), torch.tensor(y)
    mask = torch.isfinite(yt).float()
    yt = torch.nan_to_num(yt)
    if counts is not None:
        mask_weight = mask * torch.tensor(counts, dtype=torch.float32)[:, None]
    else:
        mask_weight = mask
    t = 0
    for lr in learning_rates(settings):
        for rows in [np.arange(len(x))] if batches is None else batches.pop(0):
            t += 1
            loss = (mask_weight[rows] * (run(xt[rows]) - yt[rows]) ** 2).sum()
            loss = loss / mask_weight[rows].sum()
            for p, g in zip(everything, torch.autograd.grad(loss, everything), strict=True):
                square = g * g
                if id(p) in shared:
                    square = square.mean(shared[id(p)], keepdim=True)
                m, v = state[id(p)]
                m = 0.9 * m + 0.1 * g
                v = 0.999 * v + 0.001 * square
                state[id(p)] = [m, v]
                with torch.no_grad():
                    p *= 1 - lr * settings.weight_decay
                    step = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
                    p -= lr * step
    return lambda q: run(torch.tensor(q)).detach().numpy()


def test_full_training_equals_autograd_and_plain_adamw():
    x, y = data()
    settings = EnsembleSettings(**SMALL, reduce=False)
    fitted = raw_fit(x, y, reduce=False)
    query = data(1)[0]
    got = fitted.members(query)
    for m in range(2):
        expected = naive_member(x, y, settings, m)(query)
        np.testing.assert_allclose(got[m], expected, rtol=0, atol=2e-4)


def test_reduced_training_equals_full_training_with_shared_moments():
    """The heart of it: r <= n inputs and n + h + 1 outputs give the networks that 40 inputs and 60
    outputs give, also away from the training data."""
    x, y = data()
    settings = EnsembleSettings(**SMALL, weight_decay=0.05, learning_rate=5e-3)
    fitted = raw_fit(x, y, weight_decay=0.05, learning_rate=5e-3)
    assert (fitted.n_inputs, fitted.n_outputs) == (10, 10 + 12 + 1)
    query = data(1)[0]
    got = fitted.members(query)
    for m in range(2):
        expected = naive_member(x, y, settings, m, share=("first", "last"))(query)
        assert np.abs(expected - got[m]).max() < 2e-3 * np.abs(expected).max()


def test_training_moves_the_outputs_far_more_than_the_tolerance_above():
    x, y = data()
    short = raw_fit(x, y, epochs=1, learning_rate=5e-3).members(x)
    long = raw_fit(x, y, epochs=12, learning_rate=5e-3).members(x)
    assert np.abs(short - long).max() > 0.05 * np.abs(long).max()
