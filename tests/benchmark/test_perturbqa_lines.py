"""PerturbQA with the labels of other lines: two settings, never mixed, and no leak."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.benchmark.perturbqa import PerturbqaConfig, PerturbqaTask
from pertwise.benchmark.perturbqa.lines import elsewhere, of_others
from pertwise.cli.main import app
from pertwise.config import check_settings
from pertwise.errors import InputError


@pytest.fixture
def world(simulated, tmp_path):
    """Two lines with the same labels (SIMULATED); the second has half of the knock-downs tested."""
    screen, knowledge = simulated
    names, genes = list(screen.perturbations), list(screen.features[:12])
    label = (np.random.default_rng(1).random((len(names), len(genes))) < 0.4).astype(int)
    test = names[:16]

    def table(rows, split):
        return pd.DataFrame(
            [
                {"pert": p, "gene": g, "label": label[names.index(p), j], "split": split(p)}
                for p in rows
                for j, g in enumerate(genes)
            ]
        )

    folder = tmp_path / "labels"
    folder.mkdir()
    first = table(names, lambda p: "test" if p in test else "train")
    first.to_csv(folder / "a-de.csv", index=False)
    second = table([*test[:8], *names[16:]], lambda p: "train")
    second.to_csv(folder / "b-de.csv", index=False)
    return folder, knowledge, test, second


def scored(folder, knowledge, setting):
    given = {"labels": str(folder), "methods": ["kernel-vote"], "knowledge": str(knowledge.path),
             "lines": ["a"], "tasks": ["de"], "other_lines": setting}  # fmt: skip
    task = PerturbqaTask(check_settings(given, PerturbqaConfig))
    scorer = task.scorers["kernel vote, other lines"]("a", "de")
    ((train, held),) = task.splits("a", "de")
    return np.asarray(scorer(train, held[["pert", "gene"]])), held


def test_what_is_scored_is_hidden_in_the_other_line(world):
    folder, knowledge, test, second = world
    before, held = scored(folder, knowledge, "anywhere")
    assert set(held["pert"]) == set(test)
    changed = second.copy()
    asked = changed["pert"].isin(test)
    changed.loc[asked, "label"] = 1 - changed.loc[asked, "label"]
    changed.to_csv(folder / "b-de.csv", index=False)
    after, _ = scored(folder, knowledge, "anywhere")
    np.testing.assert_array_equal(before, after)


def test_measured_elsewhere_scores_those_alone_and_looks_them_up(world):
    folder, knowledge, test, _ = world
    scores, held = scored(folder, knowledge, "elsewhere")
    assert set(held["pert"]) == set(test[:8])
    truth = held["label"].to_numpy()
    assert scores[truth == 1].mean() > scores[truth == 0].mean()


def test_both_rows_stand_in_the_table_with_their_setting(world, tmp_path):
    folder, knowledge, *_ = world
    words = ["bench", "perturbqa", str(folder), "--knowledge", str(knowledge.path), "--line", "a"]
    words += ["--task", "de", "--other-lines", "elsewhere", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("method")
    assert set(summary["setting"]) == {"measured in another line"}
    assert summary.loc["kernel vote, other lines", "auroc"] > summary.loc["kernel vote", "auroc"]
    assert summary["n_pairs"].nunique() == 1


def test_what_cannot_be_done_is_told(world):
    folder, knowledge, *_ = world
    (folder / "b-de.csv").unlink()
    with pytest.raises(InputError, match="a alone"):
        scored(folder, knowledge, "anywhere")
    files = {("a", "de"): folder / "a-de.csv"}
    with pytest.raises(InputError, match="no other line"):
        of_others(files, "a")
    with pytest.raises(InputError, match="other_lines"):
        scored(folder, knowledge, "both")


def test_no_knock_down_in_another_line(world):
    folder, _, test, second = world
    left = second[~second["pert"].isin(test)]
    left.to_csv(folder / "b-de.csv", index=False)
    files = {(x, "de"): folder / f"{x}-de.csv" for x in "ab"}
    with pytest.raises(InputError, match="none of the 16"):
        elsewhere(pd.DataFrame({"pert": test, "gene": "G"}), files, None, "a")
