"""Guides for the genes of a panel, checked one by one, with controls; genes without are told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from pertwise._names import COMBINATION, split_combination
from pertwise.acquire.amendment import amend
from pertwise.acquire.guides.library import GuideLibrary
from pertwise.acquire.panel import PanelPick, Plan
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.genes.species import species_named

#: Lengths of a spacer that are ordered; others are a typing error or a whole oligo.
LENGTHS = (17, 25)
_SPACER = re.compile(r"[ACGT]+")
#: Controls where the user states no number.
DEFAULT_CONTROLS = 10
CONTROL_NAME = "non-targeting"
WHO = "pertwise guides"


@dataclass(frozen=True)
class Choice:
    """Guides of a panel.

    Attributes
    ----------
    table
        One row an element: name, pick, gene, symbol, ensembl, entrez, kind ("target" or
        "control"), library_id, sequence_a, sequence_b, gc, notes.
    plan
        The plan, amended where genes without guides were replaced.
    missing
        Panel genes without enough guides -> how many there are.
    replaced
        Pick without guides -> the candidate in its place.
    """

    table: pd.DataFrame
    plan: Plan
    missing: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose_guides(
    plan: Plan,
    library: GuideLibrary,
    *,
    per_gene: int = 3,
    controls: int | None = None,
    replace_missing: bool = False,
    skip_bad: bool = False,
    knowledge: Knowledge | None = None,
) -> Choice:
    """The first `per_gene` guides of every gene of the panel by the library's own ranking.

    A gene is found by its name, approved symbol, NCBI or Ensembl id, and with `knowledge` under the
    former symbols of an older library. Sequences that the library gives to several genes come last
    and are noted. Each part of a combination gets guides of its own.

    Parameters
    ----------
    controls
        Non-targeting elements; None = `DEFAULT_CONTROLS`, or all where the library has fewer.
    replace_missing
        Put the next candidate by utility that has guides in the place of a pick without any; picks
        that a person made (pins, amendments) stay and are told.
    skip_bad
        Leave out unusable guides (letters other than ACGT, an odd length, repeated) and count them.

    Raises
    ------
    pertwise.errors.InputError
        An unusable guide of a gene of the panel (unless `skip_bad`), fewer controls than asked for,
        no guide for any gene; a library of another species.
    """
    if per_gene < 1:
        raise InputError(f"--guides-per-gene must be at least 1, got {per_gene}")
    if controls is not None and controls < 0:
        raise InputError(f"--controls must be 0 or more, got {controls}")
    _check_species(library, plan, knowledge)
    shelf = _Shelf(library, plan, knowledge, skip_bad)
    replaced: dict[str, str] = {}
    if replace_missing:
        plan, replaced = _replace(plan, shelf)
    rows: list[dict[str, object]] = []
    missing: dict[str, int] = {}
    seen: set[str] = set()
    for pick in plan.picks:
        for gene, symbol in zip(*_parts(pick), strict=True):
            if symbol in seen:
                continue
            seen.add(symbol)
            found = shelf.guides(gene, symbol, pick)
            if len(found) < per_gene:
                missing[gene] = len(found)
            for i, guide in enumerate(found[:per_gene], 1):
                rows.append(_row(f"{gene}_g{i}", pick, gene, symbol, guide, shelf))
    if not rows:
        raise InputError(
            f"{library.path} has no guide for any of the {len(plan.picks)} genes of the panel "
            f"({', '.join(plan.genes[:5])}); does it name genes by another id?"
        )
    rows += _controls(library, controls, shelf)
    return Choice(
        pd.DataFrame(rows), plan, missing, replaced, tuple(shelf.told(missing, controls, len(rows)))
    )


def _check_species(library: GuideLibrary, plan: Plan, knowledge: Knowledge | None) -> None:
    """Guides of another species do not cut a gene whose symbol differs in letter case only."""
    mine = knowledge.species if knowledge is not None and knowledge.path else ""
    mine = mine or species_named(plan.genes)
    theirs = species_named(library.table["gene"].unique())
    if mine and theirs and mine != theirs:
        raise InputError(
            f"{library.path} names {theirs} genes ({library.table['gene'].iloc[0]} ...), but the "
            f"panel is of {mine} genes: give a library for {mine}"
        )


def _parts(pick: PanelPick) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Genes of a pick as the panel and as the tables spell them, pair by pair."""
    names = tuple(split_combination(pick.gene))
    symbols = tuple(split_combination(pick.symbol or pick.gene))
    # Sorted apart, the two spellings of a combination may not pair up; symbols then stand for both.
    return (names, symbols) if len(names) == 1 else (symbols, symbols)


@dataclass(frozen=True)
class _Guide:
    row: int
    id: str
    a: str
    b: str
    also: str


class _Shelf:
    """The library by gene, with its rows checked when they are taken."""

    def __init__(
        self, library: GuideLibrary, plan: Plan, knowledge: Knowledge | None, skip_bad: bool
    ) -> None:
        self.library, self.skip_bad = library, skip_bad
        self.bad: Counter[str] = Counter()
        table = library.table
        names = list(table["gene"].unique())
        approved = {} if knowledge is None else knowledge.resolve(names).approved
        keys = table["gene"].map({n: approved.get(n, n).casefold() for n in names})
        self._by_gene: Mapping[str, pd.DataFrame] = dict(list(table.groupby(keys, sort=False)))
        numbered = table[table["entrez"] != ""]
        self._by_entrez: Mapping[str, pd.DataFrame] = dict(
            list(numbered.groupby("entrez", sort=False))
        )
        pair = table["sequence_a"] + "/" + table["sequence_b"]
        genes = pd.DataFrame({"pair": pair, "gene": keys, "name": table["gene"]})
        genes = genes.drop_duplicates(["pair", "gene"])
        shared = genes[genes["pair"].duplicated(keep=False) & (genes["pair"] != "/")]
        self._shared: Mapping[str, list[str]] = shared.groupby("pair")["name"].agg(list).to_dict()

    def rows(self, *keys: str) -> pd.DataFrame | None:
        for key in keys:
            if not key:
                continue
            found = self._by_gene.get(key.casefold())
            if found is None and key.isdigit():
                found = self._by_entrez.get(key)
            if found is not None:
                return found
        return None

    def guides(self, gene: str, symbol: str, pick: PanelPick | None) -> list[_Guide]:
        """Usable guides, those for one gene only first."""
        single = pick is not None and COMBINATION not in pick.gene
        ids = (pick.entrez, pick.ensembl) if pick is not None and single else ("", "")
        found = self.rows(gene, symbol, *ids)
        if found is None:
            return []
        guides = self.checked(found, gene)
        return sorted(guides, key=lambda g: bool(g.also))

    def checked(self, rows: pd.DataFrame, what: str) -> list[_Guide]:
        kept: list[_Guide] = []
        seen: dict[tuple[str, str], int] = {}
        for r in rows.itertuples(index=False):
            a, b = str(r.sequence_a), str(r.sequence_b)
            wrong = _unusable(a) or (self.library.dual and _unusable(b))
            if not wrong and (a, b) in seen:
                wrong = f"repeats row {seen[a, b]} ({a})"
            if wrong:
                if not self.skip_bad:
                    raise InputError(
                        f"{self.library.path}, row {r.row} ({what}): the guide {wrong}; mend the "
                        "library, or leave such guides out with --skip-bad-guides"
                    )
                self.bad[what] += 1
                continue
            seen[a, b] = int(r.row)
            others = [
                g
                for g in self._shared.get(f"{a}/{b}", ())
                if g.casefold() != str(r.gene).casefold()
            ]
            kept.append(_Guide(int(r.row), str(r.id), a, b, ", ".join(others[:3])))
        return kept

    def told(self, missing: Mapping[str, int], controls: int | None, n: int) -> list[str]:
        lines = []
        none = [g for g, k in missing.items() if not k]
        few = [f"{g} ({k})" for g, k in missing.items() if k]
        if none:
            lines.append(f"no guide in {self.library.path} for {', '.join(none)}")
        if few:
            lines.append(f"fewer guides than asked for: {', '.join(few)}")
        if self.bad:
            lines.append(
                f"{sum(self.bad.values())} unusable guides left out ({', '.join(self.bad)})"
            )
        have = len(self.library.controls)
        if controls is None and have < DEFAULT_CONTROLS:
            lines.append(f"the library has {have} non-targeting controls: all of them are taken")
        return lines


def _unusable(sequence: str) -> str:
    """What is wrong with a spacer, in words; "" when nothing is."""
    if not sequence:
        return "has no sequence"
    if not _SPACER.fullmatch(sequence):
        odd = next(c for c in sequence if c not in "ACGT")
        return f"{sequence[:40]!r} holds {odd!r}, which is none of A, C, G, T"
    if not LENGTHS[0] <= len(sequence) <= LENGTHS[1]:
        return (
            f"{sequence[:40]!r} has {len(sequence)} bases; a spacer has {LENGTHS[0]} to "
            f"{LENGTHS[1]}"
        )
    return ""


def _row(
    name: str, pick: PanelPick | None, gene: str, symbol: str, guide: _Guide, shelf: _Shelf
) -> dict[str, object]:
    both = guide.a + guide.b
    notes = []
    if guide.also:
        notes.append(f"also listed for {guide.also}")
    if "TTTT" in guide.a or "TTTT" in guide.b:
        notes.append("TTTT ends transcription by polymerase III")
    single = pick is not None and COMBINATION not in pick.gene
    return {
        "name": name,
        "pick": "" if pick is None else pick.gene,
        "gene": gene,
        "symbol": symbol,
        "ensembl": pick.ensembl if pick is not None and single else "",
        "entrez": pick.entrez if pick is not None and single else "",
        "kind": "control" if pick is None else "target",
        "library_id": guide.id or f"row {guide.row}",
        "sequence_a": guide.a,
        "sequence_b": guide.b,
        "gc": round((both.count("G") + both.count("C")) / len(both), 3),
        "notes": "; ".join(notes),
    }


def _controls(
    library: GuideLibrary, controls: int | None, shelf: _Shelf
) -> list[dict[str, object]]:
    """Rows of non-targeting elements, those with the plainest label first."""
    wanted = DEFAULT_CONTROLS if controls is None else controls
    if not wanted:
        return []
    # "negative_control" before "ONE_INTERGENIC_SITE", which cuts or binds somewhere.
    elsewhere = library.controls["gene"].str.contains(r"(?i)intergenic|non-?gene|safe")
    ordered = library.controls[~elsewhere], library.controls[elsewhere]
    found = shelf.checked(pd.concat(ordered), CONTROL_NAME)
    if controls is not None and len(found) < controls:
        raise InputError(
            f"{library.path} has {len(found)} non-targeting controls and --controls asks for "
            f"{controls}; give another number, or name their label with --library-control"
        )
    return [
        _row(f"{CONTROL_NAME}_{i}", None, CONTROL_NAME, "", g, shelf)
        for i, g in enumerate(found[:wanted], 1)
    ]


def _replace(plan: Plan, shelf: _Shelf) -> tuple[Plan, dict[str, str]]:
    """The plan with the next candidates that have guides in the place of picks without any."""
    without = [
        p
        for p in plan.picks
        if p.chosen_by.startswith("strategy")
        and not all(shelf.guides(g, s, p) for g, s in zip(*_parts(p), strict=True))
    ]
    if not without:
        return plan, {}
    table = plan.candidate_table
    free = table[(table["status"] != "picked") & table["utility"].notna()]
    free = free.sort_values("utility", ascending=False, kind="stable")
    swaps: dict[str, str] = {}
    for name, row in free.iterrows():
        if len(swaps) == len(without):
            break
        symbols = split_combination(str(row["symbol"]))
        if all(shelf.guides(s, s, None) for s in symbols):
            swaps[without[len(swaps)].gene] = str(name)
    if not swaps:
        return plan, {}
    why = f"no guide in {shelf.library.path}; the next by utility that has one"
    return amend(plan, replace=swaps, by=WHO, why=why), swaps
