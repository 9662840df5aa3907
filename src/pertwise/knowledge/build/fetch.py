"""Download the public source files, recording address, day and checksum of each."""

from __future__ import annotations

import base64
import datetime
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pertwise._files import looks_like, open_text
from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise._progress import track
from pertwise._text import shown_url
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.build.readers import recognise
from pertwise.knowledge.build.readers._text import head
from pertwise.knowledge.build.remotes import REMOTES, Remote
from pertwise.knowledge.build.sources import read_sidecar
from pertwise.knowledge.layout import SIDECAR


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
    import requests

    table = {r.name: r for r in remotes}
    for name in only:
        if name not in table:
            raise unknown_name("source", name, table)
    wanted = [table[n] for n in only] if only else list(table.values())
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if ".tmp" in left.name and left.name.startswith(tuple(f".{r.file}." for r in wanted)):
            left.unlink(missing_ok=True)
    record = read_sidecar(folder)
    record.setdefault("files", {})
    # Below that level it prints whole addresses, a mirror's password among them.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    for remote in track(wanted, "downloading", len(wanted)):
        url = _at_mirror(mirror, remote.file) if mirror else remote.url
        known = record["files"].get(remote.file, {}).get("sha256")
        target = folder / remote.file
        if known and target.is_file() and sha256_file(target) == known:
            continue
        # A file of unknown origin under that name is not trusted, but stays until the new one is
        # here and is what it should be.
        shown = shown_url(url) if mirror else url
        with atomic_path(target) as temporary:
            try:
                _download(remote, url, shown, temporary, timeout)
            except requests.RequestException as error:
                raise InputError(_failure(remote, shown, folder, error)) from None
            _check(remote, shown, temporary)
        record["files"][remote.file] = {
            "title": remote.title,
            "url": shown,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "licence": remote.licence,
            "sha256": sha256_file(target),
        }
        write_json_atomic(folder / SIDECAR, record)
    return folder


def _at_mirror(mirror: str, file: str) -> str:
    parts = urlsplit(mirror)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{file}"))


def _download(remote: Remote, url: str, shown: str, path: Path, timeout: float) -> None:
    """The body of `url` into `path`, compared with the length and checksums that it came with."""
    import requests

    digests = {n: hashlib.new(n, usedforsecurity=False) for n in ("md5", "sha256")}
    size = 0
    # Not packed again on the way: length and checksum are then those of the file.
    plain = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=timeout, headers=plain) as response:
        response.raise_for_status()
        with open(path, "wb") as out:
            for block in response.iter_content(1 << 20):
                out.write(block)
                size += len(block)
                for digest in digests.values():
                    digest.update(block)
        wanted = _stated_digests(response.headers)
        length = response.headers.get("Content-Length", "")
        packed = response.headers.get("Content-Encoding", "identity") != "identity"
    wanted |= _listed_digest(remote, url, timeout)
    again = "the old file is kept; run the same command again"
    if not packed and length.isdigit() and int(length) != size:
        raise InputError(f"{shown} sent {size:,} of {int(length):,} bytes; {again}")
    for name, hexed in wanted.items():
        if not packed and digests[name].hexdigest() != hexed:
            raise InputError(f"{shown}: what came has not the {name} checksum published; {again}")


def _stated_digests(headers: Mapping[str, str]) -> dict[str, str]:
    """md5 and sha256 that HTTP headers state (Content-MD5, x-goog-hash, Digest, Repr-Digest)."""
    found = {}
    text = ", ".join(
        [f"md5={headers.get('Content-MD5', '')}"]
        + [headers.get(h, "") for h in ("x-goog-hash", "Digest", "Repr-Digest", "Content-Digest")]
    )
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        name = name.casefold().replace("-", "")
        try:
            raw = base64.b64decode(value.strip(":"), validate=True)
        except ValueError:
            continue
        if len(raw) == {"md5": 16, "sha256": 32}.get(name):
            found[name] = raw.hex()
    return found


def _listed_digest(remote: Remote, url: str, timeout: float) -> dict[str, str]:
    """The checksum in the list that the provider publishes beside the file; {} without one."""
    import requests

    if not remote.sums:
        return {}
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    beside = urlunsplit(parts._replace(path=f"{folder}/{remote.sums}"))
    answer = requests.get(beside, timeout=timeout)
    if not answer.ok:
        return {}
    for line in answer.text.splitlines():
        digest, _, file = line.strip().partition(" ")
        kind = {32: "md5", 64: "sha256"}.get(len(digest))
        if kind and file.strip(" *./").endswith(name):
            return {kind: digest.casefold()}
    return {}


def _check(remote: Remote, url: str, path: Path) -> None:
    """Whether a file is of the kind it was fetched for, whole and readable to its end."""
    kept = "the old file is kept"
    try:
        kind = recognise(path)
        start = [line for line in head(path) if line.strip() and not line.startswith("#")]
        # These two are recognised by their name, so what is in them is still to be seen.
        least = {"gmt": 3, "gtf": 9}.get(kind or "", 1)
        form = bool(start) and all(len(line.split("\t")) >= least for line in start)
        with open_text(path) as text:
            last = next(iter(deque(text, 1)), "")
    except InputError as error:
        said = str(error).replace(str(path), url)
        raise InputError(f"{said} ({kept})") from error
    if kind is None or not form or (remote.kind and kind != remote.kind):
        looks = looks_like(path) or (f"a file of kind {kind}" if kind and form else "no such file")
        raise InputError(
            f"{url} is not {remote.title}: what came looks like {looks}; the address may have "
            f"moved, or a proxy answered in its place ({kept})"
        )
    if not last.endswith("\n"):
        raise InputError(
            f"{url} ends within a line, so it was cut; run the same command again ({kept})"
        )


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
