"""`Plan`: a panel with its reasons and everything needed to repeat, question and change it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pertwise._files import read_json_object
from pertwise._io import write_csv_atomic, write_json_atomic
from pertwise._shown import Shown
from pertwise._text import clean_text
from pertwise._together import finish
from pertwise.acquire.targets import COLUMNS as TARGET_COLUMNS
from pertwise.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

#: Version of plan.json; a newer file is refused with a clear message.
FORMAT = 1
#: `RepairNote.kind` of a model that stands in for one that cannot be had here.
STOOD_IN = "stand-in"
#: Columns of `Plan.candidates` that every plan has; any other one is a fact.
CANDIDATE_COLUMNS = (
    "gene",
    "symbol",
    "status",
    "relation",
    "module",
    "evidence",
    "uncertainty",
    "uncertainty_rank",
    "utility",
    "x",
    "y",
    *TARGET_COLUMNS,
    "detected",
    "promoter",
    "flags",
)


class PanelPick(BaseModel):
    """One row of the panel.

    `chosen_by` is "strategy" (or "strategy, fallback" where the declared fallback chose), "pin",
    or the person who put it there by an amendment. A `pinned` one stays when the rest of the panel
    is chosen anew. `flags` say what to know before guides are ordered: not protein coding, not
    detected in the controls, a promoter shared with another gene.
    """

    model_config = ConfigDict(extra="forbid")
    rank: int
    gene: str
    symbol: str = ""
    full_name: str = ""
    ensembl: str = ""
    hgnc: str = ""
    entrez: str = ""
    flags: list[str] = Field(default_factory=list)
    summary: str = ""
    module: str = ""
    relation: str = ""
    uncertainty_rank: int | None = None
    uncertainty: float | None = None
    utility: float | None = None
    reason: str
    evidence: list[str] = Field(default_factory=list)
    chosen_by: str = "strategy"
    pinned: bool = False


class LeftOut(BaseModel):
    """A name that was never a candidate, or no longer one, and why."""

    gene: str
    kind: str  # measured | excluded | unknown | duplicate | requirement
    why: str


class NearMiss(BaseModel):
    """A candidate that was not picked although it could have been, and what stood against it."""

    gene: str
    kind: str  # next | uncertain | member
    why: str
    relation: str = ""
    module: str = ""
    uncertainty_rank: int | None = None
    position: int | None = None


class ModuleCoverage(BaseModel):
    """How far one module of the target is covered. Names are approved symbols or panel names."""

    module: str
    size: int
    measured: list[str] = Field(default_factory=list)
    picked: list[str] = Field(default_factory=list)
    #: Picks that are not members but regulate, interact with or respond to this module.
    related: list[str] = Field(default_factory=list)
    open: list[str] = Field(default_factory=list)
    unavailable: list[str] = Field(default_factory=list)


class RepairNote(BaseModel):
    """A correction that was made on the way, and by whom it was needed."""

    stage: str
    kind: str
    item: str
    action: str


class Decision(BaseModel):
    """Who decided what, when and why; the panel before allows every step to be undone.

    Remarks and signatures have no panel before: they change none. `about` = genes they speak of.
    """

    when: str
    by: str
    action: str
    why: str = ""
    added: list[str] = Field(default_factory=list)
    dropped: list[str] = Field(default_factory=list)
    about: list[str] = Field(default_factory=list)
    panel_before: list[PanelPick] = Field(default_factory=list)
    misses_before: list[NearMiss] = Field(default_factory=list)


class Plan(BaseModel):
    """The next panel.

    Attributes
    ----------
    picks
        The panel, best first.
    candidates
        Column -> values over *all* candidates (gene, symbol, relation, module, uncertainty,
        uncertainty_rank, utility, x, y, then what is known of them: see `facts`), sorted by gene.
    measured
        Column -> values (gene, x, y) of what is measured in this context.
    inputs
        Name -> path, sha256 (or knowledge fingerprint) and what was recognised.
    settings
        Everything the call was given, as JSON.
    design
        Advice on cells and controls (`acquire.design.Design.to_json`); empty where the screen does
        not state its noise.
    provenance
        The strategy's own: shortlist, weights, prompt hash, ledger keys, counts.
    decisions
        First entry: the making of the plan; then every amendment.
    """

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    kind: str = "pertwise plan"
    title: str
    created: str
    revision: int = 1
    simulated: bool = False
    context: str = ""
    target: dict[str, Any] = Field(default_factory=dict)
    picks: list[PanelPick]
    candidates: dict[str, list[Any]]
    measured: dict[str, list[Any]]
    coverage: list[ModuleCoverage] = Field(default_factory=list)
    near_misses: list[NearMiss] = Field(default_factory=list)
    left_out: list[LeftOut] = Field(default_factory=list)
    repairs: list[RepairNote] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    source: str = ""
    fallback: bool = False
    inputs: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)
    decisions: list[Decision] = Field(default_factory=list)
    design: dict[str, Any] = Field(default_factory=dict)

    # -- what a notebook asks --------------------------------------------------------------

    def amend(
        self,
        *,
        replace: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        add: Sequence[str] = (),
        by: str,
        why: str,
    ) -> Plan:
        """A new revision of this plan, changed by a person; see `pertwise.amend`."""
        import pertwise

        return pertwise.amend(self, replace=replace, drop=drop, add=add, by=by, why=why)

    def write(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, Path]:
        """plan.html, plan.csv and plan.json into `folder`, atomically; name -> path.

        An amended plan that is there stays unless `overwrite`, which keeps it in history/.
        """
        # The page is made in a room above this one, which the front door reaches.
        import pertwise

        return pertwise.write_plan(self, folder, overwrite=overwrite)

    @property
    def genes(self) -> tuple[str, ...]:
        """The panel's names, best first."""
        return tuple(p.gene for p in self.picks)

    @property
    def table(self) -> pd.DataFrame:
        """The panel, one row a pick: the columns of plan.csv."""
        rows = [
            {
                "rank": p.rank,
                "gene": p.gene,
                "module": p.module,
                "relation": p.relation,
                "uncertainty_rank": p.uncertainty_rank,
                "uncertainty": p.uncertainty,
                "utility": p.utility,
                "reason": p.reason,
                "evidence": "; ".join(p.evidence),
                "chosen_by": p.chosen_by,
                "full_name": p.full_name,
                "ensembl": p.ensembl,
                "hgnc": p.hgnc,
                "entrez": p.entrez,
                "flags": "; ".join(p.flags),
            }
            for p in self.picks
        ]
        # A reason that somebody set may hold half a surrogate pair, which is no text for pandas 3.
        clean = [
            {k: clean_text(v) if isinstance(v, str) else v for k, v in r.items()} for r in rows
        ]
        table = pd.DataFrame(clean)
        table["uncertainty_rank"] = table["uncertainty_rank"].astype("Int64")
        for column in ("uncertainty", "utility"):
            table[column] = table[column].astype(float)
        facts = self.facts
        place = {g: i for i, g in enumerate(self.candidates["gene"])}
        for name, values in facts.items():
            column = name if name not in table else f"{name} (facts)"
            table[column] = [values[place[g]] if g in place else None for g in table["gene"]]
        return table

    @property
    def facts(self) -> dict[str, list[Any]]:
        """Fact -> its value for every candidate, in the order of ``candidates["gene"]``."""
        return {c: v for c, v in self.candidates.items() if c not in CANDIDATE_COLUMNS}

    @property
    def candidate_table(self) -> pd.DataFrame:
        """All candidates with their utilities, indexed by gene."""
        return pd.DataFrame(self.candidates).set_index("gene")

    def __repr__(self) -> str:
        tag = " SIMULATED" if self.simulated else ""
        return (
            f"<Plan{tag}: {len(self.picks)} of {len(self.candidates['gene'])} candidates by "
            f"{self.source}, revision {self.revision}>"
        )

    __str__ = __repr__
    _repr_html_ = Shown._repr_html_

    def to_anndata(self, into: AnnData | None = None, key: str | None = None) -> AnnData:
        """The plan where scanpy looks: ``sc.pl.embedding(data, "pertwise", color="pertwise")``.

        ``obs["pertwise"]`` is picked, candidate or measured, beside ``pertwise_utility`` and
        ``pertwise_uncertainty``; ``obsm["X_pertwise"]`` the places on the map;
        ``uns["pertwise_plan"]`` the whole plan as JSON.

        Parameters
        ----------
        into
            An object whose rows are perturbations or their cells, which is written to and
            returned; None = a new one with a row for every candidate and measured perturbation.
        key
            Column of `into` that names the perturbation; None = recognised.

        Raises
        ------
        pertwise.errors.InputError
            No row of `into` is a perturbation of the plan.
        """
        from pertwise.acquire.into_anndata import into_anndata

        return into_anndata(self, into, key)

    # -- files -----------------------------------------------------------------------------

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Write plan.json atomically."""
        # An older pydantic writes a missing number of an untyped field as NaN, a newer one as null.
        facts = json.loads(self.model_dump_json(), parse_constant=lambda _: None)
        write_json_atomic(path, facts)

    def save_csv(self, path: str | os.PathLike[str]) -> None:
        """Write plan.csv atomically: `table`, readable by any spreadsheet."""
        table = self.table
        if self.simulated:
            table.insert(len(table.columns), "data", "simulated")
        write_csv_atomic(path, table, float_format="%.6g")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read plan.json.

        Raises
        ------
        pertwise.errors.InputError
            Missing file, not JSON, not a plan, or from a newer version.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "plan.json"
        with contextlib.suppress(OSError):
            finish(file.parent, file.stem)
        if not file.exists():
            raise InputError(f"no such plan file: {file}")
        value = read_json_object(file, "a plan")
        if value.get("kind") != "pertwise plan":
            raise InputError(f"{file} is not a plan made by `pertwise plan`")
        known = value.get("format")
        if isinstance(known, int) and known > FORMAT:
            raise InputError(
                f"{file} has plan format {value['format']}, newer than this pertwise reads "
                f"({FORMAT}); upgrade pertwise"
            )
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(f"{file} is damaged at {where}: {first['msg']}") from None


def column_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, list[Any]]:
    """Rows to columns: a third of the size as JSON, and what `DataFrame` takes."""
    return {c: [row.get(c) for row in rows] for c in columns}
