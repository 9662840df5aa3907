"""Readers of public files: each turns one file into partial tables; `recognise` tells which."""

from __future__ import annotations

from pathlib import Path

from pertwise import parts
from pertwise._files import reading
from pertwise.errors import InputError
from pertwise.knowledge.build.readers._text import Parsed, head, split_header
from pertwise.knowledge.genes.species import TAXA, own_rows

__all__ = ["Parsed", "read_source", "recognise"]


def recognise(path: Path) -> str | None:
    """The kind of a source file (of `pertwise parts source`) from its content; None when unknown.

    The name decides only between tables whose columns are the same.
    """
    name = path.name.casefold()
    if path.suffix in (".npz", ".parquet", ".json", ".md", ".h5ad"):
        return None
    lines = head(path)
    if not lines:
        return None
    first = lines[0]
    if first.startswith("!gaf-version"):
        return "gaf"
    if first.startswith("format-version:"):
        return "obo"
    if ".gmt" in name:
        return "gmt"
    if ".gtf" in name:
        return "gtf"
    columns = set(split_header(first))
    return _by_columns({c.casefold() for c in columns}, name)


def _by_columns(columns: set[str], name: str) -> str | None:
    required: tuple[tuple[str, set[str]], ...] = (
        ("hgnc", {"hgnc_id", "symbol", "alias_symbol", "prev_symbol"}),
        ("mgi", {"mgi accession id", "marker symbol", "marker type"}),
        ("gene_info", {"tax_id", "geneid", "symbol", "synonyms"}),
        ("gene_summary", {"tax_id", "geneid", "summary"}),
        ("string_info", {"string_protein_id", "preferred_name"}),
        ("string_aliases", {"string_protein_id", "alias", "source"}),
        ("string_links", {"protein1", "protein2", "combined_score"}),
        ("alias", {"symbol", "approved"}),
        ("gene_text", {"symbol", "full_name"}),
        ("gene_go", {"symbol", "go"}),
        ("go_table", {"id", "name", "ns", "parents"}),
        ("positions", {"symbol", "chr", "start", "end", "strand"}),
        ("string", {"a", "b", "combined_score"}),
        ("omnipath", {"source_genesymbol", "target_genesymbol"}),
    )
    for kind, needed in required:
        if needed <= columns:
            return kind
    if columns == {"a", "b"} and "string" in name:
        return "string_ge800"
    if {"source", "target"} <= columns or {"tf", "target"} <= columns:
        for kind in ("collectri", "dorothea", "regulation", "omnipath"):
            if kind in name:
                return kind
        if "confidence" in columns:
            return "dorothea"
        if columns & {"weight", "mor"}:
            return "collectri"
        return "omnipath" if "sign" in columns else "regulation"
    return None


def read_source(
    kind: str,
    path: Path,
    string_min_score: int = 400,
    string_text_mining: bool = True,
    taxon: str = "9606",
) -> Parsed:
    """Read one source file of a known kind; rows of another species are left out and counted.

    Raises
    ------
    InputError
        When the file does not have the form of its kind (names the file and the row or column),
        or is of another species than `taxon`.
    """
    reader = parts.describe("source", kind).serve(
        min_score=string_min_score, text_mining=string_text_mining, taxon=taxon
    )
    with reading(path, f"a source of the kind {kind!r}"):
        parsed: Parsed = reader(path)
        parsed.tables, others, wrong = own_rows(parsed.tables, TAXA[taxon])
    if wrong:
        raise InputError(f"{path}: {wrong}, or leave the file out")
    if others:
        parsed.counts["other_species"] = others
    return parsed
