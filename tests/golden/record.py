"""Record the goldens again and say what changed.

python tests/golden/record.py                    # everything
python tests/golden/record.py predictor/ page/   # only cases whose names begin so
python tests/golden/record.py --check            # write nothing, only say what changed
python tests/golden/record.py --dump DIR         # keep every array and text in DIR as well
python tests/golden/record.py --against DIR      # and compare them, value by value
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Before numpy: more threads add up in another order.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from golden import digest
from golden.running import FILE, built, read, world_in


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("only", nargs="*", help="beginnings of case names")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--dump", type=Path, help="folder for every array and text")
    parser.add_argument("--against", type=Path, help="folder of an earlier --dump")
    given = parser.parse_args()
    from golden.builders import CASES

    wanted = [c for c in CASES if not given.only or c.startswith(tuple(given.only))]
    known, where = read()
    fresh, slow = dict(known), []
    n_changed, broken = 0, []
    with tempfile.TemporaryDirectory() as folder, world_in(Path(folder)) as world:
        for name in wanted:
            start = time.process_time()
            try:
                value = built(name, world)
            except Exception as error:  # told, so that one broken builder does not hide the rest
                broken.append(name)
                print(f"BROKEN   {name}: {type(error).__name__}: {error}")
                continue
            slow.append((time.process_time() - start, name))
            fresh[name] = digest.record(value)
            changed = digest.differences(known.get(name, {}), fresh[name], exact=True)
            if name not in known:
                print(f"NEW      {name}")
            elif changed:
                n_changed += 1
                print(f"CHANGED  {name}")
                for line in changed:
                    print(f"         {line}")
            if given.dump:
                _dump(given.dump, name, value)
            if given.against:
                _against(given.against, name, value)
    gone = [n for n in known if n not in CASES]
    for name in gone:
        print(f"GONE     {name}")
    print(
        f"{len(wanted)} cases, {n_changed} changed, {len(gone)} gone, {len(broken)} broken, ",
        end="",
    )
    print(f"{sum(t for t, _ in slow):.0f} s; slowest: ", end="")
    print(", ".join(f"{n} {t:.1f} s" for t, n in sorted(slow, reverse=True)[:5]))
    if where != digest.machine():
        print(f"recorded on another machine: {where}")
    if not given.check:
        kept = {n: r for n, r in fresh.items() if n in CASES}
        FILE.write_text(digest.dumps(kept, digest.machine()), encoding="utf-8")
        print(f"written: {FILE}")


def _file(folder: Path, name: str) -> Path:
    return folder / ("".join(c if c.isalnum() or c in "-_" else "_" for c in name) + ".json")


def _dump(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = {k: v if isinstance(v, str) else v.tolist() for k, v in digest.leaves(value).items()}
    _file(folder, name).write_text(json.dumps(plain, indent=0), encoding="utf-8")


def _against(folder: Path, name: str, value: Any) -> None:
    """Largest difference of every array, first differing line of every text."""
    import numpy as np

    file = _file(folder, name)
    if not file.is_file():
        return
    old = json.loads(file.read_text(encoding="utf-8"))
    for key, leaf in digest.leaves(value).items():
        before = old.get(key)
        if isinstance(leaf, str) or isinstance(before, str) or before is None:
            if before != leaf:
                a, b = str(before).splitlines(), str(leaf).splitlines()
                first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), -1)
                print(f"  {name} {key}: line {first + 1}: {a[first][:300]!r} -> {b[first][:300]!r}")
        elif np.shape(before) != leaf.shape:
            print(f"  {name} {key}: shape {np.shape(before)} -> {leaf.shape}")
        else:
            gap = np.nan_to_num(np.abs(np.asarray(before, dtype=float) - leaf.astype(float)))
            if gap.max(initial=0.0) > 0:
                print(f"  {name} {key}: at most {gap.max():.3g}, in {(gap > 0).mean():.0%}")


if __name__ == "__main__":
    main()
