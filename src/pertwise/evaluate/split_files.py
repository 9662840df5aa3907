"""Splits of a screen's rows that a file names: other tools' held-out sets, and what was predicted.

Formats: PIE (JSON objects ``{"dataset.CONTEXT": [names]}``, a folder with train.json, val.json and
test.json, or a test file beside a train file), STATE and Tahoe (TOML, `given.read_toml_split`),
TxPert and GEARS (one JSON object with train, val, test, and the cell types of each where they
differ), or any of them in a list (folds). Pickles are not opened: they can run code.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import read_json
from pertwise._names import COMBINATION, canonical_perturbation
from pertwise.errors import InputError
from pertwise.evaluate.given import line_name, read_toml_split
from pertwise.evaluate.splits import Split, with_held
from pertwise.knowledge.lines import CellTable
from pertwise.models.external import read_external
from pertwise.screen.core import Screen
from pertwise.screen.labels import without_controls

Mask = NDArray[np.bool_]
_SIDES = ("train", "val", "test")
_HELP = (
    'a split looks like {"dataset.LINE": [names]} with train.json beside it (PIE), or {"train": '
    '[names], "test": [names]} (TxPert, GEARS), or is the TOML of STATE'
)


def read_splits(
    paths: Sequence[str | os.PathLike[str]], screen: Screen, lines: CellTable | None = None
) -> list[Split]:
    """The splits of files or folders, one fold each, or several where a file lists them.

    What a file does not name is learned from, unless it names what is; its validation rows are
    neither learned from nor scored. A split is of the kind that its rows show: "context" (line
    unseen), "compound" (perturbation unseen), "both", or "pair".

    Raises
    ------
    pertwise.errors.InputError
        If a file is none of these, or holds out or leaves nothing of the screen.
    """
    found: list[Split] = []
    for path in map(Path, paths):
        if path.suffix == ".toml":
            made = [read_toml_split(path, screen, lines)]
        else:
            made = [_split(one, screen, lines, str(path)) for one in _objects(path)]
        found += [replace(s, fold=len(found) + i) for i, s in enumerate(made)]
    return found


def predicted_split(paths: Sequence[str | os.PathLike[str]], screen: Screen) -> Split:
    """Held out: the rows that all of these files of predictions (`read_external`) predict.

    Raises
    ------
    pertwise.errors.InputError
        If there is none, or nothing is left to learn from.
    """
    held: Mask = np.ones(len(screen), dtype=bool)
    keys = list(zip(screen.obs["perturbation"], screen.obs["context"], strict=True))
    for path in map(Path, paths):
        there = read_external(path, screen)
        own = np.array([there.row(name, context) is not None for name, context in keys])
        if not own.any():
            raise InputError(f"{path} predicts nothing that the screen measured")
        held &= own
    if not held.any():
        raise InputError("no measured row is predicted by all of these files")
    return _made(screen, ~held, held, "the files of predictions")


def _objects(path: Path) -> list[dict[str, Any]]:
    """What is held out, learned from and set aside, of every fold of a file or folder."""
    if path.is_dir():
        sides = {s: path / f"{s}.json" for s in _SIDES}
        if not sides["test"].is_file():
            raise InputError(f"{path}: has no test.json; {_HELP}")
        return [{s: read_json(f, "a split") for s, f in sides.items() if f.is_file()}]
    if path.suffix in (".pkl", ".pickle"):
        raise InputError(f"{path}: pickles are not opened, they can run code; save it as JSON")
    data = read_json(path, "a split")
    if isinstance(data, dict) and isinstance(data.get("folds"), list):
        data = data["folds"]
    objects = data if isinstance(data, list) else [data]
    for one in objects or [None]:
        if not isinstance(one, dict) or not one:
            raise InputError(f"{path} holds no split; {_HELP}")
    if len(objects) == 1 and "test" not in objects[0]:
        beside = {s: path.parent / f"{s}.json" for s in ("train", "val")}
        more = {s: read_json(f, "a split") for s, f in beside.items() if f.is_file() and f != path}
        return [{"test": objects[0], **more}]
    return objects


def _split(one: Mapping[str, Any], screen: Screen, lines: CellTable | None, where: str) -> Split:
    if "test" not in one:
        raise InputError(f"{where}: holds out nothing (no 'test'); {_HELP}")
    sides = {side: _rows(one, side, screen, lines, where) for side in _SIDES if side in one}
    held = sides["test"]
    aside = held | sides.get("val", np.zeros(len(screen), dtype=bool))
    train = sides.get("train", ~aside) & ~aside
    split = _made(screen, train, held, where)
    listed = one.get("subgroup")
    groups = one.get("test_subgroup") or (listed if isinstance(listed, dict) else {}).get(
        "test_subgroup", {}
    )
    if not isinstance(groups, dict) or not all(isinstance(v, list) for v in groups.values()):
        raise InputError(f"{where}: 'test_subgroup' holds no lists of names; {_HELP}")
    told = {_name(n): str(group) for group, names in groups.items() for n in names}
    asked = screen.obs.loc[list(split.test), "perturbation"]
    return replace(split, strata={n: told[n] for n in asked if n in told})


def _rows(
    one: Mapping[str, Any], side: str, screen: Screen, lines: CellTable | None, where: str
) -> Mask:
    """(n_rows,) rows of one side: names in all contexts, in the named ones, or by context."""
    obs, wanted = screen.obs, one[side]
    contexts = _listed(one, (f"{side}_cell_types", f"{side}_cell_type", f"{side}_contexts"))
    found = np.zeros(len(obs), dtype=bool)
    if isinstance(wanted, list):
        wanted = dict.fromkeys(contexts or screen.contexts, wanted)
    if not isinstance(wanted, Mapping) or not all(isinstance(v, list) for v in wanted.values()):
        raise InputError(f"{where}: {side!r} holds no lists of names; {_HELP}")
    for key, names in wanted.items():
        line = line_name(str(key), screen, lines)
        if line is not None:
            known = {_name(n) for n in names}
            found |= ((obs["context"] == line) & obs["perturbation"].isin(known)).to_numpy()
    return found


def _listed(one: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    given: Any = next((one[k] for k in keys if one.get(k)), [])
    return [str(x) for x in given] if isinstance(given, list) else [str(given)]


def _name(label: object) -> str:
    return canonical_perturbation(COMBINATION.join(without_controls(str(label), ("ctrl",))))


def _made(screen: Screen, train: Mask, held: Mask, where: str) -> Split:
    obs = screen.obs
    kind = _kind(obs, train, held)
    if kind in ("compound", "both"):
        train = train & ~with_held(obs["perturbation"], held)
    if not held.any() or not train.any():
        what = "holds out nothing" if not held.any() else "leaves nothing to learn from"
        raise InputError(
            f"{where}: {what} of the screen, whose lines are {list(screen.contexts)[:5]} and whose "
            f"perturbations are {list(screen.perturbations)[:3]} ..."
        )
    names = obs.index.to_numpy(dtype=object)
    return Split(kind, 0, 0, tuple(names[train]), tuple(names[held]), by="row")


def _kind(obs: pd.DataFrame, train: Mask, held: Mask) -> str:
    """The regime whose rules fit: what of the held-out rows is never learned from."""

    def apart(column: str) -> bool:
        learned: Collection[str] = set(obs.loc[train, column])
        return not set(obs.loc[held, column]) & set(learned)

    return {(True, True): "both", (True, False): "context", (False, True): "compound"}.get(
        (apart("context"), apart("perturbation")), "pair"
    )
