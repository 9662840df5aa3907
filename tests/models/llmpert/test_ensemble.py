"""The reduced, batched ensemble against a plain PyTorch network with autograd."""

import itertools
import math

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.models.llmpert.ensemble import fit_ensemble
from pertwise.models.llmpert.reduce import input_basis, target_blocks
from pertwise.models.llmpert.train import EnsembleSettings, learning_rates

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


def naive_member(x, y, settings, member, seed=3, share=(), batches=None, counts=None, groups=None):
    """One plain network by autograd, all outputs.

    `share`: the output layer's AdamW second moment is averaged over the outputs (within `groups`
    of outputs when given). When settings.reduce, the first layer takes the coordinates of the
    inputs in a basis of their span, and what lies outside it meets the initial weights.
    """
    basis = input_basis(x, np.random.default_rng(seed), settings.reduce)
    rng = np.random.default_rng(seed).spawn(settings.members)[member]
    sizes = [x.shape[1], *settings.hidden, y.shape[1]]
    parameters = []
    for a, b in itertools.pairwise(sizes):
        for shape in ((a, b), (b,)):
            u = rng.random(shape, dtype=np.float32)
            parameters.append(torch.tensor((2 * u - 1) / math.sqrt(a), requires_grad=True))
    norms = [
        (torch.ones(h, requires_grad=True), torch.zeros(h, requires_grad=True))
        for h in settings.hidden
    ]

    ratio = 1.0
    if basis is not None:
        ratio = math.sqrt(x.shape[1] / len(basis))
        outside = parameters[0].detach().clone()
        for lr in learning_rates(settings):
            outside *= (1 - lr * settings.weight_decay) ** math.ceil(len(x) / settings.batch_size)
        basis = torch.tensor(basis)
        parameters[0] = (basis @ parameters[0].detach()).requires_grad_()

    def run(inputs):
        hidden, beyond = inputs, 0.0
        if basis is not None:
            hidden = inputs @ basis.T
            beyond = (inputs - hidden @ basis) @ outside
        for i, (gain, shift) in enumerate(norms):
            z = hidden @ parameters[2 * i] + parameters[2 * i + 1] + (beyond if i == 0 else 0.0)
            z = torch.nn.functional.layer_norm(z, z.shape[-1:], gain, shift)
            hidden = torch.nn.functional.leaky_relu(z, settings.slope)
        return hidden @ parameters[-2] + parameters[-1]

    everything = [*parameters, *(p for pair in norms for p in pair)]
    shared = {}
    if share:
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
                if id(p) in shared and groups is not None:
                    square = torch.stack(
                        [square[..., groups == groups[j]].mean(-1) for j in range(len(groups))], -1
                    )
                elif id(p) in shared:
                    square = square.mean(shared[id(p)], keepdim=True)
                m, v = state[id(p)]
                m = 0.9 * m + 0.1 * g
                v = 0.999 * v + 0.001 * square
                state[id(p)] = [m, v]
                with torch.no_grad():
                    p *= 1 - lr * settings.weight_decay
                    step = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
                    p -= lr * (ratio if p is parameters[0] else 1.0) * step
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


def test_reduced_training_equals_training_of_all_outputs_with_shared_moments():
    """The heart of it: n + h + 1 output coordinates give the networks that all 60 outputs give, and
    r <= n input coordinates are unfolded correctly, also away from the training data."""
    x, y = data()
    settings = EnsembleSettings(**SMALL, weight_decay=0.05, learning_rate=5e-3)
    fitted = raw_fit(x, y, weight_decay=0.05, learning_rate=5e-3)
    assert (fitted.n_inputs, fitted.n_outputs) == (10, 10 + 12 + 1)
    query = data(1)[0]
    got = fitted.members(query)
    for m in range(2):
        expected = naive_member(x, y, settings, m, share=True)(query)
        assert np.abs(expected - got[m]).max() < 2e-3 * np.abs(expected).max()


def test_training_moves_the_outputs_far_more_than_the_tolerance_above():
    x, y = data()
    short = raw_fit(x, y, epochs=1, learning_rate=5e-3).members(x)
    long = raw_fit(x, y, epochs=12, learning_rate=5e-3).members(x)
    assert np.abs(short - long).max() > 0.05 * np.abs(long).max()


def gappy(kind):
    """Targets with missing entries: two panels of features, or gaps everywhere."""
    x, y = data(f=120)
    if kind == "panels":
        y[:4, :60] = np.nan
    elif kind == "scattered":
        y[np.random.default_rng(5).random(y.shape) < 0.2] = np.nan
    else:
        y[:4, :60] = np.nan
        y[2, 110] = np.nan
    return x, y


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [("panels", 6 + 13 + 10 + 13), ("scattered", 120), ("mixed", 6 + 13 + 10 + 13 + 1)],
)
def test_masked_targets_equal_a_masked_loss(kind, outputs):
    x, y = gappy(kind)
    settings = EnsembleSettings(**SMALL)
    fitted = raw_fit(x, y)
    assert fitted.n_outputs == outputs
    # Second moments are shared within the features of one mask pattern, or not at all.
    groups = np.arange(120)
    if kind != "scattered":
        groups[:60], groups[60:] = 0, 1
    if kind == "mixed":
        groups[110] = 2
    for m in range(2):
        expected = naive_member(x, y, settings, m, share=True, groups=groups)(x)
        np.testing.assert_allclose(fitted.members(x)[m], expected, atol=1e-3)


def test_masked_entries_do_not_matter():
    """Rows added with nothing but missing values for a panel leave that panel's blocks alone."""
    y = gappy("panels")[1]
    blocks = target_blocks(y, 12)
    assert [len(b.features) for b in blocks] == [60, 60]
    for block in blocks:
        rows = block.observed[:, 0]
        np.testing.assert_array_equal(block.targets[~rows], 0)
        np.testing.assert_allclose(
            block.targets[rows] @ block.basis, y[rows][:, block.features], atol=1e-4
        )


def test_bootstrap_equals_weighted_rows():
    x, y = data()
    settings = EnsembleSettings(**SMALL, bootstrap=True)
    fitted = raw_fit(x, y, bootstrap=True)
    for m in range(2):
        rng = np.random.default_rng(3).spawn(2)[m]
        for a, b in zip((40, 24, 16, 12), (24, 16, 12, 60), strict=True):
            rng.random((a, b), dtype=np.float32)
            rng.random(b, dtype=np.float32)
        counts = np.bincount(rng.integers(10, size=10), minlength=10)
        expected = naive_member(x, y, settings, m, share=True, counts=counts)(x)
        assert np.abs(expected - fitted.members(x)[m]).max() < 2e-3 * np.abs(expected).max()


def test_batches_are_shuffled_per_member_and_equal_the_plain_loop():
    x, y = data()
    settings = EnsembleSettings(**SMALL, batch_size=4)
    fitted = raw_fit(x, y, batch_size=4)
    orders = []
    for m in range(2):
        rng = np.random.default_rng(3).spawn(2)[m]
        for a, b in zip((40, 24, 16, 12), (24, 16, 12, 60), strict=True):
            rng.random((a, b), dtype=np.float32)
            rng.random(b, dtype=np.float32)
        epochs = [rng.permutation(10) for _ in range(settings.epochs)]
        orders.append(epochs)
        batches = [[o[:4], o[4:8], o[8:]] for o in epochs]
        expected = naive_member(x, y, settings, m, share=True, batches=batches)(x)
        assert np.abs(expected - fitted.members(x)[m]).max() < 5e-3 * np.abs(expected).max()
    assert not np.array_equal(orders[0], orders[1])


def test_same_seed_same_bits_and_members_differ():
    x, y = data()
    a, b = (raw_fit(x, y, dropout=0.3).members(x) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a[0] - a[1]).max() > 1e-2
    assert np.abs(a - raw_fit(x, y, seed=4, dropout=0.3).members(x)).max() > 1e-2


def test_dropout_rate_and_scale():
    from pertwise.models.llmpert.train import _Dropout

    mask = _Dropout([1, 2], 0.3, torch.device("cpu"))(100, 1000).numpy()
    assert mask.shape == (2, 100, 1000)
    np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.7], rtol=1e-6)
    # 100,000 draws: standard error 0.0014
    np.testing.assert_allclose((mask == 0).mean(axis=(1, 2)), 0.3, atol=0.006)
    assert np.corrcoef(mask[0].ravel(), mask[1].ravel())[0, 1] < 0.02


def test_features_and_moments_agree_with_members():
    x, y = data()
    fitted = fit_ensemble(x, y, rng=np.random.default_rng(0), settings=EnsembleSettings(**SMALL))
    members = fitted.members(x)
    mean, variance = fitted.moments(x)
    np.testing.assert_allclose(mean, members.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, members.var(axis=0, ddof=1), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(
        fitted.members(x, np.array([4, 2])), members[:, :, [4, 2]], atol=1e-5
    )
    np.testing.assert_allclose(fitted.noise, ((mean - y) ** 2).mean(axis=0), rtol=1e-4, atol=1e-7)


def test_scaling_of_inputs_and_targets_is_undone():
    """Units and a common offset of the inputs must not matter."""
    x, y = data()
    settings = EnsembleSettings(**SMALL)
    a = fit_ensemble(x, y, rng=np.random.default_rng(0), settings=settings)
    b = fit_ensemble(8 * x + 16, y / 4, rng=np.random.default_rng(0), settings=settings)
    np.testing.assert_allclose(a.members(x), 4 * b.members(8 * x + 16), atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": 0}, "members must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"hidden": (4, 1)}, "2 or more units"),
        ({"learning_rate": 1e-6}, "0 < final <= first"),
        ({"slope": 0.0}, "slope must be positive"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        EnsembleSettings(**change)


def test_bad_arrays_are_refused():
    x, y = data()
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="equal rows"):
        fit_ensemble(x[:3], y, rng=rng)
    broken = x.copy()
    broken[4, 1] = np.nan
    with pytest.raises(InputError, match="input row 4"):
        fit_ensemble(broken, y, rng=rng)
    for value, message in ((np.inf, "target row 2 is infinite"), (np.nan, "target row 2 holds no")):
        bad = y.copy()
        bad[2] = value
        with pytest.raises(InputError, match=message):
            fit_ensemble(x, bad, rng=rng)
    bad = y.copy()
    bad[:, 7] = np.nan
    with pytest.raises(InputError, match="feature 7"):
        fit_ensemble(x, bad, rng=rng)
    fitted = raw_fit(x, y, epochs=1)
    with pytest.raises(InputError, match="fitted on 40"):
        fitted.members(x[:, :5])
