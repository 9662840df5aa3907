"""Finding gene sets by name and reading a user's own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pertwise._files import read_parquet, read_text
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge.build.readers.terms import pretty, read_gmt
from pertwise.knowledge.types import Pathway

if TYPE_CHECKING:
    from pertwise.knowledge.store import Knowledge

_RANK = {"curated": 0, "hallmark": 1, "user": 2, "reactome": 9}


def key(text: str) -> str:
    """The form in which names are compared: no collection prefix, case or punctuation."""
    return re.sub(r"[^a-z0-9]+", " ", pretty(text.replace(" ", "_")).casefold()).strip()


def name_index(sets: pd.DataFrame) -> dict[str, str]:
    """Every spelling (name, title; see `key`) -> set name; Hallmark wins over Reactome."""
    order = sets["collection"].map(lambda c: _RANK.get(c, 5))
    table = sets.assign(_rank=order).sort_values(["_rank", "name"], kind="stable")
    index: dict[str, str] = {}
    for column in ("name", "title"):
        for spelling, name in zip(table[column], table["name"], strict=True):
            index.setdefault(key(spelling), name)
    return index


def find(text: str, index: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """The set a text means.

    Raises
    ------
    UnknownNameError
        With the nearest names: those that hold its words first, then by spelling.
    """
    wanted = text.strip()
    if wanted in titles:
        return wanted
    hit = index.get(key(wanted))
    if hit is not None:
        return hit
    words = key(wanted)
    near = [k for k in index if words and f" {words} " in f" {k} "]
    near.sort(
        key=lambda k: (_RANK.get("reactome" if index[k].startswith("R-") else "user", 5), len(k))
    )
    near += difflib.get_close_matches(words, list(index), n=3, cutoff=0.6)
    found = tuple(dict.fromkeys(index[k] for k in near))[:3]
    message = f"unknown pathway {text!r}"
    if found:
        shown = (f"{n!r} ({titles[n]})" if n.startswith("R-") else repr(n) for n in found)
        message += f"; did you mean {', '.join(shown)}?"
    message += " A .gmt file, a file with one gene a line, or genes separated by commas work too."
    raise UnknownNameError(message, found)


#: Headers that mark the gene column of a table, in this order.
GENE_COLUMNS = ("gene", "symbol", "gene_symbol", "candidate", "perturbation", "target", "name")


def read_gene_list(path: str | os.PathLike[str]) -> list[str]:
    """Genes from a text file (one a line, # comments) or a csv/tsv/parquet table.

    A table needs a column of `GENE_COLUMNS`, or exactly one column (then its header counts as
    a gene unless it is one of those words).

    Raises
    ------
    pertwise.errors.InputError
        Missing, empty or binary file; table without a gene column.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such gene list: {file}")
    if file.suffix == ".parquet":
        return _gene_column(read_parquet(file, "a gene list"), file)
    text = read_text(file, "a gene list (one gene a line, or a csv, tsv or parquet table)")
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{file} holds no gene")
    separator = "\t" if "\t" in lines[0] else "," if "," in lines[0] else None
    if separator is not None and len(lines) > 1:
        table = pd.DataFrame([line.split(separator) for line in lines[1:]])
        header = [h.strip().strip('"') for h in lines[0].split(separator)]
        if table.shape[1] != len(header):
            raise InputError(
                f"{file}: the header has {len(header)} columns, a row has {table.shape[1]}"
            )
        table.columns = pd.Index(header)
        return _gene_column(table, file)
    if separator is not None:
        return [g.strip() for g in lines[0].split(separator) if g.strip()]
    if lines[0].casefold() in GENE_COLUMNS:
        lines = lines[1:]
    # Notes behind a gene in some lines do not make a table.
    return [re.split(r"[\t,;]", line, maxsplit=1)[0].strip().strip('"') for line in lines]


def _gene_column(table: pd.DataFrame, file: Path) -> list[str]:
    by_fold = {str(c).casefold(): c for c in table.columns}
    found = next((by_fold[c] for c in GENE_COLUMNS if c in by_fold), None)
    if found is None:
        raise InputError(
            f"{file} has no gene column: found {[str(c) for c in table.columns][:8]}, expected one "
            f"of {list(GENE_COLUMNS)}"
        )
    values = table[found].dropna().astype(str).str.strip().str.strip('"')
    genes = [v for v in values if v]
    if not genes:
        raise InputError(f"{file}: the column {found!r} holds no gene")
    return genes


def load_pathway(knowledge: Knowledge, text: str) -> Pathway:
    """A pathway from what a user typed.

    Parameters
    ----------
    text
        A set name ("heme metabolism", "HALLMARK_HEME_METABOLISM", "R-HSA-189451", "GO:0006783"),
        `file.gmt` or `file.gmt:SET`, a file with one gene a line, or genes separated by commas.

    Raises
    ------
    InputError
        When a file is missing, a gmt holds several sets and none is named, or no gene is known.
    """
    stripped = text.strip()
    gmt = re.match(r"^(?P<path>.+\.gmt(?:\.gz)?)(?::(?P<set>.+))?$", stripped, re.IGNORECASE)
    if gmt:
        return _from_gmt(knowledge, Path(gmt["path"]), gmt["set"])
    path = Path(stripped)
    if path.is_file():
        return knowledge.pathway_from_genes(path.name.split(".")[0], read_gene_list(path))
    if os.sep in stripped and "," not in stripped and not _is_name(knowledge, stripped):
        raise InputError(f"{stripped}: no such file")
    if path.suffix.casefold() in (".txt", ".tsv", ".csv", ".list"):
        raise InputError(f"{stripped}: no such file")
    if "," in stripped and not _is_name(knowledge, stripped):
        genes = [g.strip() for g in stripped.split(",") if g.strip()]
        return knowledge.pathway_from_genes("user genes", genes)
    return knowledge.pathway(stripped)


def _is_name(knowledge: Knowledge, text: str) -> bool:
    try:
        knowledge.pathway(text)
    except InputError:
        return False
    return True


def _from_gmt(knowledge: Knowledge, path: Path, wanted: str | None) -> Pathway:
    parsed = read_gmt(path)
    sets, members = parsed.tables["gene_sets"], parsed.tables["gene_set_members"]
    names = sets["name"].tolist()
    titles = dict(zip(sets["name"], sets["title"], strict=True))
    if wanted is None:
        if len(names) > 1:
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise InputError(
                f"{path} holds {len(names)} sets ({shown}): choose one with {path}:SET"
            )
        name = names[0]
    else:
        name = find(wanted, name_index(sets), titles)
    return knowledge.pathway_from_genes(name, members["symbol"][members["name"] == name].tolist())
