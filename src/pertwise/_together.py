"""Several files that change together: all of them or none, whenever the program is killed.

They are written into a hidden folder beside their places. Renaming it to its final hidden name is
the moment from which on they count; moving them into place is then only finished, by this run or by
the next that looks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pertwise._io import flush_to_disk, why_not
from pertwise.errors import InputError


@contextlib.contextmanager
def together(folder: str | os.PathLike[str], name: str) -> Iterator[Path]:
    """Yield a folder to write files into; they replace those in `folder` when the block succeeds.

    `name` tells groups of files in one folder apart.

    Raises
    ------
    pertwise.errors.InputError
        When the files cannot be written; none of them has then changed.
    """
    target = Path(folder)
    stage: Path | None = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        finish(target, name)
        for left in target.glob(".*.stage-*"):
            if left.name.startswith(f".{name}.stage-"):
                shutil.rmtree(left, ignore_errors=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{name}.stage-", dir=target))
        yield stage
        for file in stage.iterdir():
            if (target / file.name).is_dir():
                raise InputError(f"{target / file.name} is a folder; move it away")
        flush_to_disk(stage)
        os.replace(stage, _ready(target, name))
        flush_to_disk(target)
        finish(target, name)
    except OSError as error:
        raise InputError(f"{error.filename or target}: {why_not(error)}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def finish(folder: Path, name: str) -> None:
    """Move files that count already, but were left by a kill, into their places."""
    ready = _ready(folder, name)
    if not ready.is_dir():
        return
    for file in sorted(ready.iterdir()):
        os.replace(file, folder / file.name)
    flush_to_disk(folder)
    ready.rmdir()


def _ready(folder: Path, name: str) -> Path:
    return folder / f".{name}.ready"
