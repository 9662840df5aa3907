"""Who edits best: graph, judge before and after, best of n, a policy without a language model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise._io import write_csv_atomic
from pertwise.errors import InputError
from pertwise.evaluate.score import score_predictions
from pertwise.evaluate.statistics import bootstrap_mean, compare_methods
from pertwise.train.answers import Answers
from pertwise.train.gold import edit_text, gold_answer
from pertwise.train.grading import Floats, Grader
from pertwise.train.rewards import PARTS, Reward, Scheme, edit_names, reward
from pertwise.train.tasks import Task

#: Rows of every table: what is compared with, and what bounds everything.
GRAPH, MEAN, CEILING = "graph", "training mean", "best edit (sees the answer)"
STRONGEST, N_STRONGEST = "graph, 5 strongest", 5
#: Scores that are shown.
METRICS = ("pearson_delta", "cosine", "retrieval_l2", "squared_error")


@dataclass(frozen=True)
class Evaluation:
    """Scores of test tasks.

    Attributes
    ----------
    scores
        One row a task and arm: context, subject, arm, `METRICS`, format, validity, gain, reward,
        n_added, n_removed.
    summary
        Mean of every score with its bootstrap interval, by context and arm.
    comparison
        Each arm against the graph: paired difference, interval, Wilcoxon p, Holm, by context and
        metric.
    edits
        What each arm added and removed most.
    """

    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame
    edits: pd.DataFrame

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """scores.csv, summary.csv, comparison.csv and edits.csv, atomically."""
        made = []
        for name in ("scores", "summary", "comparison", "edits"):
            made.append(Path(folder) / f"{name}.csv")
            write_csv_atomic(made[-1], getattr(self, name))
        return made


def evaluate(
    tasks: Sequence[Task],
    arms: Mapping[str, Answers],
    arrays: Grader,
    *,
    scheme: Scheme | None = None,
    ceiling: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Score the answers of every arm to the edit tasks of the split "test".

    A task that an arm did not answer, or not readably, keeps its neighbours, and stays in the
    score. Of several answers to a task the first counts; an arm that holds several gets a second
    row, the best of them chosen by the truth, which bounds what choosing among them could win.

    Raises
    ------
    pertwise.errors.InputError
        When there is no test task of the kind "edit", an arm has the name of a row that is always
        there, or tasks and arrays do not belong together.
    """
    test = [t for t in tasks if t.kind == "edit" and t.split == "test"]
    if not test:
        raise InputError("there is no test task of the kind 'edit' to evaluate on")
    if taken := {GRAPH, STRONGEST, MEAN, CEILING} & set(arms):
        raise InputError(f"an arm cannot be called {sorted(taken)[0]!r}; that row is always there")
    texts: dict[str, dict[str, str]] = {GRAPH: {}}
    for arm, answers in arms.items():
        texts[arm] = {key: said[0] for key, said in answers.items() if said}
        most = max((len(said) for said in answers.values()), default=0)
        if most > 1:
            best = f"{arm}, best of {most} (chosen by the truth)"
            texts[best] = {t.id: _best(t, answers.get(t.id, ()), arrays, scheme) for t in test}
    if ceiling:
        texts[CEILING] = {t.id: gold_answer(t, arrays, scheme) for t in test}
    rewards = {
        arm: [reward(t, said.get(t.id, edit_text([], [])), arrays, scheme) for t in test]
        for arm, said in texts.items()
    }
    rows = [
        _scored(test, arm, [edit_names(t, said.get(t.id, ""), arrays) for t in test],
                rewards[arm], arrays)
        for arm, said in texts.items()
    ]  # fmt: skip
    rows.insert(0, _scored(test, MEAN, [()] * len(test), None, arrays))
    strongest = [t.shown[:N_STRONGEST] for t in test]
    rows.insert(2, _scored(test, STRONGEST, strongest, None, arrays))
    scores = pd.concat(rows, ignore_index=True)
    rng = np.random.default_rng(seed)
    return Evaluation(scores, _summary(scores, rng), _compared(scores, rng), _edits(rewards))


def _best(task: Task, answers: Iterable[str], arrays: Grader, scheme: Scheme | None) -> str:
    return max(
        answers,
        key=lambda text: reward(task, text, arrays, scheme).detail.get("score", -np.inf),
        default="",
    )


def _scored(
    tasks: Sequence[Task],
    arm: str,
    chosen: Sequence[Sequence[str]],
    rewards: Sequence[Reward] | None,
    arrays: Grader,
) -> pd.DataFrame:
    """One row a task, in order."""
    table = pd.DataFrame(
        {"context": [t.context for t in tasks], "subject": [t.subject for t in tasks], "arm": arm}
    )
    for metric in METRICS:
        table[metric] = np.nan
    for context, rows in table.groupby("context").indices.items():
        data = arrays.lines[str(context)]
        own = np.array([arrays.rows(tasks[i], [tasks[i].subject])[0] for i in rows])
        found = score_predictions(
            data.y[own],
            np.vstack([_mean(tasks[i], chosen[i], arrays) for i in rows]),
            perturbations=[tasks[i].subject for i in rows],
            features=data.features,
            candidates=data.y,
            own=own,
            tops=(),
            retrieval_distances=("l2",),
            ranked=str(context) in arrays.ranked,
        ).values
        for metric in METRICS:
            if metric in found:
                table.loc[rows, metric] = found[metric].to_numpy()
    if rewards is not None:
        for name in PARTS:
            table[name] = [r.parts[name] for r in rewards]
        table["reward"] = [r.total for r in rewards]
        for side in ("added", "removed"):
            table[f"n_{side}"] = [len(r.detail.get(side, ())) for r in rewards]
    return table


def _mean(task: Task, names: Sequence[str], arrays: Grader) -> Floats:
    target = arrays.target(task)
    return target.predictions(target.members(names)[None])


def _summary(scores: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (context, arm), part in scores.groupby(["context", "arm"], sort=False):
        row: dict[str, Any] = {"context": context, "arm": arm, "n": len(part)}
        for metric in METRICS:
            interval = bootstrap_mean(part[metric], rng)
            row |= {metric: interval.mean, f"{metric}_low": interval.low,
                    f"{metric}_high": interval.high}  # fmt: skip
        for name in ("format", "validity", "gain", "reward", "n_added", "n_removed"):
            row[name] = part[name].mean() if name in part else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _compared(scores: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    found = []
    for context, part in scores.groupby("context", sort=False):
        for metric in METRICS:
            wide = part.pivot_table(index="subject", columns="arm", values=metric, sort=False)
            wide = wide.drop(columns=[CEILING], errors="ignore")
            if wide.shape[1] > 1 and GRAPH in wide:
                made = compare_methods(wide, rng, reference=GRAPH)
                found.append(made.assign(context=context, metric=metric))
    if not found:
        return pd.DataFrame()
    table = pd.concat(found, ignore_index=True)
    return table[["context", "metric", *(c for c in table if c not in ("context", "metric"))]]


def _edits(rewards: Mapping[str, Sequence[Reward]], most: int = 20) -> pd.DataFrame:
    rows = []
    for arm, found in rewards.items():
        if arm in (GRAPH, CEILING):
            continue
        for side in ("added", "removed"):
            counts = Counter(n for r in found for n in r.detail.get(side, ()))
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            rows += [(arm, side, name, times) for name, times in ordered[:most]]
    return pd.DataFrame(rows, columns=["arm", "edit", "name", "times"])
