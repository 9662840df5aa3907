"""Reading what a person gives: gene lists, pathways, feature patterns."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pertwise.errors import InputError, UnknownNameError, suggest, unknown_name
from pertwise.knowledge import Knowledge, Pathway
from pertwise.screen import Screen

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
        return _gene_column(pd.read_parquet(file), file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"{file} is not text: give one gene a line, or a csv, tsv or parquet table"
        ) from None
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{file} holds no gene")
    separator = "\t" if "\t" in lines[0] else "," if "," in lines[0] else None
    if separator is not None and len(lines) > 1:
        table = pd.DataFrame(
            [line.split(separator) for line in lines[1:]],
            columns=None,
        )
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
    return lines


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


def read_gmt(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Gene sets of a GMT file (name, description, genes; tab-separated)."""
    file = Path(path)
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 3:
            raise InputError(
                f"{file}, line {number}: a GMT line has a name, a description and at least one "
                f"gene, separated by tabs; found {len(fields)} fields"
            )
        sets[fields[0].strip()] = [g.strip() for g in fields[2:] if g.strip()]
    if not sets:
        raise InputError(f"{file} holds no gene set")
    return sets


def open_pathway(
    knowledge: Knowledge, pathway: Pathway | str | Sequence[str] | None
) -> Pathway | None:
    """The target pathway from whatever form it was given in.

    A `Pathway`; a name in the knowledge folder; a GMT file ("sets.gmt" with one set, or
    "sets.gmt:NAME"); a file with a gene list; genes as a sequence or comma-separated text; None
    or "none" = whole response.

    Raises
    ------
    pertwise.errors.InputError
        Misspelt name (the nearest are suggested), a GMT with several sets and no name, no known
        gene in the list.
    """
    if pathway is None or isinstance(pathway, Pathway):
        return pathway
    if not isinstance(pathway, str):
        return _from_genes(knowledge, "gene list", list(pathway))
    text = pathway.strip()
    if text.casefold() in ("", "none"):
        return None
    file_name, _, set_name = text.partition(".gmt:")
    if set_name or text.endswith(".gmt"):
        file = Path(file_name + ".gmt" if set_name else text)
        if not file.is_file():
            raise InputError(f"no such GMT file: {file}")
        sets = read_gmt(file)
        if not set_name:
            if len(sets) > 1:
                raise InputError(
                    f"{file} holds {len(sets)} gene sets: choose one as {file}:NAME "
                    f"(e.g. {file}:{next(iter(sets))})"
                )
            set_name = next(iter(sets))
        if set_name not in sets:
            raise unknown_name(f"gene set in {file}", set_name, sets)
        return _from_genes(knowledge, set_name, sets[set_name])
    if Path(text).is_file():
        return _from_genes(knowledge, Path(text).stem, read_gene_list(text))
    if "," in text:
        genes = [g.strip() for g in text.split(",") if g.strip()]
        return _from_genes(knowledge, "gene list", genes)
    return knowledge.pathway(text)


def _from_genes(knowledge: Knowledge, name: str, genes: list[str]) -> Pathway:
    if not knowledge.resolve(genes).approved:
        raise InputError(
            f"none of the {len(genes)} genes of {name!r} (e.g. {genes[0]!r}) is known to the "
            "knowledge folder; are they human gene symbols?"
        )
    return knowledge.pathway_from_genes(name, genes)


def match_features(screen: Screen, patterns: Sequence[str]) -> tuple[str, ...] | None:
    """Features named exactly or by a glob ('*erythroid*', case-insensitive); None = all.

    Raises
    ------
    pertwise.errors.UnknownNameError
        When a pattern matches nothing; the nearest features are suggested.
    """
    if not patterns:
        return None
    wanted: dict[str, None] = {}
    for pattern in patterns:
        if pattern in screen.features:
            wanted[pattern] = None
            continue
        hits = [f for f in screen.features if fnmatch.fnmatchcase(f.casefold(), pattern.casefold())]
        if not hits:
            raise _unknown_feature(pattern, screen.features)
        wanted.update(dict.fromkeys(hits))
    return tuple(f for f in screen.features if f in wanted)


def _unknown_feature(pattern: str, known: Sequence[str]) -> UnknownNameError:
    """Suggests features that hold a word like the pattern: their full names are long."""
    words: dict[str, list[str]] = {}
    for feature in known:
        for word in re.split(r"[^A-Za-z0-9]+", feature):
            words.setdefault(word.casefold(), []).append(feature)
    near = suggest(pattern, known) or tuple(
        dict.fromkeys(f for w in suggest(pattern.strip("*?"), words) for f in words[w])
    )
    message = f"unknown target feature {pattern!r}"
    if near:
        message += f"; did you mean {', '.join(map(repr, near[:3]))}?"
    message += f" (the screen has {len(known)}, e.g. {', '.join(map(repr, known[:3]))}; globs work)"
    return UnknownNameError(message, tuple(near[:3]))


def one_context(screen: Screen, context: str | None) -> Screen:
    """The rows of one context, one dose.

    Raises
    ------
    pertwise.errors.InputError
        Several contexts and none chosen, an unknown one, or several doses of one perturbation.
    """
    if context is None:
        if len(screen.contexts) > 1:
            raise InputError(
                f"the screen has {len(screen.contexts)} contexts "
                f"({', '.join(map(repr, screen.contexts[:6]))}): choose one with --context"
            )
    else:
        screen = screen.in_context(context)
    repeated = screen.obs["perturbation"].duplicated()
    if repeated.any():
        name = screen.obs["perturbation"][repeated].iloc[0]
        doses = sorted(set(screen.obs["dose"][screen.obs["perturbation"] == name]))
        raise InputError(
            f"perturbation {name!r} was measured at several doses ({doses[:5]}): a panel needs one "
            "row a perturbation; give a screen with one dose"
        )
    return screen
