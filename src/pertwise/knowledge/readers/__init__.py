"""Readers of public files: each turns one file into partial tables; `recognise` tells which."""

from __future__ import annotations

from pathlib import Path

from pertwise.errors import InputError
from pertwise.knowledge.layout import KINDS
from pertwise.knowledge.readers import genes, networks, terms
from pertwise.knowledge.readers._text import Parsed, head, split_header
from pertwise.knowledge.species import human_rows

__all__ = ["Parsed", "read_source", "recognise"]


def recognise(path: Path) -> str | None:
    """The kind of a source file (key of `layout.KINDS`) from its content; None when unknown.

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
    kind: str, path: Path, string_min_score: int = 400, string_text_mining: bool = True
) -> Parsed:
    """Read one source file of a known kind; rows of another species are left out and counted.

    Raises
    ------
    InputError
        When the file does not have the form of its kind (names the file and the row or column),
        or is of another species than human.
    """
    parsed = _read(kind, path, string_min_score, string_text_mining)
    parsed.tables, others, wrong = human_rows(parsed.tables)
    if wrong:
        raise InputError(f"{path}: {wrong}, or leave the file out")
    if others:
        parsed.counts["other_species"] = others
    return parsed


def _read(kind: str, path: Path, string_min_score: int, string_text_mining: bool) -> Parsed:
    if kind.startswith("graph:"):
        return networks.read_graph(path, kind.split(":", 1)[1])
    if kind == "string_links":
        return networks.read_string_links(path, string_min_score, string_text_mining)
    if kind in ("collectri", "dorothea", "regulation") or (
        kind == "omnipath" and "source_genesymbol" not in split_header((head(path, 1) or [""])[0])
    ):
        if "source_genesymbol" in split_header((head(path, 1) or [""])[0]):
            return networks.read_omnipath(path)
        return networks.read_regulons(path, kind)
    simple = {
        "hgnc": genes.read_hgnc,
        "alias": genes.read_alias,
        "gene_info": genes.read_gene_info,
        "gene_summary": genes.read_gene_summary,
        "gene_text": genes.read_gene_text,
        "gaf": terms.read_gaf,
        "gene_go": terms.read_gene_go,
        "obo": terms.read_obo,
        "go_table": terms.read_go_table,
        "gmt": terms.read_gmt,
        "string_info": genes.read_string_info,
        "string_aliases": genes.read_string_aliases,
        "string": networks.read_string,
        "string_ge800": networks.read_string_ge800,
        "omnipath": networks.read_omnipath,
        "positions": terms.read_positions,
        "gtf": terms.read_gtf,
    }
    if kind not in simple:
        raise InputError(f"{path}: unknown kind {kind!r}; choose one of {', '.join(sorted(KINDS))}")
    return simple[kind](path)
