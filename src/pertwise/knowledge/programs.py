"""`Program`: what a mark is about, with marker genes that say what a mark above 0 means.

Two askers of one model took opposite signs where "up" was left open, so each program names genes.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertwise._files import read_json
from pertwise._io import write_csv_atomic
from pertwise._tables import columns_of, read_frame
from pertwise._text import one_line
from pertwise.errors import InputError
from pertwise.knowledge.genes.pathways import load_pathway
from pertwise.knowledge.ratings import SCALE, STRENGTH
from pertwise.parts import slugify

if TYPE_CHECKING:
    from pertwise.knowledge.store import Knowledge

#: Marker genes of a gene set that are shown.
N_MARKERS = 12
#: Columns of a table of programs.
COLUMNS = ("key", "name", "definition", "up", "down", "signed")
#: What can stand in a question and come back as the key of an object.
_KEY = re.compile(r"[\w.+-][\w .+-]{0,39}")
#: What a table of marks calls something else, and so no program may be called.
_TAKEN = frozenset(
    re.split(
        r"\s+",
        "perturbation gene drug compound symbol item name marks ratings context cell cell_line "
        "cell_type reason source replicate",
    )
)


@dataclass(frozen=True)
class Program:
    """One column of marks.

    Attributes
    ----------
    key
        Short name of the column in a question and its answer.
    name
        Name of the column in the table of marks.
    definition
        What is marked.
    up, down
        Genes that rise and fall where the mark is above 0.
    signed
        From -3 to 3; else 0 to 3, a size.
    contexts
        Cells in which it is asked; empty = all.
    """

    key: str
    name: str
    definition: str
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    signed: bool = True
    contexts: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        """Lowest mark; the highest is `pertwise.knowledge.ratings.SCALE`."""
        return -SCALE if self.signed else 0.0

    @property
    def plus(self) -> str:
        """What a mark above 0 means, in words; "" for a size and where no gene says it."""
        rise = f"{', '.join(self.up)} rise" if self.up else ""
        fall = f"{', '.join(self.down)} fall" if self.down else ""
        return "; ".join(x for x in (rise, fall) if x)


@functools.cache
def _shipped() -> Mapping[str, Any]:
    text = resources.files("pertwise.knowledge").joinpath("programs.toml").read_text("utf-8")
    return tomllib.loads(text)


def strength() -> Program:
    """The size of the whole response, asked last of every list."""
    return Program(**_shipped()["strength"], signed=False)


def general_programs(kind: str, knowledge: Knowledge | None = None) -> tuple[Program, ...]:
    """The shipped programs of "genes" or "drugs" for any screen, strength last.

    Their marker genes are human; of a folder of another species they get the symbols that differ in
    letter case only or are listed as aliases, and the others are left out.
    """
    listed: list[dict[str, Any]] = [
        {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        for entry in _shipped()[kind]
    ]
    if knowledge is not None and knowledge.species != "human":
        for entry in listed:
            for side in {"up", "down"} & set(entry):
                own = knowledge.resolve(entry[side]).approved
                entry[side] = tuple(own[g] for g in entry[side] if g in own)
    return (*(Program(**entry) for entry in listed), strength())


def programs_for(programs: Iterable[Program], context: str) -> tuple[Program, ...]:
    """Those of the programs that are asked in a context."""
    plain = slugify(context).replace("-", "")
    return tuple(p for p in programs if not p.contexts or plain in {slugify(c) for c in p.contexts})


def checked_programs(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs with strength last, added where it lacks.

    Raises
    ------
    pertwise.errors.InputError
        Names a key or name that is empty, taken by a column of the table, or there twice.
    """
    plain = [p for p in programs if p.name != STRENGTH]
    own = [p for p in programs if p.name == STRENGTH]
    if any(p.signed for p in own):
        raise InputError(f"program {STRENGTH!r}: it is a size and has no sign")
    for program in plain:
        for word in (program.key, program.name):
            if not word.strip() or word.casefold() in _TAKEN or word.endswith(" spread"):
                raise InputError(
                    f"program {one_line(program.name or program.key, 60)!r}: {word!r} cannot be "
                    "its name or key: it is empty or means another column of a table of marks"
                )
        if not _KEY.fullmatch(program.key):
            raise InputError(
                f"program {one_line(program.name, 60)!r}: the key {one_line(program.key, 60)!r} is "
                "no short word; give letters, digits and _ (at most 40)"
            )
    found = (*plain, *(own or [strength()]))
    words = [(p, {p.key.casefold(), p.name.casefold()}) for p in found]
    for i, (program, mine) in enumerate(words):
        other = next((o for o, theirs in words[:i] if mine & theirs), None)
        if other is not None:
            raise InputError(
                f"the programs {other.name!r} ({other.key}) and {program.name!r} ({program.key}) "
                "have a name or key in common; give each its own"
            )
    return found


def short_key(name: str, taken: Iterable[str] = ()) -> str:
    """A key of at most about 16 characters for a name, unlike those taken."""
    plain = slugify(name).replace("-", "_")
    base = re.sub(r"^\d+_", "", plain)[:16].strip("_") or "program"
    base = f"{base}_" if base in _TAKEN else base
    used, key, number = set(taken), base, 2
    while key in used:
        key, number = f"{base}_{number}", number + 1
    return key


def distinct_keys(programs: Sequence[Program]) -> list[Program]:
    """The programs, a key that means two of them made another one."""
    found: list[Program] = []
    for program in programs:
        taken = {p.key.casefold() for p in found}
        taken |= {p.name.casefold() for p in programs if p.name != program.name}
        free = program.key.casefold() not in taken
        found.append(program if free else replace(program, key=short_key(program.key, taken)))
    return found


def pathway_programs(knowledge: Knowledge, texts: Sequence[str]) -> list[Program]:
    """One program a gene set (name, gmt, file or list of genes, see `load_pathway`): + = its genes
    rise. `N_MARKERS` of its genes are shown, taken in turn from its modules.
    """
    found: list[Program] = []
    for text in texts:
        pathway = load_pathway(knowledge, text)
        groups = [sorted(members) for members in pathway.modules.values()]
        turns = chain.from_iterable(zip_longest(*(groups or [sorted(pathway.members)])))
        markers = tuple(dict.fromkeys(g for g in turns if g))[:N_MARKERS]
        key = short_key(pathway.name.removeprefix("HALLMARK_"))
        words = pathway.description or f"the {len(pathway.members)} genes of this set"
        found.append(Program(key, pathway.name, words, markers))
    return found


def feature_programs(features: Sequence[str], table: pd.DataFrame) -> list[Program]:
    """The features of a screen as programs.

    Parameters
    ----------
    table
        Facts about features (`Screen.feature_table`): columns ``definition``, ``up``, ``down``
        (genes separated by commas or spaces) where they are known, ``markers`` for up.
    """
    found: list[Program] = []
    for name in features:
        row = dict(table.loc[name]) if name in table.index else {}
        up = _genes(row.get("up", row.get("markers")))
        words = _text(row.get("definition")) or "as its name says; above 0 = its score rises"
        key = short_key(name)
        found.append(Program(key, name, words, up, _genes(row.get("down"))))
    return found


def named_by(feature: str, programs: Sequence[str]) -> str | None:
    """The program whose every word is in the name of the feature; the one of most words."""
    words = set(slugify(feature).split("-"))
    found = {p: set(slugify(p).split("-")) for p in programs if p != STRENGTH}
    fits = [p for p, own in found.items() if own and own <= words]
    return max(fits, key=lambda p: len(found[p]), default=None)


# -- files -------------------------------------------------------------------------------------


def read_programs(path: str | os.PathLike[str]) -> tuple[Program, ...]:
    """Programs from a csv (columns `COLUMNS`) or a JSON list of objects with these keys.

    ``name`` and ``definition`` are needed; a key is made where there is none, ``up`` and ``down``
    are genes separated by spaces, commas or semicolons, or a list.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and the program that lacks something.
    """
    file = Path(path)
    if file.suffix.casefold() == ".json":
        listed = read_json(file, "a list of programs")
        rows = listed.get("programs") if isinstance(listed, dict) else listed
    else:
        frame = read_frame(file, dtype=str, keep_default_na=False)
        frame.columns = pd.Index([str(c).strip().casefold() for c in frame.columns])
        if not {"name", "definition"} <= set(frame.columns):
            raise InputError(
                f"{file}: a table of programs has the columns {', '.join(COLUMNS)}; there are "
                f"{columns_of(frame)}"
            )
        rows = frame.to_dict("records")
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file}: no list of programs in it")
    found: list[Program] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not _text(row.get("name")):
            raise InputError(f"{file}: program {number} has no name")
        name = _text(row["name"])
        if not _text(row.get("definition")):
            raise InputError(f"{file}: program {name!r} has no definition")
        size = name == STRENGTH or _text(row.get("signed")).casefold() in ("false", "no", "0")
        found.append(
            Program(
                _text(row.get("key")) or short_key(name, [p.key for p in found]),
                name,
                _text(row["definition"]),
                _genes(row.get("up")),
                _genes(row.get("down")),
                not size,
            )
        )
    return checked_programs(found)


def program_table(programs: Sequence[Program]) -> pd.DataFrame:
    """One row a program: the columns that `read_programs` reads."""
    rows = [
        (p.key, p.name, p.definition, " ".join(p.up), " ".join(p.down), p.signed) for p in programs
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_programs(path: str | os.PathLike[str], programs: Sequence[Program]) -> None:
    """Write `program_table` as csv, atomically."""
    write_csv_atomic(path, program_table(programs))


def _text(value: Any) -> str:
    return "" if value is None or value is pd.NA or value != value else one_line(str(value))


def _genes(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(_text(v) for v in value if _text(v))
    return tuple(g for g in re.split(r"[\s,;]+", _text(value)) if g)
