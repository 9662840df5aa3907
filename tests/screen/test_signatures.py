import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pertwise.errors import InputError
from pertwise.screen import Screen
from pertwise.screen.signatures import RANKED_UNIT, is_ranked, normal_scores, read_signatures


def write_archive(folder, kind="R", n=4, d=6, seed=0):
    rng = np.random.default_rng(seed)
    ranks = np.array([rng.permutation(d) for _ in range(n)])
    values = ranks.astype(np.uint16)
    if kind == "Q":
        values = np.round(32 * norm.ppf((ranks + 1) / (d + 1))).astype(np.int8)
        values[1, 2] = -128
    np.savez(folder / "x.npz", **{kind: values, "genes": [f"G{i}" for i in range(d)]})
    obs = pd.DataFrame(
        {
            "drug": ["a", "b", "a", "b"][:n],
            "cell_type": ["T", "T", "B", "B"][:n],
            "plates": ["p1", "p1", "p2", "p1"][:n],
            "suspect": [False, False, False, True][:n],
            "edist": [0.5, 1.0, 2.0, 3.0][:n],
            "note": ["x", None, "y", "z"][:n],
        }
    )
    obs.to_parquet(folder / "obs.parquet")
    return ranks, obs


def test_normal_scores_are_van_der_waerden_by_hand():
    scores = normal_scores([[10.0, 30.0, np.nan, 20.0]])
    expected = norm.ppf([1 / 4, 3 / 4, 2 / 4])
    np.testing.assert_allclose(scores[0, [0, 1, 3]], expected, atol=1e-6)
    assert np.isnan(scores[0, 2])
    np.testing.assert_allclose(
        normal_scores([[0, 1, 2]], descending=True), -normal_scores([[0, 1, 2]]), atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=20))
def test_normal_scores_keep_order_and_share_ties(values):
    scores = normal_scores([values])[0]
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if a < b:
                assert scores[i] < scores[j]
            if a == b:
                assert scores[i] == pytest.approx(scores[j])
    np.testing.assert_allclose(normal_scores([[-v for v in values]])[0], -scores, atol=1e-6)


def test_ranks_become_scores_with_rank_zero_most_up(tmp_path):
    ranks, _ = write_archive(tmp_path)
    screen = read_signatures(tmp_path / "x.npz", tmp_path / "obs.parquet", dose=1.0)
    assert screen.meta["unit"] == RANKED_UNIT
    assert is_ranked(screen)
    assert list(screen.obs["context"]) == ["T", "T", "B", "B"]
    assert set(screen.obs["dose"]) == {1.0}
    expected = norm.ppf((6 - ranks) / 7)
    np.testing.assert_allclose(screen.responses, expected, atol=1e-5)


def test_int8_scores_and_absent_genes(tmp_path):
    write_archive(tmp_path, "Q")
    screen = read_signatures(tmp_path / "x.npz", tmp_path / "obs.parquet")
    assert np.isnan(screen.responses[1, 2])
    assert np.isfinite(screen.responses).sum() == 23
    again = Screen.from_anndata(screen.to_anndata())
    np.testing.assert_array_equal(again.responses, screen.responses)
    assert is_ranked(again)


def test_filters_count_what_they_drop(tmp_path):
    write_archive(tmp_path)
    screen = read_signatures(
        tmp_path / "x.npz", tmp_path / "obs.parquet", where={"plates": "p1"}, drop="suspect",
        effect="edist", min_effect=0.8,
    )  # fmt: skip
    assert list(screen.obs["perturbation"]) == ["b"]
    assert screen.obs["effect"].tolist() == [1.0]
    assert screen.meta["dropped"] == {"plates != p1": 1, "suspect": 1, "edist < 0.8": 1}


def test_table_of_statistics_is_ranked(tmp_path):
    frame = pd.DataFrame(
        {"cell_type": ["T", "B"], "sm_name": ["(+)-JQ1", "A+B"], "SMILES": ["C", "CC"],
         "G1": [3.0, -1.0], "G2": [1.0, 0.0], "G3": [2.0, 5.0]}
    )  # fmt: skip
    frame.to_parquet(tmp_path / "de_train.parquet")
    screen = read_signatures(tmp_path / "de_train.parquet")
    assert screen.features == ("G1", "G2", "G3")
    np.testing.assert_array_equal(np.argsort(screen.responses[0]), [1, 2, 0])
    assert list(screen.obs["perturbation"]) == ["(+)-JQ1", "A+B"]


def test_a_combination_is_spelt_canonically_and_told(tmp_path):
    pd.DataFrame({"drug": ["B+A"], "cell": ["T"], "G1": [1.0], "G2": [2.0]}).to_csv(
        tmp_path / "x.csv", index=False
    )
    screen = read_signatures(tmp_path / "x.csv")
    assert screen.perturbations == ("A+B",)
    assert screen.meta["renamed"] == {"B+A": "A+B"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"where": {"plates": "p9"}}, "leave no signature"),
        ({"where": {"plate": "p1"}}, "no column"),
        ({"min_effect": 1.0}, "min_effect needs"),
        ({"columns": {"context": "nope"}}, "no context"),
    ],
)
def test_wrong_filters_are_told(tmp_path, change, message):
    write_archive(tmp_path)
    with pytest.raises(InputError, match=message):
        read_signatures(tmp_path / "x.npz", tmp_path / "obs.parquet", **change)


def test_duplicates_and_mismatched_tables_are_refused(tmp_path):
    _, obs = write_archive(tmp_path)
    with pytest.raises(InputError, match="4 signatures, but the given table 3 rows"):
        read_signatures(tmp_path / "x.npz", obs.iloc[:3])
    with pytest.raises(InputError, match="more than one signature"):
        read_signatures(tmp_path / "x.npz", obs.assign(drug="a", cell_type="T"))
    with pytest.raises(InputError, match="no such file"):
        read_signatures(tmp_path / "y.npz", obs)
    np.savez(tmp_path / "z.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="one of 'R'"):
        read_signatures(tmp_path / "z.npz", obs)


@pytest.mark.shared
def test_real_archives(shared_data):
    folder = shared_data / "drugs"
    screen = read_signatures(
        folder / "neurips2023_ranks_uint16.npz", folder / "neurips2023_obs.parquet"
    )
    assert (len(screen), screen.n_features, len(screen.contexts)) == (540, 6349, 4)
    assert np.isfinite(screen.responses).all()
    np.testing.assert_allclose(screen.responses.mean(axis=1), 0, atol=1e-5)
