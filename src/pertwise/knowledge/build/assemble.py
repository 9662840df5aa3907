"""From parsed files to the tables of a folder: symbols first, then all else by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertwise.errors import InputError
from pertwise.knowledge.build.sources import Source
from pertwise.knowledge.genes import ontology
from pertwise.knowledge.genes.curated import ribosome_members
from pertwise.knowledge.genes.symbols import SymbolIndex, plain_id
from pertwise.knowledge.layout import EDGE_COLUMNS, STRING_CHANNELS, TABLES, UNDIRECTED

_GENE_TEXT = (
    "full_name", "entrez", "ensembl", "string_id", "string_annotation", "refseq_summary",
)  # fmt: skip
#: Whose full names and ids win where several files name a gene.
_GENE_PRIORITY = ("hgnc", "mgi", "gene_text", "gene_info", "string_info", "gene_summary")


def _collect(found: list[Source], name: str) -> pd.DataFrame | None:
    parts = [s.parsed.tables[name].assign(source=s.id) for s in found if name in s.parsed.tables]
    return pd.concat(parts, ignore_index=True) if parts else None


def assemble(found: list[Source]) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """All tables with the columns of `layout`, and which names were left out of each."""
    dropped: dict[str, Any] = {}
    symbols = _symbols(found)
    symbols = _with_ids(found, symbols, SymbolIndex.from_table(symbols))
    index = SymbolIndex.from_table(symbols)
    tables: dict[str, pd.DataFrame] = {"symbols": symbols}
    genes = _genes(found, index, dropped)
    if genes is not None:
        tables["genes"] = genes
        numbers = list(zip(genes["entrez"], genes["symbol"], strict=True))
        index = index.with_entrez(lambda: numbers)
    _go(found, index, tables, dropped)
    _sets(found, index, tables, dropped)
    _edges(found, index, tables, dropped)
    positions = _collect(found, "positions")
    if positions is not None:
        positions["symbol"] = _approved(positions, ["symbol"], index, "positions", dropped)[0]
        positions = positions[positions["symbol"] != ""]
        # Genes of the pseudoautosomal regions stand on X and on Y: X is kept.
        positions = positions.sort_values(["symbol", "chr", "start"], kind="stable")
        tables["positions"] = positions.drop_duplicates("symbol")
    ordered: dict[str, pd.DataFrame] = {}
    for name, table in tables.items():
        columns = TABLES.get(name, EDGE_COLUMNS)
        ordered[name] = table[list(columns)].reset_index(drop=True)
    return ordered, dropped


def _symbols(found: list[Source]) -> pd.DataFrame:
    """The table of names.

    HGNC, MGI, an alias table that lists the approved symbols themselves, or else NCBI gene_info
    decides what a gene is; other sources add names only. Without any of them every name of every
    table is a gene.
    """
    named = [s for s in found if "symbols" in s.parsed.tables]

    def lists_genes(source: Source) -> bool:
        return bool((source.parsed.tables["symbols"]["kind"] == "approved").any())

    first = [s for s in named if s.kind in ("hgnc", "mgi", "alias") and lists_genes(s)]
    authority = first or [s for s in named if lists_genes(s)]
    parts = [s.parsed.tables["symbols"].assign(source=s.id) for s in authority]
    if authority:
        approved = set(pd.concat(parts)["approved"])
    else:
        genes = {
            str(name): source.id
            for source in reversed(found)
            for kind, table in source.parsed.tables.items()
            if kind not in ("symbols", "string_names") and not kind.endswith("_protein")
            for column in ("symbol", "a", "b")
            if column in table
            for name in table[column].unique()
        }
        aliases = {n for s in named for n in s.parsed.tables["symbols"]["name"]}
        ids = [s.parsed.tables["ids"]["name"] for s in found if "ids" in s.parsed.tables]
        aliases |= {plain_id(n)[0] for names in ids for n in names} - {""}
        listed = {
            g: i for g, i in genes.items() if g not in aliases and plain_id(g)[0] not in aliases
        }
        for source in named:
            for name in source.parsed.tables["symbols"]["approved"]:
                listed.setdefault(str(name), source.id)
        approved = set(listed)
        parts.append(
            pd.DataFrame(
                {
                    "name": list(listed),
                    "approved": list(listed),
                    "kind": "approved",
                    "source": list(listed.values()),
                }
            )
        )
    for source in named:
        if source not in authority:
            table = source.parsed.tables["symbols"].assign(source=source.id)
            parts.append(table[table["approved"].isin(approved)])
    table = pd.concat(parts, ignore_index=True)[list(TABLES["symbols"])]
    table = table[table["name"] != ""].drop_duplicates(["name", "approved"])
    return table.sort_values(["name", "approved"], kind="stable")


#: Whose ids win where several files name the same one.
_ID_PRIORITY = (
    "hgnc", "mgi", "alias", "gene_info", "gene_text", "gtf", "positions", "string_info",
    "string_aliases",
)  # fmt: skip


def _with_ids(found: list[Source], symbols: pd.DataFrame, index: SymbolIndex) -> pd.DataFrame:
    """The table of names with the Ensembl ids and UniProt accessions that any file brings."""
    order = {k: i for i, k in enumerate(_ID_PRIORITY)}
    parts = [symbols]
    known: set[str] = set(symbols["name"])
    for source in sorted(found, key=lambda s: order.get(s.kind, 99)):
        table = source.parsed.tables.get("ids")
        if table is None or table.empty:
            continue
        plain = [plain_id(n) for n in table["name"]]
        table = pd.DataFrame(
            {
                "name": [n for n, _ in plain],
                "approved": index.map_column(table["symbol"]),
                "kind": [k for _, k in plain],
                "source": source.id,
            }
        )
        table = table[(table["approved"] != "") & ~table["name"].isin(known | {""})]
        known.update(table["name"])
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True).drop_duplicates(["name", "approved"])
    return whole.sort_values(["name", "approved"], kind="stable")


def _approved(
    table: pd.DataFrame,
    columns: Sequence[str],
    index: SymbolIndex,
    name: str,
    dropped: dict[str, Any],
) -> list[pd.Series]:
    """Columns in approved symbols, "" where a name is unknown or ambiguous; these are counted."""
    out = [index.map_column(table[c]) for c in columns]
    bad = pd.concat([table[c][o == ""] for c, o in zip(columns, out, strict=True)])
    bad = bad[bad != ""]
    if len(bad):
        entry = dropped.setdefault(name, {"names": 0, "rows": 0, "examples": []})
        unique = sorted(set(bad))
        entry["names"] += len(unique)
        entry["rows"] += int(np.logical_or.reduce([(o == "").to_numpy() for o in out]).sum())
        entry["examples"] = sorted({*entry["examples"], *unique[:10]})[:10]
    return out


def _genes(found: list[Source], index: SymbolIndex, dropped: dict[str, Any]) -> pd.DataFrame | None:
    parts: list[pd.DataFrame] = []
    by_entrez: dict[str, str] = {}
    order = {k: i for i, k in enumerate(_GENE_PRIORITY)}
    for source in sorted(found, key=lambda s: order.get(s.kind, 99)):
        table = source.parsed.tables.get("genes")
        if table is None:
            continue
        table = table.copy()
        if "symbol" in table:
            table["symbol"] = _approved(table, ["symbol"], index, "genes", dropped)[0]
            if "entrez" in table:
                by_entrez.update(zip(table["entrez"], table["symbol"], strict=True))
        else:
            table["symbol"] = table["entrez"].map(by_entrez).fillna("")
            without = int((table["symbol"] == "").sum())
            if without:
                source.parsed.counts["entrez_without_symbol"] = without
        parts.append(table[table["symbol"] != ""].assign(source=source.id))
    if not parts:
        return None
    genes = pd.concat(parts, ignore_index=True)
    for column in _GENE_TEXT:
        if column not in genes:
            genes[column] = ""
    genes[list(_GENE_TEXT)] = genes[list(_GENE_TEXT)].fillna("").replace("", None)
    grouped = genes.groupby("symbol", sort=True)
    merged = grouped[list(_GENE_TEXT)].first().fillna("")
    if len(parts) == 1:
        merged["source"] = parts[0]["source"].iloc[0] if len(parts[0]) else ""
    else:
        merged["source"] = grouped["source"].agg(lambda s: "|".join(dict.fromkeys(s)))
    return merged.reset_index()


def _go(
    found: list[Source],
    index: SymbolIndex,
    tables: dict[str, pd.DataFrame],
    dropped: dict[str, Any],
) -> None:
    terms = _collect(found, "go_terms")
    annotations = _collect(found, "gene_go")
    if annotations is not None:
        annotations["symbol"] = _approved(annotations, ["symbol"], index, "gene_go", dropped)[0]
        annotations = annotations[annotations["symbol"] != ""]
        annotations = annotations.drop_duplicates(["symbol", "go"])
    if terms is not None:
        terms = terms.drop_duplicates("id").sort_values("id").reset_index(drop=True)
        parents = ontology.parent_matrix(terms["id"].tolist(), terms["parents"].tolist())
        terms["depth"] = ontology.depths(parents)
        terms["n_genes"] = 0
        if annotations is not None:
            known = annotations["go"].isin(set(terms["id"]))
            if (~known).any():
                unknown = sorted(set(annotations["go"][~known]))
                dropped["gene_go (terms not in the ontology)"] = {
                    "names": len(unknown),
                    "rows": int((~known).sum()),
                    "examples": unknown[:10],
                }
            annotations = annotations[known]
            genes = sorted(set(annotations["symbol"]))
            direct = ontology.annotation_matrix(
                genes, annotations["symbol"].tolist(), terms["id"].tolist(),
                annotations["go"].tolist(),
            )  # fmt: skip
            full = ontology.propagate(direct, ontology.ancestor_closure(parents))
            terms["n_genes"] = np.asarray(full.sum(axis=0)).ravel().astype(np.int64)
        tables["go_terms"] = terms
    if annotations is not None:
        tables["gene_go"] = annotations.sort_values(["symbol", "go"])


def _sets(
    found: list[Source],
    index: SymbolIndex,
    tables: dict[str, pd.DataFrame],
    dropped: dict[str, Any],
) -> None:
    sets, members = _collect(found, "gene_sets"), _collect(found, "gene_set_members")
    if sets is not None and members is not None:
        twice = sets["name"].duplicated()
        if twice.any():
            first = sets[twice].iloc[0]
            raise InputError(
                f"gene set {first['name']!r} stands in two gmt files (second: {first['source']}); "
                "give one of them only"
            )
        members["symbol"] = _approved(members, ["symbol"], index, "gene_sets", dropped)[0]
        members = members[members["symbol"] != ""].drop_duplicates(["name", "symbol"])
    ribosome = ribosome_members(
        members,
        tables.get("gene_go"),
        index,
        sets is not None and "KEGG_RIBOSOME" in set(sets["name"]),
    )
    if ribosome:
        extra_set = pd.DataFrame(
            [("RIBOSOME", "cytosolic ribosome", "curated", "curated")],
            columns=["name", "title", "collection", "source"],
        )
        extra = pd.DataFrame({"name": "RIBOSOME", "symbol": ribosome, "source": "curated"})
        sets = extra_set if sets is None else pd.concat([sets, extra_set], ignore_index=True)
        members = extra if members is None else pd.concat([members, extra], ignore_index=True)
    if sets is None or members is None:
        return
    sets["description"] = ""
    sets["n_genes"] = sets["name"].map(members["name"].value_counts()).fillna(0).astype("int64")
    tables["gene_sets"] = sets[sets["n_genes"] > 0].sort_values("name")
    tables["gene_set_members"] = members.sort_values(["name", "symbol"])


def _edges(
    found: list[Source],
    index: SymbolIndex,
    tables: dict[str, pd.DataFrame],
    dropped: dict[str, Any],
) -> None:
    protein = [s for s in found if "edges_string_protein" in s.parsed.tables]
    if protein:
        names = _collect(found, "string_names")
        if names is None:
            raise InputError(
                f"{protein[0].path}: STRING protein ids need protein.info (or "
                "protein.aliases) beside them to be mapped to genes"
            )
        names["symbol"] = index.map_column(names["name"])
        names = names[names["symbol"] != ""].sort_values(["string_id", "rank"], kind="stable")
        by_id = names.drop_duplicates("string_id").set_index("string_id")["symbol"]
        for source in protein:
            edges = source.parsed.tables.pop("edges_string_protein").copy()
            total = len(edges)
            edges["a"], edges["b"] = edges["a"].map(by_id), edges["b"].map(by_id)
            edges = edges.dropna(subset=["a", "b"])
            source.parsed.counts["protein_without_gene_rows"] = total - len(edges)
            source.parsed.tables["edges_string"] = edges
            for name in [t for t in source.parsed.tables if t.endswith("_protein")]:
                channel = source.parsed.tables.pop(name).copy()
                channel["a"], channel["b"] = channel["a"].map(by_id), channel["b"].map(by_id)
                source.parsed.tables[name.removesuffix("_protein")] = channel.dropna(
                    subset=["a", "b"]
                )
    channels = {f"edges_string_{c}" for c in STRING_CHANNELS}
    names_of = dict.fromkeys(t for s in found for t in s.parsed.tables if t.startswith("edges_"))
    for name in names_of:
        collected = _collect(found, name)
        if collected is None:
            continue
        collected["a"], collected["b"] = _approved(collected, ["a", "b"], index, name, dropped)
        keep = (collected["a"] != "") & (collected["b"] != "") & (collected["a"] != collected["b"])
        edges = collected[keep]
        if name.removeprefix("edges_") in UNDIRECTED or name in channels:
            swap = edges["a"] > edges["b"]
            low, high = edges["a"].mask(swap, edges["b"]), edges["b"].mask(swap, edges["a"])
            edges = edges.assign(a=low, b=high)
        grouped = edges.groupby(["a", "b"], sort=True)
        merged = grouped.agg(
            weight=("weight", "max"), sign=("sign", "sum"), source=("source", "first")
        )
        merged["sign"] = np.sign(merged["sign"]).astype("int8")
        merged["weight"] = merged["weight"].astype("float32")
        if len(merged):
            tables[name] = merged.reset_index()
