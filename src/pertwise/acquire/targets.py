"""Can one knock this gene down, and would one? Ids, biotype, expression in controls, promoters."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pertwise._names import COMBINATION, split_combination
from pertwise.knowledge import Knowledge
from pertwise.knowledge.genes.graphs import PROMOTER_DISTANCE, shared_promoters
from pertwise.screen import Screen
from pertwise.screen.detected import UNDETECTED, undetected_limit

CODING = "protein_coding"
SHARED = "promoter shared"
LOGGED = "log-normalised expression"
COLUMNS = ("full_name", "ensembl", "hgnc", "entrez", "biotype")


def detection(screen: Screen | None, knowledge: Knowledge) -> dict[str, bool]:
    """Approved symbol -> detected in the controls of the screen's first context.

    From the control means, where they are log-normalised expression (mean of log(1 + x) above
    `undetected_limit`), and the list of undetected genes that `pseudobulk` leaves in the meta. A
    gene that is in neither is not in the answer: the screen does not know.
    """
    if screen is None or not screen.contexts or screen.meta.get("unit") != LOGGED:
        return {}
    mean = screen.control_mean[0]
    seen = dict(zip(screen.features, mean > undetected_limit(screen.meta.get("target_sum")),
                    strict=True))  # fmt: skip
    known = {f: bool(seen[f]) for f, m in zip(screen.features, mean, strict=True) if np.isfinite(m)}
    listed = screen.meta.get(UNDETECTED)
    absent = listed.get(screen.contexts[0], ()) if isinstance(listed, dict) else ()
    known = dict.fromkeys(map(str, absent), False) | known
    approved = knowledge.resolve(list(known)).approved
    found: dict[str, bool] = {}
    for name, there in known.items():
        if name in approved:
            found[approved[name]] = there or found.get(approved[name], False)
    return found


def biotypes(knowledge: Knowledge) -> dict[str, str]:
    """Approved symbol -> biotype ("" where the table has none) of every gene with a position."""
    if not knowledge.has("positions"):
        return {}
    table = knowledge.table("positions")
    return dict(zip(table["symbol"], table["biotype"].fillna(""), strict=True))


def targetable(
    genes: Sequence[str], screen: Screen | None, knowledge: Knowledge
) -> tuple[list[str], str]:
    """The genes that can be knocked down and are there to be knocked down; how they were found.

    Protein-coding, with a position on the genome, and detected in the control cells where the
    screen knows that. What the knowledge or the screen cannot say excludes nobody.
    """
    kinds = biotypes(knowledge)
    said = any(kinds.values())
    kept, words = list(genes), "known genes"
    if kinds:
        kept = [g for g in genes if g in kinds and (kinds[g] == CODING or not said)]
        words = "protein-coding genes with a known position" if said else "genes with a position"
    found = detection(screen, knowledge)
    hidden = [g for g in kept if found.get(g) is False]
    if hidden:
        gone = set(hidden)
        kept = [g for g in kept if g not in gone]
    text = f"the {len(kept)} {words} of the knowledge folder"
    if hidden:
        text += f" that are not missing from the controls ({len(hidden)} are)"
    if len(kept) < len(genes):
        text += f"; --candidates all takes all {len(genes)}"
    if not said:
        text += "; the folder does not say which genes are protein-coding"
    return kept, text


@dataclass(frozen=True)
class Targets:
    """What is known about names as targets.

    Attributes
    ----------
    table
        Indexed by name, columns `COLUMNS` and ``detected`` (True, False or None), ``promoter``
        ("shared with ...", or "").
    flags
        Name -> what to know before one orders guides; empty ones are left out.
    """

    table: pd.DataFrame
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def summary(self, names: Sequence[str], kind: str) -> list[str]:
        """One sentence for each flag (without its particulars) that any of `names` has."""
        by_flag: dict[str, list[str]] = {}
        for name in names:
            for flag in self.flags.get(name, ()):
                kind_of = flag.partition(": ")[0]
                if kind_of.startswith(SHARED):
                    kind_of = f"{SHARED} with another gene"
                by_flag.setdefault(kind_of, []).append(name)
        return [
            f"{len(group)} {kind} {flag}: {', '.join(group[:8])}{' ...' if len(group) > 8 else ''}"
            for flag, group in by_flag.items()
        ]


def describe_targets(
    symbols: dict[str, str],
    screen: Screen | None,
    knowledge: Knowledge,
    essential: Collection[str] = (),
) -> Targets:
    """Ids, biotype, detection and shared promoters of names (name -> approved symbol, or A+B).

    `essential`: approved symbols of genes that nearly every line needs, as far as somebody says so.

    Promoters are shared by genes on either strand whose transcription starts lie within
    `PROMOTER_DISTANCE` bases: CRISPRi at one silences the other (Horlbeck et al. 2016).
    """
    if knowledge.drugs is not None or not symbols:
        empty = pd.DataFrame("", index=pd.Index(list(symbols)), columns=list(COLUMNS))
        return Targets(empty.assign(detected=None, promoter=""))
    parts = sorted({p for s in symbols.values() for p in split_combination(s)})
    facts = _gene_facts(knowledge, parts)
    found = detection(screen, knowledge)
    partners = _partners(knowledge, set(parts))
    placed = biotypes(knowledge)
    rows, flags = {}, {}
    for name, symbol in symbols.items():
        genes = split_combination(symbol)
        seen = [found.get(g) for g in genes]
        shared = [f"{p}" for g in genes for p in partners.get(g, ())]
        rows[name] = {
            **{c: COMBINATION.join(facts[c][g] for g in genes).strip(COMBINATION) for c in COLUMNS},
            "detected": False if False in seen else None if None in seen else True,
            "promoter": ", ".join(shared),
        }
        told = []
        other = [k for g in genes if (k := placed.get(g, "")) not in ("", CODING)]
        if other:
            told.append(f"not protein coding: {', '.join(dict.fromkeys(other))}")
        elif placed and any(g not in placed for g in genes):
            told.append("without a known position: pseudogene or not in the annotation")
        if False in seen:
            told.append("not detected in your controls")
        if shared:
            told.append(f"{SHARED} with {', '.join(shared)}")
        if any(g in essential for g in genes):
            told.append("common essential")
        if told:
            flags[name] = tuple(told)
    return Targets(pd.DataFrame.from_dict(rows, orient="index"), flags)


def _gene_facts(knowledge: Knowledge, symbols: list[str]) -> dict[str, dict[str, str]]:
    """Column of `COLUMNS` -> approved symbol -> value, "" where nothing says."""
    facts: dict[str, dict[str, str]] = {c: dict.fromkeys(symbols, "") for c in COLUMNS}

    def take(column: str, names: pd.Series, values: pd.Series) -> None:
        own = facts[column]
        for name, value in zip(names, values, strict=True):
            if name in own and not own[name] and isinstance(value, str):
                own[name] = value

    if knowledge.has("genes"):
        table = knowledge.table("genes")
        for column in ("full_name", "entrez", "ensembl"):
            take(column, table["symbol"], table[column])
    if knowledge.has("positions"):
        table = knowledge.table("positions")
        take("ensembl", table["symbol"], table["ensembl"])
        take("biotype", table["symbol"], table["biotype"])
    if not knowledge.has("symbols"):
        return facts
    table = knowledge.table("symbols")
    for kind in ("hgnc", "ensembl"):
        ids = table[table["kind"] == kind]
        if kind == "ensembl":
            ids = ids[ids["name"].str.startswith("ENSG")]
        take(kind, ids["approved"], ids["name"])
    return facts


def _partners(knowledge: Knowledge, wanted: set[str]) -> dict[str, list[str]]:
    """Approved symbol -> "PARTNER (12 bases)", nearest first, of `wanted`."""
    if not knowledge.has("positions"):
        return {}

    def make() -> pd.DataFrame:
        return shared_promoters(knowledge.table("positions"), opposite=False)

    pairs = knowledge.keep("promoters of either strand", make).sort_values(["bases", "a", "b"])
    out: dict[str, list[str]] = {}
    for a, b, bases in zip(pairs["a"], pairs["b"], pairs["bases"], strict=True):
        for gene, other in ((a, b), (b, a)):
            if gene in wanted:
                out.setdefault(gene, []).append(f"{other} ({bases} bases)")
    return out


__all__ = ["PROMOTER_DISTANCE", "Targets", "describe_targets", "detection", "targetable"]
