"""How much memory an array may take: sizes of blocks, and a guard before large work starts."""

from __future__ import annotations

import os
from pathlib import Path

from pertwise.errors import InputError

#: Kernels of several kinds are held for so many rows at a time that they fill this many bytes.
BLOCK_BYTES = 256 * 1024**2
_MEMINFO = Path("/proc/meminfo")


def rows_at_once(row_bytes: int) -> int:
    """Rows of `row_bytes` bytes that fill `BLOCK_BYTES`; at least one."""
    return max(1, BLOCK_BYTES // max(row_bytes, 1))


def available_memory() -> int | None:
    """Bytes that can be had without swapping, all memory where only that is told, else None."""
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return pages * size if pages > 0 and size > 0 else None


def require_memory(needed: int, what: str, advice: str) -> None:
    """Raise before work that cannot fit.

    Raises
    ------
    pertwise.errors.InputError
        If `needed` bytes are more than the available memory; says both, and `advice`.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are "
            f"available: {advice}"
        )
