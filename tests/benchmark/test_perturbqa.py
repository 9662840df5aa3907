"""PerturbQA harness against naive code and on small made-up tables."""

import gzip

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pertwise.benchmark import perturbqa as q
from pertwise.benchmark.engine import run_task
from pertwise.config import check_settings
from pertwise.errors import InputError
from pertwise.models import TrainingMeanPredictor


def table(n_perts=40, n_genes=12, seed=0, density=0.4):
    rng = np.random.default_rng(seed)
    rows = [
        (f"P{i:02d}", f"G{j:02d}", int(rng.random() < (0.8 if i % 3 == j % 3 else 0.2)))
        for i in range(n_perts)
        for j in range(n_genes)
        if rng.random() < density
    ]
    out = pd.DataFrame(rows, columns=["pert", "gene", "label"])
    out["split"] = np.where(out["pert"] >= "P30", "test", "train")
    return out


@pytest.fixture
def folder(tmp_path):
    for name, seed in (("k562-de.csv.gz", 0), ("k562-dir.csv", 1)):
        table(seed=seed).to_csv(tmp_path / name, index=False)
    (tmp_path / "notes.txt").write_text("not a table")
    return tmp_path


def split(frame):
    return frame[frame["split"] == "train"], frame[frame["split"] == "test"]


def truth_scorer(train, pairs):
    """Knows the rule behind `table` (cheats, to test the harness)."""
    p = pairs["pert"].str[1:].astype(int) % 3
    g = pairs["gene"].str[1:].astype(int) % 3
    return (p == g).to_numpy(dtype=float)


def test_mean_auroc_equals_a_loop_over_genes():
    train, test = split(table())
    result = q.evaluate_scorer(truth_scorer, train, test, np.random.default_rng(0))
    scores = truth_scorer(train, test)
    want = {}
    for gene, rows in test.assign(score=scores).groupby("gene"):
        if rows["label"].nunique() == 2:
            want[gene] = roc_auc_score(rows["label"], rows["score"])
    assert dict(result.per_gene) == pytest.approx(want)
    assert result.auroc == pytest.approx(np.mean(list(want.values())))
    assert result.n_genes == len(want)
    assert result.pooled == pytest.approx(roc_auc_score(test["label"], scores))
    assert result.coverage == 1
    assert result.low < result.auroc < result.high


def test_gene_frequency_is_chance_per_gene():
    train, test = split(table())
    result = q.evaluate_scorer(q.gene_frequency, train, test, np.random.default_rng(0))
    np.testing.assert_array_equal(result.per_gene, 0.5)


def test_gene_frequency_by_hand():
    train = pd.DataFrame({"pert": list("abc"), "gene": list("xxy"), "label": [1, 0, 0]})
    pairs = pd.DataFrame({"pert": ["d"] * 3, "gene": ["x", "y", "new"]})
    overall = 1 / 3
    want = [(1 + overall) / 3, overall / 2, overall]
    np.testing.assert_allclose(q.gene_frequency(train, pairs), want)


def naive_vote(train, pairs, similarity, test_perts, train_perts, k, strength):
    w = np.maximum(np.nan_to_num(similarity), 0)
    prior = strength * w[w > 0].mean()
    frequency = q.gene_frequency(train, pairs)
    out = []
    for (pert, gene), f in zip(pairs.itertuples(index=False), frequency, strict=True):
        rows = train[(train["gene"] == gene) & train["pert"].isin(train_perts)]
        if pert not in test_perts or not len(rows):
            out.append(f)
            continue
        weight = [w[test_perts.index(pert), train_perts.index(x)] for x in rows["pert"]]
        kept = sorted(zip(weight, rows["label"], strict=True), reverse=True)[:k]
        top, bottom = sum(a * b for a, b in kept), sum(a for a, _ in kept)
        out.append((top + prior * f) / (bottom + prior))
    return out


@pytest.mark.parametrize("k", [1, 3, None])
def test_vote_equals_naive_loop(k):
    train, test = split(table())
    rng = np.random.default_rng(0)
    test_perts = sorted(set(test["pert"]))[:-1]  # one unknown to the kernel
    train_perts = sorted(set(train["pert"]))[1:]
    similarity = rng.normal(size=(len(test_perts), len(train_perts)))
    similarity[0, 0] = np.nan
    got = q.neighbour_vote(
        train, test[["pert", "gene"]], similarity, test_perts, train_perts, k=k, prior_strength=0.5
    )
    want = naive_vote(train, test[["pert", "gene"]], similarity, test_perts, train_perts, k, 0.5)
    np.testing.assert_allclose(got, want)


def test_missing_labels_are_not_zeros():
    # q1 (similar) has no label for x; only q2 votes
    train = pd.DataFrame({"pert": ["q2", "q1"], "gene": ["x", "y"], "label": [1, 0]})
    pairs = pd.DataFrame({"pert": ["p"], "gene": ["x"]})
    got = q.neighbour_vote(train, pairs, [[1.0, 1.0]], ["p"], ["q1", "q2"], prior_strength=1e-9)
    assert got[0] == pytest.approx(1)


def test_scores_do_not_see_the_test_labels():
    train, test = split(table())
    seen = []

    def spy(train, pairs):
        seen.append(list(pairs.columns))
        return np.zeros(len(pairs))

    q.evaluate_scorer(spy, train, test, np.random.default_rng(0))
    assert seen == [["pert", "gene"]]


def test_no_answer_stays_in_the_score_and_lowers_coverage():
    train, test = split(table())

    def half(train, pairs):
        scores = truth_scorer(train, pairs)
        scores[pairs["pert"] >= "P35"] = np.nan
        return scores

    result = q.evaluate_scorer(half, train, test, np.random.default_rng(0))
    assert result.n_pairs == len(test)
    assert result.coverage == pytest.approx((test["pert"] < "P35").mean())


def test_any_predictor_gives_scores():
    train, test = split(table())
    for task in q.TASKS:
        scorer = q.predictor_scorer(TrainingMeanPredictor, task)
        result = q.evaluate_scorer(scorer, train, test, np.random.default_rng(0))
        np.testing.assert_array_equal(result.per_gene, 0.5)


class ByNumber:
    """A similarity that knows the rule behind `table`, but not P39."""

    def similarity(self, subjects, candidates):
        def third(name):
            return int(name[1:]) % 3

        return np.array(
            [[float(third(a) == third(b)) * (a != "P39") for b in candidates] for a in subjects]
        )


def test_any_similarity_gives_scores():
    train, test = split(table(n_genes=40, density=0.9))
    result = q.evaluate_scorer(q.selector_scorer(ByNumber()), train, test, np.random.default_rng(0))
    assert result.auroc > 0.65
    assert result.coverage == pytest.approx((test["pert"] != "P39").mean())


def test_labels_as_a_screen():
    train = pd.DataFrame({"pert": ["b", "a"], "gene": ["x", "y"], "label": [1, 0]})
    screen = q.labels_screen(train, "dir")
    np.testing.assert_array_equal(screen.responses, [[np.nan, -1], [1, np.nan]])
    np.testing.assert_array_equal(
        q.labels_screen(train, "de").responses, [[np.nan, 0], [1, np.nan]]
    )


def test_inner_folds_split_knock_downs_and_ignore_row_order():
    train, _ = split(table())
    folds = list(q.inner_folds(train, 3, np.random.default_rng(0)))
    assert sum(len(test) for _, test in folds) == len(train)
    for a, b in folds:
        assert not set(a["pert"]) & set(b["pert"])
    shuffled = train.sample(frac=1, random_state=1)
    again = list(q.inner_folds(shuffled, 3, np.random.default_rng(0)))
    for (_, a), (_, b) in zip(folds, again, strict=True):
        assert set(a["pert"]) == set(b["pert"])


def test_run_over_a_folder(folder):
    scorers = {
        "cheat": lambda line, task: truth_scorer,
        "freq": lambda line, task: q.gene_frequency,
    }

    def score(**settings):
        given = check_settings({"labels": str(folder), **settings}, q.PerturbqaConfig)
        return run_task(q.PerturbqaTask(given, scorers))

    run = score()
    summary, per_gene = run.summary, run.table
    assert len(summary) == 4
    assert set(summary["task"]) == {"de", "dir"}
    assert (summary.set_index("method").loc["freq", "auroc"] == 0.5).all()
    assert (summary.set_index("method").loc["cheat", "auroc"] > 0.6).all()
    one = per_gene[(per_gene["method"] == "cheat") & (per_gene["task"] == "de")]
    row = summary[(summary["method"] == "cheat") & (summary["task"] == "de")].iloc[0]
    assert one["auroc"].mean() == pytest.approx(row["auroc"])
    inner = score(tasks=["de"], inner=3).summary
    assert inner["n_pairs"].iloc[0] == pytest.approx(len(split(table())[0]) / 3)
    with pytest.raises(InputError, match="none is in lines"):
        score(lines=["rpe1"])


def test_a_scorer_that_fails_stays_in_the_score_as_the_frequency(folder, tmp_path):
    def fails(train, pairs):
        raise InputError("nothing to go by")

    scorers = {
        "fails": lambda line, task: fails,
        "freq": lambda line, task: q.gene_frequency,
    }
    settings = check_settings({"labels": str(folder), "tasks": ["de"]}, q.PerturbqaConfig)
    run = run_task(q.PerturbqaTask(settings, scorers))
    summary = run.summary.set_index("method")
    assert summary.loc["fails", "coverage"] == 0
    assert (
        summary.loc["fails", ["auroc", "pooled"]] == summary.loc["freq", ["auroc", "pooled"]]
    ).all()
    assert [f["error"] for f in run.failed] == ["InputError: nothing to go by"] * len(run.failed)
    assert len(run.failed) == len(summary.loc[["fails"]])


def test_bad_files_are_named(tmp_path):
    def write(text):
        path = tmp_path / "x-de.csv.gz"
        with gzip.open(path, "wt") as handle:
            handle.write(text)
        return path

    with pytest.raises(InputError, match="no such file"):
        q.read_labels(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"lacks the columns \['split'\]"):
        q.read_labels(write("pert,gene,label\na,b,1\n"))
    with pytest.raises(InputError, match="row 3: label '2'"):
        q.read_labels(write("pert,gene,label,split\na,b,1,train\na,c,2,train\n"))
    with pytest.raises(InputError, match=r"row 3: the pair \(a, b\) is listed twice"):
        q.read_labels(write("pert,gene,label,split\na,b,1,train\na,b,0,train\n"))
    with pytest.raises(InputError, match="row 2: empty gene"):
        q.read_labels(write("pert,gene,label,split\na,,1,train\n"))
    assert q.read_labels(write("pert,gene,label,split\nNAN,NA,1,train\n"))["gene"][0] == "NA"
    with pytest.raises(InputError, match="holds no file"):
        q.find_label_files(_empty(tmp_path))
    with pytest.raises(InputError, match="not a folder"):
        q.find_label_files(tmp_path / "absent")


def _empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_overlapping_splits_and_wrong_lengths_are_refused():
    train, test = split(table())
    with pytest.raises(InputError, match="are in train and in test"):
        q.evaluate_scorer(truth_scorer, train, train, np.random.default_rng(0))
    with pytest.raises(InputError, match="scores for"):
        q.evaluate_scorer(lambda a, b: np.zeros(3), train, test, np.random.default_rng(0))


@pytest.mark.shared
def test_real_files_are_read(shared_data):
    files = q.find_label_files(shared_data / "perturbqa")
    assert len(files) == 4
    labels = q.read_labels(files[("k562", "de")])
    train, test = split(labels)
    assert len(train) + len(test) == len(labels)
    result = q.evaluate_scorer(q.gene_frequency, train, test, np.random.default_rng(0))
    assert result.auroc == 0.5
    assert result.n_genes == 665
