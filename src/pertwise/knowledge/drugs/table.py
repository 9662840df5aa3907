"""What is known about drugs: names, structures, targets, mechanism, approval."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._names import canonical_perturbation
from pertwise._shown import Shown
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError, UnknownNameError, unknown_name
from pertwise.knowledge.drugs.chemistry import Structure, structure, structures
from pertwise.knowledge.types import Resolution

#: Field -> column names under which public tables hold it (Tahoe-100M drug metadata, the Open
#: Problems 2023 table, the Broad repurposing hub, ...). The first present one is used.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "name": ("drug", "sm_name", "pert_iname", "name", "compound"),
    "smiles": ("smiles", "SMILES", "canonical_smiles"),
    "targets": ("targets", "target"),
    "mechanism": ("moa_fine", "moa-fine", "moa", "mechanism"),
    "mechanism_broad": ("moa_broad", "moa-broad"),
    "approved": ("human-approved", "approved", "clinical_phase"),
    "synonyms": ("synonyms", "aliases", "sm_lincs_id", "broad_id"),
}
#: Labels that say nothing: drugs that share them share no mechanism.
UNKNOWN_LABELS = frozenset({"", "unknown", "unclear", "none", "nan", "n/a", "na", "other"})
_SALTS = """acetate adipate besylate benzoate bitartrate bromide calcium carbonate chloride citrate
    diacetate dihydrate dihydrochloride dimaleate dimesylate dimethanesulfonate diphosphate
    disodium disulfate ditosylate edisylate esylate formate fumarate gluconate glucuronate
    hemifumarate hemihydrate hemisulfate hcl hydrate hydrobromide hydrochloride hydroiodide iodide
    isethionate lactate lysine magnesium malate maleate mesylate methanesulfonate methylsulfate
    monohydrate monohydrochloride mucate napsylate nitrate oxalate palmitate pamoate phosphate
    potassium propanediol quarterhydrate salt sodium solvate dmso dmso_tf stearate succinate sulfate
    sulphate tartrate tfa tosylate trifluoroacetate trihydrate trihydrochloride trometamol
    tromethamine zinc"""
#: Words that name a salt, a solvate or a preparation, not another compound.
SALT_WORDS = frozenset(_SALTS.split())
#: A rotation sign, "(+)" or "(-)", wherever it stands; spelt out in names of some tables.
_ROTATION = re.compile(r"\((\+|-|−|–|±|\+/-|\+/−|\+\|-|plus|minus)\)", re.IGNORECASE)
_ROTATIONS = {"+": "plus", "plus": "plus", "-": "minus", "−": "minus", "–": "minus"}
_PARENTHESES = re.compile(r"\s*\(((?:[^()]|\([^()]*\))*)\)\s*$")
_GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ω": "omega"})


@dataclass(frozen=True)
class DrugCard:
    """One drug as a table names it.

    Attributes
    ----------
    structure
        None when there is no SMILES or RDKit rejects it; `problem` then says which.
    targets
        Gene symbols as given (resolve them with `Knowledge.resolve`).
    mechanism, mechanism_broad
        "" where unknown or unclear.
    approved
        True, False, or None when the table does not say.
    """

    name: str
    smiles: str = ""
    structure: Structure | None = None
    targets: tuple[str, ...] = ()
    mechanism: str = ""
    mechanism_broad: str = ""
    approved: bool | None = None
    synonyms: tuple[str, ...] = ()
    problem: str = ""

    @property
    def compound(self) -> str:
        """Identity of the parent compound; without a structure, the name without its salt."""
        return self.structure.compound if self.structure else "name:" + name_key(self.name)

    @property
    def scaffold(self) -> str:
        """Murcko scaffold; a compound without rings (or structure) is a scaffold of its own."""
        known = self.structure.scaffold if self.structure else ""
        return known or self.compound


def fold_name(name: str) -> str:
    """Case, Greek letters, blanks and punctuation folded away: "BX 912" and "bx-912" agree.

    The sign of an enantiomer is kept, wherever it stands: "(+)-JQ1" and "JQ1 (+)" agree, "(-)-JQ1"
    is another.
    """
    text = str(name).casefold()
    signs = [_ROTATIONS.get(s.casefold(), "rac") for s in _ROTATION.findall(text)]
    plain = re.sub(r"[^a-z0-9]+", "", _ROTATION.sub(" ", text).translate(_GREEK))
    return plain + "".join(signs)


def _is_salt(text: str) -> bool:
    words = [w for w in re.split(r"[\s,;\-]+", text.casefold()) if w]
    return bool(words) and all(w in SALT_WORDS or re.fullmatch(r"\(?\d*[rs]?\)?", w) for w in words)


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """The name without salt, and other names given in parentheses.

    "Neratinib (maleate)" -> ("Neratinib", ()); "ABT-199 (GDC-0199)" -> ("ABT-199", ("GDC-0199",));
    "Riluzole hydrochloride" -> ("Riluzole", ()).
    """
    base, others = name.strip(), []
    if _ROTATION.search(base):
        base = " ".join(w for part in _ROTATION.sub(" ", base).split() if (w := part.strip("-")))
    while match := _PARENTHESES.search(base):
        inner = match.group(1).strip()
        if match.start() == 0:
            break
        if not _is_salt(inner):
            others.append(inner)
        base = base[: match.start()].strip()
    words = base.split()
    while len(words) > 1 and words[-1].casefold() in SALT_WORDS:
        words.pop()
    if len(words) > 1 and words[0].casefold() in {"sodium", "potassium", "calcium"}:
        words.pop(0)
    return " ".join(words) or name.strip(), tuple(others)


def name_key(name: str) -> str:
    """`fold_name` of the name without its salt."""
    return fold_name(split_name(name)[0])


@dataclass(frozen=True, repr=False)
class DrugTable(Shown):
    """Cards by name, with names resolved through synonyms, salts and spelling.

    Attributes
    ----------
    cards
        Canonical name -> card, in the order of the tables.
    sources
        Where the rows came from.
    """

    cards: Mapping[str, DrugCard]
    sources: tuple[str, ...] = ()
    _exact: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    _loose: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_cards(cls, cards: Iterable[DrugCard], sources: Sequence[str] = ()) -> DrugTable:
        """Index the cards. A second card of the same name only fills what the first left empty.

        Names of one parent compound (salts, hydrates; not stereoisomers) share targets, mechanism
        and approval where one of them lacks them.
        """
        table: dict[str, DrugCard] = {}
        for card in cards:
            old = table.get(card.name)
            table[card.name] = card if old is None else _merge(old, card)
        table = _share_within_compound(table)
        exact: dict[str, set[str]] = {}
        loose: dict[str, set[str]] = {}
        for name, card in table.items():
            base, others = split_name(name)
            exact.setdefault(fold_name(name), set()).add(name)
            for alias in (base, *others, *card.synonyms):
                if fold_name(alias):
                    loose.setdefault(fold_name(alias), set()).add(name)
        return cls(
            cards=table,
            sources=tuple(sources),
            _exact={k: tuple(sorted(v)) for k, v in exact.items()},
            _loose={k: tuple(sorted(v)) for k, v in loose.items()},
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, source: str = "") -> DrugTable:
        """Read a table with any of `COLUMNS`; rows that repeat a drug are merged.

        Raises
        ------
        pertwise.errors.InputError
            If no column holds names.
        """
        found = {f: next((c for c in names if c in frame), None) for f, names in COLUMNS.items()}
        if found["name"] is None:
            raise InputError(
                f"{source or 'drug table'}: no column of drug names (one of {COLUMNS['name']}); "
                f"there are {columns_of(frame)}"
            )
        columns = {f: c for f, c in found.items() if c is not None}
        small = frame[list(columns.values())].drop_duplicates()
        rows = [
            {f: row[c] for f, c in columns.items()}
            for row in small.to_dict("records")
            if isinstance(row[columns["name"]], str) and row[columns["name"]].strip()
        ]
        known = structures(filter(None, (_text(row.get("smiles")) for row in rows)))
        cards = [_card(row, known) for row in rows]
        return cls.from_cards(cards, (source,) if source else ())

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> DrugTable:
        """Read parquet, csv or tsv tables; earlier tables win where two say something."""
        tables = []
        for path in paths:
            file = Path(path)
            tables.append(cls.from_frame(read_frame(file), file.name))
        return cls.merged(*tables)

    @classmethod
    def merged(cls, *tables: DrugTable) -> DrugTable:
        """One table of several; earlier ones win."""
        cards = [card for table in tables for card in table.cards.values()]
        return cls.from_cards(cards, [s for t in tables for s in t.sources])

    def __len__(self) -> int:
        return len(self.cards)

    def __contains__(self, name: object) -> bool:
        return name in self.cards

    @property
    def problems(self) -> dict[str, str]:
        """name -> why there is no structure; these drugs keep their name, targets and labels."""
        return {n: c.problem for n, c in self.cards.items() if c.problem}

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Any spelling -> canonical name: exact, then folded, then without salt or by synonym.

        A spelling that fits several names of one compound goes to the first of them; one that
        fits several compounds is ambiguous.
        """
        approved: dict[str, str] = {}
        unknown: list[str] = []
        ambiguous: dict[str, tuple[str, ...]] = {}
        for name in names:
            hits = self._hits(name)
            if len({self.cards[h].compound for h in hits}) == 1:
                approved[name] = hits[0]
            elif hits:
                ambiguous[name] = hits
            else:
                unknown.append(name)
        return Resolution(approved=approved, unknown=tuple(unknown), ambiguous=ambiguous)

    def _hits(self, name: str) -> tuple[str, ...]:
        if name in self.cards:
            return (name,)
        base, others = split_name(name)
        for index, key in (
            (self._exact, fold_name(name)),
            (self._loose, fold_name(name)),
            (self._exact, fold_name(base)),
            (self._loose, fold_name(base)),
            *((i, fold_name(o)) for o in others for i in (self._exact, self._loose)),
        ):
            if key and key in index:
                return index[key]
        return ()

    def card(self, name: str) -> DrugCard:
        """The card of a drug, by any spelling.

        Raises
        ------
        pertwise.errors.UnknownNameError
            With the nearest names; for an ambiguous spelling, with all it could mean.
        """
        resolution = self.resolve([name])
        if name in resolution.approved:
            return self.cards[resolution.approved[name]]
        if name in resolution.ambiguous:
            choices = resolution.ambiguous[name]
            raise UnknownNameError(
                f"drug {name!r} could mean {', '.join(map(repr, choices))}; name one", choices
            )
        raise unknown_name("drug", name, self.cards)

    def identify(self, name_or_smiles: str) -> tuple[DrugCard, str]:
        """A card for a name or a SMILES, and how it was found.

        A SMILES of a compound in the table (also as another salt or stereoisomer) gives that
        card; of another compound a new card named by its canonical SMILES.

        Raises
        ------
        pertwise.errors.UnknownNameError
            When it is no known name and RDKit does not read it as SMILES either (both said).
        """
        resolution = self.resolve([name_or_smiles])
        if name_or_smiles in resolution.approved or name_or_smiles in resolution.ambiguous:
            card = self.card(name_or_smiles)
            return card, "name" if card.name == name_or_smiles else f"resolved to {card.name!r}"
        try:
            found = structure(name_or_smiles)
        except InputError as error:
            wrong = unknown_name("drug", name_or_smiles, self.cards)
            raise UnknownNameError(
                f"{wrong} Nor is it a SMILES: {error}", wrong.suggestions
            ) from error
        same = [c for c in self.cards.values() if c.structure and c.compound == found.compound]
        exact = [c for c in same if c.structure and c.structure.inchikey == found.inchikey]
        if same:
            card = (exact or same)[0]
            how = "same structure" if exact else "same parent compound (salt or stereoisomer)"
            return card, f"{how} as {card.name!r}"
        return DrugCard(name=found.smiles, smiles=name_or_smiles, structure=found), "new SMILES"

    def with_card(self, card: DrugCard) -> DrugTable:
        """A table that also holds this card."""
        return DrugTable.from_cards([*self.cards.values(), card], self.sources)

    def find(self, name: str) -> DrugCard | None:
        """The card of a drug by any spelling; None when it is unknown or ambiguous."""
        return self.cards.get(self.resolve([name]).approved.get(name, name))

    def spelt(self, names: Sequence[str]) -> DrugTable:
        """A table that also holds its cards under these spellings, as a screen has them."""
        found = [replace(c, name=n) for n in names if n not in self.cards and (c := self.find(n))]
        return DrugTable.from_cards([*self.cards.values(), *found], self.sources) if found else self

    def compounds(self, names: Sequence[str]) -> dict[str, str]:
        """name -> parent compound, by any spelling; a drug in no table is one of its own."""
        return {n: (self.find(n) or DrugCard(n)).compound for n in names}

    def duplicates(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """Groups of names that are one compound (salts, hydrates, stereoisomers)."""
        groups: dict[str, list[str]] = {}
        for name, compound in self.compounds(sorted(set(names))).items():
            groups.setdefault(compound, []).append(name)
        return sorted(tuple(g) for g in groups.values() if len(g) > 1)


def _share_within_compound(table: Mapping[str, DrugCard]) -> dict[str, DrugCard]:
    groups: dict[str, list[DrugCard]] = {}
    for card in table.values():
        if card.structure is not None and card.structure.stereo_parent:
            groups.setdefault(card.structure.stereo_parent, []).append(card)
    out = dict(table)
    for cards in groups.values():
        for card in cards if len(cards) > 1 else ():
            for other in cards:
                # Synonyms stay apart: they say which salt is meant.
                out[card.name] = _merge(out[card.name], replace(other, synonyms=()))
    return out


def _merge(first: DrugCard, second: DrugCard) -> DrugCard:
    """`first`, completed from `second`; a structure that parses beats one that does not."""
    if first.structure is None and second.structure is not None:
        first = replace(first, smiles=second.smiles, structure=second.structure, problem="")
    return replace(
        first,
        targets=first.targets or second.targets,
        mechanism=first.mechanism or second.mechanism,
        mechanism_broad=first.mechanism_broad or second.mechanism_broad,
        approved=second.approved if first.approved is None else first.approved,
        synonyms=tuple(dict.fromkeys([*first.synonyms, *second.synonyms])),
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _label(value: Any) -> str:
    text = _text(value)
    return "" if text.casefold() in UNKNOWN_LABELS else text


def _listed(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(str(v) for v in value)
    return tuple(p.strip() for p in re.split(r"[|;,]", _text(value)) if _label(p))


def _approved(value: Any) -> bool | None:
    text = _text(value).casefold()
    if text in {"yes", "true", "launched", "approved"}:
        return True
    return False if text in {"no", "false", "preclinical", "investigational"} else None


def _card(row: Mapping[str, Any], known: Mapping[str, Structure | str]) -> DrugCard:
    smiles = _text(row.get("smiles"))
    found = known.get(smiles, "no SMILES in the table")
    parsed, problem = (None, found) if isinstance(found, str) else (found, "")
    return DrugCard(
        name=canonical_perturbation(_text(row["name"])),
        smiles=smiles,
        structure=parsed,
        targets=_listed(row.get("targets")),
        mechanism=_label(row.get("mechanism")),
        mechanism_broad=_label(row.get("mechanism_broad")),
        approved=_approved(row.get("approved")),
        synonyms=_listed(row.get("synonyms")),
        problem=problem,
    )
