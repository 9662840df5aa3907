"""The input files of a build: finding and recognising them, and what the manifest says of them."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pertwise import __version__, parts
from pertwise._files import read_json_object
from pertwise._io import sha256_file
from pertwise.errors import InputError
from pertwise.knowledge.build.readers import Parsed, recognise
from pertwise.knowledge.layout import FORMAT, FORMAT_VERSION, SIDECAR, SIMULATED

Sources = (
    str
    | os.PathLike[str]
    | Sequence[str | os.PathLike[str]]
    | Mapping[str, str | os.PathLike[str] | Sequence[str | os.PathLike[str]]]
)


@dataclass
class Source:
    """One input file: its id in the manifest, kind, path, what is said of it, what it gave."""

    id: str
    kind: str
    path: Path
    info: dict[str, Any]
    parsed: Parsed = field(default_factory=lambda: Parsed({}))


def gather(
    sources: Sources, info: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Source], list[str]]:
    """The recognised files, and the names of those in a folder that are not."""
    explicit: list[tuple[str | None, Path]] = []
    ignored: list[str] = []
    if isinstance(sources, Mapping):
        for kind, given in sources.items():
            kind = _spelled(kind)
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
    found: list[Source] = []
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
                    f"{path}: not recognised as a knowledge source; name its kind (kind=FILE), one "
                    f"of {', '.join(parts.names('source'))}, or a reader of your own"
                )
            ignored.append(path.name)
            continue
        beside = read_sidecar(path.parent).get("files", {}).get(path.name, {})
        recorded = beside.get("sha256")
        if recorded and sha256_file(path) != recorded:
            raise InputError(
                f"{path}: its checksum is not the one recorded in {SIDECAR} when it was fetched; "
                "fetch it again, or remove its entry there"
            )
        found.append(Source("", found_kind, path, {**beside, **info.get(path.name, {})}))
    taken: set[str] = set()
    for source in found:
        stem = _SUFFIX.sub("", source.path.name)
        name, i = stem, 2
        while name in taken:
            name, i = f"{stem}_{i}", i + 1
        taken.add(name)
        source.id = name
    return found, ignored


def _spelled(kind: str) -> str:
    """The name of a kind of source as the manifest has it: "string_links", "graph:mine"."""
    part = parts.describe("source", kind)
    if part.facts.argument and part.given is None:
        raise InputError(f"the source {kind!r} needs a name of your own: {kind}:NAME")
    given = "" if part.given is None else f":{part.given}"
    return part.name if part.own else f"{part.facts.label or part.name}{given}"


_SUFFIX = re.compile(r"(?:\.(?:gz|zip|tsv|txt|csv|rpt|gmt|gtf|obo|gaf))+$")


def _recognise(path: Path, from_folder: bool) -> str | None:
    try:
        return recognise(path)
    except InputError:
        if from_folder and path.suffix not in (
            ".gz",
            ".zip",
            ".tsv",
            ".txt",
            ".rpt",
            ".gmt",
            ".obo",
        ):
            return None
        raise


def read_sidecar(folder: Path) -> dict[str, Any]:
    """What `sources.json` of a folder says of the files beside it, {} without one."""
    path = folder / SIDECAR
    if not path.is_file():
        return {}
    content = read_json_object(path, "a record of sources", "mend or remove it")
    files = content.setdefault("files", {})
    if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
        raise InputError(
            f"{path}: expected the key 'files' with an object a file; mend or remove it"
        )
    return content


def sidecar_label(found: list[Source], ignored: Sequence[str]) -> str:
    """What the folder must be labelled with: "simulated" beside SIMULATED.txt, or the sidecar's."""
    if SIMULATED in ignored:
        return "simulated"
    labels = {str(read_sidecar(s.path.parent).get("label", "")) for s in found} - {""}
    return ", ".join(sorted(labels))


_VERSION = re.compile(
    r"(?:[._-]v?)(\d{4}-\d{2}(?:-\d{2})?|v?\d+(?:\.\d+)+(?:\.Hs|\.Mm)?|v\d+)(?=[._-]|$)"
)


def _provider(source: Source, title: str, licence: str) -> tuple[str, str]:
    """Title and licence; those of a gmt file follow from the sets in it."""
    sets = source.parsed.tables.get("gene_sets")
    collections = set(sets["collection"]) if sets is not None else set()
    if collections == {"hallmark"}:
        return "MSigDB Hallmark gene sets", "CC BY 4.0"
    if collections == {"reactome"}:
        return "Reactome pathways", "CC0 1.0"
    return title, licence


def new_manifest(
    found: list[Source],
    ignored: list[str],
    dropped: Mapping[str, Any],
    label: str,
    taxon: str = "9606",
) -> dict[str, Any]:
    """The manifest without its tables: format, sources with checksums, what was left out."""
    sources: dict[str, Any] = {}
    for source in found:
        part = parts.describe("source", source.kind)
        title, licence = _provider(source, part.about, str(part.facts.more.get("licence", "")))
        in_name = _VERSION.search(source.path.name)
        modified = datetime.datetime.fromtimestamp(source.path.stat().st_mtime, datetime.UTC)
        sources[source.id] = {
            "kind": source.kind,
            "title": source.info.get("title", title),
            "file": source.path.name,
            "url": source.info.get("url", ""),
            "version": source.info.get("version")
            or source.parsed.version
            or (in_name.group(1) if in_name else ""),
            "date": source.info.get("date") or source.parsed.date or "",
            "file_date": modified.date().isoformat(),
            "licence": source.info.get("licence", licence),
            "sha256": sha256_file(source.path),
            "bytes": source.path.stat().st_size,
            "from_screen": bool(source.info.get("from_screen", False)),
            "left_out": dict(source.parsed.counts),
        }
    sources["curated"] = {
        "kind": "curated",
        "title": "module descriptions curated for pertwise",
        "file": "",
        "url": "",
        "version": __version__,
        "date": "",
        "file_date": "",
        "licence": "BSD-3-Clause",
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
        "taxon": taxon,
        "sources": sources,
        "ignored_files": ignored,
        "unresolved_names": dict(dropped),
        "embeddings": {},
    }
