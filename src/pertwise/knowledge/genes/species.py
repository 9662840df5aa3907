"""Whose genes some names are: a folder is of one species, and what is of another must be noticed.

Identifiers tell the species for sure (Ensembl, STRING, Reactome, model-organism ids). Symbols do
not, but mouse and rat symbols are written with one capital (Trp53, Gata1) and human ones are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from pertwise._names import genes_of
from pertwise.errors import InputError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from pertwise.knowledge.store import Knowledge

HUMAN = "human"
#: Species that a folder can be of, their NCBI taxonomy ids and Linnaean names.
TAXA_BUILT = {HUMAN: ("9606", "Homo sapiens"), "mouse": ("10090", "Mus musculus")}
#: Ensembl's three letters (Reactome uses them too, but DRE, SSC, GGA) -> species.
_LETTERS = {
    "MUS": "mouse", "MMU": "mouse", "RNO": "rat", "DAR": "zebrafish", "DRE": "zebrafish",
    "SSC": "pig", "GAL": "chicken", "GGA": "chicken", "BTA": "cow", "CAF": "dog", "HSA": HUMAN,
}  # fmt: skip
#: NCBI taxonomy id -> species.
TAXA = {"9606": HUMAN, "10090": "mouse", "10116": "rat", "7955": "zebrafish"}
#: What an identifier of `_IDS` starts with: most names are symbols and are passed over quickly.
_ID = re.compile(r"ENS[A-Z]*\d|R-[A-Z]{3}-|\d{3,7}\.|MGI:|FBgn|CG\d|WBGene|Y[A-P][LR]\d|AT[1-5MC]G")
_IDS = (
    (re.compile(r"ENS([A-Z]{3})?[A-Z]?[GTP]\d{11}"), _LETTERS),
    (re.compile(r"R-([A-Z]{3})-\d+"), _LETTERS),
    (re.compile(r"(\d{3,7})\.\w"), TAXA),
    (re.compile(r"MGI:\d+"), "mouse"),
    (re.compile(r"(?:FBgn\d{7}|CG\d{4,5}$)"), "fruit fly"),
    (re.compile(r"WBGene\d{8}"), "worm"),
    (re.compile(r"Y[A-P][LR]\d{3}[WC](?:-[A-Z])?$"), "yeast"),
    (re.compile(r"AT[1-5MC]G\d{5}"), "thale cress"),
)
_RODENT = re.compile(r"([A-Z][a-z]+)[a-z0-9]*(?:-[a-z0-9]+)?$|([A-Z]\d+[a-z]+)\d*$")
_OPEN_FRAME = re.compile(r"C(?:\d{1,2}|X|Y)orf\d")
#: Fewer names than this say nothing by their letter case.
_LEAST = 2
#: Names looked at: enough to tell, and the same time for every file.
_MOST = 5000


def taxon_id(text: str) -> str:
    """The NCBI taxonomy id of "mouse", "10090" or "Mus musculus" (of a species of `TAXA_BUILT`).

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a species of which no folder can be built.
    """
    plain = text.strip().casefold().replace("_", " ")
    for species, (taxon, name) in TAXA_BUILT.items():
        if plain in (species, taxon, name.casefold()):
            return taxon
    listed = ", ".join(f"{s} ({t})" for s, (t, _) in TAXA_BUILT.items())
    raise unknown_name("taxon", text, TAXA_BUILT, f"(there are {listed})")


def species_of(name: str) -> str:
    """Species that an identifier states ("human", "mouse", "another species"), "" for a symbol."""
    for pattern, said in _IDS if _ID.match(name) else ():
        found = pattern.match(name)
        if found is None:
            continue
        if isinstance(said, str):
            return said
        letters = found.group(1)
        return HUMAN if letters is None else said.get(letters, "another species")
    return ""


def foreign(names: Iterable[str], own: str = HUMAN) -> tuple[str, tuple[str, ...]] | None:
    """Species and up to three examples where most of the names are not of the species `own`.

    Identifiers that state a species decide; without any, letter case does, when most names are
    written like symbols of the other species and differ by more than a number.
    """
    distinct = [n for n in islice(dict.fromkeys(names), _MOST) if n]
    told = [(n, s) for n in distinct if (s := species_of(n))]
    if told:
        others = [(n, s) for n, s in told if s != own]
        if 2 * len(others) > len(told) and 5 * len(told) > len(distinct):
            species = Counter(s for _, s in others).most_common(1)[0][0]
            return species, tuple(n for n, s in others if s == species)[:3]
    symbols = [n for n in distinct if n[:1].isalpha() and not _OPEN_FRAME.match(n)]
    spelt = {
        "mouse": {n: m[1] or m[2] for n in symbols if (m := _RODENT.match(n))},
        HUMAN: {n: n.rstrip("0123456789") for n in symbols if n.isupper() and n[1:2].isalnum()},
    }
    for species, stems in spelt.items():
        several = len(set(stems.values())) >= max(_LEAST, len(stems) // 10)
        # Words and names of drugs begin with one capital, too; but most symbols end in a number.
        several &= 3 * sum(any(c.isdigit() for c in n) for n in stems) >= len(stems)
        if several and species != own and 2 * len(stems) > len(symbols):
            return species, tuple(stems)[:3]
    return None


def species_named(names: Iterable[str]) -> str:
    """The species that most of the names are written as genes of, "" where they do not tell."""
    return (foreign(names, "") or ("", ()))[0]


def own_rows(
    tables: Mapping[str, pd.DataFrame], own: str
) -> tuple[dict[str, pd.DataFrame], int, str]:
    """Tables without the rows that state another species, their number, and what is wrong.

    What is wrong is a sentence ("" = nothing) where no row is left of a table, or the symbols that
    are left look like those of another species.
    """
    kept: dict[str, pd.DataFrame] = {}
    dropped, wrong = 0, ""
    for title, table in tables.items():
        names = {
            c: [str(n) for n in table[c].unique()]
            for c in _COLUMNS
            if c in table and (title != "symbols" or c == "approved")
        }
        stated = {n: s for part in names.values() for n in part if (s := species_of(n))}
        others = {n for n, s in stated.items() if s != own}
        kept[title] = table
        if others:
            bad = table[list(names)].isin(others).any(axis=1)
            dropped += int(bad.sum())
            kept[title] = table[~bad]
            if bad.all():
                wrong = wrong or species_note(sorted(others), own)
        for column in _SYMBOLS:
            if column in names:
                left = (n for n in names[column] if n not in others)
                wrong = wrong or species_note(left, own)
    return kept, dropped, wrong


#: Columns of parsed tables that hold symbols or identifiers.
_SYMBOLS = ("approved", "symbol", "a", "b")
_COLUMNS = (*_SYMBOLS, "ensembl", "string_id", "name")


def species_told(knowledge: Knowledge | None, *groups: Iterable[str]) -> str:
    """What a question calls the cells: by the first group of names that tells, else the folder."""
    named = next(filter(None, map(species_named, groups)), "")
    return named or (HUMAN if knowledge is None else knowledge.species)


def same_species(title: str, names: Iterable[str], knowledge: Knowledge) -> list[str]:
    """A note where perturbations look like genes of another species than the folder's.

    Letter case apart, many genes of man and mouse have one symbol; the note says how many do.

    Raises
    ------
    pertwise.errors.InputError
        When the folder knows fewer than half of them: what it says would be of a few genes.
    """
    drugs: Container[str] = () if knowledge.drugs is None else knowledge.drugs
    genes = genes_of(n for n in names if n not in drugs)
    note = species_note(genes, knowledge.species) if knowledge.path else ""
    if not note:
        return []
    found = len(knowledge.resolve(genes).approved)
    told = f"{title}: {note}; {found} of {len(genes)} are found in it, letter case apart"
    if 2 * found < len(genes):
        raise InputError(f"{told}. Or go on without the folder")
    return [told]


def species_note(names: Iterable[str], own: str = HUMAN) -> str:
    """One sentence where names look like those of another species than `own`, else ""."""
    found = foreign(names, own)
    if found is None:
        return ""
    species, examples = found
    built = f"pertwise knowledge build SOURCES --taxon {species}"
    other = f"give a folder of {species} genes ({built})" if species in TAXA_BUILT else ""
    return (
        f"the names look like {species} genes ({', '.join(examples)}), but the knowledge is of "
        f"{own} genes: {other}{', or ' if other else ''}map the names to {own} orthologues first"
    )
