"""Splits that a file names: folds of recorded answers, TOML files of held-out lines and pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    "..."}}}]}``.

    Raises
    ------
    pertwise.errors.InputError
        If the file is absent or laid out otherwise.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    data = read_json(file, "a file of recorded answers")
    try:
        return [
            RecordedFold(
                available=tuple(map(str, fold["available_genes"])),
                neighbours={
                    str(gene): tuple(map(str, answer["kNN"]))
                    for gene, answer in fold["answers"].items()
                },
                reasons={str(g): str(a.get("reason", "")) for g, a in fold["answers"].items()},
            )
            for fold in data["folds"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise InputError(
            f"{file} is not a file of recorded answers ({type(error).__name__}: {error}); expected "
            '{"folds": [{"available_genes": [...], "answers": {gene: {"kNN": [...]}}}]}'
        ) from error


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
        line = _line_name(key, screen, lines)
        if line is None:
            unknown.append(key)
        elif str(side) in ("test", "val"):
            held |= (obs["context"] == line).to_numpy()
    for key, parts in few.items():
        line = _line_name(key, screen, lines)
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


def _line_name(key: str, screen: Screen, lines: CellTable | None) -> str | None:
    """A line of the screen for "dataset.LINE", a plain name or an identifier."""
    for name in (key, key.partition(".")[2]):
        if name in screen.contexts:
            return name
        if name and "cellosaurus" in screen.obs:
            rows = screen.obs.loc[screen.obs["cellosaurus"] == name, "context"]
            if len(rows):
                return str(rows.iloc[0])
        known = lines.resolve(name) if lines is not None and name else None
        if known in screen.contexts:
            return known
    return None
