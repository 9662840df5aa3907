"""Readers of gene names and texts: HGNC, MGI, NCBI gene_info and gene_summary, STRING."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pertwise._files import open_text
from pertwise.errors import InputError
from pertwise.knowledge.build.readers._text import Parsed, ids_of, read_table
from pertwise.knowledge.genes.species import TAXA
from pertwise.parts import part


def _explode(table: pd.DataFrame, symbol: str, column: str, kind: str) -> pd.DataFrame:
    names = table[column].str.strip('"').str.split("|")
    long = pd.DataFrame({"name": names, "approved": table[symbol]}).explode("name")
    long["name"] = long["name"].fillna("").str.strip()
    return long[~long["name"].isin(["", "-"])].assign(kind=kind)


def _own(symbols: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"name": symbols, "approved": symbols, "kind": "approved"})


@part(label="hgnc", about="HGNC complete set", licence="CC0 1.0")
def read_hgnc(path: Path) -> Parsed:
    """HGNC complete set: approved, previous and alias symbols, names, Entrez and Ensembl ids."""
    table = read_table(path, ["symbol", "name", "alias_symbol", "prev_symbol"])
    n = len(table)
    if "status" in table:
        table = table[table["status"] == "Approved"]
    ensembl = table.get("ensembl_gene_id", pd.Series("", index=table.index))
    symbols = pd.concat(
        [
            _own(table["symbol"]),
            _explode(table, "symbol", "prev_symbol", "previous"),
            _explode(table, "symbol", "alias_symbol", "alias"),
        ]
    )
    genes = pd.DataFrame(
        {
            "symbol": table["symbol"],
            "full_name": table["name"],
            "entrez": table.get("entrez_id", ""),
            "ensembl": ensembl,
        }
    )
    ids = ids_of(table["symbol"], table, "ensembl_gene_id", "hgnc_id", "uniprot_ids")
    return Parsed(
        {"symbols": symbols, "genes": genes, "ids": ids}, counts={"not_approved": n - len(table)}
    )


@part(label="mgi", about="MGI marker list", licence="CC BY 4.0")
def read_mgi(path: Path) -> Parsed:
    """MGI's MRK_List1.rpt or MRK_List2.rpt: symbols, names and synonyms of genes and pseudogenes.

    Other markers (QTLs, clones ...) and withdrawn symbols are left out.
    """
    columns = ["MGI Accession ID", "Marker Symbol", "Marker Name", "Marker Type"]
    table = read_table(path, columns)
    n = len(table)
    table = table[table["Marker Type"].isin(["Gene", "Pseudogene"])]
    if "Status" in table:
        table = table[table["Status"] != "W"]
    symbol = table["Marker Symbol"]
    parts = [_own(symbol)]
    parts += [
        _explode(table, "Marker Symbol", c, "alias")
        for c in table
        if c.startswith("Marker Synonyms")
    ]
    genes = pd.DataFrame({"symbol": symbol, "full_name": table["Marker Name"]})
    return Parsed(
        {
            "symbols": pd.concat(parts),
            "genes": genes,
            "ids": ids_of(symbol, table, "MGI Accession ID"),
        },
        counts={"not_a_gene": n - len(table)},
    )


@part(label="alias", about="HGNC aliases (symbol, approved)", licence="CC0 1.0")
def read_alias(path: Path) -> Parsed:
    """A two-column table symbol, approved: each approved symbol itself and its other names."""
    table = read_table(path, ["symbol", "approved"])
    other = table[table["symbol"] != table["approved"]]
    symbols = pd.concat(
        [
            _own(table["approved"][table["symbol"] == table["approved"]].drop_duplicates()),
            pd.DataFrame({"name": other["symbol"], "approved": other["approved"], "kind": "alias"}),
        ]
    )
    return Parsed({"symbols": symbols, "ids": ids_of(other["approved"], other, "symbol")})


@part(label="gene_info", about="NCBI gene_info", licence="public domain")
def read_gene_info(path: Path, taxon: str = "9606") -> Parsed:
    """NCBI gene_info: symbols, synonyms, ids (dbXrefs), full names; rows of one species."""
    table = read_table(path, ["tax_id", "GeneID", "Symbol", "Synonyms", "description"])
    n = len(table)
    table = table[table["tax_id"] == taxon]
    if n and table.empty:
        raise InputError(f"{path}: no {TAXA[taxon]} rows (tax_id {taxon})")
    authority = table.get("Symbol_from_nomenclature_authority", pd.Series("-", index=table.index))
    symbol = table["Symbol"].where(authority.isin(["-", ""]), authority)
    full = table.get("Full_name_from_nomenclature_authority", pd.Series("-", index=table.index))
    full = table["description"].where(full.isin(["-", ""]), full)
    cross = table.get("dbXrefs", pd.Series("", index=table.index))
    # Ensembl ids are of fixed width, so one pattern finds all of them.
    xrefs = cross.str.findall(r"ENS(?:MUS)?G\d{11}")
    ensembl = xrefs.str[0].fillna("")
    table = table.assign(_symbol=symbol)
    # NCBI holds many records (loci, regions) that are not genes with a symbol of their own; when
    # HGNC is there its symbols win, see build.
    symbols = pd.concat(
        [
            _own(symbol),
            _explode(table, "_symbol", "Synonyms", "alias"),
        ]
    )
    genes = pd.DataFrame(
        {
            "symbol": symbol,
            "full_name": full,
            "entrez": table["GeneID"],
            "ensembl": ensembl,
        }
    )
    # "HGNC:HGNC:5" names the id with its authority before it.
    own = cross.str.extract(r"((?:HGNC|MGI):\d{1,8})")[0]
    ids = ids_of(symbol, table.assign(ensembl=xrefs.str.join("|"), own=own), "ensembl", "own")
    return Parsed(
        {"symbols": symbols, "genes": genes, "ids": ids}, counts={"other_taxon": n - len(table)}
    )


@part(label="gene_summary", about="NCBI gene_summary (RefSeq)", licence="public domain")
def read_gene_summary(path: Path, taxon: str = "9606") -> Parsed:
    """NCBI gene_summary (tax_id, GeneID, Source, Summary): RefSeq texts by Entrez id.

    Read line by line: the public file holds all species and most of it is thrown away.
    """
    entrez: list[str] = []
    texts: list[str] = []
    others = 0
    with open_text(path) as handle:
        header = handle.readline().lstrip("#").rstrip("\r\n").split("\t")
        try:
            tax, gene, summary = (header.index(c) for c in ("tax_id", "GeneID", "Summary"))
        except ValueError as error:
            raise InputError(f"{path}: expected tax_id, GeneID, Summary; found {header}") from error
        for number, line in enumerate(handle, 2):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) <= max(tax, gene, summary):
                raise InputError(
                    f"{path}, line {number}: {len(fields)} fields, fewer than the header has; if "
                    "the file was cut, get it again"
                )
            if fields[tax] != taxon:
                others += 1
                continue
            entrez.append(fields[gene])
            texts.append(fields[summary])
    if others and not entrez:
        raise InputError(f"{path}: no {TAXA[taxon]} rows (tax_id {taxon})")
    genes = pd.DataFrame({"entrez": entrez, "refseq_summary": texts})
    return Parsed({"genes": genes}, counts={"other_taxon": others})


@part(
    label="gene_text",
    about="gene names and texts (HGNC, STRING annotation, RefSeq summary)",
    licence="HGNC CC0 1.0; STRING CC BY 4.0; RefSeq public domain",
)
def read_gene_text(path: Path) -> Parsed:
    """A table symbol, ids, full_name, string_annotation, refseq_summary."""
    table = read_table(path, ["symbol", "full_name"])
    n = len(table)
    table = table[table["symbol"] != ""]
    columns = ["full_name", "entrez", "ensembl", "string_id", "string_annotation", "refseq_summary"]
    genes = table[["symbol", *[c for c in columns if c in table]]]
    ids = ids_of(table["symbol"], table, "ensembl", "string_id", "uniprot", "uniprot_ids")
    return Parsed({"genes": genes, "ids": ids}, counts={"without_symbol": n - len(table)})


@part(label="string_info", about="STRING protein.info", licence="CC BY 4.0")
def read_string_info(path: Path) -> Parsed:
    """STRING protein.info: protein id, preferred name, annotation."""
    table = read_table(path, ["string_protein_id", "preferred_name"])
    genes = pd.DataFrame(
        {
            "symbol": table["preferred_name"],
            "string_id": table["string_protein_id"],
            "string_annotation": table.get("annotation", ""),
        }
    )
    names = pd.DataFrame(
        {"string_id": table["string_protein_id"], "name": table["preferred_name"], "rank": 0}
    )
    ids = ids_of(genes["symbol"], genes, "string_id")
    return Parsed({"genes": genes, "string_names": names, "ids": ids})


@part(label="string_aliases", about="STRING protein.aliases", licence="CC BY 4.0")
def read_string_aliases(path: Path) -> Parsed:
    """STRING protein.aliases: the gene symbols among them, to map proteins to genes, and ids."""
    table = read_table(path, ["string_protein_id", "alias", "source"])
    source = table["source"]
    symbol = source.str.contains("HGNC", regex=False) & source.str.contains("symbol", case=False)
    # Of a mouse protein "Ensembl_MGI" gives symbol and id.
    symbol |= source.str.startswith("Ensembl_MGI") & ~table["alias"].str.startswith("MGI:")
    names = table.loc[symbol, ["string_protein_id", "alias"]]
    names = names.set_axis(["string_id", "name"], axis=1).drop_duplicates().assign(rank=1)
    own = table["string_protein_id"].map(
        names.drop_duplicates("string_id").set_index("string_id")["name"]
    )
    accession = source.str.contains("UniProt_AC", regex=False)
    listed = (accession | table["alias"].str.startswith("ENS")) & own.notna()
    ids = ids_of(own[listed], table[listed], "alias", "string_protein_id")
    return Parsed(
        {"string_names": names, "ids": ids}, counts={"aliases_not_symbols": int((~symbol).sum())}
    )
