"""What is added to a folder after it was built: gene matrices, graphs, cached LLM sentences."""

from __future__ import annotations

import datetime
import io
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import read_json_object, reading
from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise._tables import read_frame
from pertwise.errors import InputError
from pertwise.knowledge.build.readers.networks import read_graph
from pertwise.knowledge.layout import EDGE_COLUMNS, MANIFEST, TABLES
from pertwise.knowledge.tables import Tables

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]*$")
_GENE_KEYS = ("genes", "gene", "symbols", "symbol", "gene_names", "gene_symbol", "names", "index")
_MATRIX_KEYS = ("matrix", "embeddings", "embedding", "X", "x", "vectors", "emb", "data")
_BUILT_IN = frozenset({"text", "go", "reactome", "graph", "string"})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder as a plain dict."""
    return dict(Tables.open(folder).manifest)


def _check_name(name: str) -> None:
    if not _NAME.match(name) or name in _BUILT_IN:
        raise InputError(
            f"{name!r} cannot be used as a name: letters, digits, _ . - and none of "
            f"{', '.join(sorted(_BUILT_IN))}"
        )


def read_gene_matrix(path: str | os.PathLike[str]) -> tuple[list[str], NDArray[np.float32]]:
    """Names and matrix (n_genes, k) from npz, parquet, csv or tsv.

    npz: one array of names ("genes", "symbols" ...) and one 2-d array ("matrix", "embeddings",
    "X" ...), or one 1-d array per gene. Tables: one text column (or the index) of names, the
    numeric columns are the features.

    Raises
    ------
    InputError
        When names and rows do not match, values are not finite, or the file is a pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".npy"):
        raise InputError(
            f"{path}: pickles are not opened (they can run code) and .npy has no gene names; save "
            "it as npz first: np.savez(out, genes=np.array(list(d), dtype=str), "
            "matrix=np.stack(list(d.values())))"
        )
    if path.suffix == ".npz":
        genes, matrix = _from_npz(path)
    else:
        genes, matrix = _from_table(path)
    if matrix.ndim != 2 or matrix.shape[0] != len(genes):
        raise InputError(f"{path}: {len(genes)} names but a matrix of shape {matrix.shape}")
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise InputError(f"{path}: values of {genes[int(bad.argmax())]!r} are not all finite")
    return genes, np.ascontiguousarray(matrix, dtype=np.float32)


def _from_npz(path: Path) -> tuple[list[str], NDArray[Any]]:
    with (
        reading(path, "a plain npz", "names must be stored as text"),
        np.load(path, allow_pickle=False) as archive,
    ):
        keys = list(archive.files)
        gene_key = next((k for k in _GENE_KEYS if k in keys), None)
        matrix_key = next((k for k in _MATRIX_KEYS if k in keys), None)
        if gene_key and matrix_key:
            return [str(g) for g in archive[gene_key]], archive[matrix_key].astype(np.float32)
        rows = [archive[k].squeeze().astype(np.float32) for k in keys]
    if not rows or any(r.ndim != 1 or r.shape != rows[0].shape for r in rows):
        raise InputError(
            f"{path}: arrays {', '.join(keys[:6])}: expected names ({_GENE_KEYS[0]}) and a matrix "
            f"({_MATRIX_KEYS[0]}), or one vector of the same length per gene"
        )
    return keys, np.stack(rows)


def _from_table(path: Path) -> tuple[list[str], NDArray[Any]]:
    table = read_frame(path, keep_default_na=False)
    text = [c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if len(text) > 1:
        raise InputError(
            f"{path}: several text columns ({', '.join(map(str, text[:4]))}), one names the genes"
        )
    if text:
        genes = table[text[0]].astype(str).tolist()
        return genes, table.drop(columns=text).to_numpy(np.float32)
    raise InputError(f"{path}: no column (or index) with gene names")


def add_embedding(
    folder: str | os.PathLike[str],
    name: str,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    licence: str = "",
    from_screen: bool = False,
) -> dict[str, Any]:
    """Register a precomputed gene matrix (GenePT, ProtT5, ESM ...) under a name.

    Gene names are resolved to approved symbols; unknown ones are left out and counted; of several
    rows of one gene the first is kept and the others counted.

    Parameters
    ----------
    from_screen
        True when the matrix was learnt from perturbation responses: it is then to be left out of
        honest tests of prediction.

    Returns
    -------
    dict
        The manifest entry: file, n_genes, dim, sha256, left_out, ...
    """
    folder = Path(folder)
    _check_name(name)
    manifest = read_manifest(folder)
    genes, matrix = read_gene_matrix(path)
    index = Tables.open(folder).symbols()
    resolution = index.resolve(genes)
    keep: dict[str, int] = {}
    repeated = 0
    for i, gene in enumerate(genes):
        symbol = resolution.approved.get(gene)
        if symbol is None:
            continue
        # The row that is named by the approved symbol itself wins over a row named by an alias.
        if symbol not in keep or (gene == symbol and genes[keep[symbol]] != symbol):
            repeated += symbol in keep
            keep[symbol] = i
        else:
            repeated += 1
    if not keep:
        raise InputError(f"{path}: none of its {len(genes)} names is a gene of {folder}")
    symbols = sorted(keep)
    place = _unused(manifest["embeddings"].get(name), f"embeddings/{name}", ".npz")
    target = folder / place
    with atomic_path(target) as temporary:
        np.savez_compressed(
            temporary, genes=np.array(symbols), matrix=matrix[[keep[s] for s in symbols]]
        )
    entry = {
        "file": place,
        "title": title or Path(path).name,
        "n_genes": len(symbols),
        "dim": int(matrix.shape[1]),
        "sha256": sha256_file(target),
        "source_sha256": sha256_file(path),
        "licence": licence,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "from_screen": from_screen,
        "left_out": {
            "unknown": len(resolution.unknown),
            "ambiguous": len(resolution.ambiguous),
            "repeated": repeated,
        },
    }
    _enter(folder, manifest, "embeddings", name, entry)
    return entry


def read_embedding(
    tables: Tables, entry: Mapping[str, Any]
) -> tuple[list[str], NDArray[np.float32]]:
    """A registered matrix: approved symbols and (n_genes, k) float32."""
    content = io.BytesIO(tables.checked(entry))
    with np.load(content, allow_pickle=False) as archive:
        return archive["genes"].tolist(), archive["matrix"].astype(np.float32, copy=False)


def add_graph(
    folder: str | os.PathLike[str],
    name: str,
    edges: pd.DataFrame | str | os.PathLike[str],
    *,
    directed: bool = False,
    from_screen: bool = False,
    title: str = "",
    licence: str = "",
) -> dict[str, Any]:
    """Register a user's own graph: a table (or file) with a, b (or source, target), weight, sign.

    `from_screen` says that its edges come from perturbation responses, so that honest tests can
    leave them out. Edges with unknown genes are left out and counted in the manifest.
    """
    from pertwise.knowledge.build.folder import write_table

    folder = Path(folder)
    _check_name(name)
    manifest = read_manifest(folder)
    if isinstance(edges, pd.DataFrame):
        table, origin = edges, "a table in memory"
        if not {"a", "b"} <= set(table):
            raise InputError("a graph table has the columns a and b")
        table = table.assign(
            weight=table.get("weight", 1.0),
            sign=table.get("sign", 0),
        )
    else:
        table, origin = read_graph(Path(edges), name).tables[f"edges_{name}"], Path(edges).name
    index = Tables.open(folder).symbols()
    table = table.assign(a=index.map_column(table["a"]), b=index.map_column(table["b"]))
    keep = (table["a"] != "") & (table["b"] != "") & (table["a"] != table["b"])
    if not keep.any():
        raise InputError(f"{origin}: no edge between two genes of {folder}")
    manifest["sources"][name] = {
        "kind": "graph",
        "title": title or origin,
        "file": origin,
        "url": "",
        "version": "",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "file_date": "",
        "licence": licence,
        "sha256": "" if isinstance(edges, pd.DataFrame) else sha256_file(edges),
        "bytes": 0,
        "from_screen": from_screen,
        "left_out": {"edges_of_unknown_genes": int((~keep).sum())},
    }
    kept = table[keep].assign(source=name)[list(EDGE_COLUMNS)].sort_values(["a", "b"])
    kept = kept.drop_duplicates(["a", "b"]).astype({"weight": "float32", "sign": "int8"})
    title = f"edges_{name}"
    place = _unused(manifest["tables"].get(title), title, ".parquet")
    entry = write_table(kept.reset_index(drop=True), title, folder, manifest["sources"], place)
    entry["directed"] = directed
    _enter(folder, manifest, "tables", title, entry)
    return entry


def store_summaries(
    folder: str | os.PathLike[str], summaries: Mapping[str, str], model: str
) -> int:
    """Keep one-sentence summaries that a language model wrote; returns how many are now held.

    They win over the sentence cut from RefSeq and STRING; a gene that has one already is
    overwritten. The table names the model and the day. Texts over 20 words are refused.
    """
    from pertwise.knowledge.build.folder import write_table
    from pertwise.knowledge.genes.text import MAX_WORDS

    folder = Path(folder)
    opened = Tables.open(folder)
    manifest = dict(opened.manifest)
    for gene, text in summaries.items():
        if len(text.split()) > MAX_WORDS or not text.strip():
            raise InputError(
                f"summary of {gene!r} has {len(text.split())} words, expected 1 to {MAX_WORDS}"
            )
    index = opened.symbols()
    resolution = index.resolve(list(summaries))
    if resolution.unknown or resolution.ambiguous:
        first = (*resolution.unknown, *resolution.ambiguous)[0]
        raise InputError(f"{first!r} is not a gene of {folder}: its summary cannot be kept")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = pd.DataFrame(
        [(resolution.approved[g], t.strip(), model, today, "llm") for g, t in summaries.items()],
        columns=list(TABLES["summaries_llm"]),
    )
    if opened.has("summaries_llm"):
        old = opened.table("summaries_llm")
        new = pd.concat([old[~old["symbol"].isin(new["symbol"])], new])
    manifest["sources"]["llm"] = {
        "kind": "llm",
        "title": "one-sentence summaries written by a language model",
        "file": "",
        "url": "",
        "version": ", ".join(sorted(set(new["model"]))),
        "date": today,
        "file_date": "",
        "licence": "",
        "sha256": "",
        "bytes": 0,
        "from_screen": False,
        "left_out": {},
    }
    entry = write_table(
        new.sort_values("symbol").reset_index(drop=True),
        "summaries_llm",
        folder,
        manifest["sources"],
        _unused(manifest["tables"].get("summaries_llm"), "summaries_llm", ".parquet"),
    )
    _enter(folder, manifest, "tables", "summaries_llm", entry)
    return len(new)


def _unused(before: Mapping[str, Any] | None, stem: str, suffix: str) -> str:
    """A file name other than that of the entry to be replaced, which stays until the manifest is
    written: whenever this is killed, manifest and files belong together."""
    plain = f"{stem}{suffix}"
    return f"{stem}.2{suffix}" if before is not None and before["file"] == plain else plain


def _enter(
    folder: Path, manifest: dict[str, Any], part: str, name: str, entry: Mapping[str, Any]
) -> None:
    before = manifest[part].get(name)
    manifest[part][name] = entry
    write_json_atomic(folder / MANIFEST, manifest)
    if before is not None and before["file"] != entry["file"]:
        (folder / str(before["file"])).unlink(missing_ok=True)


def carry_over(old: Path, new: Path, manifest: dict[str, Any]) -> None:
    """Take what was added to a folder into the one that replaces it: matrices, graphs, sentences.

    Raises
    ------
    InputError
        When the manifest is damaged, so that nobody knows what was added.
    """
    file = old / MANIFEST
    away = "what was added to the folder would be lost; move it away, then build again"
    before = read_json_object(file, "the manifest of a knowledge folder", away)
    with reading(file, "the manifest of a knowledge folder", away):
        added = [("embeddings", n, e) for n, e in before.get("embeddings", {}).items()]
        for name, entry in before["tables"].items():
            kinds = {i: before["sources"].get(i, {}).get("kind") for i in entry["sources"]}
            if name not in manifest["tables"] and set(kinds.values()) <= {"llm", "graph"}:
                added.append(("tables", name, entry))
                manifest["sources"].update({i: before["sources"][i] for i in kinds})
    for part, name, entry in added:
        if (old / entry["file"]).is_file():
            (new / entry["file"]).parent.mkdir(exist_ok=True)
            shutil.copy2(old / entry["file"], new / entry["file"])
            manifest[part][name] = entry
