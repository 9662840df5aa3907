"""Splits that a file names: folds of recorded answers, TOML files of held-out lines and pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pertwise._files import read_json
from pertwise._names import canonical_perturbation
from pertwise.config import read_toml
from pertwise.errors import InputError
from pertwise.evaluate.splits import Split
from pertwise.knowledge.lines import CellTable
from pertwise.parts import part
from pertwise.screen.conditions import parse_condition
from pertwise.screen.core import Screen


@dataclass(frozen=True)
class RecordedFold:
    """One fold of a file of recorded neighbour answers.

    Attributes
    ----------
    available
        Names that could be chosen (the training set).
    neighbours
        held-out name -> neighbours, best first.
    reasons
        held-out name -> reason ("" where none was recorded).
    """

    available: tuple[str, ...]
    neighbours: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]


def read_recorded_folds(path: str | os.PathLike[str]) -> list[RecordedFold]:
    """Folds of a recorded-answers file (JSON, optionally gzip).

    Layout: ``{"folds": [{"available_genes": [...], "answers": {gene: {"kNN": [...], "reason":
    "..."}}}]}``; answers of another kind (edits) have no ``kNN``.

    Raises
    ------
    pertwise.errors.InputError
        If the file is absent or laid out otherwise; names the fold and the key.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    data = read_json(file, "a file of recorded answers")
    folds = _there(data, "folds", list, f"{file}")
    out = []
    for number, fold in enumerate(folds):
        where = f"{file}, fold {number}"
        available = _there(fold, "available_genes", list, where)
        answers = _there(fold, "answers", dict, where)
        for gene, answer in answers.items():
            if not isinstance(answer, dict) or not isinstance(answer.get("kNN", []), list):
                raise _other(f"{where}, answer for {gene!r}", "is no object with a list 'kNN'")
        out.append(
            RecordedFold(
                available=tuple(map(str, available)),
                neighbours={str(g): tuple(map(str, a.get("kNN", ()))) for g, a in answers.items()},
                reasons={str(g): str(a.get("reason", "")) for g, a in answers.items()},
            )
        )
    return out


def _there(data: Any, key: str, kind: type, where: str) -> Any:
    """What stands under a key, if it is a list (an object) as it must be."""
    if not isinstance(data, dict):
        raise _other(where, f"holds a {type(data).__name__}, not an object with the key {key!r}")
    if key not in data:
        there = ", ".join(map(repr, list(map(str, data))[:5])) or "nothing"
        raise _other(where, f"has no key {key!r}; it has {there}")
    if not isinstance(data[key], kind):
        raise _other(where, f"{key!r} is a {type(data[key]).__name__}, not a {kind.__name__}")
    return data[key]


def _other(where: str, what: str) -> InputError:
    return InputError(
        f"{where} {what}: not a file of recorded answers in folds, which looks like "
        '{"folds": [{"available_genes": [...], "answers": {gene: {"kNN": [...]}}}]}'
    )


@part(label="given", reads="path")
def split_given(
    perturbations: Sequence[str], path: str | os.PathLike[str], seed: int = 0
) -> list[Split]:
    """The folds of a recorded-answers file: train on `available_genes`, hold out the rest.

    Every measured perturbation that a fold does not list as available is held out, whether or not
    an answer was recorded for it. The seed decides nothing.

    Raises
    ------
    pertwise.errors.InputError
        If a fold lists a perturbation that is not measured in the screen.
    """
    names = {canonical_perturbation(p) for p in perturbations}
    out = []
    for i, fold in enumerate(read_recorded_folds(path)):
        train = {canonical_perturbation(n) for n in fold.available}
        unknown = sorted(train - names)
        if unknown:
            raise InputError(
                f"{path}: fold {i} trains on {unknown[0]!r}, which is not measured in the screen "
                f"({len(unknown)} such names)"
            )
        test = names - train
        if not test:
            raise InputError(f"{path}: fold {i} holds out nothing")
        out.append(Split("given", 0, i, tuple(sorted(train)), tuple(sorted(test))))
    return out


def read_toml_split(
    path: str | os.PathLike[str], screen: Screen, lines: CellTable | None = None
) -> Split:
    """Tahoe/STATE split files: ``[zeroshot] "dataset.LINE" = "test"`` and ``[fewshot]`` lists.

    Lines may be Cellosaurus identifiers, which `lines` (or a ``cellosaurus`` column of the screen)
    turns into names; perturbations may be written as ``[('Drug', 5.0, 'uM')]``. "val" rows count
    as test.

    Raises
    ------
    pertwise.errors.InputError
        If the file is not TOML, has neither section, or names no line of the screen.
    """
    file = Path(path)
    data = read_toml(file)
    zero, few = data.get("zeroshot", {}), data.get("fewshot", {})
    if not zero and not few:
        raise InputError(f"{file}: neither [zeroshot] nor [fewshot] holds anything out")
    obs = screen.obs
    held = np.zeros(len(obs), dtype=bool)
    unknown = []
    for key, side in zero.items():
        line = line_name(key, screen, lines)
        if line is None:
            unknown.append(key)
        elif str(side) in ("test", "val"):
            held |= (obs["context"] == line).to_numpy()
    for key, parts in few.items():
        line = line_name(key, screen, lines)
        if line is None:
            unknown.append(key)
            continue
        for side in ("test", "val"):
            wanted = [parse_condition(p) for p in parts.get(side, [])]
            for drug, dose in wanted:
                rows = (obs["context"] == line) & (obs["perturbation"] == drug)
                held |= (rows if np.isnan(dose) else rows & (obs["dose"] == dose)).to_numpy()
    if not held.any():
        raise InputError(
            f"{file}: none of its lines ({[*zero, *few][:5]}) holds a row; the screen has lines "
            f"{list(screen.contexts)[:5]} (identifiers need a table of cell lines)"
        )
    if held.all():
        raise InputError(f"{file}: holds out every row; nothing is left to train on")
    names = obs.index.to_numpy(dtype=object)
    return Split("given", 0, 0, tuple(names[~held]), tuple(names[held]), by="row")


def line_name(key: str, screen: Screen, lines: CellTable | None) -> str | None:
    """A line of the screen for "dataset.LINE", a plain name (in any case) or an identifier."""
    folded = {c.casefold(): c for c in reversed(screen.contexts)}
    for name in (key, key.partition(".")[2]):
        if name in screen.contexts:
            return name
        if name and name.casefold() in folded:
            return folded[name.casefold()]
        if name and "cellosaurus" in screen.obs:
            rows = screen.obs.loc[screen.obs["cellosaurus"] == name, "context"]
            if len(rows):
                return str(rows.iloc[0])
        known = lines.resolve(name) if lines is not None and name else None
        if known in screen.contexts:
            return known
    return None
