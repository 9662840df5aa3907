"""Build a knowledge folder from public files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._io import atomic_path, flush_to_disk, sha256_file
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.knowledge.build.assemble import assemble
from pertwise.knowledge.build.readers import read_source
from pertwise.knowledge.build.sources import Sources, gather, new_manifest, sidecar_label
from pertwise.knowledge.genes.species import taxon_id
from pertwise.knowledge.layout import HOW, MANIFEST
from pertwise.knowledge.tables import leftovers, put_back


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
    taxon: str = "human",
) -> Path:
    """Build a knowledge folder; the folder appears complete or not at all.

    Parameters
    ----------
    sources
        A folder (every file that is recognised is used, the others are listed as ignored), a list
        of files, or a mapping kind -> file(s) with the kinds of `pertwise parts source` (and
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
    taxon
        "human" (9606) or "mouse" (10090): whose genes the sources are to be of. Rows of another
        species are left out; a file that holds nothing else is an error.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        Naming the file, and the row or column where it is wrong, or what is missing.
    """
    # A link is followed: the folder it stands for is replaced, not the link.
    taxon = taxon_id(taxon)
    target = Path(os.path.realpath(out))
    put_back(target)
    _check_target(target, overwrite)
    found, ignored = gather(sources, info or {})
    if not found:
        raise InputError(f"{sources!s}: no file that is recognised as a knowledge source")
    for source in track(found, "reading sources", len(found)):
        source.parsed = read_source(
            source.kind, source.path, string_min_score, string_text_mining, taxon
        )
    tables, dropped = assemble(found)
    target.parent.mkdir(parents=True, exist_ok=True)
    for what in ("building", "old"):
        for left, dead in leftovers(target, what):
            if dead:
                shutil.rmtree(left, ignore_errors=True)
    prefix = f".{target.name}.building-{os.getpid()}-"
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        label = label or sidecar_label(found, ignored)
        manifest = new_manifest(found, ignored, dropped, label, taxon)
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
    """Two renames; `put_back` undoes the first where the second did not come."""
    os.chmod(work, 0o755)
    for path in (*work.rglob("*"), work):
        flush_to_disk(path)
    old: Path | None = None
    if target.exists():
        prefix = f".{target.name}.old-{os.getpid()}-"
        old = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        os.replace(target, old / "was")
    try:
        os.replace(work, target)
    except BaseException:
        put_back(target)
        raise
    flush_to_disk(target.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _write_tables(
    tables: Mapping[str, pd.DataFrame], folder: Path, sources: Mapping[str, Any]
) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, table in tables.items():
        entries[name] = write_table(table, name, folder, sources)
    return entries


def write_table(
    table: pd.DataFrame, name: str, folder: Path, sources: Mapping[str, Any], file: str = ""
) -> dict[str, Any]:
    """Write one table as parquet (`file`, else named like it) and return its manifest entry."""
    path = folder / (file or f"{name}.parquet")
    table = table.assign(source=table["source"].astype("category"))
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")
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
