"""Who is held out: rows of (perturbation, context, dose), folds, growing sets, doubles, transfer.

`split_rows` holds out rows of a screen by what they are (perturbation, compound, scaffold, context,
pair, both, dose) and proves that nothing leaks; the other splits name the training and held-out
perturbations of one context. `evaluate.given` reads splits from files. Splits depend on the *names*
and the generator, never on the row order of a file, and every method of a benchmark gets the same
ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation, split_combination, with_parts_of
from pertwise.arrays.folds import group_folds
from pertwise.errors import InputError
from pertwise.models.context_kernel import HoldOut
from pertwise.parts import part
from pertwise.screen.core import Screen

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: Regime of `split_rows` -> what is held out, in words for reports.
REGIMES: Mapping[str, str] = {
    "perturbation": "all contexts of a fifth of the perturbations, by name",
    "compound": "the same, one thing under several names (salts, aliases) as one",
    "scaffold": "all of a fifth of the families: Murcko scaffolds, shared promoters",
    "context": "all perturbations of a fifth of the contexts",
    "pair": "(perturbation, context) pairs; the perturbation may be measured in other contexts",
    "both": "a fifth of the perturbations in a fifth of the contexts, and neither is learned from",
    "dose": "the highest dose of every perturbation",
    "given": "contexts and pairs named in a TOML split file",
}
#: Other words for three of them.
REGIME_WORDS: Mapping[str, str] = {
    "unseen drug": "compound",
    "unseen line": "context",
    "open world": "pair",
}
#: The three settings of one page: perturbation unseen, context unseen, both.
THREE_SETTINGS = ("compound", "context", "both")
#: What is unseen: three questions (and the last two at once) whose answers are never averaged, in
#: words for tables.
SETTINGS: Mapping[str, str] = {
    "anywhere": "perturbation unseen anywhere",
    "elsewhere": "unseen here, measured in another line",
    "line": "unseen line",
    "both": "unseen line, perturbation unseen anywhere",
}
#: What the inner folds of a tuned method hold out in each regime.
INNER: Mapping[str, HoldOut] = {
    "context": "context",
    "given": "context",
    "pair": "pair",
    "dose": "pair",
}


@dataclass(frozen=True)
class Split:
    """One training set and the perturbations predicted from it.

    Attributes
    ----------
    kind
        "folds", "growing", "doubles", "transfer", "given", a regime of `split_rows`, or that of a
        split of one's own.
    seed
        Number of the shuffle or repeat.
    fold
        Number within the shuffle.
    train, test
        Perturbation names, sorted, disjoint (except in transfer, where `train` is measured in
        another screen); or, `by` "row", names of rows (`Screen.obs.index`) in their order.
    strata
        held-out name -> group it is reported in ("1 of 2 seen"); empty when there are none.
    by
        What `train` and `test` name.
    elsewhere
        The held-out perturbations were measured in other screens, which a method may use; else a
        method gets its other screens without them (`Method.build`).
    """

    kind: str
    seed: int
    fold: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    strata: Mapping[str, str] = field(default_factory=dict)
    by: Literal["perturbation", "row"] = "perturbation"
    elsewhere: bool = False

    @property
    def unseen_anywhere(self) -> bool:
        """Whether the other screens of a method must not hold what is held out either."""
        if self.by == "row":
            return self.kind not in ("context", "given", "pair", "dose")
        return not self.elsewhere and self.kind != "transfer"

    @property
    def hold_out(self) -> HoldOut:
        """What the inner folds of a tuned method should hold out."""
        return INNER.get(self.kind, "perturbation") if self.by == "row" else "perturbation"

    def of(self, screen: Screen, source: Screen | None = None) -> tuple[Screen, Screen]:
        """The training screen (from `source`, if another) and the held-out one."""
        learned = screen if source is None else source
        if self.by == "perturbation":
            return learned.of_perturbations(self.train), screen.of_perturbations(self.test)
        return _rows(learned, self.train), _rows(screen, self.test)

    def key(self) -> dict[str, Any]:
        """JSON-able identity, for file names of results."""
        return {
            "kind": self.kind,
            "seed": self.seed,
            "fold": self.fold,
            "train": list(self.train),
            "test": list(self.test),
            **({"elsewhere": True} if self.elsewhere else {}),
        }


def _rows(screen: Screen, names: Sequence[str]) -> Screen:
    position = {name: i for i, name in enumerate(screen.obs.index)}
    return screen.take(np.array([position[n] for n in names], dtype=int))


def asked_elsewhere(splits: Sequence[Split], measured: Collection[str]) -> list[Split]:
    """The same splits for those held-out perturbations that other screens measured, which may be
    used; splits without any are left out."""
    out = []
    for split in splits:
        test = tuple(n for n in split.test if n in measured)
        if test:
            strata = {n: s for n, s in split.strata.items() if n in measured}
            out.append(replace(split, test=test, strata=strata, elsewhere=True))
    return out


class Splitter(Protocol):
    """What a split must be: a function of names and a seed, or a class of one's own that is made
    with the ``settings`` of the configuration and called with both."""

    def __call__(self, perturbations: Sequence[str], seed: int) -> list[Split]:
        """The splits of these measured perturbations; the same for any order of the names."""
        ...


def _names(perturbations: Sequence[str], least: int) -> NDArray[np.object_]:
    names = sorted({canonical_perturbation(p) for p in perturbations})
    if len(names) < least:
        raise InputError(f"{len(names)} measured perturbations are too few; need {least}")
    return np.array(names, dtype=object)


def _split(kind: str, seed: int, fold: int, train: Iterable[str], test: Iterable[str]) -> Split:
    return Split(kind, seed, fold, tuple(sorted(train)), tuple(sorted(test)))


@part(label="folds")
def split_folds(
    perturbations: Sequence[str], n_folds: int, n_shuffles: int, seed: int
) -> list[Split]:
    """k-fold over perturbations, repeated: every perturbation is held out once per shuffle.

    A combination that contains a held-out perturbation is not trained on in that fold.

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
        for fold, held in enumerate(np.array_split(order, n_folds)):
            rest = names[np.setdiff1d(order, held)]
            train = set(rest) - with_parts_of(rest, names[held])
            if not train:
                raise InputError(
                    "every combination outside a fold contains a gene inside it, so nothing is "
                    "left to learn from: take more folds, or the split 'doubles'"
                )
            out.append(_split("folds", shuffle, fold, train, names[held]))
    return out


@part(label="growing")
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
        test = names[order[:n_test]]
        beside = with_parts_of(names, test)
        pool = np.array([n for n in names[order[n_test:]] if n not in beside], dtype=object)
        for fold, n in enumerate(chosen):
            out.append(_split("growing", repeat, fold, pool[:n], test))
    return out


@part(label="doubles", source="Roohani et al. 2024 (GEARS)")
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
    parts = {n: tuple(split_combination(n)) for n in names}
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


@part(label="transfer", needs="source")
def split_transfer(
    perturbations: Sequence[str], source: Sequence[str], seed: int = 0
) -> list[Split]:
    """Train on everything that another screen or context (`source`) measured, predict all here.

    The seed decides nothing.
    """
    known = set(source)
    strata = {n: "measured in source" if n in known else "new" for n in perturbations}
    return [Split("transfer", 0, 0, tuple(sorted(source)), tuple(sorted(perturbations)), strata)]


# -- rows ------------------------------------------------------------------------------------------


def split_rows(
    screen: Screen,
    regime: str,
    knowledge: Knowledge | None = None,
    *,
    n_folds: int = 5,
    seed: int = 0,
    grouped: bool = True,
) -> list[Split]:
    """The splits of one regime of `REGIMES` (but "given", `given.read_toml_split`), leak-checked.

    Parameters
    ----------
    knowledge
        Says which names are one thing and which things are a family; None: each name is its own.
    n_folds
        With fewer contexts than that, the regimes that hold out contexts leave out one at a time.
    grouped
        False lets a salt stand on the other side from its base in the regime "pair", as published
        scores do: only to compare with them.

    Raises
    ------
    pertwise.errors.InputError
        For an unknown regime, too few groups for the folds, or a regime the screen cannot have.
    """
    regime = REGIME_WORDS.get(regime, regime)
    if regime == "dose":
        splits = [_dose_split(screen)]
    else:
        groups = _row_groups(screen, regime, knowledge, grouped)
        contexts = list(screen.obs["context"])
        if regime == "context" and len(set(groups)) > 1:
            n_folds = min(n_folds, len(set(groups)))
        if len(set(groups)) < n_folds:
            raise InputError(
                f"regime {regime!r}: {len(set(groups))} groups are too few for {n_folds} folds"
            )
        fold = group_folds(groups, n_folds, seed)
        if regime == "both":
            splits = _both(screen, fold, contexts, n_folds, seed)
        else:
            splits = [_row_split(screen, regime, seed, f, fold == f) for f in range(n_folds)]
    if grouped or regime != "pair":
        for split in splits:
            check_leaks(split, screen, knowledge)
    return splits


def split_three(screen: Screen, knowledge: Knowledge | None = None, **how: Any) -> list[Split]:
    """The splits of all `THREE_SETTINGS` (`split_rows`), with folds numbered through."""
    found: list[Split] = []
    for regime in THREE_SETTINGS:
        made = split_rows(screen, regime, knowledge, **how)
        found += [replace(s, fold=len(found) + i) for i, s in enumerate(made)]
    return found


def _row_groups(
    screen: Screen, regime: str, knowledge: Knowledge | None, grouped: bool
) -> list[str]:
    names, contexts = list(screen.obs["perturbation"]), list(screen.obs["context"])
    if regime == "context":
        return contexts
    if regime == "perturbation":
        return names
    same = things(names, knowledge if grouped else None)
    if regime in ("compound", "both"):
        return [same[n] for n in names]
    if regime == "scaffold":
        family = same if knowledge is None else knowledge.families(sorted(set(names)))
        return [family[n] for n in names]
    if regime == "pair":
        return [f"{same[n]}\t{c}" for n, c in zip(names, contexts, strict=True)]
    raise InputError(f"unknown regime {regime!r}; choose from {', '.join(REGIMES)}")


def things(names: Iterable[str], knowledge: Knowledge | None) -> dict[str, str]:
    """name -> what it is under any of its names; without knowledge, itself."""
    distinct = sorted(set(names))
    return (
        dict(zip(distinct, distinct, strict=True))
        if knowledge is None
        else (knowledge.identity(distinct))
    )


def _row_split(
    screen: Screen,
    regime: str,
    seed: int,
    fold: int,
    held: NDArray[np.bool_],
    train: NDArray[np.bool_] | None = None,
) -> Split:
    names = screen.obs.index.to_numpy(dtype=object)
    learned = ~held if train is None else train
    if regime in ALONE:
        learned = learned & ~with_held(screen.obs["perturbation"], held)
    return Split(regime, seed, fold, tuple(names[learned]), tuple(names[held]), by="row")


#: Regimes that hold out perturbations everywhere.
ALONE = ("perturbation", "compound", "scaffold", "both")


def with_held(names: pd.Series, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n_rows,) rows of combinations that contain a perturbation of the `held` rows."""
    beside = with_parts_of(names, names[held])
    return np.asarray(names.isin(beside).to_numpy() & ~held)


def _both(
    screen: Screen, fold: NDArray[np.int64], contexts: list[str], n_folds: int, seed: int
) -> list[Split]:
    """Every fold of perturbations in every fold of contexts; rows that share either are unused."""
    n_lines = min(n_folds, len(set(contexts)))
    if n_lines < 2:
        raise InputError("regime 'both' needs at least two contexts")
    line = group_folds(contexts, n_lines, seed)
    out = []
    for f in range(n_folds):
        for c in range(n_lines):
            held, train = (fold == f) & (line == c), (fold != f) & (line != c)
            if held.any() and train.any():
                out.append(_row_split(screen, "both", seed, f * n_lines + c, held, train))
    return out


def _dose_split(screen: Screen) -> Split:
    """Hold out each (perturbation, context)'s highest dose where a lower one was measured too."""
    keys = [screen.obs["perturbation"], screen.obs["context"]]
    dose = screen.obs["dose"]
    held = (dose == dose.groupby(keys).transform("max")) & (
        dose.groupby(keys).transform("nunique") > 1
    )
    if not held.any():
        raise InputError("nothing was measured at two doses in one context: no dose to extrapolate")
    return _row_split(screen, "dose", 0, 0, held.to_numpy())


def check_leaks(split: Split, screen: Screen, knowledge: Knowledge | None = None) -> None:
    """Raise when something held out is also trained on, under any of its names.

    Compound, scaffold, both: no thing on both sides (perturbation: no name). Both: no context
    either. Context, given, pair: no held-out (thing, context). Dose: no row.

    Raises
    ------
    pertwise.errors.InputError
        Names the first thing that leaks with the names it has on either side.
    """
    shared = set(split.train) & set(split.test)
    if shared:
        raise InputError(f"row {sorted(shared)[0]!r} is in both training and test")
    if split.kind == "dose":
        return
    same = things(screen.obs["perturbation"], None if split.kind == "perturbation" else knowledge)
    obs = screen.obs.assign(thing=screen.obs["perturbation"].map(same))
    alone = split.kind in ALONE
    columns = ["thing"] if alone else ["thing", "context"]
    train, test = obs.loc[list(split.train)], obs.loc[list(split.test)]
    if split.kind == "both" and set(train["context"]) & set(test["context"]):
        raise InputError("both: a held-out context is also in training")
    beside = with_parts_of(train["perturbation"], test["perturbation"]) if alone else set()
    if beside:
        raise InputError(
            f"{split.kind}: {sorted(beside)[0]!r} in training contains a held-out perturbation; "
            "leave such combinations out"
        )
    seen = set(train[columns].itertuples(index=False, name=None))
    for row in test[columns].drop_duplicates().itertuples(index=False, name=None):
        if row in seen:
            left = sorted(set(train.loc[train["thing"] == row[0], "perturbation"]))
            right = sorted(set(test.loc[test["thing"] == row[0], "perturbation"]))
            raise InputError(
                f"{split.kind}: one compound or gene is on both sides: {left} in training, {right} "
                "held out; group by what is one thing (Knowledge.identity)"
            )
