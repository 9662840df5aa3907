"""A plan that a person has changed is not erased by planning again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pertwise.acquire.panel import Decision, Plan
from pertwise.errors import InputError

#: Who changes a panel by a rule and would do so again: nothing is lost with such a change.
BY_RULE = ("pertwise guides",)
FOLDER = "history"


def amendments(plan: Plan) -> list[Decision]:
    """What persons decided since the plan was last made."""
    made = max((i for i, d in enumerate(plan.decisions) if d.action == "made"), default=-1)
    return [d for d in plan.decisions[made + 1 :] if d.by not in BY_RULE]


def check_not_erased(
    folder: str | os.PathLike[str], new: Plan | None = None, name: str = "plan"
) -> Plan | None:
    """The plan in a folder, if writing `new` (None: one not made yet) there would lose amendments.

    A plan that goes on from the one that is there, as an amendment does, loses nothing.
    """
    file = Path(folder) / f"{name}.json"
    if not file.is_file():
        return None
    old = Plan.load(file)
    kept = new is not None and new.decisions[: len(old.decisions)] == old.decisions
    return old if amendments(old) and not kept else None


def refuse_erasing(
    folder: str | os.PathLike[str], new: Plan | None = None, name: str = "plan"
) -> None:
    """Raise where `check_not_erased` finds a plan.

    Raises
    ------
    pertwise.errors.InputError
        Says who decided last, and what to do.
    """
    old = check_not_erased(folder, new, name)
    if old is None:
        return
    decided = amendments(old)
    last = decided[-1]
    raise InputError(
        f"{Path(folder) / name}.json holds {len(decided)} amendment{'s'[: len(decided) != 1]} "
        f"(last: {last.action} by {last.by}, {last.why!r}): plan into another folder, or say "
        f"--overwrite (overwrite=True), which keeps it in {FOLDER}/"
    )


def keep_old(folder: str | os.PathLike[str], old: Plan, name: str = "plan") -> Path:
    """Copy the files of a plan into `FOLDER`, under its time and revision; where its json lies."""
    place = Path(folder) / FOLDER
    place.mkdir(exist_ok=True)
    stem = f"{name}-{old.created.replace(':', '').replace('+0000', 'Z')}-r{old.revision}"
    free, i = stem, 1
    while (place / f"{free}.json").exists():
        i += 1
        free = f"{stem}-{i}"
    for kind in ("csv", "html", "json"):
        file = Path(folder) / f"{name}.{kind}"
        if file.is_file():
            shutil.copy2(file, place / f"{free}.{kind}")
    return place / f"{free}.json"
