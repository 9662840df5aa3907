"""What the test and the recorder share: one thread, one world, one file of digests."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golden.digest import Record

FILE = Path(__file__).parent / "digests.json"


def read() -> tuple[dict[str, Record], dict[str, Any]]:
    """Recorded cases and the machine they were recorded on; empty when there is no file."""
    if not FILE.is_file():
        return {}, {}
    data = json.loads(FILE.read_text(encoding="utf-8"))
    return data["cases"], data["machine"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """BLAS, OpenMP and torch with one thread: sums are added in one order."""
    from threadpoolctl import threadpool_limits

    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@contextlib.contextmanager
def world_in(folder: Path) -> Iterator[Any]:
    """The simulated inputs of all cases; the scripted server is stopped at the end."""
    from golden.builders import World

    world = World(folder)
    try:
        yield world
    finally:
        world.close()


def built(name: str, world: Any) -> Any:
    """The value of one case."""
    from golden.builders import CASES

    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name](world)
