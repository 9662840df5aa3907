"""Download the public source files, recording address, day and checksum of each."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pertwise._io import sha256_file, write_json_atomic
from pertwise._progress import track
from pertwise._text import shown_url
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.layout import SIDECAR


@dataclass(frozen=True)
class Remote:
    """One public file: short name, file name here, address, title, licence."""

    name: str
    file: str
    url: str
    title: str
    licence: str


_STRING = "https://stringdb-downloads.org/download"
_NCBI = "https://ftp.ncbi.nlm.nih.gov/gene/DATA"
_OMNIPATH = "https://omnipathdb.org/interactions?genesymbols=1&organisms=9606&fields=type&datasets="
#: Where the public files are. Addresses change: `fetch_sources` takes others.
REMOTES = (
    Remote(
        "hgnc",
        "hgnc_complete_set.txt",
        "https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt",
        "HGNC complete set",
        "CC0 1.0",
    ),
    Remote(
        "gene_info",
        "Homo_sapiens.gene_info.gz",
        f"{_NCBI}/GENE_INFO/Mammalia/Homo_sapiens.gene_info.gz",
        "NCBI gene_info",
        "public domain",
    ),
    Remote(
        "gene_summary",
        "gene_summary.gz",
        f"{_NCBI}/gene_summary.gz",
        "NCBI gene_summary (RefSeq)",
        "public domain",
    ),
    Remote(
        "gaf",
        "goa_human.gaf.gz",
        "https://current.geneontology.org/annotations/goa_human.gaf.gz",
        "GO annotations (goa_human)",
        "CC BY 4.0",
    ),
    Remote(
        "obo",
        "go-basic.obo",
        "https://current.geneontology.org/ontology/go-basic.obo",
        "Gene Ontology (go-basic)",
        "CC BY 4.0",
    ),
    Remote(
        "hallmark",
        "h.all.v2024.1.Hs.symbols.gmt",
        "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2024.1.Hs/"
        "h.all.v2024.1.Hs.symbols.gmt",
        "MSigDB Hallmark",
        "CC BY 4.0",
    ),
    Remote(
        "reactome",
        "ReactomePathways.gmt.zip",
        "https://reactome.org/download/current/ReactomePathways.gmt.zip",
        "Reactome pathways",
        "CC0 1.0",
    ),
    Remote(
        "string_info",
        "9606.protein.info.v12.0.txt.gz",
        f"{_STRING}/protein.info.v12.0/9606.protein.info.v12.0.txt.gz",
        "STRING protein.info",
        "CC BY 4.0",
    ),
    Remote(
        "string_links",
        "9606.protein.links.detailed.v12.0.txt.gz",
        f"{_STRING}/protein.links.detailed.v12.0/9606.protein.links.detailed.v12.0.txt.gz",
        "STRING protein.links.detailed",
        "CC BY 4.0",
    ),
    Remote(
        "omnipath",
        "omnipath_interactions.tsv",
        f"{_OMNIPATH}omnipath",
        "OmniPath interactions",
        "composite (per source)",
    ),
    Remote(
        "collectri",
        "collectri_interactions.tsv",
        f"{_OMNIPATH}collectri",
        "CollecTRI (OmniPath)",
        "composite (per source)",
    ),
    Remote(
        "gtf",
        "gencode.v46.basic.annotation.gtf.gz",
        "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human/release_46/"
        "gencode.v46.basic.annotation.gtf.gz",
        "GENCODE basic annotation",
        "open (EMBL-EBI)",
    ),
)


def fetch_sources(
    out: str | os.PathLike[str],
    only: Sequence[str] = (),
    *,
    remotes: Iterable[Remote] = REMOTES,
    mirror: str = "",
    timeout: float = 60.0,
) -> Path:
    """Download public source files into a folder that `build_knowledge` reads.

    Each finished file is entered into `sources.json` with its address, day, licence and SHA-256.
    A file that is there with the recorded checksum is not downloaded again, so an interrupted
    fetch goes on where it stopped.

    Parameters
    ----------
    only
        Short names (`Remote.name`) of the files wanted; all when empty.
    mirror
        Take every file from this address + "/" + file name instead (an institute's copy).
    timeout
        Seconds without an answer before a download is given up.

    Raises
    ------
    InputError
        When a file cannot be downloaded: says which, why, and how to build from files instead.
    """
    import pooch
    import requests

    table = {r.name: r for r in remotes}
    for name in only:
        if name not in table:
            raise unknown_name("source", name, table)
    wanted = [table[n] for n in only] if only else list(table.values())
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    record = _read_record(folder)
    # Below that level they print whole addresses, a mirror's password among them.
    for logger in (pooch.get_logger(), logging.getLogger("urllib3")):
        logger.setLevel(logging.WARNING)
    for remote in track(wanted, "downloading", len(wanted)):
        url = _at_mirror(mirror, remote.file) if mirror else remote.url
        known = record["files"].get(remote.file, {}).get("sha256")
        target = folder / remote.file
        if known and target.is_file() and sha256_file(target) == known:
            continue
        # A file of unknown origin under that name is not trusted: it is fetched anew.
        target.unlink(missing_ok=True)
        try:
            pooch.retrieve(
                url,
                known_hash=None,
                path=folder,
                fname=remote.file,
                downloader=pooch.HTTPDownloader(timeout=timeout),
            )
        except requests.RequestException as error:
            shown = shown_url(url) if mirror else url
            raise InputError(_failure(remote, shown, folder, error)) from None
        record["files"][remote.file] = {
            "title": remote.title,
            "url": shown_url(url) if mirror else url,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "licence": remote.licence,
            "sha256": sha256_file(target),
        }
        write_json_atomic(folder / SIDECAR, record)
    return folder


def _at_mirror(mirror: str, file: str) -> str:
    parts = urlsplit(mirror)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{file}"))


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / SIDECAR
    if not path.is_file():
        return {"files": {}}
    try:
        record = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); remove it and fetch again") from error
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise InputError(f"{path}: expected an object with the key 'files'; remove it")
    return record


def _failure(remote: Remote, url: str, folder: Path, error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        why = f"the server answered {response.status_code}: the address may have moved"
    else:
        why = f"no connection ({type(error).__name__}): this machine seems to be offline"
    return (
        f"cannot download {remote.title} from {url}: {why}. What was downloaded stays in {folder}; "
        "run the same command again to go on. Without network: download the files by hand on "
        "another machine, copy them into one folder and run pertwise knowledge build FOLDER "
        "--out DIR"
    )
