"""`PerturbqaTask`: every scorer on every label file of a folder, on the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise.benchmark.perturbqa.labels import TASKS, find_label_files, inner_folds, read_labels
from pertwise.benchmark.perturbqa.scorers import (
    Scorer,
    gene_frequency,
    predictor_scorer,
    selector_scorer,
)
from pertwise.benchmark.perturbqa.scoring import evaluate_scorer
from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.config import FileName, Settings
from pertwise.errors import InputError, PertwiseError
from pertwise.evaluate.metrics import Floats
from pertwise.models.methods import Method, make_method
from pertwise.provenance import identity, input_facts
from pertwise.select.embedding import EmbeddingSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge


class PerturbqaConfig(Settings):
    """What to score on which label files."""

    #: Folder of LINE-de.csv(.gz), LINE-dir.csv(.gz).
    labels: FileName
    methods: tuple[str, ...] = ()
    #: Embeddings of the knowledge folder whose nearest neighbours vote.
    votes: tuple[str, ...] = ()
    knowledge: FileName | None = None
    lines: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = TASKS
    #: None scores the published test split once. A number leaves the test split alone and scores
    #: so many folds over the training knock-downs: use this to choose settings.
    inner: int | None = None
    #: Of the inner folds and the bootstrap.
    seed: int = 0


class PerturbqaTask(Task):
    """Every scorer on every (cell line, task) file of a folder.

    Parameters
    ----------
    scorers
        name -> function (cell line, task) -> `Scorer`, instead of those of the settings.

    Notes
    -----
    Summary: one row per (line, task, method): auroc, low, high, n_genes, pooled, n_pairs, coverage;
    means over the inner folds if any. Scores: line, task, method, fold, gene, auroc.
    """

    name, mark, settings_of = "perturbqa", "labels", PerturbqaConfig
    scores = "per_gene.csv"
    settings: PerturbqaConfig

    def __init__(
        self,
        settings: PerturbqaConfig,
        scorers: Mapping[str, Callable[[str, str], Scorer]] | None = None,
        *,
        replay: bool = False,
    ) -> None:
        super().__init__(settings, replay=replay)
        if scorers is not None:
            self.given, self.scorers = True, dict(scorers)

    @cached_property
    def knowledge(self) -> Knowledge | None:
        """The folder opened, or None."""
        from pertwise.knowledge import Knowledge

        folder = self.settings.knowledge
        return None if folder is None else Knowledge.open(folder)

    @cached_property
    def files(self) -> dict[tuple[str, str], Path]:
        """(line, task) -> label file, of the lines and tasks asked for."""
        given = self.settings
        files = find_label_files(given.labels)
        lines = {line for line, _ in files} if given.lines is None else set(given.lines)
        chosen = {k: v for k, v in files.items() if k[0] in lines and k[1] in given.tasks}
        if not chosen:
            raise InputError(
                f"{given.labels} has {sorted(files)}; none is in lines {given.lines}, tasks "
                f"{given.tasks}"
            )
        return chosen

    @cached_property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Label files and knowledge."""
        found = {f"{line}-{task}": input_facts(p) for (line, task), p in self.files.items()}
        if self.knowledge is not None:
            found["knowledge"] = input_facts(self.knowledge)
        return found

    @cached_property
    def methods(self) -> dict[str, Method]:
        """Label -> predictor of the settings."""
        made = [make_method(use) for use in self.settings.methods]
        return {m.label: m for m in made}

    @cached_property
    def scorers(self) -> dict[str, Callable[[str, str], Scorer]]:
        """The baseline, predictors and votes of the settings."""
        found: dict[str, Callable[[str, str], Scorer]] = {"gene frequency": _frequency}
        for label, method in self.methods.items():
            found[label] = partial(_predictor, method, self.knowledge)
        for kind in self.settings.votes:
            if self.knowledge is None:
                raise InputError("--vote needs --knowledge FOLDER")
            found[f"vote ({kind})"] = partial(_vote, self.knowledge, kind)
        return found

    def splits(self, line: str, task: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """(train, test) of one file: the published one, or inner folds."""
        path = self.files[line, task]
        table = read_labels(path)
        train, test = table[table["split"] == "train"], table[table["split"] == "test"]
        inner = self.settings.inner
        if not len(train) or (inner is None and not len(test)):
            raise InputError(f"{path}: {len(train)} train and {len(test)} test pairs; need both")
        if inner is None:
            return [(train, test)]
        return list(inner_folds(train, inner, np.random.default_rng(self.settings.seed)))

    def units(self) -> list[Unit]:
        """Files x scorers x folds."""
        found = []
        for line, task in self.files:
            n_folds = len(self.splits(line, task))
            data = [self.inputs[f"{line}-{task}"], self.inputs.get("knowledge")]
            for name in self.scorers:
                own = (
                    self.methods[name].facts() if name in self.methods and not self.given else name
                )
                for fold in range(n_folds):
                    labels = {"line": line, "task": task, "method": name, "fold": fold}
                    key = identity(own, data, labels, self.settings.inner, self.settings.seed)
                    found.append(Unit(key, labels))
        return found

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Score one fold."""
        return self._scored(unit, self.scorers[unit.labels["method"]])

    def stand_in(self, unit: Unit, error: PertwiseError, place: Path | None) -> Tables:
        """The frequency of every gene, none of the pairs covered."""
        return self._scored(unit, lambda line, task: _nothing)

    def _scored(self, unit: Unit, build: Callable[[str, str], Scorer]) -> Tables:
        line, task = unit.labels["line"], unit.labels["task"]
        train, test = self.splits(line, task)[unit.labels["fold"]]
        rng = np.random.default_rng(self.settings.seed)
        result = evaluate_scorer(build(line, task), train, test, rng)
        values = {k: v for k, v in vars(result).items() if k != "per_gene"}
        genes = pd.DataFrame({"gene": result.per_gene.index, "auroc": result.per_gene.to_numpy()})
        return {
            "result": pd.DataFrame([{**unit.labels, **values}]),
            "genes": pd.DataFrame({**unit.labels, **genes}),
        }

    def gather(self, played: Sequence[Played]) -> Tables:
        """summary and per_gene."""
        results = pd.concat([p.tables["result"] for p in played], ignore_index=True)
        keys = ["line", "task", "method"]
        table = results.groupby(keys, sort=False).mean().drop(columns="fold").reset_index()
        for column in ("n_genes", "n_pairs"):
            if (table[column] % 1 == 0).all():
                table[column] = table[column].astype(int)
        genes = pd.concat([p.tables["genes"] for p in played], ignore_index=True)
        return {self.summary: table, self.scores: genes}


def _frequency(line: str, task: str) -> Scorer:
    return gene_frequency


def _nothing(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
    return np.full(len(pairs), np.nan)


def _predictor(method: Method, knowledge: Knowledge | None, line: str, task: str) -> Scorer:
    return predictor_scorer(method.build, task, knowledge, context=line)


def _vote(knowledge: Knowledge, kind: str, line: str, task: str) -> Scorer:
    return selector_scorer(EmbeddingSelector(knowledge, kind))
