"""What the picks of a replay mean: modules covered, relations and gene sets enriched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_matrix

from pertwise.benchmark.acquisition.world import World


def module_coverage_by_round(picks: pd.DataFrame, world: World) -> pd.DataFrame:
    """Share of the target's modules touched by what has been acquired, per round.

    A module is touched when an acquired perturbation is related to the pathway through it. The same
    relations are used for every strategy, whether or not the strategy looked at them. Picks of a
    target-free unit ("*") are read for each target with a pathway.

    Returns
    -------
    One row per (target, predictor, strategy, initial, batch, seed, round): n_modules, n_touched,
    share, n_related (acquired perturbations with any relation).
    """
    rows = []
    curve = ["predictor", "strategy", "initial", "batch", "seed"]
    for name, target in world.targets.items():
        if target.pathway is None or not target.pathway.modules:
            continue
        part = picks[picks["target"].isin([name, "*"])]
        modules = set(target.pathway.modules)
        for key, group in part.groupby(curve, sort=True):
            touched: set[str] = set()
            related = 0
            for number, batch in group.groupby("round", sort=True):
                for gene in batch["perturbation"]:
                    relation = target.relations.get(gene)
                    if relation is None or relation.kind == "unknown":
                        continue
                    related += 1
                    if relation.module in modules:
                        touched.add(relation.module)
                rows.append(
                    (
                        name,
                        *key,
                        number,
                        len(modules),
                        len(touched),
                        len(touched) / len(modules),
                        related,
                    )
                )
    columns = ["target", *curve, "round", "n_modules", "n_touched", "share", "n_related"]
    return pd.DataFrame(rows, columns=columns)


def hypergeometric_enrichment(
    membership: csr_matrix, drawn: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Over-representation of each set among drawn items.

    Parameters
    ----------
    membership
        (n_items, n_sets), non-zero = member; the items are the pool the draw was made from.
    drawn
        (n_items,) True for drawn ones.

    Returns
    -------
    fold
        (n_sets,) observed / expected number; NaN for an empty set.
    p
        (n_sets,) P(X >= observed), X hypergeometric.
    """
    binary = membership.astype(bool).astype(np.int64)
    size = np.asarray(binary.sum(axis=0)).ravel()
    hits = np.asarray(binary[np.flatnonzero(drawn)].sum(axis=0)).ravel()
    total, n = binary.shape[0], int(drawn.sum())
    expected = size * n / total
    fold = np.divide(hits, expected, out=np.full(len(size), np.nan), where=expected > 0)
    p = np.asarray(stats.hypergeom.sf(hits - 1, total, size, n), dtype=np.float64)
    return fold, p


def enriched_sets(
    picks: pd.DataFrame,
    names: Sequence[str],
    membership: csr_matrix,
    set_names: Sequence[str],
    *,
    first_rounds: int = 3,
    top: int = 5,
    min_size: int = 3,
) -> pd.DataFrame:
    """Gene sets over-represented among the picks of the first rounds, per strategy.

    Picks are pooled over seeds as frequencies: a perturbation counts as drawn when more seeds than
    half picked it early. Late rounds are left out because in the end every strategy has taken most
    of a small pool. Benjamini-Hochberg over the sets of one strategy.
    """
    from pertwise.evaluate.genes import benjamini_hochberg

    position = {n: i for i, n in enumerate(names)}
    sizes = np.asarray(membership.astype(bool).sum(axis=0)).ravel()
    usable = np.flatnonzero(sizes >= min_size)
    rows: list[dict[str, Any]] = []
    early = picks[picks["round"] <= first_rounds]
    for key, group in early.groupby(["target", "predictor", "strategy"], sort=True):
        n_seeds = group["seed"].nunique()
        often = group.groupby("perturbation")["seed"].nunique()
        drawn = np.zeros(len(names), dtype=bool)
        drawn[[position[p] for p in often.index[often > n_seeds / 2]]] = True
        if not drawn.any():
            continue
        fold, p = hypergeometric_enrichment(membership[:, usable], drawn)
        q = benjamini_hochberg(p)
        for i in np.argsort(p, kind="stable")[:top]:
            rows.append(
                {
                    **dict(zip(["target", "predictor", "strategy"], key, strict=True)),
                    "set": set_names[usable[i]],
                    "size": int(sizes[usable[i]]),
                    "n_drawn": int(drawn.sum()),
                    "fold": float(fold[i]),
                    "p": float(p[i]),
                    "q": float(q[i]),
                }
            )
    return pd.DataFrame(rows)


def relation_shares(picks: pd.DataFrame, world: World, first_rounds: int = 3) -> pd.DataFrame:
    """Share of early picks per relation to the target's pathway, beside the pool's own share."""
    rows = []
    for name, target in world.targets.items():
        if target.pathway is None:
            continue
        kinds = {g: r.kind for g, r in target.relations.items()}
        everything = pd.Series([kinds.get(n, "unknown") for n in world.names]).value_counts(
            normalize=True
        )
        part = picks[picks["target"].isin([name, "*"]) & (picks["round"] <= first_rounds)]
        for (predictor, strategy), group in part.groupby(["predictor", "strategy"], sort=True):
            share = group["perturbation"].map(kinds).fillna("unknown").value_counts(normalize=True)
            for kind, base in everything.items():
                rows.append(
                    (name, predictor, strategy, kind, float(share.get(kind, 0.0)), float(base))
                )
    return pd.DataFrame(
        rows, columns=["target", "predictor", "strategy", "relation", "share", "pool_share"]
    )
