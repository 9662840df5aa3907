"""Relations to a pathway that a gene has only because it has links everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.knowledge import Knowledge, Pathway, Relation
from pertwise.knowledge.layout import DIRECTED, UNDIRECTED

#: Links to a pathway that chance gives more often than this say nothing about a module.
CHANCE = 0.05


def without_hubs(
    relations: Mapping[str, Relation], knowledge: Knowledge | None, pathway: Pathway | None
) -> dict[str, Relation]:
    """The relations, without a module where the links to the pathway are no more than chance.

    A gene with d links in a graph of N genes touches a pathway of P members at least t times with
    probability P(X >= t), X hypergeometric (N - 1, P, d): a subunit of Mediator with a hundred
    partners, one of them mitochondrial, does not inform about mitochondrial translation. Such a
    relation keeps its kind and its evidence, which says so; members keep their module.
    """
    if pathway is None or knowledge is None:
        return dict(relations)
    from scipy.stats import hypergeom

    names = [n for n, r in relations.items() if r.n_touched and r.kind != "direct_member"]
    approved = knowledge.canonical(names)
    out = dict(relations)
    known = set(knowledge.graph_names())
    for kinds, graphs, transposed in (
        (("interacting_partner",), UNDIRECTED, False),
        (("upstream_regulator",), DIRECTED, False),
        (("downstream_target",), DIRECTED, True),
    ):
        those = [n for n in names if relations[n].kind in kinds]
        if not those:
            continue
        degree, total = _links(knowledge, [g for g in graphs if g in known], transposed)
        size = sum(m in degree for m in pathway.members)
        for name in those:
            touched = relations[name].n_touched
            d = max(degree.get(approved.get(name, name), 0), touched)
            if total < 2 or size < 1:
                continue
            if hypergeom.sf(touched - 1, total - 1, size, min(d, total - 1)) > CHANCE:
                told = (
                    f"{relations[name].evidence}; {touched} of its {d} links, no more than chance"
                )
                out[name] = replace(relations[name], module="", evidence=told)
    return out


def _links(
    knowledge: Knowledge, graphs: Sequence[str], transposed: bool
) -> tuple[dict[str, int], int]:
    """Number of links of every gene in the union of some graphs, and the number of genes."""
    if not graphs:
        return {}, 0
    graph = knowledge.graph("+".join(graphs))
    adjacency = csr_matrix(graph.adjacency.T if transposed else graph.adjacency)
    links = np.diff(adjacency.indptr)
    return dict(zip(graph.nodes, map(int, links), strict=True)), len(links)
