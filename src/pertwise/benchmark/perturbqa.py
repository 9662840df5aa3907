"""PerturbQA: does the knock-down change this gene, and in which direction?

Wu et al. 2025 (PerturbQA): labelled pairs (perturbation, gene) of CRISPRi screens. Task ``de``: 1 =
the knock-down changes the gene; ``dir``: among changed pairs, 1 = up, 0 = down. The labels are a
*sample* of all pairs: a pair that is not listed is unknown, not 0.

The published metric is the AUROC per target gene, averaged over the genes that have both labels in
the split scored: it asks which knock-downs move this gene, so a method that only knows how often a
gene changes scores exactly 0.5. The pooled AUROC over all pairs, where that knowledge is most of
the score, is given for contrast.

A *scorer* is any function (train, pairs) -> scores: `train` has the columns pert, gene, label, the
pairs to be scored pert and gene; larger = more likely 1. Everything tuned must be tuned inside
`train` (`inner_folds`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise._files import open_text
from pertwise._tables import columns_of
from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.config import FileName, Settings
from pertwise.errors import InputError, PertwiseError
from pertwise.evaluate.auroc import auroc, grouped_auroc
from pertwise.evaluate.metrics import Floats
from pertwise.evaluate.statistics import bootstrap_mean
from pertwise.models.methods import Method, make_method
from pertwise.provenance import identity, input_facts
from pertwise.screen.core import make_screen
from pertwise.select.embedding import EmbeddingSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models import Predictor
    from pertwise.screen import Screen
    from pertwise.select.similarity import SimilaritySelector

Scorer = Callable[[pd.DataFrame, pd.DataFrame], NDArray[np.floating]]
TASKS = ("de", "dir")
COLUMNS = ("pert", "gene", "label", "split")


def read_labels(path: str | os.PathLike[str]) -> pd.DataFrame:
    """One csv (optionally .gz) of labelled pairs: pert, gene, label (0/1), split.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and the first row at fault: missing columns, labels other than 0 and 1, a
        pair listed twice, an empty name.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    # Gene symbols such as NA or NAN must stay text.
    with open_text(file, "a table of pairs") as text:
        table = pd.read_csv(text, dtype={"pert": str, "gene": str}, keep_default_na=False)
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise InputError(f"{file} lacks the columns {missing}; it has {columns_of(table)}")
    labels = pd.to_numeric(table["label"], errors="coerce")
    bad = ~labels.isin((0, 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{file} row {row + 2}: label {str(table['label'][row])!r} is not 0 or 1")
    table["label"] = labels.astype(np.int8)
    for column in ("pert", "gene"):
        empty = table[column].str.strip() == ""
        if empty.any():
            raise InputError(f"{file} row {int(np.flatnonzero(empty)[0]) + 2}: empty {column}")
    twice = table.duplicated(["pert", "gene"])
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        pert, gene = table.loc[row, "pert"], table.loc[row, "gene"]
        raise InputError(f"{file} row {row + 2}: the pair ({pert}, {gene}) is listed twice")
    return table[list(COLUMNS)]


def find_label_files(folder: str | os.PathLike[str]) -> dict[tuple[str, str], Path]:
    """(cell line, task) -> file, for files called ``k562-de.csv`` or ``k562-de.csv.gz``.

    Raises
    ------
    pertwise.errors.InputError
        If the folder does not exist or holds no such file.
    """
    where = Path(folder)
    if not where.is_dir():
        raise InputError(f"{where} is not a folder")
    found = {}
    for path in sorted(where.iterdir()):
        stem = path.name.removesuffix(".gz").removesuffix(".csv")
        line, _, task = stem.rpartition("-")
        if line and task in TASKS and path.name.startswith(f"{stem}.csv"):
            found[(line, task)] = path
    if not found:
        raise InputError(f"{where} holds no file called LINE-de.csv(.gz) or LINE-dir.csv(.gz)")
    return found


@dataclass(frozen=True)
class QaResult:
    """Outcome of one scorer on one split.

    Attributes
    ----------
    auroc
        Mean AUROC per target gene over the genes with both labels.
    low, high
        95 % bootstrap interval of that mean over genes.
    n_genes
        Genes with both labels (those averaged).
    pooled
        AUROC over all pairs at once.
    n_pairs, coverage
        Pairs scored and the share for which the scorer had an answer of its own (not NaN); the
        others got the training frequency of their gene.
    per_gene
        AUROC of every gene with both labels, indexed by gene.
    """

    auroc: float
    low: float
    high: float
    n_genes: int
    pooled: float
    n_pairs: int
    coverage: float
    per_gene: pd.Series = field(repr=False)


def gene_frequency(train: pd.DataFrame, pairs: pd.DataFrame, strength: float = 1.0) -> Floats:
    """Share of 1 among a gene's training labels, shrunk to the overall share.

    (ones_g + strength * overall) / (labels_g + strength); genes without training labels get the
    overall share. The baseline that knows the gene and nothing of the knock-down.
    """
    if not len(train):
        raise InputError("the training split has no pair")
    overall = float(train["label"].mean())
    by_gene = train.groupby("gene")["label"].agg(["sum", "count"])
    ones = by_gene["sum"].reindex(pairs["gene"], fill_value=0).to_numpy(dtype=float)
    count = by_gene["count"].reindex(pairs["gene"], fill_value=0).to_numpy(dtype=float)
    return np.asarray((ones + strength * overall) / (count + strength))


def neighbour_vote(
    train: pd.DataFrame,
    pairs: pd.DataFrame,
    similarity: ArrayLike,
    test_perts: Sequence[str],
    train_perts: Sequence[str],
    *,
    k: int | None = 20,
    prior_strength: float = 1.0,
    power: float = 1.0,
) -> Floats:
    """Similarity-weighted vote among the training knock-downs labelled for the same gene.

    score(p, g) = (sum_q w_pq y_qg + c f_g) / (sum_q w_pq + c) over the k training knock-downs q
    most similar to p *among those with a label for g* (a missing label is not a 0), with
    w = max(similarity, 0)^power, f_g the gene's training frequency (`gene_frequency`) and c the
    prior strength times the mean positive weight of the table.

    Parameters
    ----------
    similarity
        (n_test_perts, n_train_perts), larger = more alike; NaN = unknown, counts as 0.
    test_perts, train_perts
        Names of its rows and columns; a pair whose knock-down is not among them gets f_g.
    k
        Neighbours per pair; None = all labelled ones.

    Returns
    -------
    (n_pairs,) scores in [0, 1].

    Raises
    ------
    pertwise.errors.InputError
        If the names do not fit the matrix or k < 1.
    """
    weights = np.asarray(similarity, dtype=np.float64)
    if weights.shape != (len(test_perts), len(train_perts)):
        raise InputError(
            f"similarity has shape {weights.shape}, names say {(len(test_perts), len(train_perts))}"
        )
    if k is not None and k < 1:
        raise InputError(f"k must be >= 1, got {k}")
    weights = np.maximum(np.nan_to_num(weights, nan=0.0), 0.0) ** power
    positive = weights[weights > 0]
    prior = prior_strength * (float(positive.mean()) if positive.size else 1.0)
    frequency = gene_frequency(train, pairs)

    genes = pd.Index(pd.unique(train["gene"]))
    column = pd.Index(train_perts).get_indexer(train["pert"])
    usable = column >= 0
    train_gene = genes.get_indexer(train["gene"])[usable]
    train_label = train["label"].to_numpy(dtype=np.float64)[usable]
    column = column[usable]
    order = np.argsort(train_gene, kind="stable")
    bounds = np.searchsorted(train_gene[order], np.arange(len(genes) + 1))

    pair_gene = genes.get_indexer(pairs["gene"])
    pair_row = pd.Index(test_perts).get_indexer(pairs["pert"])
    pair_order = np.argsort(pair_gene, kind="stable")
    pair_bounds = np.searchsorted(pair_gene[pair_order], np.arange(len(genes) + 1))

    scores = frequency.copy()
    for g in range(len(genes)):
        asked = pair_order[pair_bounds[g] : pair_bounds[g + 1]]
        asked = asked[pair_row[asked] >= 0]
        labelled = order[bounds[g] : bounds[g + 1]]
        if not len(asked) or not len(labelled):
            continue
        w = weights[np.ix_(pair_row[asked], column[labelled])]
        if k is not None and k < w.shape[1]:
            kth = -np.partition(-w, k - 1, axis=1)[:, k - 1 : k]
            w = np.where(w >= kth, w, 0.0)  # equal weights at the border all vote
        votes = w @ train_label[labelled]
        scores[asked] = (votes + prior * frequency[asked]) / (w.sum(axis=1) + prior)
    return scores


def selector_scorer(selector: SimilaritySelector, **settings: Any) -> Scorer:
    """A scorer that votes (`neighbour_vote`) with the similarities of a selector.

    Any graph, embedding or other similarity of knock-downs thereby answers PerturbQA. `settings` go
    to `neighbour_vote` (k, prior_strength, power). A knock-down the selector knows nothing about
    (no positive similarity to any training knock-down) counts as not covered.
    """

    def scorer(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        asked, known = sorted(set(pairs["pert"])), sorted(set(train["pert"]))
        similarity = np.asarray(selector.similarity(asked, known), dtype=np.float64)
        scores = neighbour_vote(train, pairs, similarity, asked, known, **settings)
        blank = np.asarray(~(np.nan_to_num(similarity) > 0).any(axis=1))
        scores[blank[pd.Index(asked).get_indexer(pairs["pert"])]] = np.nan
        return scores

    return scorer


def labels_screen(train: pd.DataFrame, task: str, context: str = "") -> Screen:
    """Training labels as a screen, so that any `Predictor` can be fitted to them.

    Rows are knock-downs, features genes; `de` labels stay 0/1, `dir` labels become -1/+1; a pair
    without a label is NaN (not measured).
    """
    perts, genes = pd.Index(sorted(set(train["pert"]))), pd.Index(sorted(set(train["gene"])))
    x = np.full((len(perts), len(genes)), np.nan, dtype=np.float32)
    value = train["label"].to_numpy(dtype=np.float32)
    if task == "dir":
        value = 2 * value - 1
    x[perts.get_indexer(train["pert"]), genes.get_indexer(train["gene"])] = value
    return make_screen(x, list(perts), list(genes), context=context, meta={"unit": f"{task} label"})


def predictor_scorer(
    make: Callable[[], Predictor],
    task: str,
    knowledge: Knowledge | None = None,
    context: str = "",
) -> Scorer:
    """A scorer that fits a predictor to the training labels and reads its mean response.

    A perturbation that the predictor answered with a fallback keeps that answer but counts as not
    covered (NaN here, so the gene's frequency is used and coverage shows it); genes without any
    training label likewise.
    """

    def scorer(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        model = make().fit(labels_screen(train, task, context), knowledge)
        names = sorted(set(pairs["pert"]))
        prediction = model.predict(names)
        row = pd.Index(prediction.perturbations).get_indexer(pairs["pert"])
        column = pd.Index(prediction.features).get_indexer(pairs["gene"])
        scores = np.where(column >= 0, prediction.mean[row, column], np.nan).astype(np.float64)
        fell_back = (prediction.support["fallback"] != "").to_numpy()
        scores[fell_back[row]] = np.nan
        return np.asarray(scores)

    return scorer


def evaluate_scorer(
    scorer: Scorer,
    train: pd.DataFrame,
    test: pd.DataFrame,
    rng: np.random.Generator,
) -> QaResult:
    """Score one split. The scorer never sees the labels of `test`.

    NaN scores are pairs without an answer: they get the training frequency of their gene (on the
    0..1 scale of the labels, rescaled to the range of the scorer's own scores) and stay in.

    Raises
    ------
    pertwise.errors.InputError
        If train and test share a pair, or the scorer returns another number of scores.
    """
    shared = train.merge(test, on=["pert", "gene"], how="inner")
    if len(shared):
        pert, gene = shared["pert"][0], shared["gene"][0]
        raise InputError(f"{len(shared)} pairs, ({pert}, {gene}) first, are in train and in test")
    pairs = test[["pert", "gene"]].reset_index(drop=True)
    scores = np.asarray(scorer(train, pairs), dtype=np.float64)
    if scores.shape != (len(pairs),):
        raise InputError(f"the scorer gave {scores.shape} scores for {len(pairs)} pairs")
    known = ~np.isnan(scores)
    if not known.all():
        fill = gene_frequency(train, pairs)[~known]
        if known.any():
            low, high = float(scores[known].min()), float(scores[known].max())
            fill = low + fill * (high - low)
        scores = scores.copy()
        scores[~known] = fill
    labels = test["label"].to_numpy()
    genes, names = pd.factorize(test["gene"], sort=True)
    values = grouped_auroc(scores, labels, genes, len(names))
    interval = bootstrap_mean(values, rng)
    per_gene = pd.Series(values, index=pd.Index(names, name="gene")).dropna()
    return QaResult(
        auroc=interval.mean,
        low=interval.low,
        high=interval.high,
        n_genes=interval.n,
        pooled=auroc(scores, labels),
        n_pairs=len(pairs),
        coverage=float(known.mean()),
        per_gene=per_gene,
    )


def inner_folds(
    train: pd.DataFrame, n_folds: int, rng: np.random.Generator
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Folds over the *knock-downs* of the training split, for tuning: (inner train, inner test).

    All pairs of a knock-down go to one side, as in the published split. The folds depend on the
    names and the seed, not on the order of the rows.
    """
    perts = np.array(sorted(set(train["pert"])), dtype=object)
    if not 2 <= n_folds <= len(perts):
        raise InputError(f"n_folds must be between 2 and {len(perts)} knock-downs, got {n_folds}")
    for part in np.array_split(rng.permutation(perts), n_folds):
        held_out = train["pert"].isin(set(part))
        yield train[~held_out], train[held_out]


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
