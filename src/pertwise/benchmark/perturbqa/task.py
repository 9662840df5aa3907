"""`PerturbqaTask`: every scorer on every label file of a folder, on the same pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from pertwise.benchmark.perturbqa.asked import NEIGHBOURS, ChatScorer, check_neighbours, estimate
from pertwise.benchmark.perturbqa.labels import TASKS, find_label_files, inner_folds, read_labels
from pertwise.benchmark.perturbqa.lines import Setting, elsewhere, informed, learns
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
from pertwise.llm import load_prompt, open_chat, parse_address
from pertwise.models.methods import Method, make_method
from pertwise.provenance import identity, input_facts
from pertwise.select.embedding import EmbeddingSelector

if TYPE_CHECKING:
    from pertwise.benchmark.engine import BenchmarkRun
    from pertwise.knowledge import Knowledge
    from pertwise.llm import EndpointChat

#: What a chat model leaves besides its scores (methods of `ChatScorer`).
TOLD = ("marks", "repairs", "asked")


class PerturbqaConfig(Settings):
    """What to score on which label files."""

    #: Folder of LINE-de.csv(.gz), LINE-dir.csv(.gz).
    labels: FileName
    methods: tuple[str, ...] = ()
    #: Embeddings of the knowledge folder whose nearest neighbours vote.
    votes: tuple[str, ...] = ()
    knowledge: FileName | None = None
    #: Tables of marks, whose kernels join those of the methods that take marks.
    ratings: tuple[FileName, ...] = ()
    #: A chat model that is asked too, and who is alike in what it is shown.
    llm: str | None = None
    neighbours: str = NEIGHBOURS
    prompt: str = "perturbqa"
    lines: tuple[str, ...] | None = None
    #: Methods that can are scored once more with the labels of the folder's other lines as further
    #: screens; see `lines.Setting`.
    other_lines: Setting | None = None
    tasks: tuple[str, ...] = TASKS
    #: None scores the published test split once. A number leaves the test split alone and scores
    #: so many folds over the training knock-downs: use this to choose settings.
    inner: int | None = None
    #: Score so many target genes only, drawn from those with both labels: a model costs.
    genes: int | None = Field(None, ge=1)
    #: Of the inner folds, the genes drawn, the order shown and the bootstrap.
    seed: int = 0


class PerturbqaTask(Task):
    """Every scorer on every (cell line, task) file of a folder.

    Parameters
    ----------
    scorers
        name -> function (cell line, task) -> `Scorer`, instead of those of the settings.
    address, ledger, limits
        Of the chat model: its address in full, where the settings leave out its query; where its
        answers are kept (default: ledger.sqlite in the folder of the run); settings of `open_chat`.

    Notes
    -----
    Summary: one row per (line, task, method): auroc, low, high, n_genes, pooled, n_pairs, coverage;
    means over the inner folds if any. Scores: line, task, method, fold, gene, auroc. With a chat
    model also marks.csv (what it said of each pair), repairs.csv, asked.csv (questions, tokens).
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
        address: str | None = None,
        ledger: Path | None = None,
        **limits: Any,
    ) -> None:
        super().__init__(settings, replay=replay)
        self.address, self.ledger, self.limits = address or settings.llm, ledger, limits
        if scorers is not None:
            self.given, self.scorers = True, dict(scorers)

    @cached_property
    def knowledge(self) -> Knowledge | None:
        """The folder opened, or None."""
        from pertwise.knowledge import Knowledge

        given = self.settings
        if given.knowledge is None and not given.ratings:
            return None
        opened = Knowledge.open(given.knowledge, ratings=given.ratings)
        if opened.species != "human":
            raise InputError(
                f"{given.knowledge} is of {opened.species} genes, but PerturbQA's lines are human: "
                "give a folder of human genes"
            )
        return opened

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
        files = self.files if self.settings.other_lines is None else self.all_files
        found = {f"{line}-{task}": input_facts(p) for (line, task), p in files.items()}
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
        if self.settings.other_lines is not None:
            found |= self._informed(self.settings.other_lines)
        for kind in self.settings.votes:
            if self.knowledge is None:
                raise InputError("--vote needs --knowledge FOLDER")
            found[f"vote ({kind})"] = partial(_vote, self.knowledge, kind)
        if self.address is not None:
            check_neighbours(self.settings.neighbours, self._facts)
            load_prompt(self.settings.prompt)
            found[self.model] = self.chat_scorer
        return found

    def _informed(self, setting: Setting) -> dict[str, Callable[[str, str], Scorer]]:
        methods = {n: m for n, m in self.methods.items() if learns(m)}
        if not methods:
            raise InputError("none of the methods learns from other lines; kernel-vote does")
        return {
            f"{label}, other lines": partial(
                informed, method, self.all_files, self.knowledge, setting
            )
            for label, method in methods.items()
        }

    @cached_property
    def all_files(self) -> dict[tuple[str, str], Path]:
        """(line, task) -> label file, of the whole folder."""
        return find_label_files(self.settings.labels)

    @property
    def _facts(self) -> Knowledge | None:
        """What is shown to a model; marks alone say nothing of a gene."""
        return None if self.settings.knowledge is None else self.knowledge

    @property
    def model(self) -> str:
        """What the chat model is called in the tables."""
        return f"asked {parse_address(self.address).model}" if self.address else ""

    @cached_property
    def chat(self) -> EndpointChat:
        """The chat model; its ledger lets an interrupted run go on with nothing paid twice."""
        if self.address is None:
            raise InputError("no model is named: llm = 'MODEL@URL' (--llm)")
        usual = None if self.folder is None else self.folder / "ledger.sqlite"
        ledger = self.ledger or usual
        return open_chat(
            self.address, ledger=ledger, replay=self.replay, run=self.name, **self.limits
        )

    def chat_scorer(self, line: str, task: str) -> ChatScorer:
        """The scorer that asks the chat model about one file."""
        given = self.settings
        return ChatScorer(
            self.chat, line, task, self._facts, given.neighbours, given.prompt, given.seed
        )

    def estimate(self) -> str:
        """What asking the chat model would cost, in words; nothing is sent."""
        return estimate(
            [
                (self.chat_scorer(line, task), train, test[["pert", "gene"]])
                for line, task in self.files
                for train, test in self.splits(line, task)
            ]
        )

    def splits(self, line: str, task: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """(train, test) of one file: the published one, or inner folds."""
        path = self.files[line, task]
        table = read_labels(path)
        train, test = table[table["split"] == "train"], table[table["split"] == "test"]
        inner = self.settings.inner
        if not len(train) or (inner is None and not len(test)):
            raise InputError(f"{path}: {len(train)} train and {len(test)} test pairs; need both")
        rng = np.random.default_rng(self.settings.seed)
        found = [(train, test)] if inner is None else list(inner_folds(train, inner, rng))
        if self.settings.other_lines == "elsewhere":
            found = [
                (train, elsewhere(test, self.all_files, self.knowledge, line))
                for train, test in found
            ]
        if self.settings.genes is None:
            return found
        return [(train, _of_genes(test, self.settings.genes, self.settings.seed)) for train, test
                in found]  # fmt: skip

    def units(self) -> list[Unit]:
        """Files x scorers x folds."""
        found = []
        for line, task in self.files:
            n_folds = len(self.splits(line, task))
            data = [self.inputs[f"{line}-{task}"], self.inputs.get("knowledge")]
            for name in self.scorers:
                own = self._own(name)
                for fold in range(n_folds):
                    labels = {"line": line, "task": task, "method": name, "fold": fold}
                    how: list[Any] = [self.settings.inner, self.settings.seed]
                    if self.settings.genes is not None:
                        how.append(self.settings.genes)
                    if self.settings.other_lines is not None:
                        how.append(self.settings.other_lines)
                    found.append(Unit(identity(own, data, labels, *how), labels))
        return found

    def _own(self, name: str) -> Any:
        """What decides the scores of a scorer besides the data."""
        if self.given:
            return name
        if name == self.model:
            given = self.settings
            return [str(given.llm), load_prompt(given.prompt).hash, given.neighbours]
        plain = name.removesuffix(", other lines")
        if plain != name and plain in self.methods:
            return [self.methods[plain].facts(), "other lines", dict(self.inputs)]
        return self.methods[name].facts() if name in self.methods else name

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Score one fold."""
        build = self.scorers[unit.labels["method"]]
        scorer = build(unit.labels["line"], unit.labels["task"])
        tables = self._scored(unit, scorer)
        if isinstance(scorer, ChatScorer):
            for name in TOLD:
                tables[name] = pd.DataFrame({**unit.labels, **getattr(scorer, name)()})
        return tables

    def stand_in(self, unit: Unit, error: PertwiseError, place: Path | None) -> Tables:
        """The frequency of every gene, none of the pairs covered."""
        return self._scored(unit, _nothing)

    def _scored(self, unit: Unit, scorer: Scorer) -> Tables:
        line, task = unit.labels["line"], unit.labels["task"]
        train, test = self.splits(line, task)[unit.labels["fold"]]
        rng = np.random.default_rng(self.settings.seed)
        result = evaluate_scorer(scorer, train, test, rng)
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
        if self.settings.other_lines is not None:
            table.insert(2, "setting", f"unseen {self.settings.other_lines}".replace(
                "unseen elsewhere", "measured in another line"))  # fmt: skip
        genes = pd.concat([p.tables["genes"] for p in played], ignore_index=True)
        told = {
            f"{name}.csv": pd.concat(tables, ignore_index=True)
            for name in TOLD
            if (tables := [p.tables[name] for p in played if name in p.tables])
        }
        return {self.summary: table, self.scores: genes, **told}

    def words(self, run: BenchmarkRun[Any]) -> str:
        """What the chat model was asked, and how much of it could be used."""
        if "asked.csv" not in run.record["tables"]:
            return f"{self.model}: nothing could be asked"
        told = run.read("asked.csv").sum(numeric_only=True)
        counts = run.read("repairs.csv")["kind"].value_counts(sort=False)
        repairs = ", ".join(f"{kind} {n}" for kind, n in counts.items())
        return (
            f"{self.model}: {told['questions']:.0f} questions, marks {told['marks']:.0f} of "
            f"{told['pairs']:.0f}, {told['re_asks']:.0f} re-asks, {told['prompt_tokens']:.0f} + "
            f"{told['completion_tokens']:.0f} tokens; repairs: {repairs or 'none'}"
        )

    def unanswered(self, run: BenchmarkRun[Any]) -> dict[str, list[dict[str, Any]]]:
        """The chat model, when not one of its marks could be used."""
        if "asked.csv" not in run.record["tables"] or run.read("asked.csv")["marks"].any():
            return {}
        repairs = run.read("repairs.csv")[["kind", "action"]].fillna("")
        return {self.model: repairs.to_dict("records")}


def _of_genes(test: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """The pairs of `n` genes drawn from those with both labels."""
    both = test.groupby("gene")["label"].nunique()
    names = sorted(both.index[both == 2])
    order = np.random.default_rng(seed).permutation(len(names))[:n]
    return test[test["gene"].isin({names[i] for i in order})]


def _frequency(line: str, task: str) -> Scorer:
    return gene_frequency


def _nothing(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
    return np.full(len(pairs), np.nan)


def _predictor(method: Method, knowledge: Knowledge | None, line: str, task: str) -> Scorer:
    return predictor_scorer(method.build, task, knowledge, context=line)


def _vote(knowledge: Knowledge, kind: str, line: str, task: str) -> Scorer:
    return selector_scorer(EmbeddingSelector(knowledge, kind))
