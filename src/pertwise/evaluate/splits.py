"""Who is held out: folds, growing training sets, seen/unseen doubles, transfer, given folds.

Every split names its training and held-out perturbations; nothing else about the screen is used,
except by `split_doubles` the parts of combinations. Splits depend on the *names* and the generator,
never on the row order of a file, and every method of a benchmark gets the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._files import read_json
from pertwise.errors import InputError
from pertwise.screen.core import COMBINATION, canonical_perturbation


@dataclass(frozen=True)
class Split:
    """One training set and the perturbations predicted from it.

    Attributes
    ----------
    kind
        "folds", "growing", "doubles", "transfer" or "given".
    seed
        Number of the shuffle or repeat.
    fold
        Number within the shuffle.
    train, test
        Perturbation names, sorted, disjoint (except in transfer, where `train` is measured in
        another screen).
    strata
        held-out name -> group it is reported in ("1 of 2 seen"); empty when there are none.
    """

    kind: str
    seed: int
    fold: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    strata: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> dict[str, Any]:
        """JSON-able identity, for file names of results."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "fold": self.fold,
            "train": list(self.train),
            "test": list(self.test),
        }


def _names(perturbations: Sequence[str], least: int) -> NDArray[np.object_]:
    names = sorted({canonical_perturbation(p) for p in perturbations})
    if len(names) < least:
        raise InputError(f"{len(names)} measured perturbations are too few; need {least}")
    return np.array(names, dtype=object)


def _split(kind: str, seed: int, fold: int, train: Iterable[str], test: Iterable[str]) -> Split:
    return Split(kind, seed, fold, tuple(sorted(train)), tuple(sorted(test)))


def split_folds(
    perturbations: Sequence[str], n_folds: int, n_shuffles: int, seed: int
) -> list[Split]:
    """k-fold over perturbations, repeated: every perturbation is held out once per shuffle.

    Shuffle i uses the generator seeded with (seed, i), so adding shuffles keeps the earlier ones.

    Raises
    ------
    pertwise.errors.InputError
        If there are fewer perturbations than folds, or fewer than two folds.
    """
    if n_folds < 2:
        raise InputError(f"cross-validation needs at least 2 folds, got {n_folds}")
    names = _names(perturbations, n_folds)
    out = []
    for shuffle in range(n_shuffles):
        order = np.random.default_rng([seed, shuffle]).permutation(len(names))
        for fold, part in enumerate(np.array_split(order, n_folds)):
            rest = np.setdiff1d(order, part)
            out.append(_split("folds", shuffle, fold, names[rest], names[part]))
    return out


def split_growing(
    perturbations: Sequence[str],
    sizes: Sequence[int],
    n_repeats: int,
    seed: int,
    test_share: float = 0.2,
) -> list[Split]:
    """Growing training sets: each repeat holds out one test set and draws *nested* training sets.

    Sizes above the pool are cut to the whole pool (once). The same test set at all sizes makes the
    points of one curve comparable.
    """
    if not 0 < test_share < 1:
        raise InputError(f"test_share must be between 0 and 1, got {test_share}")
    if not sizes or min(sizes) < 1:
        raise InputError(f"training sizes must be positive, got {list(sizes)}")
    names = _names(perturbations, 2)
    n_test = max(1, round(test_share * len(names)))
    pool_size = len(names) - n_test
    chosen = sorted({min(int(n), pool_size) for n in sizes})
    out = []
    for repeat in range(n_repeats):
        order = np.random.default_rng([seed, repeat]).permutation(len(names))
        for fold, n in enumerate(chosen):
            pool = order[n_test : n_test + n]
            out.append(_split("growing", repeat, fold, names[pool], names[order[:n_test]]))
    return out


def split_doubles(
    perturbations: Sequence[str],
    n_shuffles: int,
    seed: int,
    *,
    unseen_share: float = 0.25,
    held_out_share: float = 0.25,
) -> list[Split]:
    """Seen/unseen splits of combinations (the scheme of GEARS, Roohani et al. 2024).

    A share of the genes is unseen: nothing with them is trained on. Held out are the singles of
    unseen genes ("single, unseen"), combinations with an unseen part ("0 of 2 seen", "1 of 2 seen")
    and a share of the combinations of seen genes only ("2 of 2 seen").

    Raises
    ------
    pertwise.errors.InputError
        If the screen has no combination.
    """
    names = _names(perturbations, 4)
    parts = {n: tuple(str(n).split(COMBINATION)) for n in names}
    combos = [n for n in names if len(parts[n]) > 1]
    if not combos:
        raise InputError("the screen has no combination such as 'A+B'; use folds instead")
    all_genes = np.array(sorted({g for p in parts.values() for g in p}), dtype=object)
    n_unseen = max(1, round(unseen_share * len(all_genes)))
    out = []
    for shuffle in range(n_shuffles):
        rng = np.random.default_rng([seed, shuffle])
        unseen = set(all_genes[rng.permutation(len(all_genes))[:n_unseen]])
        complete = [n for n in combos if not unseen & set(parts[n])]
        n_held = round(held_out_share * len(complete))
        held = {complete[i] for i in rng.permutation(len(complete))[:n_held]}
        strata = {}
        for name in names:
            seen = sum(g not in unseen for g in parts[name])
            if len(parts[name]) == 1:
                if not seen:
                    strata[name] = "single, unseen"
            elif seen < len(parts[name]) or name in held:
                strata[name] = f"{seen} of {len(parts[name])} seen"
        train = [n for n in names if n not in strata]
        if not train:
            raise InputError("no perturbation is left to train on; lower unseen_share")
        split = _split("doubles", shuffle, 0, train, list(strata))
        out.append(Split(split.kind, shuffle, 0, split.train, split.test, strata))
    return out


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


def split_given(perturbations: Sequence[str], path: str | os.PathLike[str]) -> list[Split]:
    """The folds of a recorded-answers file: train on `available_genes`, hold out the rest.

    Every measured perturbation that a fold does not list as available is held out, whether or not
    an answer was recorded for it.

    Raises
    ------
    pertwise.errors.InputError
        If a fold lists a perturbation that is not measured in the screen.
    """
    names = {str(n) for n in _names(perturbations, 2)}
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
        out.append(_split("given", 0, i, sorted(train), sorted(test)))
    return out
