"""What named neighbours have in common, and what each part of them predicts.

A *neighbour table* has one row per named neighbour: seed, fold, perturbation, neighbour, weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise.arrays.means import masked_mean
from pertwise.evaluate.score import score_predictions
from pertwise.evaluate.specs import MetricSpec

if TYPE_CHECKING:
    from pertwise.evaluate.splits import Split
    from pertwise.knowledge import Graph, Knowledge
    from pertwise.screen import Screen

QUERY = ["seed", "fold", "perturbation"]
PAIR = [*QUERY, "neighbour"]


def graph_table(
    graph: Graph,
    knowledge: Knowledge,
    splits: Sequence[Split],
    most: int = 20,
) -> pd.DataFrame:
    """Neighbours in a graph among the training perturbations of every split.

    At most `most` by weight per held-out perturbation (ties by name); names are resolved to
    approved symbols first, combinations are left out.
    """
    every = sorted({n for s in splits for n in (*s.train, *s.test)})
    approved = knowledge.resolve(every).approved
    position = {n: i for i, n in enumerate(graph.nodes)}
    node = {n: position[approved[n]] for n in every if approved.get(n) in position}
    adjacency = graph.adjacency
    if graph.directed:
        adjacency = adjacency.maximum(adjacency.T)
    adjacency = adjacency.tocsr()
    rows: list[tuple[int, int, str, str, float]] = []
    for split in splits:
        by_node: dict[int, list[str]] = {}
        for name in split.train:
            if name in node:
                by_node.setdefault(node[name], []).append(name)
        for name in split.test:
            if name not in node:
                continue
            start, end = adjacency.indptr[node[name] : node[name] + 2]
            found = [
                (-float(w), other)
                for j, w in zip(
                    adjacency.indices[start:end], adjacency.data[start:end], strict=True
                )
                for other in by_node.get(int(j), ())
                if other != name
            ]
            rows += [(split.seed, split.fold, name, other, -w) for w, other in sorted(found)[:most]]
    return pd.DataFrame(rows, columns=[*PAIR, "weight"])


def combine(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Named by both, by the first only, by the second only; every neighbour weighs 1."""
    both = first[PAIR].merge(second[PAIR], on=PAIR, how="outer", indicator=True)
    both["weight"] = 1.0
    return {
        "both": both[both["_merge"] == "both"].drop(columns="_merge"),
        "first only": both[both["_merge"] == "left_only"].drop(columns="_merge"),
        "second only": both[both["_merge"] == "right_only"].drop(columns="_merge"),
    }


def overlap(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """How far two neighbour tables agree, averaged over the queries that both answer.

    Returns
    -------
    n (queries both answer), size_first, size_second (mean neighbours), share_of_first
    (|A n B| / |A|), share_of_second (|A n B| / |B|), jaccard (|A n B| / |A u B|); NaN if n = 0.
    """
    a, b = first.groupby(QUERY).size(), second.groupby(QUERY).size()
    common = a.index.intersection(b.index)
    hits = first[PAIR].merge(second[PAIR], on=PAIR).groupby(QUERY).size()
    a, b = a.reindex(common), b.reindex(common)
    shared = hits.reindex(common, fill_value=0)
    return {
        "n": float(len(common)),
        "size_first": float(a.mean()),
        "size_second": float(b.mean()),
        "share_of_first": float((shared / a).mean()),
        "share_of_second": float((shared / b).mean()),
        "jaccard": float((shared / (a + b - shared)).mean()),
    }


def overlap_matrix(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean Jaccard overlap of every two neighbour tables: (n_methods, n_methods), 1 on top of it.

    The diagonal is 1 by definition; NaN where two methods answer no common query.
    """
    names = list(tables)
    out = pd.DataFrame(1.0, index=pd.Index(names), columns=pd.Index(names))
    for a, b in itertools.combinations(names, 2):
        out.loc[a, b] = out.loc[b, a] = overlap(tables[a], tables[b])["jaccard"]
    return out


def votes(tables: Sequence[pd.DataFrame], *, by_rank: bool = False) -> pd.DataFrame:
    """Neighbours of several models in one table, weighted by their votes.

    weight = number of tables that name the neighbour (or, `by_rank`, sum of 1 / rank with the rank
    inside each table by descending weight, ties by order): a neighbour that several models name
    counts more, one that only one names still counts.
    """
    parts = []
    for table in tables:
        part = table[[*PAIR, "weight"]].copy()
        if by_rank:
            rank = part.groupby(QUERY)["weight"].rank(method="first", ascending=False)
            part["weight"] = 1.0 / rank
        else:
            part["weight"] = 1.0
        parts.append(part)
    joined = pd.concat(parts, ignore_index=True)
    return joined.groupby(PAIR, as_index=False)["weight"].sum()


def weighted_means(
    responses: ArrayLike,
    weights: ArrayLike,
    fallback: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n, d) weighted means of training responses, NaN targets masked feature by feature.

    Parameters
    ----------
    responses
        (n_train, d).
    weights
        (n, n_train), not negative.
    fallback
        (d,) used for features (or whole rows) without any weight.

    Returns
    -------
    means, and which rows had no weight at all.
    """
    x, w = np.asarray(responses, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    known = np.isfinite(x)
    total = w @ known
    top = w @ np.where(known, x, 0.0)
    mean = np.broadcast_to(np.asarray(fallback, dtype=np.float64), top.shape).copy()
    np.divide(top, total, out=mean, where=total > 0)
    return mean, np.asarray(w.sum(axis=1) == 0)


def score_tables(
    tables: Mapping[str, pd.DataFrame],
    splits: Sequence[Split],
    screen: Screen,
    source: Screen,
    metrics: MetricSpec,
) -> pd.DataFrame:
    """Predict every held-out perturbation from each neighbour table and score it.

    The prediction is the weighted mean of the neighbours' training responses; without a neighbour
    the training mean, counted in the column fallback.

    Returns
    -------
    Tidy, as in `pertwise.evaluate.units`: method, split, seed, fold, n_train, stratum,
    perturbation, metric, value, undefined, fallback.
    """
    position = {p: i for i, p in enumerate(screen.obs["perturbation"])}
    grouped = {
        label: dict(iter(table.groupby(["seed", "fold"]))) for label, table in tables.items()
    }
    out = []
    for split in splits:
        train = source.of_perturbations(split.train)
        truth = screen.of_perturbations(split.test)
        names = list(truth.obs["perturbation"])
        row = {n: i for i, n in enumerate(names)}
        column = {n: i for i, n in enumerate(train.obs["perturbation"])}
        centre = masked_mean(train.responses)
        for label, parts in grouped.items():
            weights = np.zeros((len(names), len(train)))
            part = parts.get((split.seed, split.fold))
            if part is not None:
                i = part["perturbation"].map(row).to_numpy()
                j = part["neighbour"].map(column).to_numpy()
                np.add.at(weights, (i, j), part["weight"].to_numpy(dtype=float))
            mean, empty = weighted_means(train.responses, weights, centre)
            scores = score_predictions(
                truth.responses,
                mean,
                perturbations=names,
                features=screen.features,
                reference=centre,
                sampling_variance=truth.sampling_variance,
                candidates=screen.responses,
                own=[position[n] for n in names],
                tops=(),
                include_target=metrics.include_target,
                retrieval_distances=("l2",),
            ).tidy()
            fell_back = dict(zip(names, empty, strict=True))
            out.append(
                scores.assign(
                    method=label,
                    split=split.kind,
                    seed=split.seed,
                    fold=split.fold,
                    n_train=len(train),
                    stratum="",
                    fallback=scores["perturbation"].map(fell_back).to_numpy(dtype=bool),
                )
            )
    return pd.concat(out, ignore_index=True) if out else pd.DataFrame()
