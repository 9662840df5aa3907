"""Build a knowledge folder from public files."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise import __version__
from pertwise._io import sha256_file
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.knowledge import ontology
from pertwise.knowledge.curated import ribosome_members
from pertwise.knowledge.layout import (
    EDGE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    HOW,
    KINDS,
    MANIFEST,
    SIDECAR,
    SIMULATED,
    TABLES,
    UNDIRECTED,
)
from pertwise.knowledge.readers import Parsed, read_source, recognise
from pertwise.knowledge.symbols import SymbolIndex

Sources = (
    str
    | os.PathLike[str]
    | Sequence[str | os.PathLike[str]]
    | Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]]
)
_GENE_TEXT = (
    "full_name", "entrez", "ensembl", "string_id", "string_annotation", "refseq_summary",
)  # fmt: skip
#: Whose full names and ids win where several files name a gene.
_GENE_PRIORITY = ("hgnc", "gene_text", "gene_info", "string_info", "gene_summary")


@dataclass
class _Source:
    id: str
    kind: str
    path: Path
    info: dict[str, Any]
    parsed: Parsed = field(default_factory=lambda: Parsed({}))


def build_knowledge(
    sources: Sources,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    info: Mapping[str, Mapping[str, Any]] | None = None,
    label: str = "",
    string_min_score: int = 400,
    string_text_mining: bool = True,
    embeddings: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Path:
    """Build a knowledge folder; the folder appears complete or not at all.

    Parameters
    ----------
    sources
        A folder (every file that is recognised is used, the others are listed as ignored), a list
        of files, or a mapping kind -> file(s) with the kinds of `layout.KINDS` (and
        "graph:NAME" for a user's own edge table).
    out
        The folder to make. One that is there is replaced only with `overwrite` and only when it
        is a knowledge folder.
    info
        Per file name what its source is: any of title, version, date, licence, url, from_screen.
        A `sources.json` beside the files ({"files": {file name: {...}}}), as `fetch` writes it,
        is read too; `info` wins.
    label
        Shown wherever the folder is described, e.g. "simulated".
    string_min_score
        Pairs of STRING protein files below this combined score (0..1000) are left out.
    string_text_mining
        False recomputes STRING's combined score without text mining (needs links.detailed).
    embeddings
        Precomputed gene matrices to register: name -> npz or parquet, see `add_embedding`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        Naming the file, and the row or column where it is wrong, or what is missing.
    """
    target = Path(out)
    _check_target(target, overwrite)
    found, ignored = _gather(sources, info or {})
    if not found:
        raise InputError(f"{sources!s}: no file that is recognised as a knowledge source")
    for source in track(found, "reading sources", len(found)):
        source.parsed = read_source(source.kind, source.path, string_min_score, string_text_mining)
    tables, dropped = _assemble(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.building-", dir=target.parent))
    try:
        manifest = _manifest(found, ignored, dropped, label or _sidecar_label(found, ignored))
        manifest["tables"] = _write_tables(tables, work, manifest["sources"])
        manifest["unavailable"] = {n: HOW[n] for n in HOW if n not in tables}
        if overwrite and target.exists():
            from pertwise.knowledge.extras import carry_over

            carry_over(target, work, manifest)
        (work / MANIFEST).write_text(
            json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )
        if embeddings:
            from pertwise.knowledge.extras import add_embedding

            for name, path in embeddings.items():
                add_embedding(work, name, path)
        _put_in_place(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    if not (target / MANIFEST).is_file():
        raise InputError(f"{target} is there and is not a knowledge folder: choose another place")
    if not overwrite:
        raise InputError(f"{target} is there already: add --overwrite to build it anew")


def _put_in_place(work: Path, target: Path) -> None:
    os.chmod(work, 0o755)
    old: Path | None = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
        os.replace(target, old / "was")
    os.replace(work, target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _gather(
    sources: Sources, info: Mapping[str, Mapping[str, Any]]
) -> tuple[list[_Source], list[str]]:
    explicit: list[tuple[str | None, Path]] = []
    ignored: list[str] = []
    if isinstance(sources, Mapping):
        for kind, given in sources.items():
            if kind not in KINDS and not kind.startswith("graph:"):
                raise InputError(
                    f"unknown kind of source {kind!r}; choose one of {', '.join(sorted(KINDS))}"
                )
            many = [given] if isinstance(given, str | os.PathLike) else list(given)
            explicit.extend((kind, Path(p)) for p in many)
    elif isinstance(sources, str | os.PathLike) and Path(sources).is_dir():
        explicit = [(None, p) for p in sorted(Path(sources).iterdir()) if p.is_file()]
    else:
        many = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
        for path in many:
            if Path(path).is_dir():
                raise InputError(f"{path} is a folder: give one folder, or files only")
            explicit.append((None, Path(path)))
    from_folder = isinstance(sources, str | os.PathLike) and Path(sources).is_dir()
    found: list[_Source] = []
    for given_kind, path in explicit:
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if path.name == SIDECAR:
            continue
        hidden = path.name.startswith(".")
        found_kind = given_kind or (None if hidden else _recognise(path, from_folder))
        if found_kind is None:
            if not from_folder:
                raise InputError(
                    f"{path}: not recognised as a knowledge source; name its kind, one of "
                    f"{', '.join(sorted(KINDS))} (kind=FILE)"
                )
            ignored.append(path.name)
            continue
        beside = _read_sidecar(path.parent).get("files", {}).get(path.name, {})
        recorded = beside.get("sha256")
        if recorded and sha256_file(path) != recorded:
            raise InputError(
                f"{path}: its checksum is not the one recorded in {SIDECAR} when it was fetched; "
                "fetch it again, or remove its entry there"
            )
        found.append(_Source("", found_kind, path, {**beside, **info.get(path.name, {})}))
    taken: set[str] = set()
    for source in found:
        stem = _SUFFIX.sub("", source.path.name)
        name, i = stem, 2
        while name in taken:
            name, i = f"{stem}_{i}", i + 1
        taken.add(name)
        source.id = name
    return found, ignored


_SUFFIX = re.compile(r"(?:\.(?:gz|zip|tsv|txt|csv|gmt|gtf|obo|gaf))+$")


def _recognise(path: Path, from_folder: bool) -> str | None:
    try:
        return recognise(path)
    except InputError:
        if from_folder and path.suffix not in (".gz", ".zip", ".tsv", ".txt", ".gmt", ".obo"):
            return None
        raise


def _read_sidecar(folder: Path) -> dict[str, Any]:
    path = folder / SIDECAR
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); mend or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object with the key 'files'")
    return content


def _sidecar_label(found: list[_Source], ignored: Sequence[str]) -> str:
    if SIMULATED in ignored:
        return "simulated"
    labels = {str(_read_sidecar(s.path.parent).get("label", "")) for s in found} - {""}
    return ", ".join(sorted(labels))


# --- assembling the tables ---------------------------------------------------------------------


def _collect(found: list[_Source], name: str) -> pd.DataFrame | None:
    parts = [s.parsed.tables[name].assign(source=s.id) for s in found if name in s.parsed.tables]
    return pd.concat(parts, ignore_index=True) if parts else None


def _assemble(found: list[_Source]) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    dropped: dict[str, Any] = {}
    symbols = _symbols(found)
    index = SymbolIndex.from_table(symbols)
    tables: dict[str, pd.DataFrame] = {"symbols": symbols}
    genes = _genes(found, index, dropped)
    if genes is not None:
        tables["genes"] = genes
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


def _symbols(found: list[_Source]) -> pd.DataFrame:
    """The table of names.

    HGNC, an alias table that lists the approved symbols themselves, or else NCBI gene_info
    decides what a gene is; other sources add names only. Without any of them every name of every
    table is a gene.
    """
    named = [s for s in found if "symbols" in s.parsed.tables]

    def lists_genes(source: _Source) -> bool:
        return bool((source.parsed.tables["symbols"]["kind"] == "approved").any())

    first = [s for s in named if s.kind in ("hgnc", "alias") and lists_genes(s)]
    authority = first or [s for s in named if lists_genes(s)]
    parts = [s.parsed.tables["symbols"].assign(source=s.id) for s in authority]
    if authority:
        approved = set(pd.concat(parts)["approved"])
    else:
        genes = {
            str(name): source.id
            for source in reversed(found)
            for kind, table in source.parsed.tables.items()
            if kind not in ("symbols", "edges_string_protein", "string_names")
            for column in ("symbol", "a", "b")
            if column in table
            for name in table[column].unique()
        }
        aliases = {n for s in named for n in s.parsed.tables["symbols"]["name"]}
        listed = {g: i for g, i in genes.items() if g not in aliases}
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


def _genes(
    found: list[_Source], index: SymbolIndex, dropped: dict[str, Any]
) -> pd.DataFrame | None:
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
    found: list[_Source],
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
                dropped["gene_go_unknown_terms"] = {
                    "rows": int((~known).sum()),
                    "examples": sorted(set(annotations["go"][~known]))[:10],
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
    found: list[_Source],
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
        index.approved,
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
    found: list[_Source],
    index: SymbolIndex,
    tables: dict[str, pd.DataFrame],
    dropped: dict[str, Any],
) -> None:
    protein = [s for s in found if "edges_string_protein" in s.parsed.tables]
    if protein:
        names = _collect(found, "string_names")
        if names is None:
            raise InputError(
                f"{protein[0].path}: STRING protein ids need 9606.protein.info (or "
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
    names_of = dict.fromkeys(t for s in found for t in s.parsed.tables if t.startswith("edges_"))
    for name in names_of:
        collected = _collect(found, name)
        if collected is None:
            continue
        collected["a"], collected["b"] = _approved(collected, ["a", "b"], index, name, dropped)
        keep = (collected["a"] != "") & (collected["b"] != "") & (collected["a"] != collected["b"])
        edges = collected[keep]
        if name.removeprefix("edges_") in UNDIRECTED:
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


# --- writing -----------------------------------------------------------------------------------


def _write_tables(
    tables: Mapping[str, pd.DataFrame], folder: Path, sources: Mapping[str, Any]
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, table in tables.items():
        entries[name] = write_table(table, name, folder, sources)
    return entries


def write_table(
    table: pd.DataFrame, name: str, folder: Path, sources: Mapping[str, Any]
) -> dict[str, Any]:
    """Write one table as parquet and return its manifest entry."""
    path = folder / f"{name}.parquet"
    table = table.assign(source=table["source"].astype("category"))
    table.to_parquet(path, index=False, compression="zstd")
    ids = sorted({i for s in table["source"].cat.categories for i in str(s).split("|") if i})
    from_screen = any(sources[i]["from_screen"] for i in ids)
    if "from_screen" in table:
        from_screen = from_screen or bool(table["from_screen"].any())
    return {
        "file": path.name,
        "rows": len(table),
        "columns": list(table.columns),
        "sha256": sha256_file(path),
        "sources": ids,
        "licence": "; ".join(dict.fromkeys(str(sources[i]["licence"]) for i in ids)),
        "from_screen": from_screen,
    }


_VERSION = re.compile(
    r"(?:[._-]v?)(\d{4}-\d{2}(?:-\d{2})?|v?\d+(?:\.\d+)+(?:\.Hs)?|v\d+)(?=[._-]|$)"
)


def _manifest(
    found: list[_Source], ignored: list[str], dropped: Mapping[str, Any], label: str
) -> dict[str, Any]:
    sources: dict[str, Any] = {}
    for source in found:
        kind = KINDS["graph" if source.kind.startswith("graph:") else source.kind]
        in_name = _VERSION.search(source.path.name)
        modified = datetime.datetime.fromtimestamp(source.path.stat().st_mtime, datetime.UTC)
        sources[source.id] = {
            "kind": source.kind,
            "title": source.info.get("title", kind.title),
            "file": source.path.name,
            "url": source.info.get("url", ""),
            "version": source.info.get("version")
            or source.parsed.version
            or (in_name.group(1) if in_name else ""),
            "date": source.info.get("date") or source.parsed.date or "",
            "file_date": modified.date().isoformat(),
            "licence": source.info.get("licence", kind.licence),
            "sha256": sha256_file(source.path),
            "bytes": source.path.stat().st_size,
            "from_screen": bool(source.info.get("from_screen", False)),
            "left_out": dict(source.parsed.counts),
        }
    curated = KINDS["curated"]
    sources["curated"] = {
        "kind": "curated",
        "title": curated.title,
        "file": "",
        "url": "",
        "version": __version__,
        "date": "",
        "file_date": "",
        "licence": curated.licence,
        "sha256": "",
        "bytes": 0,
        "from_screen": False,
        "left_out": {},
    }
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "built_by": f"pertwise {__version__}",
        "built": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": label,
        "sources": sources,
        "ignored_files": ignored,
        "unresolved_names": dict(dropped),
        "embeddings": {},
    }
