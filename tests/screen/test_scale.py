import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise.errors import InputError
from pertwise.screen.scale import Verdict, decide_scale, judge_values, tag_of


def counts(seed, n=40, d=200, mean=1.5):
    rng = np.random.default_rng(seed)
    return rng.negative_binomial(1, 1 / (1 + mean), size=(n, d)).astype(np.float32)


def normalised(x, target=1e4):
    return (x / x.sum(axis=1, keepdims=True) * target).astype(np.float32)


@given(st.integers(0, 10_000), st.sampled_from([1e3, 1e4, 1e6]))
def test_the_three_forms_of_one_matrix_are_told_apart(seed, target):
    x = counts(seed)
    assert judge_values(x)[0] == "counts"
    assert judge_values(normalised(x, target))[0] == "normalised"
    assert judge_values(np.log1p(normalised(x, target)))[0] == "log1p"


def test_a_subset_of_genes_is_still_recognised_as_logs():
    # GEARS files hold 5,000 chosen genes: row sums are no longer constant.
    x = np.log1p(normalised(counts(0, d=400)))[:, ::3]
    assert judge_values(x)[0] == "log1p"


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.random.default_rng(0).normal(size=(20, 30)), "negative"),
        (np.random.default_rng(0).gamma(1, 1, size=(20, 30)), "could be logs or corrected counts"),
        (np.random.default_rng(0).gamma(1, 90, size=(20, 30)), "too large for logarithms"),
        (np.zeros((3, 4)), "all values are zero"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_flag(x, words):
    with pytest.raises(InputError, match=words) as error:
        decide_scale(x)
    assert "--scale counts" in str(error.value)


def test_tags():
    assert tag_of({"log1p": {"base": None}}).scale == "log1p"
    assert tag_of({"X_name": "counts"}).scale == "counts"
    assert tag_of({"other": 1}) is None


def test_a_tag_that_contradicts_the_values_is_refused():
    tag = Verdict("log1p", "uns['log1p'] is set (scanpy)")
    with pytest.raises(
        InputError, match=r"contradicts itself: uns.*says log1p, but all values are"
    ):
        decide_scale(counts(0), tag=tag, where="x.h5ad")
    assert decide_scale(counts(0), tag=tag, wanted="counts").scale == "counts"


def test_a_tag_decides_what_values_do_not():
    x = np.random.default_rng(0).gamma(1, 1, size=(20, 30))
    assert decide_scale(x, tag=Verdict("log1p", "tag")).scale == "log1p"


def test_unknown_scale_lists_the_choices():
    with pytest.raises(InputError, match="auto, counts, normalised, log1p, log2, log10, as-is"):
        decide_scale(counts(0), wanted="sqrt")


@pytest.mark.parametrize("base", [1.2, 1.5])
def test_a_tag_of_logs_with_values_too_large_for_them_is_refused(base):
    counts = np.random.default_rng(0).poisson(3, (20, 30)) + 1.0
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)) / np.log(base)
    with pytest.raises(InputError, match="too large for such logarithms"):
        decide_scale(logs, tag=Verdict("log1p", "uns['log1p'] is set (scanpy)"))


def test_values_logged_twice_are_told_from_values_logged_once():
    x = np.log1p(np.log1p(normalised(counts(3))))
    scale, evidence = judge_values(x)
    assert (scale, "logged twice" in evidence) == (None, True)
    with pytest.raises(InputError, match=r"contradicts itself: .*logged twice"):
        decide_scale(x, tag=tag_of({"log1p": None}))


def test_a_cell_with_nan_does_not_hide_what_the_others_are():
    x = counts(4)
    x[3, 5], x[4, 0] = np.nan, np.inf
    assert judge_values(x)[0] == "counts"
    assert judge_values(x[3:5]) == (None, "NaN or infinite values")
