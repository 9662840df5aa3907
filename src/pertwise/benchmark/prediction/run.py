"""The prediction task: methods x splits of one screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.prediction.config import MethodSpec, PredictionConfig
from pertwise.benchmark.prediction.inputs import Inputs, described_items, open_inputs
from pertwise.benchmark.prediction.tables import comparisons, summary
from pertwise.benchmark.task import Failed, Played, Tables, Task, Unit
from pertwise.config import Settings
from pertwise.errors import InputError
from pertwise.evaluate.row_scores import check_asked
from pertwise.evaluate.sides import Sides
from pertwise.evaluate.specs import ORACLE, MetricSpec
from pertwise.evaluate.split_files import predicted_split, read_splits
from pertwise.evaluate.splits import (
    REGIME_WORDS,
    Split,
    asked_elsewhere,
    split_rows,
    split_three,
)
from pertwise.evaluate.units import run_unit
from pertwise.kernels.transfer import GivenScreens, measured_in, of_line, open_others
from pertwise.models.methods import LEDGER, Method, asks_chat, make_method
from pertwise.provenance import checksum, contents, identity

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


def make_splits(config: PredictionConfig, inputs: Inputs) -> list[Split]:
    """The splits of a benchmark, the same for every method."""
    spec, names = config.split, list(inputs.screen.obs["perturbation"])
    known, screen = inputs.knowledge, inputs.screen
    if spec.kind == "files":
        return read_splits(spec.files, screen, None if known is None else known.lines)
    if spec.kind == "predicted":
        return [predicted_split(spec.files, screen)]
    if spec.by_rows:
        regime = REGIME_WORDS.get(spec.kind, spec.kind)
        found: list[Split] = []
        for seed in range(config.seed, config.seed + spec.shuffles):
            three = regime == "three-settings"
            found += (
                split_three(screen, known, n_folds=spec.folds, seed=seed)
                if three
                else split_rows(screen, regime, known, n_folds=spec.folds, seed=seed)
            )
        return found
    splitter = parts.describe("split", spec.kind).serve(
        n_folds=spec.folds,
        n_shuffles=spec.shuffles,
        n_repeats=spec.shuffles,
        sizes=spec.train_sizes,
        test_share=spec.test_share,
        unseen_share=spec.unseen_share,
        path=spec.folds_from,
        source=list(inputs.source.obs["perturbation"]),
        **spec.settings,
    )
    splits: list[Split] = splitter(perturbations=names, seed=config.seed)
    return splits


def make_methods(specs: Sequence[MethodSpec]) -> list[Method]:
    """Methods of a benchmark, each checked to exist and to take its settings."""
    out = []
    for spec in specs:
        if spec.use == ORACLE:
            out.append(Method(spec.name, ORACLE, {}))
        else:
            out.append(make_method(spec.use, spec.name, **spec.settings))
    return out


class PredictionTask(Task):
    """Every method on every split of one screen.

    A subclass says what else is read, who meets whom, and how the scores are summed up
    (`regimes.RegimesTask`).

    Parameters
    ----------
    inputs
        Opened before (files are then not read).
    """

    name, mark = "prediction", "methods"
    settings_of: ClassVar[type[Settings]] = PredictionConfig
    scores = "results.parquet"
    page_by = "pertwise.report.prediction_bench:write_page"
    settings: PredictionConfig

    def __init__(
        self, settings: Settings, opened: Inputs | None = None, *, replay: bool = False
    ) -> None:
        super().__init__(settings, replay=replay)
        self._last: tuple[tuple[Split, bool], Sides] | None = None
        if opened is not None:
            self.given, self.opened = True, opened

    @cached_property
    def opened(self) -> Inputs:
        """The files of the settings, read."""
        return open_inputs(self.settings)

    @property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Screen, source, knowledge, folds, cells."""
        return self.opened.facts

    @cached_property
    def splits(self) -> list[Split]:
        """The same for every method: those of the settings, and where methods learn from other
        screens the same for the perturbations measured there (`SplitSpec.setting`).

        Raises
        ------
        pertwise.errors.InputError
            If another screen is of the line that is asked about, or none measured anything held out
            where that is asked for.
        """
        made, spec = make_splits(self.settings, self.opened), self.settings.split
        table = self.overlap()
        if spec.by_rows or spec.trains_elsewhere or spec.setting == "anywhere":
            return made
        if table.empty and spec.setting == "both":
            return made
        here = self.opened.screen.contexts[0]
        for label in table.get("other screen", ()):
            if of_line(label, here):
                raise InputError(
                    f"the other screen {label!r} is of the line that is asked about ({here}): what "
                    'it measured is not unseen here; leave it out, or say setting = "anywhere" '
                    "([split]), which hides every held-out perturbation in it"
                )
        found = asked_elsewhere(made, self._measured_elsewhere())
        if spec.setting == "both":
            return [*made, *found]
        if not found:
            raise InputError(
                'setting = "elsewhere" ([split]), but no method has other screens that measured a '
                "held-out perturbation (settings = { other = [FILE, ...] })"
            )
        return found

    def _others(self) -> dict[str, GivenScreens]:
        """Method -> its other screens."""
        return {m.label: m.other for m in self.methods if m.use != ORACLE and m.other}

    def _measured_elsewhere(self) -> frozenset[str]:
        names, known = self.opened.screen.perturbations, self.opened.knowledge
        found = [measured_in(o, names, known).values() for o in self._others().values()]
        return frozenset().union(*(names for several in found for names in several))

    def overlap(self) -> pd.DataFrame:
        """What each other screen measured: other screen, methods, perturbations, of those here."""
        names, known = self.opened.screen.perturbations, self.opened.knowledge
        rows: dict[str, dict[str, Any]] = {}
        for method, given in self._others().items():
            screens, there = open_others(given), measured_in(given, names, known)
            for label, screen in screens.items():
                row = {"other screen": label, "methods": method, "measured": len(screen)}
                row["of those here"] = f"{len(there[label])} of {len(names)}"
                if label in rows:
                    row["methods"] = f"{rows[label]['methods']}, {method}"
                rows[label] = row
        return pd.DataFrame(list(rows.values()))

    @cached_property
    def methods(self) -> list[Method]:
        """Each checked to exist and to take its settings."""
        return make_methods(self.settings.methods)

    @property
    def metrics(self) -> MetricSpec:
        """What is scored."""
        return self.settings.metrics

    def meetings(self) -> list[tuple[Method, Split, bool]]:
        """Who is fitted on what, in the order of the tables, and whether with knowledge."""
        return [
            (method, split, spec.knowledge)
            for spec, method in zip(self.settings.methods, self.methods, strict=True)
            for split in self.splits
        ]

    def screens(self, split: Split) -> tuple[Screen, Screen]:
        """The screen that is scored on and the one that is learned from."""
        return self.opened.screen, self.opened.source

    def units(self) -> list[Unit]:
        """One for each of `meetings`.

        Raises
        ------
        pertwise.errors.InputError
            For unknown methods, metrics or splits, or a magnitude asked of ranks.
        """
        check_asked(self.metrics, self.opened.screen)
        data = contents(self.inputs)
        more: dict[str, Any] = {"means": True} if self.settings.keep_predictions else {}
        wanted = self.metrics
        own = [parts.describe("metric", name).file for name in (*wanted.more, *(wanted.only or ()))]
        more["code of metrics"] = [checksum(file) for file in own if file]
        metrics = wanted.model_dump(mode="json", exclude={"main"})
        found = []
        for method, split, known in self.meetings():
            labels = {"method": method.label, "split": split.kind, "seed": split.seed}
            key = identity(method.facts(), split.key(), data, known, metrics, more)
            what = (self._with_account(method), split, known)
            found.append(Unit(key, {**labels, "fold": split.fold}, what))
        if not found:
            raise InputError("nothing is to be run: no split or no method")
        return found

    def sides(self, split: Split, knowledge: Knowledge | None) -> Sides:
        """The sides of a split; the last are kept: methods come to a split in turn."""
        if self._last is None or self._last[0] != (split, knowledge is None):
            made = Sides.of(
                split,
                *self.screens(split),
                knowledge,
                n_related=self.settings.n_related,
                variable=() if split.kind == "dose" else self.metrics.variable,
            )
            self._last = ((split, knowledge is None), made)
        return self._last[1]

    def _with_account(self, method: Method) -> Method:
        """A method that asks a chat model, with one ledger and one account for all its units."""
        if (
            self.folder is None
            or method.use == ORACLE
            or not asks_chat(method.use, method.settings)
        ):
            return method
        settings = {LEDGER: str(self.folder / "ledger.sqlite"), **method.settings}
        chat = {"run": method.label, **({"replay": True} if self.replay else {})}
        settings["chat_settings"] = {**chat, **settings.get("chat_settings", {})}
        return replace(method, settings=settings)

    def unanswered(self, run: BenchmarkRun[Any]) -> dict[str, list[dict[str, Any]]]:
        """Methods whose every prediction is a fallback because no answer could be used."""
        found: dict[str, list[dict[str, Any]]] = {}
        answers = run.read("answers.parquet") if run.has("answers.parquet") else pd.DataFrame()
        units = run.read("units.csv").fillna("")
        for method in self.methods:
            if method.use == ORACLE or not asks_chat(method.use, method.settings):
                continue
            name = method.label
            said = answers[answers["method"].astype(str) == name] if len(answers) else answers
            errors = units.loc[units["method"].astype(str) == name, "error"].astype(str)
            if len(said) and bool(said["fallback"].all()):
                found[name] = said[["kind", "action"]].astype(str).to_dict("records")
            elif not len(said) and bool((errors != "").all()):
                found[name] = [{"kind": "failed", "action": e} for e in errors.unique()]
        return found

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Fit, predict, score (`run_unit`); a failed method is answered with the training mean."""
        method, split, use_knowledge = unit.what
        knowledge = self.opened.knowledge if use_knowledge else None
        result = run_unit(
            method,
            split,
            *self.screens(split),
            knowledge,
            self.metrics,
            keep_means=self.settings.keep_predictions,
            cells=self.opened.cells,
            sides=self.sides(split, knowledge),
        )
        scores = result.scores.assign(seconds=result.facts["seconds"], error=result.facts["error"])
        more = {"neighbours": result.neighbours, "answers": result.answers, "means": result.means}
        tables = {k: v for k, v in more.items() if v is not None} | {"results": scores}
        if result.facts["error"]:
            raise Failed(result.facts["error"], tables)
        return tables

    def gather(self, played: Sequence[Played]) -> Tables:
        """results, neighbours, answers, means (those there are), items, summary, comparisons."""
        tables = joined_tables(played, ("results", "neighbours", "answers", "means"))
        results = tables["results.parquet"]
        items = described_items(self.settings, self.opened)
        if not items.index.is_unique:
            # Rows of several contexts: a perturbation is described by the mean of its rows.
            items = (
                items.groupby(level=0)
                .mean(numeric_only=True)
                .assign(ceiling_from=items["ceiling_from"].iloc[0])
            )
        tables["items.parquet"] = items
        rng = np.random.default_rng(self.settings.seed)
        tables["summary.csv"] = summary(results, rng)
        # The largest training set of growing ones, else everything.
        tables["comparisons.csv"] = comparisons(
            at_full_size(results),
            main_metrics(self.settings, results),
            rng,
            reference=self.settings.reference,
        )
        return tables

    def more(self) -> dict[str, Any]:
        """Methods with the checksums of their files, splits, what the screen is."""
        screen = self.opened.screen
        return {
            "methods": [m.facts() for m in self.methods],
            "splits": [s.key() | {"strata": dict(s.strata)} for s in self.splits],
            "simulated": screen.simulated,
            "screen": {
                "perturbations": len(screen),
                "features": screen.n_features,
                "contexts": list(screen.contexts),
                "meta": {k: v for k, v in screen.meta.items() if isinstance(v, str | bool | int)},
            },
        }


def joined_tables(played: Sequence[Played], names: Sequence[str]) -> Tables:
    """The tables of all units together, by file name."""
    out: Tables = {}
    for name in names:
        found = [p.tables[name] for p in played if name in p.tables]
        if found:
            out[f"{name}.parquet"] = _categories(pd.concat(found, ignore_index=True))
    return out


def main_metrics(settings: PredictionConfig, results: pd.DataFrame) -> list[str]:
    """Those of the main metrics that were scored."""
    known = set(results["metric"].unique())
    return [m for m in settings.metrics.shown if m in known]


def at_full_size(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest training sets of growing ones; of other splits all rows."""
    if results["split"].iloc[0] != "growing":
        return results
    return results[results["n_train"] == results["n_train"].max()]


def _categories(table: pd.DataFrame) -> pd.DataFrame:
    for column in ("method", "split", "perturbation", "setting", "stratum", "metric", "error"):
        if column in table:
            table[column] = table[column].astype("category")
    return table
