"""Recognise how a file names its perturbations, and turn its labels into pertwise names.

No room is left for guessing in silence: what was recognised, and by which column, is part of the
result, and every choice can be overridden.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pandas as pd

from pertwise import parts as registry
from pertwise._names import COMBINATION, canonical_perturbation, split_combination
from pertwise.errors import InputError, unknown_name
from pertwise.screen.doses import UNIT_KEYS, dose_unit, fold_unit
from pertwise.screen.flags import control_flags
from pertwise.screen.labels import control_kind, is_uncalled, read_labels, without_controls

#: Labels of unperturbed cells in public files, in the order they are looked for.
CONTROL_LABELS = (
    "control",
    "ctrl",
    "non-targeting",
    "nontargeting",
    "non_targeting",
    "non-targeting control",
    "NT",
    "NTC",
    "DMSO_TF",
    "DMSO",
    "vehicle",
    "unperturbed",
    "safe-targeting",
    "negctrl",
    "neg_control",
    "negative control",
)
_CONTEXT_KEYS = ("cell_name", "cell_line", "cell_type", "celltype", "cellline", "context")
_DOSE_KEYS = ("dose", "dose_value", "dose_val", "concentration", "conc")
_BATCH_KEYS = ("batch", "gem_group", "gemgroup", "plate", "batch_var", "library")
_N_CELLS_KEYS = ("n_cells", "ncells", "num_cells_filtered", "cell_count", "cell_counts")
#: Columns in which callers of doublets write their verdict (scrublet, scDblFinder, DoubletFinder,
#: demuxlet, vireo).
_DOUBLET_KEYS = (
    "is_doublet", "predicted_doublet", "predicted_doublets", "doublet", "doublet_call",
    "doublet_class", "scDblFinder.class", "scDblFinder_class", "DF.classifications",
    "doublet_finder", "droplet_type", "DROPLET.TYPE", "multiplet", "is_multiplet",
)  # fmt: skip
#: Columns that name the guide of a cell beside a column of genes.
_GUIDE_KEYS = (
    "guide_id", "guide_identity", "guide_ID", "guide_ids", "guide", "sgRNA", "sgrna", "sgRNA_ID",
    "sgrna_id", "sgID_AB", "gRNA", "grna", "protospacer",
)  # fmt: skip
_VARIANCE_KEYS = ("sampling_variance", "mean_sampling_variance")
_DRUG_KINDS = ("tahoe", "drug")
LABEL_MODES = ("auto", "genes", "as-is")


@dataclass(frozen=True)
class Keys:
    """Columns and labels the user insists on; None = recognise. "" for a column = there is none.

    `labels`: "auto" leaves out non-calls and unused controls and folds guides to genes when most
    labels are guides; "genes" folds whatever is a guide; "as-is" takes every label as it stands.
    """

    perturbation: str | None = None
    control: tuple[str, ...] = ()
    context: str | None = None
    dose: str | None = None
    batch: str | None = None
    n_cells: str | None = None
    labels: str = "auto"
    doublet: str | None = None
    guide: str | None = None


@dataclass(frozen=True)
class Layout:
    """What was recognised in a table of cells or means.

    Attributes
    ----------
    kind
        pertwise, gears, scperturb, replogle, replogle_bulk, tahoe, drug, target_gene or named.
    perturbation, context, dose, batch, n_cells, variance, doublet, guide
        Column names; "" when the file has none. The perturbation column of replogle_bulk is the
        index of the table, written "".
    control
        Labels (as they stand in the file) of unperturbed cells; empty when none was found.
    dose_unit
        Unit of the doses, where a column says it.
    context_name
        The one context of the whole file, where it is stated outside the table.
    only
        The one context whose rows count, where there is a column of several; "" = all of them.
    notes
        What was decided and could have been decided otherwise.
    rename, left_out
        Labels that stand for another name (guides for their gene); labels of no perturbation.
    """

    kind: str
    perturbation: str
    control: tuple[str, ...] = ()
    context: str = ""
    dose: str = ""
    batch: str = ""
    n_cells: str = ""
    variance: str = ""
    doublet: str = ""
    guide: str = ""
    dose_unit: str = ""
    context_name: str = ""
    only: str = ""
    notes: tuple[str, ...] = field(default=())
    rename: Mapping[str, str] = field(default_factory=dict, repr=False)
    left_out: frozenset[str] = field(default=frozenset(), repr=False)

    def describe(self) -> str:
        """One line: "GEARS layout: perturbation in 'condition', control 'ctrl', ..."."""
        where = repr(self.perturbation) if self.perturbation else "the row names"
        parts = [f"perturbation in {where}"]
        parts.append(
            f"control {', '.join(map(repr, self.control))}" if self.control else "no control label"
        )
        parts += [
            f"{name} in {column!r}"
            for name in ("context", "dose", "batch", "n_cells")
            if (column := getattr(self, name))
        ]
        if self.dose_unit:
            parts.append(f"doses in {self.dose_unit}")
        if self.context_name:
            parts.append(f"context {self.context_name!r}")
        return f"{_TITLES.get(self.kind, self.kind)}: " + ", ".join(parts)


_TITLES = {
    "pertwise": "pertwise screen",
    "gears": "GEARS layout",
    "scperturb": "scPerturb layout",
    "replogle": "Replogle 2022 layout",
    "replogle_bulk": "Replogle 2022 pseudobulk layout",
    "tahoe": "Tahoe-100M layout",
    "drug": "drug screen",
    "target_gene": "target_gene layout (STATE, Virtual Cell Challenge)",
    "named": "plain layout",
}
# (kind, column): the first whose column exists, and whose test passes, is taken.
_KINDS = (
    ("tahoe", "drugname_drugconc"),
    ("gears", "condition"),
    ("scperturb", "perturbation"),
    ("target_gene", "target_gene"),
    ("named", "pert"),
    ("replogle", "gene"),
    ("drug", "drug"),
    ("drug", "compound"),
    ("drug", "treatment"),
    ("named", "gene_perturbed"),
)


@dataclass(frozen=True)
class KnownLayout:
    """A layout by name: its title, and the columns that name the perturbation in it."""

    about: str
    columns: tuple[str, ...]


class LayoutPart(Protocol):
    """What a layout of another package must have (entry points ``pertwise.layouts``): its columns
    are looked for after those known here, and their labels are read as plain names."""

    columns: tuple[str, ...]


#: Name -> layout; in `pertwise.parts` under the same names.
LAYOUTS = {
    kind: KnownLayout(title, tuple(column for k, column in _KINDS if k == kind))
    for kind, title in _TITLES.items()
}
#: Columns that are recognised as naming the perturbation, in order.
PERTURBATION_KEYS = tuple(dict.fromkeys(column for _, column in _KINDS))


def relevant_columns(columns: Sequence[str], keys: Keys) -> list[str]:
    """Those of a file's columns that `recognise` and `group_rows` may look at."""
    known = {*PERTURBATION_KEYS, *_CONTEXT_KEYS, *_DOSE_KEYS, *_BATCH_KEYS, *_N_CELLS_KEYS}
    known |= {
        *_VARIANCE_KEYS,
        *_DOUBLET_KEYS,
        *_GUIDE_KEYS,
        *UNIT_KEYS,
        "is_control",
        "nperts",
        *(c for _, c in _offered()),
    }
    named = (keys.perturbation, keys.context, keys.dose, keys.batch, keys.n_cells, keys.guide)
    known |= {c for c in named if c}
    return [c for c in columns if c in known]


def recognise(
    obs: pd.DataFrame,
    keys: Keys | None = None,
    *,
    context_name: str = "",
    partial: bool = False,
    where: str = "the file",
    columns: Sequence[str] | None = None,
    features: Iterable[str] = (),
) -> Layout:
    """Find the perturbation column and its companions.

    Parameters
    ----------
    obs
        Table of cells (or of means).
    keys
        What the user insists on.
    context_name
        Context stated elsewhere in the file (``uns["cell_line"]``).
    partial
        The table is one of several: a control label that was asked for may be in another.
    where
        Name of the file for messages.
    columns
        All column names of the file, when `obs` holds only those that may matter
        (`relevant_columns`).
    features
        Names of what was measured: a label that is one of them names a gene, not a guide.

    Raises
    ------
    pertwise.errors.InputError
        If no perturbation column is recognised, or a column that was asked for is missing.
    pertwise.errors.UnknownNameError
        If a control label that was asked for does not occur.
    """
    keys = keys or Keys()
    names = list(map(str, obs.columns if columns is None else columns))
    for flag, column in (
        ("perturbation", keys.perturbation),
        ("context", keys.context),
        ("dose", keys.dose),
        ("batch", keys.batch),
        ("n_cells", keys.n_cells),
        ("guide", keys.guide),
    ):
        if column and column not in obs.columns:
            raise unknown_name(
                "column",
                column,
                names,
                f"(given as {flag} key) in {where}. Columns are: {_listing(names)}",
            )
    kind, column = _kind(obs, keys, where, names)
    layout = Layout(
        kind=kind,
        perturbation=column,
        context=_column(obs, keys.context, _CONTEXT_KEYS),
        dose=_column(obs, keys.dose, _DOSE_KEYS),
        batch=_column(obs, keys.batch, _BATCH_KEYS),
        n_cells=_column(obs, keys.n_cells, _N_CELLS_KEYS),
        variance=_column(obs, None, _VARIANCE_KEYS),
        doublet=_column(obs, keys.doublet, _DOUBLET_KEYS),
        guide=""
        if keys.guide is None and column in _GUIDE_KEYS
        else _column(obs, keys.guide, _GUIDE_KEYS),
        context_name=context_name,
    )
    if layout.context and context_name:
        layout = replace(layout, context_name="")
    if kind == "gears" and keys.dose is None:
        # GEARS writes "1" or "1+1" there: the number of perturbations, not a dose.
        layout = replace(layout, dose="")
    labels = label_counts(obs, layout)
    control, notes = _control(obs, layout, labels, keys.control, partial, where)
    perturbed = ~perturbation_labels(obs, layout).isin(control).to_numpy()
    unit = dose_unit(obs, layout.dose, perturbed, where)
    layout = replace(layout, control=control, notes=notes, dose_unit=unit)
    return layout if partial else settle(layout, map(str, labels.index), keys, features)


def settle(
    layout: Layout, labels: Iterable[str], keys: Keys, features: Iterable[str] = ()
) -> Layout:
    """The layout with the meaning of all labels of all files: guides, non-calls, other controls.

    Raises
    ------
    pertwise.errors.InputError
        If ``keys.labels`` is not one of its values.
    """
    if keys.labels not in LABEL_MODES:
        raise InputError(f"labels {keys.labels!r} is not one of {', '.join(LABEL_MODES)}")
    drugs = layout.kind in _DRUG_KINDS
    texts = {
        label: parse_label(label, layout)[0] if layout.kind == "tahoe" else label
        for label in labels
    }
    used = {*layout.control, *(texts[c] for c in layout.control if c in texts)}
    meant = read_labels(
        list(dict.fromkeys(texts.values())), tuple(used), keys.labels, features, drugs
    )
    return replace(
        layout,
        notes=(*layout.notes, *meant.notes),
        rename=meant.rename,
        left_out=frozenset(
            k for k, text in texts.items() if text in meant.left_out and k not in layout.control
        ),
    )


def _kind(obs: pd.DataFrame, keys: Keys, where: str, names: Sequence[str]) -> tuple[str, str]:
    if keys.perturbation:
        known = {column: kind for kind, column in _KINDS}
        return known.get(keys.perturbation, "named"), keys.perturbation
    if obs.index.name == "gene_transcript" and "gene" not in obs.columns:
        return "replogle_bulk", ""
    found = [(kind, c) for kind, c in (*_KINDS, *_offered()) if c in obs.columns]
    for kind, column in found:
        # A column "condition" may hold anything; GEARS writes "ctrl" into it.
        if kind == "gears" and len(found) > 1 and not _mentions_ctrl(obs[column]):
            continue
        return kind, column
    raise InputError(
        f"{where}: no perturbation column recognised (looked for "
        f"{', '.join(sorted({c for _, c in _KINDS}))}). Columns are: {_listing(names)}. "
        "Name it with --perturbation-key (perturbation_key=...)"
    )


def _offered() -> list[tuple[str, str]]:
    """(layout, column) of other packages."""
    return [
        (name, column)
        for name in registry.names("layout")
        if name not in registry.names("layout", offered=False)
        for column in registry.load("layout", name).columns
    ]


def _mentions_ctrl(column: pd.Series) -> bool:
    return any(
        (len(parts) > 1 and any(map(control_kind, parts))) or parts == ["ctrl"]
        for parts in map(split_combination, map(str, column.unique()))
    )


def _column(obs: pd.DataFrame, wanted: str | None, known: Sequence[str]) -> str:
    if wanted is not None:
        return wanted
    return next((c for c in known if c in obs.columns), "")


def _listing(items: Iterable[Any], n: int = 20) -> str:
    names = [" ".join(str(x).split()) for x in items]
    more = f", ... ({len(names)} in all)" if len(names) > n else ""
    return (", ".join(names[:n]) or "(none)") + more


def label_counts(obs: pd.DataFrame, layout: Layout) -> pd.Series:
    """Label -> number of rows, most frequent first."""
    return perturbation_labels(obs, layout).value_counts()


def no_control(counts: pd.Series, where: str) -> InputError:
    """The error for a file in which no unperturbed cells were recognised."""
    return InputError(
        f"{where}: no control found. The most frequent labels are: {_listing(counts.index, 8)}. "
        "Name the label of unperturbed cells with --control LABEL (control=...)"
    )


def perturbation_labels(obs: pd.DataFrame, layout: Layout) -> pd.Series:
    """(n_rows,) text labels as they stand in the file; missing stays missing."""
    if layout.perturbation:
        column = obs[layout.perturbation]
    else:
        # Replogle bulk rows: 10005_ZBTB4-IT1_P1P2_ENSG... (number, gene, transcript, gene id).
        column = obs.index.to_series().str.split("_").str[1]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories().cat.rename_categories(_as_text)
    return column.map(_as_text, na_action="ignore").astype("category")


def _as_text(value: Any) -> str:
    # Numbers of genes become floats beside a gap.
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)


def _control(
    obs: pd.DataFrame,
    layout: Layout,
    labels: pd.Series,
    wanted: tuple[str, ...],
    partial: bool,
    where: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = list(map(str, labels.index))
    parsed = (
        {label: parse_label(label, layout)[0] for label in known}
        if (layout.kind == "tahoe")
        else {label: label for label in known}
    )
    if wanted:
        found: list[str] = []
        for name in wanted:
            hits = [label for label, text in parsed.items() if name in (label, text)]
            if not hits and not partial:
                raise unknown_name(
                    "control label",
                    name,
                    known,
                    f"in {where}. The most frequent labels are: {_listing(known, 8)}",
                )
            found += hits
        return tuple(dict.fromkeys(found)), ()
    notes: list[str] = []
    if "is_control" in obs.columns:
        flagged = control_flags(
            obs["is_control"], perturbation_labels(obs, layout), where, partial=partial
        )
        if flagged:
            return flagged, ()
        notes.append("is_control marks no row, so controls are looked for by their label")
    for name in CONTROL_LABELS:
        hits = [k for k, text in parsed.items() if text.casefold() == name.casefold()]
        if hits:
            return tuple(hits), tuple(notes)
    # Only numbered controls (NT_1, NT_2 ...): the most frequent kind of them is the control.
    kinds = {
        label: kind
        for label, text in parsed.items()
        if not is_uncalled(text) and (kind := _all_control(text))
    }
    if not kinds:
        return (), tuple(notes)
    cells: Counter[str] = Counter()
    for label, kind in kinds.items():
        cells[kind] += int(labels[label])
    chosen = tuple(label for label, kind in kinds.items() if kind == cells.most_common(1)[0][0])
    if len(chosen) > 1:
        notes.append(f"{len(chosen)} labels are taken as the control: {_listing(chosen, 5)}")
    return chosen, tuple(notes)


def _all_control(label: str) -> str:
    kinds = [control_kind(p) for p in split_combination(label)]
    return kinds[0] if all(kinds) else ""


def parse_label(label: str, layout: Layout) -> tuple[str, float]:
    """A label as (canonical name, dose); the dose is NaN unless the label itself states it.

    "A+ctrl" -> "A", for any control label; "[('Infigratinib', 0.05, 'uM')]" -> ("Infigratinib",
    0.05) (Tahoe); "" for a combination of controls only.

    Raises
    ------
    pertwise.errors.InputError
        If a Tahoe label is not a list of (drug, concentration, unit).
    """
    if layout.kind == "tahoe" and label.lstrip().startswith("["):
        try:
            found = [(str(d).strip(), float(c), str(u)) for d, c, u in ast.literal_eval(label)]
        except (ValueError, SyntaxError, TypeError) as error:
            raise InputError(
                f"{layout.perturbation} value {label!r} is not a list of (drug, concentration, "
                "unit)"
            ) from error
        other = next((unit for *_, unit in found if fold_unit(unit) != "um"), None)
        if other is not None:
            raise InputError(f"{layout.perturbation} value {label!r} is in {other}, not in uM")
        name = canonical_perturbation(COMBINATION.join(d for d, *_ in found))
        return name, found[0][1] if len(found) == 1 else float("nan")
    if label in layout.rename:
        return layout.rename[label], float("nan")
    kept = without_controls(label, layout.control)
    return canonical_perturbation(COMBINATION.join(kept)), float("nan")
