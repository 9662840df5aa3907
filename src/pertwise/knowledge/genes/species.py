"""Whose genes some names are: knowledge here is of human genes, and what is not must be noticed.

Identifiers tell the species for sure (Ensembl, STRING, Reactome, model-organism ids). Symbols do
not, but mouse and rat symbols are written with one capital (Trp53, Gata1) and human ones are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from pertwise.knowledge.store import Knowledge

HUMAN = "human"
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


def foreign(names: Iterable[str]) -> tuple[str, tuple[str, ...]] | None:
    """Species and up to three examples where most of the names are not human, else None.

    Identifiers that state a species decide; without any, letter case does, when most names are
    written like mouse symbols and differ by more than a number.
    """
    distinct = [n for n in islice(dict.fromkeys(names), _MOST) if n]
    told = [(n, s) for n in distinct if (s := species_of(n))]
    if told:
        others = [(n, s) for n, s in told if s != HUMAN]
        if 2 * len(others) > len(told) and 5 * len(told) > len(distinct):
            species = Counter(s for _, s in others).most_common(1)[0][0]
            return species, tuple(n for n, s in others if s == species)[:3]
    symbols = [n for n in distinct if n[:1].isalpha() and not _OPEN_FRAME.match(n)]
    rodent = {n: m[1] or m[2] for n in symbols if (m := _RODENT.match(n))}
    several = len(set(rodent.values())) >= max(_LEAST, len(rodent) // 10)
    # Words and names of drugs begin with one capital, too; but most symbols end in a number.
    several &= 3 * sum(any(c.isdigit() for c in n) for n in rodent) >= len(rodent)
    if several and 2 * len(rodent) > len(symbols):
        return "mouse", tuple(rodent)[:3]
    return None


def human_rows(tables: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], int, str]:
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
        others = {n for n, s in stated.items() if s != HUMAN}
        kept[title] = table
        if others:
            bad = table[list(names)].isin(others).any(axis=1)
            dropped += int(bad.sum())
            kept[title] = table[~bad]
            if bad.all():
                wrong = wrong or species_note(sorted(others))
        for column in _SYMBOLS:
            if column in names:
                wrong = wrong or species_note(n for n in names[column] if n not in others)
    return kept, dropped, wrong


#: Columns of parsed tables that hold symbols or identifiers.
_SYMBOLS = ("approved", "symbol", "a", "b")
_COLUMNS = (*_SYMBOLS, "ensembl", "string_id", "name")


def species_notes(groups: Mapping[str, Sequence[str]], knowledge: Knowledge) -> list[str]:
    """A note for each group of names (title -> names) that looks like another species' genes."""
    drugs: Container[str] = () if knowledge.drugs is None else knowledge.drugs
    genes = {title: [n for n in names if n not in drugs] for title, names in groups.items()}
    return [f"{title}: {note}" for title, names in genes.items() if (note := species_note(names))]


def species_note(names: Iterable[str]) -> str:
    """One sentence where names look like those of another species, else ""."""
    found = foreign(names)
    if found is None:
        return ""
    species, examples = found
    return (
        f"the names look like {species} genes ({', '.join(examples)}), but the knowledge is of "
        "human genes: give human symbols or ids (map them to human orthologues first)"
    )
