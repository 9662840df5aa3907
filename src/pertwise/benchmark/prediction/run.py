"""The prediction task: methods x splits of one screen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.prediction.config import MethodSpec, PredictionConfig, SplitSpec
from pertwise.benchmark.prediction.tables import comparisons, summary
from pertwise.benchmark.task import Failed, Played, Tables, Task, Unit
from pertwise.errors import InputError
from pertwise.evaluate.ceiling import ceiling_from_variance
from pertwise.evaluate.cells import CellBank, open_cell_bank, split_half_table
from pertwise.evaluate.specs import ORACLE
from pertwise.evaluate.splits import REGIME_WORDS, Split, split_rows
from pertwise.evaluate.units import run_unit
from pertwise.models.methods import LEDGER, Method, asks_chat, make_method
from pertwise.provenance import checksum, contents, identity, input_facts
from pertwise.screen.training import one_context

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

_COMPONENT = re.compile(r"(?i)^(pc|component|dim|factor|latent)[_ -]?\d+$")


@dataclass(frozen=True)
class Inputs:
    """What a benchmark reads, opened once.

    Attributes
    ----------
    screen
        Measured rows of one context: held-out truths and retrieval candidates.
    source
        What is trained on; `screen` itself except in transfer.
    knowledge
        Folder opened, or None.
    facts
        Role -> path and checksum (`pertwise.provenance.input_facts`).
    """

    screen: Screen
    source: Screen
    knowledge: Knowledge | None
    facts: Mapping[str, Mapping[str, str]]
    #: Single cells of the screen, where given.
    cells: CellBank | None = None


def open_inputs(config: PredictionConfig) -> Inputs:
    """Read the files of a benchmark.

    Raises
    ------
    pertwise.errors.InputError
        For unreadable files, or a transfer between screens that share no feature or only
        component names (PC1 of one file is not PC1 of another).
    """
    from pertwise.screen import read_screen

    spec = config.split
    named = {
        "screen": config.screen,
        "source": spec.source if spec.trains_elsewhere else None,
        "folds": spec.folds_from,
        "cells": None if config.cells is None else config.cells.file,
        "lines": config.lines,
        **{f"drugs {i}": path for i, path in enumerate(config.drugs, start=1)},
    }
    for path in named.values():
        if path is not None and not Path(path).is_file():
            raise InputError(f"no such file: {path}")
    facts = {role: input_facts(path) for role, path in named.items() if path is not None}
    whole = read_screen(config.screen)
    if spec.by_rows:
        chosen = whole if config.context is None else whole.in_context(config.context)
        source = screen = chosen.only_measured()
    else:
        source = screen = one_context(whole, config.context, config.screen)
    if spec.trains_elsewhere:
        other = read_screen(spec.source) if spec.source else whole
        source = one_context(other, spec.source_context, spec.source or config.screen)
        screen, source = _shared_features(screen, source, spec)
    knowledge = None
    if config.knowledge or config.drugs or config.lines:
        from pertwise.knowledge import Knowledge

        knowledge = Knowledge.open(config.knowledge, drugs=config.drugs, lines=config.lines)
    if knowledge is not None and config.knowledge:
        facts["knowledge"] = input_facts(knowledge)
    cells = None if config.cells is None else open_cell_bank(config.cells, screen, config.seed)
    return Inputs(screen, source, knowledge, facts, cells)


def _shared_features(screen: Screen, source: Screen, spec: SplitSpec) -> tuple[Screen, Screen]:
    theirs = set(source.features)
    shared = [f for f in screen.features if f in theirs]
    if not shared:
        raise InputError(
            f"transfer needs common features: the screen has {screen.features[0]!r} ..., the "
            f"source {source.features[0]!r} ..."
        )
    if all(_COMPONENT.match(f) for f in shared) and not spec.same_components:
        raise InputError(
            f"both files measure components ({shared[0]!r} ...), which need not be the same axes; "
            "set same_components = true only if both were projected on one basis"
        )
    return screen.of_features(shared), source.of_features(shared)


def make_splits(config: PredictionConfig, inputs: Inputs) -> list[Split]:
    """The splits of a benchmark, the same for every method."""
    spec, names = config.split, list(inputs.screen.obs["perturbation"])
    if spec.by_rows:
        regime = REGIME_WORDS.get(spec.kind, spec.kind)
        return [
            split
            for shuffle in range(spec.shuffles)
            for split in split_rows(
                inputs.screen,
                regime,
                inputs.knowledge,
                n_folds=spec.folds,
                seed=config.seed + shuffle,
            )
        ]
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

    Parameters
    ----------
    inputs
        Opened before (files are then not read).
    """

    name, mark, settings_of = "prediction", "methods", PredictionConfig
    scores = "results.parquet"
    page_by = "pertwise.report.prediction_bench:write_page"
    settings: PredictionConfig

    def __init__(
        self, settings: PredictionConfig, opened: Inputs | None = None, *, replay: bool = False
    ) -> None:
        super().__init__(settings, replay=replay)
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
        """The same for every method."""
        return make_splits(self.settings, self.opened)

    @cached_property
    def methods(self) -> list[Method]:
        """Each checked to exist and to take its settings."""
        return make_methods(self.settings.methods)

    def units(self) -> list[Unit]:
        """Methods x splits."""
        data = contents(self.inputs)
        more: dict[str, Any] = {"means": True} if self.settings.keep_predictions else {}
        own = [parts.describe("metric", name).file for name in self.settings.metrics.more]
        more["code of metrics"] = [checksum(file) for file in own if file]
        metrics = self.settings.metrics.model_dump(mode="json", exclude={"main"})
        found = []
        for spec, method in zip(self.settings.methods, self.methods, strict=True):
            for split in self.splits:
                labels = {"method": method.label, "split": split.kind, "seed": split.seed}
                key = identity(method.facts(), split.key(), data, spec.knowledge, metrics, more)
                what = (self._with_account(method), split, spec.knowledge)
                found.append(Unit(key, {**labels, "fold": split.fold}, what))
        return found

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
        for spec in self.settings.methods:
            if not _asks(spec.use, spec.settings):
                continue
            said = answers[answers["method"].astype(str) == spec.name] if len(answers) else answers
            results = run.table[run.table["method"].astype(str) == spec.name]
            errors = results["error"].astype(str)
            if len(said) and bool(said["fallback"].all()):
                found[spec.name] = said[["kind", "action"]].astype(str).to_dict("records")
            elif not len(said) and bool((errors != "").all()):
                found[spec.name] = [{"kind": "failed", "action": e} for e in errors.unique()]
        return found

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Fit, predict, score (`run_unit`); a failed method is answered with the training mean."""
        method, split, use_knowledge = unit.what
        result = run_unit(
            method,
            split,
            self.opened.screen,
            self.opened.source,
            self.opened.knowledge if use_knowledge else None,
            self.settings.metrics,
            keep_means=self.settings.keep_predictions,
            cells=self.opened.cells,
        )
        scores = result.scores.assign(seconds=result.facts["seconds"], error=result.facts["error"])
        more = {"neighbours": result.neighbours, "answers": result.answers, "means": result.means}
        tables = {k: v for k, v in more.items() if v is not None} | {"results": scores}
        if result.facts["error"]:
            raise Failed(result.facts["error"], tables)
        return tables

    def gather(self, played: Sequence[Played]) -> Tables:
        """results, neighbours, answers, means (those there are), items, summary, comparisons."""
        tables: Tables = {}
        for name in ("results", "neighbours", "answers", "means"):
            found = [p.tables[name] for p in played if name in p.tables]
            if found:
                tables[f"{name}.parquet"] = _categories(pd.concat(found, ignore_index=True))
        results = tables["results.parquet"]
        items = _items(self.settings, self.opened)
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


def _asks(use: str, settings: Mapping[str, Any]) -> bool:
    return use != ORACLE and asks_chat(use, settings)


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
    for column in ("method", "split", "perturbation", "stratum", "metric", "error"):
        if column in table:
            table[column] = table[column].astype("category")
    return table


def _items(settings: PredictionConfig, inputs: Inputs) -> pd.DataFrame:
    """`item_table`; with cells the ceilings come from split halves instead of variances."""
    items = item_table(inputs.screen).assign(ceiling_from="sampling variance")
    if inputs.cells is None or settings.cells is None:
        return items
    n_splits, names = settings.cells.n_splits, list(items.index)
    halves = split_half_table(inputs.cells, names, n_splits, settings.seed)
    for kind in ("pearson", "cosine"):
        value = halves[f"replicate_{kind}"].reindex(items.index).clip(0.0, 1.0)
        items[f"replicate_{kind}"], items[f"perfect_{kind}"] = value, value**0.5
    return items.assign(ceiling_from="split halves of cells")


def item_table(screen: Screen) -> pd.DataFrame:
    """What is known of every measured perturbation before any prediction.

    Columns: n_cells; effect, noise, replicate_cosine, perfect_cosine, replicate_pearson,
    perfect_pearson (`pertwise.evaluate.ceiling.ceiling_from_variance`; NaN without sampling
    variance, effect then being the plain length of the response); control_likeness = noise /
    (squared length of the response), cut to [0, 1]: 1 = not distinguishable from control.
    """
    variance: Any = screen.sampling_variance
    if variance is None:
        variance = screen.obs["sampling_variance"].to_numpy(dtype=float)
    by_cosine = ceiling_from_variance(screen.responses, variance)
    by_pearson = ceiling_from_variance(screen.responses, variance, similarity="pearson")
    size = np.nansum(np.asarray(screen.responses, dtype=np.float64) ** 2, axis=1)
    noise = by_cosine["noise"].to_numpy()
    likeness = np.full(len(size), np.nan)
    np.divide(noise, size, out=likeness, where=size > 0)
    return pd.DataFrame(
        {
            "n_cells": screen.obs["n_cells"].to_numpy(dtype=float),
            "effect": by_cosine["effect"].fillna(pd.Series(np.sqrt(size))).to_numpy(),
            "noise": noise,
            "control_likeness": np.clip(likeness, 0.0, 1.0),
            "replicate_cosine": by_cosine["replicate"].to_numpy(),
            "perfect_cosine": by_cosine["perfect"].to_numpy(),
            "replicate_pearson": by_pearson["replicate"].to_numpy(),
            "perfect_pearson": by_pearson["perfect"].to_numpy(),
        },
        index=pd.Index(screen.obs["perturbation"], name="perturbation"),
    )
