"""The prediction task over regimes: rows of several contexts, genes or drugs, with intervals over
clusters.

It is `PredictionTask` with other settings: how signatures are read and filtered, which regimes hold
out rows, which of the usual methods fit what is known. `pertwise bench drugs` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from pertwise import parts
from pertwise._files import reading
from pertwise.benchmark.prediction.clusters import summarise
from pertwise.benchmark.prediction.config import MethodSpec
from pertwise.benchmark.prediction.inputs import Inputs
from pertwise.benchmark.prediction.run import PredictionTask, joined_tables
from pertwise.benchmark.task import Played, Tables
from pertwise.config import FileName, PartName, Settings
from pertwise.errors import InputError
from pertwise.evaluate.plates import centre_within, plate_confounding
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.split_files import read_splits
from pertwise.evaluate.splits import REGIME_WORDS, Split, check_leaks, split_rows
from pertwise.kernels.known import DRUG_KERNELS, drug_kernels, fitting
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.store import Knowledge
from pertwise.models.dose import RULES
from pertwise.models.methods import Method, make_method
from pertwise.provenance import input_facts
from pertwise.screen.core import Screen
from pertwise.screen.effects import read_effect_table
from pertwise.screen.join import join_screens
from pertwise.screen.signatures import read_signatures
from pertwise.select.recorded import RecordedSelector

#: Methods that are run when none are named, in the order of the tables: those of them whose needs
#: (`pertwise.parts`) are met.
USUAL = (
    "context-mean", "context-mean-shrunk", "perturbation-mean", "additive-contexts", "pca-ridge",
    "chemistry-knn", "kernel-ridge", "mechanism-knn", "target-knn", "combined-knn", "multi-kernel",
    "lgr", "lgr-shrunk", "hybrid", "chat-kernel", "fused",
)  # fmt: skip


class DataSpec(Settings):
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


class ExternalSpec(Settings):
    """Predictions of another tool (chemCPA, STATE, ...) scored in the same table."""

    name: str
    file: FileName
    regime: str
    rank: bool = False


class RegimesConfig(Settings):
    """What to run. `k` and `n_related` are handed to the methods that take them."""

    data: DataSpec
    regimes: tuple[str, ...] = ("unseen drug", "unseen line", "open world", "scaffold")
    methods: tuple[MethodSpec, ...] | None = None
    n_folds: int = Field(default=5, ge=2)
    seeds: tuple[int, ...] = (0,)
    k: int = Field(default=10, ge=1)
    n_related: int = Field(default=5, ge=1)
    metrics: tuple[PartName, ...] | None = None
    top_n: tuple[int, ...] = ()
    weight: Literal["effect"] | None = None
    by_compound: bool = True
    drop_duplicates: bool = False
    centre_within_plate: bool = False
    external: tuple[ExternalSpec, ...] = ()
    #: Keep every predicted mean (parquet), for figures of one's own.
    keep_predictions: bool = False


def open_regimes(config: RegimesConfig, *, plates: bool = True) -> Inputs:
    """Read the screen and the tables; report filters, duplicates and (`plates`) confounding.

    Raises
    ------
    pertwise.errors.InputError
        For missing files or those that cannot be used.
    """
    data = config.data
    known_at_all = data.knowledge or data.drugs or data.cells
    knowledge = (
        Knowledge.open(data.knowledge, drugs=data.drugs, lines=data.cells)
        if known_at_all
        else Knowledge()
    )
    screen = _read_screen(data, filtered=True)
    knowledge = knowledge.spelt(screen.perturbations)
    table = knowledge.drugs or DrugTable.from_cards(())
    notes: dict[str, Any] = {"dropped": dict(screen.meta.get("dropped", {}))}
    if data.plate_column and (plates or config.centre_within_plate):
        everything = _read_screen(data, filtered=False)
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
    if data.lists is not None:
        notes["lists_source"] = RecordedSelector.from_file(data.lists).source
    named = {
        **_signature_files(data), "obs": data.obs, "cells": data.cells, "lists": data.lists,
        "split": data.split, "effects_by_dose": data.effects_by_dose,
        **{f"drugs {i}": p for i, p in enumerate(data.drugs, start=1)},
        **{f"external {e.name}": e.file for e in config.external},
    }  # fmt: skip
    facts = {role: input_facts(path) for role, path in named.items() if path is not None}
    if data.knowledge is not None:
        facts["knowledge"] = input_facts(knowledge)
    return Inputs(screen, screen, knowledge, facts, notes=notes)


def _read_screen(data: DataSpec, *, filtered: bool) -> Screen:
    if isinstance(data.signatures, dict):
        from pertwise.screen import read_screen

        return join_screens({c: read_screen(path) for c, path in data.signatures.items()})
    path = Path(data.signatures)
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with reading(path, "an h5ad file"):
            data_read = read_h5ad(path)
        return Screen.from_anndata(data_read).only_measured()
    return read_signatures(
        path,
        data.obs,
        where=data.where if filtered else None,
        drop=data.drop,
        effect=data.effect,
        min_effect=data.min_effect if filtered else None,
        dose=float("nan") if data.dose is None else data.dose,
    )


def _signature_files(data: DataSpec) -> dict[str, str]:
    if isinstance(data.signatures, str):
        return {"signatures": data.signatures}
    return {f"signatures of {context}": path for context, path in data.signatures.items()}


class RegimesTask(PredictionTask):
    """Every method on every split of every regime of a screen of several contexts.

    Scores: one row per (regime, seed, fold, method, drug, context): metrics, n_support, fallback,
    effect, compound.
    """

    name, mark, settings_of = "drugs", "data", RegimesConfig
    scores = "scores.parquet"
    page_by = "pertwise.report.drug_bench:write_page"
    settings: RegimesConfig  # type: ignore[assignment]

    @cached_property
    def opened(self) -> Inputs:
        """The files of the settings, read."""
        return open_regimes(self.settings)

    @cached_property
    def doses(self) -> Screen:
        """The screen of the regime "dose"."""
        file = self.settings.data.effects_by_dose
        return read_effect_table(Path(file)) if file else self.opened.screen

    @cached_property
    def metrics(self) -> MetricSpec:
        """One row a signature, of the metrics asked for or all that the unit allows."""
        given = self.settings
        return MetricSpec(by_row=True, only=given.metrics, variable=given.top_n)

    @cached_property
    def splits(self) -> list[Split]:
        """Regimes x seeds x folds."""
        seeds = self.settings.seeds
        return [
            split
            for regime in self.settings.regimes
            for seed in (seeds if regime not in ("given", "dose") else [0])
            for split in self.splits_of(regime, seed)
        ]

    def splits_of(self, regime: str, seed: int) -> list[Split]:
        """The splits of one regime and seed."""
        config, opened = self.settings, self.opened
        regime, given = REGIME_WORDS.get(regime, regime), config.data.split
        if regime == "given":
            if given is None:
                raise InputError(
                    "the regime 'given' needs a split file, TOML or JSON (split = ...)"
                )
            lines = None if opened.knowledge is None else opened.knowledge.lines
            splits = [replace(s, kind="given") for s in read_splits([given], opened.screen, lines)]
            for split in splits:
                check_leaks(split, opened.screen, opened.knowledge)
            return splits
        return split_rows(
            self.doses if regime == "dose" else opened.screen,
            "perturbation" if regime == "compound" and not config.by_compound else regime,
            opened.knowledge,
            n_folds=config.n_folds,
            seed=seed,
            grouped=config.by_compound,
        )

    def screens(self, split: Split) -> tuple[Screen, Screen]:
        """The screen with doses for the regime of that name."""
        screen = self.doses if split.kind == "dose" else self.opened.screen
        return screen, screen

    @cached_property
    def chosen(self) -> list[tuple[Method, bool]]:
        """The methods asked for, else the `USUAL` ones that fit, and whether with knowledge."""
        named = self.settings.methods
        if named is None:
            named = tuple(MethodSpec(use=u) for u in USUAL if not self._unmet(u))
        return [(self.method(m.use, m.name, **m.settings), m.knowledge) for m in named]

    @cached_property
    def methods(self) -> list[Method]:
        """Each checked to exist, to take its settings and to find what it needs."""
        rules = [Method(rule, "dose", {"rule": rule}) for rule in RULES]
        doses = rules if "dose" in self.settings.regimes else []
        return [m for m, _ in self.chosen] + [m for m, _ in self._external] + doses

    def method(self, use: str, label: str = "", **settings: Any) -> Method:
        """A method by name, handed what it takes of `k`, `n_related` and the recorded lists.

        Raises
        ------
        pertwise.errors.InputError
            If it is unknown, or what it needs is not known here.
        """
        config, taken = self.settings, parts.describe("predictor", use).parameters
        at_hand = {"k": config.k, "n_related": config.n_related, "answers": config.data.lists}
        given = {k: v for k, v in at_hand.items() if k in taken and v is not None} | settings
        made = make_method(use, label or None, **given)
        if unmet := self._unmet(use, given):
            raise InputError(f"the method {use!r} needs {unmet}, which these tables do not give")
        return made

    def _unmet(self, use: str, given: Mapping[str, Any] | None = None) -> str:
        """What a method needs that is not known; "" when it can be run."""
        told, known = parts.describe("predictor", use).facts, self.opened.knowledge or Knowledge()
        if "answers" in told.reads and not (self.settings.data.lists or "answers" in (given or {})):
            if "ratings" not in told.reads:
                return "lists of a chat model"
            if not known.ratings and not {"edits", "ratings"} & set(given or {}):
                return "lists of a chat model, or marks"
        for need in told.needs:
            if need in DRUG_KERNELS and need not in drug_kernels(known):
                return need
            if need == "knowledge" and not fitting(known, self.opened.screen.perturbations):
                return "knowledge"
        return ""

    @cached_property
    def _external(self) -> list[tuple[Method, str]]:
        return [
            (make_method("external", e.name, file=e.file, rank=e.rank),
             REGIME_WORDS.get(e.regime, e.regime))
            for e in self.settings.external
        ]  # fmt: skip

    def meetings(self) -> list[tuple[Method, Split, bool]]:
        """Split by split; dose rules in their regime, other tools' predictions in theirs."""
        found = []
        for split in self.splits:
            if split.kind == "dose":
                who = [(m, True) for m in self.methods if m.use == "dose"]
            else:
                who = self.chosen + [(m, True) for m, kind in self._external if kind == split.kind]
            found += [(method, split, known) for method, known in who]
        return found

    def gather(self, played: Sequence[Played]) -> Tables:
        """scores and summary (`clusters.summarise`); answers and means where there are any."""
        rows = [
            p.tables["results"]
            .drop(columns=["seconds", "error"])
            .assign(
                data=self.settings.data.name,
                regime=p.unit.labels["split"],
                **{k: p.unit.labels[k] for k in ("seed", "fold", "method")},
            )
            for p in played
        ]
        table = pd.concat(rows, ignore_index=True)
        first = ["data", "regime", "seed", "fold", "method"]
        table = table[[*first, *(c for c in table.columns if c not in first)]]
        summed = summarise(table, weight=self.settings.weight)
        more = joined_tables(played, ("answers", "means"))
        return {self.scores: table, self.summary: summed, **more}

    def more(self) -> dict[str, Any]:
        """What was dropped, duplicated, not known; where the tables come from."""
        screen, known = self.opened.screen, self.opened.knowledge
        table = None if known is None else known.drugs
        return {
            "methods": [m.facts() for m in self.methods],
            "notes_on_data": dict(self.opened.notes),
            "simulated": screen.simulated,
            "screen": repr(screen),
            "meta": dict(screen.meta),
            "drug_tables": [] if table is None else list(table.sources),
        }
