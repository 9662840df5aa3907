"""The task of screens of several contexts: regimes x methods, with intervals over clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pertwise._files import reading
from pertwise.benchmark.drugs.methods import MethodInputs, build_method, method_names, open_lists
from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.config import FileName, Settings
from pertwise.errors import InputError, PertwiseError
from pertwise.evaluate.given import read_toml_split
from pertwise.evaluate.plates import centre_within, plate_confounding
from pertwise.evaluate.row_scores import allowed_metrics, score_rows, top_variable
from pertwise.evaluate.splits import REGIME_WORDS, Split, check_leaks, split_rows
from pertwise.evaluate.statistics import cluster_interval
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.store import Knowledge
from pertwise.models.base import Prediction, Predictor
from pertwise.models.context_means import ContextMean
from pertwise.models.dose import RULES, DosePredictor, DoseRule
from pertwise.models.external import ExternalPredictor
from pertwise.provenance import contents, identity, input_facts
from pertwise.screen.core import Screen
from pertwise.screen.effects import read_effect_table
from pertwise.screen.join import join_screens
from pertwise.screen.signatures import read_signatures

#: Raised when a change makes old part files wrong; they are then computed anew.
VERSION = 1


class DataConfig(Settings):
    """Where the screen and the facts are; relative paths are looked up in the data folder."""

    name: str
    #: A file, or one a context: {K562 = "a.tsv.gz", RPE1 = "b.tsv.gz"}.
    signatures: FileName | dict[str, FileName]
    obs: FileName | None = None
    where: dict[str, str] = Field(default_factory=dict)
    drop: str | None = None
    effect: str | None = None
    min_effect: float | None = None
    dose: float | None = None
    drugs: tuple[FileName, ...] = ()
    cells: FileName | None = None
    lists: FileName | None = None
    knowledge: FileName | None = None
    split: FileName | None = None
    effects_by_dose: FileName | None = None
    plate_column: str | None = None


class ExternalConfig(Settings):
    """Predictions of another tool (chemCPA, STATE, ...) scored in the same table."""

    name: str
    file: FileName
    regime: str
    rank: bool = False


class BenchConfig(Settings):
    """What to run."""

    data: DataConfig
    regimes: tuple[str, ...] = ("unseen drug", "unseen line", "open world", "scaffold")
    methods: list[str] | None = None
    n_folds: int = Field(default=5, ge=2)
    seeds: tuple[int, ...] = (0,)
    k: int = Field(default=10, ge=1)
    n_related: int = Field(default=5, ge=1)
    metrics: list[str] | None = None
    top_n: tuple[int, ...] = ()
    weight: Literal["effect"] | None = None
    by_compound: bool = True
    drop_duplicates: bool = False
    centre_within_plate: bool = False
    external: tuple[ExternalConfig, ...] = ()


@dataclass(frozen=True)
class Bench:
    """A loaded bench: screen, knowledge, settings."""

    config: BenchConfig
    screen: Screen
    known: MethodInputs
    folder: Path
    notes: dict[str, Any]

    @property
    def knowledge(self) -> Knowledge:
        """What is known about drugs, lines and genes."""
        return self.known.knowledge

    @property
    def table(self) -> DrugTable:
        """Names and structures of the drugs; empty for genes."""
        return self.knowledge.drugs or DrugTable.from_cards(())

    def path(self, name: str) -> Path:
        """A file of the data folder."""
        return self.folder / name

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods to run: those asked for, else all that the tables allow."""
        return tuple(self.config.methods or method_names(self.known))


def load_bench(config: BenchConfig, folder: Path = Path()) -> Bench:
    """Read the screen and the tables; report filters, duplicates and plate confounding.

    Raises
    ------
    pertwise.errors.InputError
        For missing files, a magnitude metric on ranks, unknown methods.
    """
    data = config.data
    drugs = [folder / p for p in data.drugs]
    lines = folder / data.cells if data.cells else None
    genes = folder / data.knowledge if data.knowledge else None
    known_at_all = genes or drugs or lines
    knowledge = Knowledge.open(genes, drugs=drugs, lines=lines) if known_at_all else Knowledge()
    screen = _read_screen(data, folder, filtered=True)
    knowledge = knowledge.spelt(screen.perturbations)
    table = knowledge.drugs or DrugTable.from_cards(())
    notes: dict[str, Any] = {"dropped": dict(screen.meta.get("dropped", {}))}
    if data.plate_column:
        everything = _read_screen(data, folder, filtered=False)
        notes["plates"] = plate_confounding(everything, data.plate_column)
        centred, _ = centre_within(everything, data.plate_column)
        notes["plates_centred"] = plate_confounding(centred, data.plate_column)
        if config.centre_within_plate:
            screen, left_out = centre_within(screen, data.plate_column)
            notes["plate_rows_left_out"] = left_out
    notes["duplicates"] = [list(g) for g in table.duplicates(screen.perturbations)]
    if config.drop_duplicates and notes["duplicates"]:
        screen = screen.hide([name for group in notes["duplicates"] for name in group])
    if data.drugs:
        notes["not_in_drug_tables"] = [d for d in screen.perturbations if d not in table]
    notes["no_structure"] = {n: p for n, p in table.problems.items() if n in screen.perturbations}
    known = MethodInputs(
        knowledge,
        str(folder / data.lists) if data.lists else None,
        k=config.k,
        n_related=config.n_related,
    )
    if (lists := open_lists(known)) is not None:
        notes["lists_source"] = lists.source
    allowed_metrics(screen, config.metrics)
    bench = Bench(config, screen, known, folder, notes)
    for name in bench.methods:
        build_method(name, known)
    return bench


def _read_screen(data: DataConfig, folder: Path, *, filtered: bool) -> Screen:
    if isinstance(data.signatures, dict):
        from pertwise.screen import read_screen

        return join_screens({c: read_screen(folder / p) for c, p in data.signatures.items()})
    path = folder / data.signatures
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with reading(path, "an h5ad file"):
            data_read = read_h5ad(path)
        return Screen.from_anndata(data_read).only_measured()
    return read_signatures(
        path,
        folder / data.obs if data.obs else None,
        where=data.where if filtered else None,
        drop=data.drop,
        effect=data.effect,
        min_effect=data.min_effect if filtered else None,
        dose=float("nan") if data.dose is None else data.dose,
    )


class DrugTask(Task):
    """Every method on every split of every regime of a drug screen.

    Scores: one row per (regime, seed, fold, method, drug, context): metrics, n_support, fallback,
    effect, compound.

    Parameters
    ----------
    bench
        Loaded before.
    """

    name, mark, settings_of = "drugs", "data", BenchConfig
    page_by = "pertwise.report.drug_bench:write_page"
    settings: BenchConfig

    def __init__(
        self, settings: BenchConfig, bench: Bench | None = None, *, replay: bool = False
    ) -> None:
        super().__init__(settings, replay=replay)
        self._last: tuple[Split, _Scoring] | None = None
        if bench is not None:
            self.given, self.bench = True, bench

    @cached_property
    def bench(self) -> Bench:
        """The files of the settings, read."""
        return load_bench(self.settings)

    @cached_property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Every file of ``[data]``, and predictions of other tools."""
        data = self.settings.data
        named = {
            **_signature_files(data), "obs": data.obs, "cells": data.cells,
            "lists": data.lists, "split": data.split, "effects_by_dose": data.effects_by_dose,
            **{f"drugs {i}": p for i, p in enumerate(data.drugs, start=1)},
            **{f"external {e.name}": e.file for e in self.settings.external},
        }  # fmt: skip
        found = {k: input_facts(self.bench.path(p)) for k, p in named.items() if p is not None}
        if self.settings.data.knowledge is not None:
            found["knowledge"] = input_facts(self.bench.knowledge)
        return found

    def units(self) -> list[Unit]:
        """Regimes x seeds x folds x methods; predictions of other tools in their regime."""
        config, data = self.settings, contents(self.inputs)
        settings = config.model_dump(
            mode="json", exclude={"data", "regimes", "methods", "seeds", "external"}
        )
        settings["data"] = config.data.model_dump(
            mode="json", include={"name", "where", "drop", "effect", "min_effect", "dose",
                                  "plate_column"}
        )  # fmt: skip
        found = []
        for regime in config.regimes:
            for seed in config.seeds if regime not in ("given", "dose") else [0]:
                for split in bench_splits(self.bench, regime, seed):
                    for name, external in self._methods(split):
                        labels = {"regime": regime, "seed": split.seed, "fold": split.fold}
                        own = [name, external.model_dump() if external else None]
                        rows = [split.train, split.test]
                        key = identity(VERSION, settings, data, labels, rows, own)
                        what = (split, name, external)
                        found.append(Unit(key, {**labels, "method": name}, what))
        if not found:
            raise InputError("nothing is to be run: no regime or no method")
        return found

    def _methods(self, split: Split) -> list[tuple[str, ExternalConfig | None]]:
        if split.kind == "dose":
            return [(rule, None) for rule in RULES]
        own: list[tuple[str, ExternalConfig | None]] = [(n, None) for n in self.bench.methods]
        return own + [
            (e.name, e)
            for e in self.settings.external
            if REGIME_WORDS.get(e.regime, e.regime) == split.kind
        ]

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Fit on the split, predict line by line, score."""
        split, name, external = unit.what
        if split.kind == "dose":
            return {"scores": _dose_scores(self.bench, split, name)}
        scoring = self._scoring(split)
        model: Predictor = (
            build_method(name, self.bench.known, split.hold_out)
            if external is None
            else ExternalPredictor(self.bench.path(external.file), rank=external.rank, name=name)
        )
        model.fit(scoring.train, self.bench.knowledge)
        parts = [(model.predict(d, context=c), c) for c, d in _questions(scoring.test)]
        return {"scores": _scored(self.bench, split, name, scoring, parts)}

    def stand_in(self, unit: Unit, error: PertwiseError, place: Path | None) -> Tables | None:
        """The context mean."""
        split, name, _ = unit.what
        if split.kind == "dose" or name == "context mean":
            return None
        scoring = self._scoring(split)
        model = ContextMean(n_related=self.settings.n_related)
        model.fit(scoring.train, self.bench.knowledge)
        parts = [(model.predict(d, c), c) for c, d in _questions(scoring.test)]
        table = _scored(self.bench, split, name, scoring, parts)
        return {"scores": table.assign(fallback="context mean (method failed)")}

    def _scoring(self, split: Split) -> _Scoring:
        """The last split is kept: every method comes to it in turn."""
        if self._last is None or self._last[0] != split:
            train, test = split.of(self.bench.screen)
            tops = {f"_top{n}": top_variable(train, n) for n in self.settings.top_n}
            reference = _reference(self.bench, train, test)
            self._last = (split, _Scoring(train, test, reference, tops))
        return self._last[1]

    def gather(self, played: Sequence[Played]) -> Tables:
        """scores and summary (`summarise`)."""
        table = pd.concat([p.tables["scores"] for p in played], ignore_index=True)
        return {self.scores: table, self.summary: summarise(table, weight=self.settings.weight)}

    def more(self) -> dict[str, Any]:
        """What was dropped, duplicated, not known; where the tables come from."""
        screen = self.bench.screen
        return {
            "notes_on_data": self.bench.notes,
            "simulated": screen.simulated,
            "screen": repr(screen),
            "meta": dict(screen.meta),
            "drug_tables": list(self.bench.table.sources),
        }


@dataclass(frozen=True)
class _Scoring:
    """What every method is scored with on one split.

    `reference`: (n_test, d) context means of the training rows, what `pearson_reference` subtracts.
    """

    train: Screen
    test: Screen
    reference: np.ndarray[Any, Any]
    tops: Mapping[str, Any]


def bench_splits(bench: Bench, regime: str, seed: int) -> list[Split]:
    """The splits of one regime and seed."""
    regime, given = REGIME_WORDS.get(regime, regime), bench.config.data.split
    if regime == "given":
        if given is None:
            raise InputError("the regime 'given' needs a TOML split file (split = ...)")
        split = read_toml_split(bench.path(given), bench.screen, bench.knowledge.lines)
        check_leaks(split, bench.screen, bench.knowledge)
        return [split]
    return split_rows(
        _dose_screen(bench) if regime == "dose" else bench.screen,
        "perturbation" if regime == "compound" and not bench.config.by_compound else regime,
        bench.knowledge,
        n_folds=bench.config.n_folds,
        seed=seed,
        grouped=bench.config.by_compound,
    )


def _dose_screen(bench: Bench) -> Screen:
    file = bench.config.data.effects_by_dose
    return read_effect_table(bench.path(file)) if file else bench.screen


def _signature_files(data: DataConfig) -> dict[str, str]:
    if isinstance(data.signatures, str):
        return {"signatures": data.signatures}
    return {f"signatures of {context}": path for context, path in data.signatures.items()}


def _questions(test: Screen) -> list[tuple[str, list[str]]]:
    return [(c, list(test.in_context(c).obs["perturbation"])) for c in test.contexts]


def _reference(bench: Bench, train: Screen, test: Screen) -> np.ndarray[Any, Any]:
    """(n_test, d) cell means of the training rows: what `pearson_reference` subtracts."""
    model = ContextMean(n_related=bench.config.n_related).fit(train, bench.knowledge)
    means = {c: model.predict(["x"], c).mean[0] for c in test.contexts}
    return np.array([means[c] for c in test.obs["context"]])


def _scored(
    bench: Bench,
    split: Split,
    name: str,
    scoring: _Scoring,
    parts: Sequence[tuple[Prediction, str]],
) -> pd.DataFrame:
    """Rows in the order of the test screen; nothing held out is left out."""
    test = scoring.test
    found = {
        (drug, context): (p.mean[i], p.support.iloc[i])
        for p, context in parts
        for i, drug in enumerate(p.perturbations)
    }
    keys = list(zip(test.obs["perturbation"], test.obs["context"], strict=True))
    means = np.array([found[k][0] for k in keys])
    names = allowed_metrics(bench.screen, bench.config.metrics)
    table = score_rows(test.responses, means, scoring.reference, names, scoring.tops)
    compounds = bench.knowledge.identity(sorted({d for d, _ in keys}))
    described = pd.DataFrame(
        {
            "data": bench.config.data.name,
            "regime": split.kind,
            "seed": split.seed,
            "fold": split.fold,
            "method": name,
            "drug": [d for d, _ in keys],
            "context": [c for _, c in keys],
            "compound": [compounds[d] for d, _ in keys],
            "effect": test.obs["effect"].to_numpy() if "effect" in test.obs else 1.0,
            "n_support": [int(found[k][1]["n_support"]) for k in keys],
            "fallback": [str(found[k][1]["fallback"]) for k in keys],
        }
    )
    return pd.concat([described, table], axis=1)


def _dose_scores(bench: Bench, split: Split, rule: DoseRule) -> pd.DataFrame:
    """One dose rule on a screen with doses; metrics of magnitude where it has magnitudes."""
    screen = _dose_screen(bench)
    train, test = split.of(screen)
    model, base = DosePredictor(rule).fit(train), DosePredictor("dose mean").fit(train)
    asked = list(test.obs[["perturbation", "context", "dose"]].itertuples(index=False, name=None))
    told = [model.predict([drug], context, float(dose)) for drug, context, dose in asked]
    means = [base.predict([d], c, float(dose)).mean[0] for d, c, dose in asked]
    rows = np.array([p.mean[0] for p in told])
    table = score_rows(test.responses, rows, np.array(means), allowed_metrics(screen, None))
    drugs = [drug for drug, _, _ in asked]
    compounds = bench.knowledge.identity(sorted(set(drugs)))
    head = pd.DataFrame(
        {
            "data": bench.config.data.name, "regime": "dose", "seed": 0, "fold": 0,
            "method": rule, "drug": drugs, "context": [context for _, context, _ in asked],
            "compound": [compounds[d] for d in drugs], "effect": 1.0,
            "n_support": [int(p.support["n_support"].iloc[0]) for p in told],
            "fallback": [str(p.support["fallback"].iloc[0]) for p in told],
        }
    )  # fmt: skip
    return pd.concat([head, table], axis=1)


_DESCRIPTION = (
    "data", "regime", "seed", "fold", "method", "drug", "context", "compound", "effect",
    "n_support", "fallback",
)  # fmt: skip


def metric_columns(table: pd.DataFrame) -> list[str]:
    """The metric columns of a bench table."""
    return [c for c in table.columns if c not in _DESCRIPTION]


def summarise(
    table: pd.DataFrame,
    *,
    seed: int = 0,
    weight: str | None = None,
    baseline: str = "context mean",
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """Mean over signatures per (data, regime, method, metric), with 95 % cluster intervals.

    Repeats of a signature over seeds are averaged first. ``difference`` is the paired difference
    from `baseline` on the same signatures, with its own interval; ``coverage`` is the share of
    signatures answered without a fallback. Clusters are compounds; in the unseen-line and given
    regimes, lines.
    """
    rows = []
    names = metric_columns(table)
    for (data, regime), block in table.groupby(["data", "regime"], sort=False):
        block = block.dropna(axis=1, how="all")
        present = [n for n in names if n in block]
        keys = ["method", "drug", "context", "compound"]
        if regime == "dose":
            keys = ["method", "drug", "compound"]
        block = block.assign(covered=(block["fallback"] == "").astype(float))
        merged = block.groupby(keys, sort=False)[
            [*present, "effect", "n_support", "covered"]
        ].mean()
        wide = merged.reset_index()
        wide["cluster"] = wide["context" if regime in ("context", "given") else "compound"]
        first = baseline if baseline in set(wide["method"]) else wide["method"].iloc[0]
        base = wide[wide["method"] == first].set_index(keys[1:])
        for method, own in wide.groupby("method", sort=False):
            own = own.set_index(keys[1:])
            weights = own["effect"].to_numpy() if weight == "effect" else None
            other = base.reindex(own.index)
            for metric in present:
                value, gap = (
                    cluster_interval(
                        values,
                        own["cluster"].to_numpy(),
                        np.random.default_rng([seed, names.index(metric)]),
                        weights=weights,
                        n_resamples=n_resamples,
                    )
                    for values in (own[metric], own[metric].to_numpy() - other[metric].to_numpy())
                )
                rows.append(
                    {
                        "data": data, "regime": regime, "method": method, "metric": metric,
                        "mean": value.mean, "low": value.low, "high": value.high,
                        "difference": gap.mean, "difference_low": gap.low,
                        "difference_high": gap.high, "n_signatures": len(own),
                        "n_clusters": value.n, "coverage": float(own["covered"].mean()),
                        "k_used": float(own["n_support"].mean()),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
