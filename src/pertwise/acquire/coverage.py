"""What a panel covers, what it leaves open, and why the others were not picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.acquire.common import Floats, best_first, tie_order
from pertwise.acquire.panel import ModuleCoverage, NearMiss
from pertwise.knowledge.types import Pathway, Relation

NO_MODULE = "(no module)"


def module_coverage(
    pathway: Pathway | None,
    relation_of: Mapping[str, tuple[str, str]],
    symbol_of: Mapping[str, str],
    picked: Sequence[str],
    measured: Sequence[str],
    candidates: Sequence[str],
) -> list[ModuleCoverage]:
    """Members of each module that are measured, picked, open (a candidate) or unavailable.

    Parameters
    ----------
    relation_of
        Name -> (relation kind, module) for picked names.
    symbol_of
        Name -> approved symbol, for all names.
    """
    if pathway is None:
        return []
    modules = dict(pathway.modules)
    inside = {g for genes in modules.values() for g in genes}
    rest = tuple(g for g in pathway.members if g not in inside)
    if rest:
        modules[NO_MODULE] = rest
    by_symbol = {symbol_of[n]: n for n in (*candidates, *measured, *picked)}
    taken, done = set(picked), set(measured)
    rows = []
    for module, genes in modules.items():
        row = ModuleCoverage(module=module, size=len(genes))
        members = set()
        for gene in genes:
            name = by_symbol.get(gene, gene)
            members.add(name)
            if name in taken:
                row.picked.append(name)
            elif name in done:
                row.measured.append(name)
            elif gene in by_symbol:
                row.open.append(name)
            else:
                row.unavailable.append(gene)
        row.related = [
            p for p in picked if p not in members and relation_of.get(p, ("", ""))[1] == module
        ]
        rows.append(row)
    return rows


def near_misses(
    candidates: Sequence[str],
    utilities: Floats,
    uncertainty: Floats | None,
    relations: Mapping[str, Relation],
    picked: Sequence[str],
    shortlist: Sequence[str] | None,
    similarity_to_panel: tuple[NDArray[np.int64], Floats] | None,
    n: int = 10,
) -> list[NearMiss]:
    """Candidates a reader will miss, each with what stood against it.

    Three groups of at most `n`: the next in line by utility; the most uncertain not picked;
    direct members of the pathway not picked. A gene appears in the first group it belongs to.

    Parameters
    ----------
    shortlist
        Names that could be picked at all; None = everyone.
    similarity_to_panel
        (n_candidates,) position in `picked` of the most similar pick (-1: none) and the cosine.
    """
    ties = tie_order(candidates)
    by_utility = [int(j) for j in best_first(utilities, ties)]
    position = {j: i + 1 for i, j in enumerate(by_utility)}
    by_u = None if uncertainty is None else [int(j) for j in best_first(uncertainty, ties)]
    u_rank = {} if by_u is None else {j: i + 1 for i, j in enumerate(by_u)}
    taken = set(picked)
    listed = None if shortlist is None else set(shortlist)
    free = [j for j in by_utility if candidates[j] not in taken]
    groups: list[tuple[str, list[int]]] = [("next", free[:n])]
    if by_u is not None:
        groups.append(("uncertain", [j for j in by_u if candidates[j] not in taken][:n]))
    members = [
        j
        for j in free
        if candidates[j] in relations and relations[candidates[j]].kind == "direct_member"
    ]
    groups.append(("member", members[:n]))
    seen: set[int] = set()
    rows = []
    for kind, group in groups:
        for j in group:
            if j in seen:
                continue
            seen.add(j)
            name = candidates[j]
            relation = relations.get(name)
            why = []
            if listed is not None and name not in listed:
                rank = f" (uncertainty rank {u_rank[j]})" if j in u_rank else ""
                why.append(f"not on the shortlist of {len(listed)}{rank}")
            else:
                why.append(f"position {position[j]} for {len(picked)} places")
            if relation is not None and relation.kind == "unknown":
                why.append("no known relation to the target")
            if similarity_to_panel is not None:
                near, cosine = similarity_to_panel
                if near[j] >= 0 and cosine[j] >= 0.3:
                    why.append(f"like the pick {picked[near[j]]} (similarity {cosine[j]:.2f})")
            rows.append(
                NearMiss(
                    gene=name,
                    kind=kind,
                    why="; ".join(why),
                    relation=relation.kind if relation else "",
                    module=relation.module if relation else "",
                    uncertainty_rank=u_rank.get(j),
                    position=position[j],
                )
            )
    return rows


def plane(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, k) features -> (n, 2) first two principal components, signs fixed.

    Each component points so that its largest-magnitude loading is positive: the map does not
    flip between machines. Zero rows (nothing known) stay where the data put them.
    """
    x = np.asarray(rows, dtype=np.float64)
    x = x - x.mean(axis=0)
    if len(x) < 2 or not x.any():
        return np.zeros((len(x), 2))
    _, vectors = np.linalg.eigh(x.T @ x)
    axes = vectors[:, ::-1][:, :2]
    if axes.shape[1] < 2:
        axes = np.hstack([axes, np.zeros((len(axes), 1))])
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return np.asarray(x @ (axes * np.where(signs == 0, 1.0, signs)))


def nearest_pick(
    embedding: NDArray[np.float32], picked: Sequence[int], neighbours: csr_matrix | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """Most similar pick (its place in `picked`) of every row and how similar; -1 for the picks.

    Similarity = max(cosine of the (n, k) unit rows, weight of the graph edge).
    """
    if not len(picked):
        return np.full(len(embedding), -1), np.zeros(len(embedding))
    cosine = np.asarray(embedding @ embedding[list(picked)].T, dtype=np.float64)
    if neighbours is not None:
        edges = neighbours[: len(embedding)][:, list(picked)].toarray()
        cosine = np.maximum(cosine, edges)
    near = cosine.argmax(axis=1).astype(np.int64)
    value = cosine[np.arange(len(cosine)), near]
    near[value <= 0] = -1
    near[list(picked)] = -1
    return near, value
