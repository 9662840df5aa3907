"""`pertwise bench drugs`: regimes x methods on a drug screen, resumable, with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pertwise._files import PART, read_frame, read_toml, readable
from pertwise._io import atomic_path, sha256_text, write_json_atomic
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.evaluate.drugs_bridge import External, read_external
from pertwise.evaluate.drugs_methods import DrugKnowledge, build_method, method_names
from pertwise.evaluate.drugs_scores import (
    allowed_metrics,
    centre_within,
    cluster_interval,
    plate_confounding,
    score_rows,
    top_variable,
)
from pertwise.evaluate.drugs_splits import (
    DrugSplit,
    duplicate_drugs,
    make_splits,
    read_effect_table,
)
from pertwise.knowledge.drugs import DrugTable
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.knowledge.store import Knowledge
from pertwise.predict.base import Prediction
from pertwise.predict.drugs import CellMean
from pertwise.predict.drugs_dose import RULES, DosePredictor
from pertwise.screen.core import Screen
from pertwise.screen.signatures import read_signatures
from pertwise.select.chemistry import drug_resolver
from pertwise.select.recorded import RecordedSelector

#: Raised when a change makes old part files wrong; they are then computed anew.
VERSION = 1


class DataConfig(BaseModel):
    """Where the screen and the facts are; relative paths are looked up in the data folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    signatures: str
    obs: str | None = None
    where: dict[str, str] = Field(default_factory=dict)
    drop: str | None = None
    effect: str | None = None
    min_effect: float | None = None
    dose: float = float("nan")
    drugs: list[str]
    cells: str | None = None
    lists: str | None = None
    knowledge: str | None = None
    split: str | None = None
    effects_by_dose: str | None = None
    plate_column: str | None = None


class ExternalConfig(BaseModel):
    """Predictions of another tool (chemCPA, STATE, ...) scored in the same table."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    file: str
    regime: str
    rank: bool = False


class BenchConfig(BaseModel):
    """What to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: DataConfig
    regimes: list[str] = ["unseen drug", "unseen line", "open world", "scaffold"]
    methods: list[str] | None = None
    n_folds: int = Field(default=5, ge=2)
    seeds: list[int] = [0]
    k: int = Field(default=10, ge=1)
    n_related: int = Field(default=5, ge=1)
    metrics: list[str] | None = None
    top_n: list[int] = []
    weight: Literal["effect"] | None = None
    by_compound: bool = True
    drop_duplicates: bool = False
    centre_within_plate: bool = False
    external: list[ExternalConfig] = []


def read_config(path: Path) -> BenchConfig:
    """Read and check a TOML config.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and the entry at fault.
    """
    data = read_toml(path)
    try:
        return BenchConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']} (got {first['input']!r})") from error


@dataclass(frozen=True)
class Bench:
    """A loaded bench: screen, knowledge, settings."""

    config: BenchConfig
    screen: Screen
    known: DrugKnowledge
    folder: Path
    notes: dict[str, Any]

    def path(self, name: str) -> Path:
        """A file of the data folder."""
        return self.folder / name

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods to run: those asked for, else all that the tables allow."""
        return tuple(self.config.methods or method_names(self.known))


def load_bench(config: BenchConfig, folder: Path) -> Bench:
    """Read the screen and the tables; report filters, duplicates and plate confounding.

    Raises
    ------
    pertwise.errors.InputError
        For missing files, a magnitude metric on ranks, unknown methods.
    """
    data = config.data
    table = DrugTable.read(*[folder / p for p in data.drugs])
    screen = _read_screen(data, folder, filtered=True)
    notes: dict[str, Any] = {"dropped": dict(screen.meta.get("dropped", {}))}
    if data.plate_column:
        everything = _read_screen(data, folder, filtered=False)
        notes["plates"] = plate_confounding(everything, data.plate_column)
        centred, _ = centre_within(everything, data.plate_column)
        notes["plates_centred"] = plate_confounding(centred, data.plate_column)
        if config.centre_within_plate:
            screen, left_out = centre_within(screen, data.plate_column)
            notes["plate_rows_left_out"] = left_out
    duplicates = duplicate_drugs(screen, table)
    notes["duplicates"] = [list(g) for g in table.duplicates(screen.perturbations)]
    if config.drop_duplicates and duplicates:
        screen = screen.hide(duplicates)
    unknown = [d for d in screen.perturbations if d not in table]
    notes["not_in_drug_tables"] = unknown
    notes["no_structure"] = {n: p for n, p in table.problems.items() if n in screen.perturbations}
    known = DrugKnowledge(
        table,
        CellTable.read(folder / data.cells) if data.cells else None,
        Knowledge.open(folder / data.knowledge) if data.knowledge else None,
        RecordedSelector.from_file(folder / data.lists, resolve=drug_resolver(table), name="LGR")
        if data.lists
        else None,
        k=config.k,
        n_related=config.n_related,
    )
    if isinstance(known.lists, RecordedSelector):
        notes["lists_source"] = known.lists.source
    allowed_metrics(screen, config.metrics)
    bench = Bench(config, screen, known, folder, notes)
    for name in bench.methods:
        build_method(name, known, "unseen drug", screen.perturbations)
    return bench


def _read_screen(data: DataConfig, folder: Path, *, filtered: bool) -> Screen:
    path = folder / data.signatures
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with readable(path, "an h5ad file"):
            data_read = read_h5ad(path)
        return Screen.from_anndata(data_read).only_measured()
    return read_signatures(
        path,
        folder / data.obs if data.obs else None,
        where=data.where if filtered else None,
        drop=data.drop,
        effect=data.effect,
        min_effect=data.min_effect if filtered else None,
        dose=data.dose,
    )


def run_bench(bench: Bench, out: Path | None = None) -> pd.DataFrame:
    """Score every method on every split; finished parts are read back, so a killed run resumes.

    Returns
    -------
    One row per (regime, seed, fold, method, drug, context): metrics, n_support, fallback, effect,
    compound.
    """
    jobs = []
    for regime in bench.config.regimes:
        for seed in bench.config.seeds if regime not in ("given", "dose") else [0]:
            jobs += [(regime, s) for s in bench_splits(bench, regime, seed)]
    externals = [
        (e, read_external(bench.path(e.file), bench.screen, rank=e.rank))
        for e in bench.config.external
    ]
    tables = []
    for _, split in track(jobs, "drug bench", total=len(jobs)):
        tables += _run_split(bench, split, externals, out)
    if not tables:
        raise InputError("nothing was run: no regime or no method")
    return pd.concat(tables, ignore_index=True)


def bench_splits(bench: Bench, regime: str, seed: int) -> list[DrugSplit]:
    """The splits of one regime and seed."""
    if regime == "dose":
        if not bench.config.data.effects_by_dose:
            return make_splits(bench.screen, regime, bench.known.table)
        return make_splits(_dose_screen(bench), regime, bench.known.table)
    return make_splits(
        bench.screen,
        regime,
        bench.known.table,
        n_folds=bench.config.n_folds,
        seed=seed,
        by_compound=bench.config.by_compound,
        toml=bench.path(bench.config.data.split) if bench.config.data.split else None,
        cells=bench.known.cells,
    )


def _dose_screen(bench: Bench) -> Screen:
    file = bench.config.data.effects_by_dose
    return read_effect_table(bench.path(file)) if file else bench.screen


def _run_split(
    bench: Bench,
    split: DrugSplit,
    externals: Sequence[tuple[ExternalConfig, External]],
    out: Path | None,
) -> list[pd.DataFrame]:
    if split.regime == "dose":
        return [_run_dose(bench, split)]
    train, test = split.of(bench.screen)
    reference = np.zeros((0, 0))
    tops = {f"_top{n}": top_variable(train, n) for n in bench.config.top_n}
    tables = []
    for name in bench.methods:
        file = out / "parts" / f"{_key(bench, split, name)}.parquet" if out is not None else None
        if file is not None and file.is_file():
            tables.append(read_frame(file, "a finished part of this run", PART))
            continue
        if not reference.size:
            reference = _reference(bench, train, test)
        model = build_method(name, bench.known, split.regime, train.perturbations).fit(train)
        parts = [(model.predict(d, c), c) for c, d in _questions(test)]
        table = _scored(bench, split, name, test, reference, parts, tops)
        if file is not None:
            with atomic_path(file) as temporary:
                table.to_parquet(temporary, index=False)
        tables.append(table)
    for entry, external in externals:
        if entry.regime == split.regime:
            reference = reference if reference.size else _reference(bench, train, test)
            parts = [
                (external.predict(d, c, train, bench.known.cells), c) for c, d in _questions(test)
            ]
            tables.append(_scored(bench, split, entry.name, test, reference, parts, tops))
    return tables


def _questions(test: Screen) -> list[tuple[str, list[str]]]:
    return [(c, list(test.in_context(c).obs["perturbation"])) for c in test.contexts]


def _reference(bench: Bench, train: Screen, test: Screen) -> np.ndarray[Any, Any]:
    """(n_test, d) cell means of the training rows: what `pearson_reference` subtracts."""
    model = CellMean(cells=bench.known.cells, n_related=bench.config.n_related).fit(train)
    means = {c: model.predict(["x"], c).mean[0] for c in test.contexts}
    return np.array([means[c] for c in test.obs["context"]])


def _key(bench: Bench, split: DrugSplit, name: str) -> str:
    """Everything a part depends on, as a file name."""
    settings = bench.config.model_dump(mode="json", exclude={"regimes", "methods", "seeds"})
    identity = [VERSION, settings, split.regime, split.seed, split.fold, split.train, split.test]
    return sha256_text(json.dumps([*identity, name], default=str))[:24]


def _scored(
    bench: Bench,
    split: DrugSplit,
    name: str,
    test: Screen,
    reference: np.ndarray[Any, Any],
    parts: Sequence[tuple[Prediction, str]],
    tops: Mapping[str, Any],
) -> pd.DataFrame:
    """Rows in the order of `test`; nothing held out is left out."""
    found = {
        (drug, context): (p.mean[i], p.support.iloc[i])
        for p, context in parts
        for i, drug in enumerate(p.perturbations)
    }
    keys = list(zip(test.obs["perturbation"], test.obs["context"], strict=True))
    means = np.array([found[k][0] for k in keys])
    names = allowed_metrics(bench.screen, bench.config.metrics)
    table = score_rows(test.responses, means, reference, names, tops)
    compounds = bench.known.table.compounds([d for d, _ in keys])
    described = pd.DataFrame(
        {
            "data": bench.config.data.name,
            "regime": split.regime,
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


def _run_dose(bench: Bench, split: DrugSplit) -> pd.DataFrame:
    """Dose rules on a screen with doses; metrics of magnitude where it has magnitudes."""
    screen = _dose_screen(bench)
    train, test = split.of(screen)
    names = allowed_metrics(screen, None)
    tables = []
    for rule in RULES:
        model = DosePredictor(rule).fit(train)
        base = DosePredictor("dose mean").fit(train)
        rows, references, support, fallback = [], [], [], []
        for drug, context, dose in test.obs[["perturbation", "context", "dose"]].itertuples(
            index=False, name=None
        ):
            p = model.predict([drug], context, float(dose))
            rows.append(p.mean[0])
            references.append(base.predict([drug], context, float(dose)).mean[0])
            support.append(int(p.support["n_support"].iloc[0]))
            fallback.append(str(p.support["fallback"].iloc[0]))
        table = score_rows(test.responses, np.array(rows), np.array(references), names)
        drugs = list(test.obs["perturbation"])
        compounds = bench.known.table.compounds(drugs)
        head = pd.DataFrame(
            {
                "data": bench.config.data.name, "regime": "dose", "seed": 0, "fold": 0,
                "method": rule, "drug": drugs, "context": list(test.obs["context"]),
                "compound": [compounds[d] for d in drugs], "effect": 1.0,
                "n_support": support, "fallback": fallback,
            }
        )  # fmt: skip
        tables.append(pd.concat([head, table], axis=1))
    return pd.concat(tables, ignore_index=True)


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
    baseline: str = "cell mean",
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
        wide["cluster"] = wide["context" if regime in ("unseen line", "given") else "compound"]
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


def markdown_table(summary: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Regime tables in Markdown: mean [95 % interval] per metric, coverage, k used."""
    lines = []
    for (data, regime), block in summary.groupby(["data", "regime"], sort=False):
        first = block.iloc[0]
        shown = [x for x in metrics if x in set(block["metric"])]
        kind = "lines" if regime in ("unseen line", "given") else "compounds"
        lines += [
            f"**{data}, {regime}** ({int(first['n_signatures'])} signatures, "
            f"{int(block['n_clusters'].max())} {kind})",
            "",
            "| method | " + " | ".join(shown) + " | answered | k used |",
            "| --- |" + " --- |" * (len(shown) + 2),
        ]
        for method, own in block.groupby("method", sort=False):
            by = own.set_index("metric")
            cells = [
                f"{by.loc[x, 'mean']:.3f} [{by.loc[x, 'low']:.3f}, {by.loc[x, 'high']:.3f}]"
                for x in shown
            ]
            lines.append(
                f"| {method} | " + " | ".join(cells) + f" | {by['coverage'].iloc[0]:.0%} | "
                f"{by['k_used'].iloc[0]:.1f} |"
            )
        lines.append("")
    return "\n".join(lines)


def write_results(bench: Bench, table: pd.DataFrame, summary: pd.DataFrame, out: Path) -> None:
    """scores.parquet, summary.csv, report.md and run.json (inputs, settings, notes), atomically."""
    from pertwise import __version__

    with atomic_path(out / "scores.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with atomic_path(out / "summary.csv") as temporary:
        summary.to_csv(temporary, index=False)
    wanted = [*metric_columns(table)]
    with atomic_path(out / "report.md") as temporary:
        temporary.write_text(markdown_table(summary, wanted), encoding="utf-8")
    write_json_atomic(
        out / "run.json",
        {
            "pertwise": __version__,
            "config": json.loads(bench.config.model_dump_json()),
            "screen": repr(bench.screen),
            "meta": json.loads(json.dumps(dict(bench.screen.meta), default=str)),
            "notes": json.loads(json.dumps(bench.notes, default=str)),
            "drug_tables": list(bench.known.table.sources),
        },
    )
