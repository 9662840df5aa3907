"""How genes stand to a pathway: a kernel on arrays, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertwise.knowledge.layout import DIRECTED, UNDIRECTED
from pertwise.knowledge.types import Graph, Pathway, Relation, RelationKind

_CHUNK = 2_000
#: Difference in strength (0..1) that does not matter.
NEAR = 0.05
_Part = tuple[str, NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Touch:
    """Strongest link of every gene to a set of members.

    Attributes
    ----------
    member
        (n_genes,) index of the member of the strongest link, -1 where there is none.
    strength
        (n_genes,) its strength, 0 where there is none.
    n_touched
        (n_genes,) number of members linked.
    """

    member: NDArray[np.int64]
    strength: NDArray[np.float32]
    n_touched: NDArray[np.int64]


def strongest_links(
    links: NDArray[np.float32], module_of: NDArray[np.int64], n_modules: int
) -> Touch:
    """Pick one link for every gene.

    Parameters
    ----------
    links
        (n_genes, n_members) strengths, 0 = no link.
    module_of
        (n_members,) module index of each member; -1 = no module or the rest module.

    Notes
    -----
    Links within `NEAR` of a gene's strongest count as equally strong: among them the member wins
    whose module this gene has most links to (the rest module last), then the stronger link, then
    the lower index. Most directed edges have the same strength, STRING scores of 998 and 999 say
    the same, and the module is what the reader is told.
    """
    if not links.shape[1]:
        empty = np.zeros(len(links))
        return Touch(empty.astype(np.int64) - 1, empty.astype(np.float32), empty.astype(np.int64))
    linked = links > 0
    per_module = np.zeros((links.shape[0], n_modules + 1), dtype=np.float32)
    for m in range(n_modules):
        per_module[:, m] = linked[:, module_of == m].sum(axis=1)
    support = np.where(module_of[None, :] >= 0, per_module[:, module_of], 0.0)
    top = links.max(axis=1, initial=0.0)
    near = linked & (links >= top[:, None] - NEAR)
    # Support is a whole number and strength at most 1: half of it cannot outweigh one more link.
    rank = np.where(near, support + 0.5 * links, -1.0)
    member = rank.argmax(axis=1).astype(np.int64)
    n_touched = linked.sum(axis=1).astype(np.int64)
    none = n_touched == 0
    member[none] = -1
    chosen = np.take_along_axis(links, np.maximum(member, 0)[:, None], axis=1)[:, 0]
    strength = np.where(none, 0.0, chosen).astype(np.float32)
    return Touch(member, strength, n_touched)


def _links(
    graph: Graph, genes: Sequence[str], members: Sequence[str], reverse: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and signs of gene -> member (`reverse`: member -> gene), (n_genes, n_members)."""
    position = {s: i for i, s in enumerate(graph.nodes)}
    row = np.array([position.get(g, -1) for g in genes])
    col = np.array([position.get(m, -1) for m in members])
    weight = np.zeros((len(genes), len(members)), dtype=np.float32)
    sign = np.zeros_like(weight)
    at_row, at_col = np.flatnonzero(row >= 0), np.flatnonzero(col >= 0)
    if len(at_row) and len(at_col):
        adjacency = graph.adjacency.T.tocsr() if reverse else graph.adjacency
        block = adjacency[row[at_row]][:, col[at_col]].toarray()
        weight[np.ix_(at_row, at_col)] = block
        if graph.sign is not None:
            signs = graph.sign.T.tocsr() if reverse else graph.sign
            sign[np.ix_(at_row, at_col)] = signs[row[at_row]][:, col[at_col]].toarray()
    return weight, sign


_SIGN_WORD = {1: ", activation", -1: ", inhibition", 0: ""}


def relate(
    genes: Sequence[str],
    pathway: Pathway,
    directed: Mapping[str, Graph],
    undirected: Mapping[str, Graph],
) -> list[Relation]:
    """Relation of each approved symbol to the pathway, in the order given.

    Directed edges come before undirected ones; a gene that both regulates members and is
    regulated by some is an upstream regulator, because knocking it down acts on the pathway.

    Parameters
    ----------
    genes
        Approved symbols; an empty string stands for a gene that is not known.
    directed, undirected
        Graphs by name, in the order in which they are named as evidence.
    """
    out: list[Relation] = []
    for start in range(0, len(genes), _CHUNK):
        out.extend(_relate_chunk(genes[start : start + _CHUNK], pathway, directed, undirected))
    return out


def _relate_chunk(
    genes: Sequence[str],
    pathway: Pathway,
    directed: Mapping[str, Graph],
    undirected: Mapping[str, Graph],
) -> list[Relation]:
    members = list(pathway.members)
    names = list(pathway.modules)
    module_name = {g: m for m in reversed(names) for g in pathway.modules[m]}
    place = {m: i for i, m in enumerate(n for n in names if n != "other")}
    module_of = np.array([place.get(module_name.get(g, ""), -1) for g in members], dtype=np.int64)
    inside = {g: i for i, g in enumerate(members)}

    def directed_touch(
        reverse: bool,
    ) -> tuple[Touch, list[_Part]]:
        parts = [
            (name, *_links(graph, genes, members, reverse)) for name, graph in directed.items()
        ]
        share = np.zeros((len(genes), len(members)), dtype=np.float32)
        for _, weight, _ in parts:
            share += weight > 0
        share /= max(len(parts), 1)
        return strongest_links(share, module_of, len(place)), parts

    up, up_parts = directed_touch(False)
    down, down_parts = directed_touch(True)
    flat = [(name, _links(graph, genes, members)[0]) for name, graph in undirected.items()]
    together = np.zeros((len(genes), len(members)), dtype=np.float32)
    for _, weight in flat:
        together = np.maximum(together, weight)
    beside = strongest_links(together, module_of, len(place))

    out: list[Relation] = []
    for i, gene in enumerate(genes):
        kind: RelationKind = "unknown"
        if gene in inside:
            module = module_name.get(gene, "")
            text = f"member of {pathway.name}" + (f" ({module})" if module else "")
            out.append(Relation(gene, "direct_member", text, 1.0, module))
            continue
        if up.member[i] >= 0:
            kind, touch, parts, arrow = "upstream_regulator", up, up_parts, "{g} -> {m}"
        elif down.member[i] >= 0:
            kind, touch, parts, arrow = "downstream_target", down, down_parts, "{m} -> {g}"
        elif beside.member[i] >= 0:
            j = int(beside.member[i])
            name = max(flat, key=lambda part: part[1][i, j])[0]
            text = f"{UNDIRECTED.get(name, name)} {gene}-{members[j]}"
            if name != "string_ge800":
                text += f" {round(float(together[i, j]) * 1000)}"
            out.append(
                Relation(
                    gene, "interacting_partner", text, float(beside.strength[i]),
                    module_name.get(members[j], ""), int(beside.n_touched[i]),
                )
            )  # fmt: skip
            continue
        else:
            out.append(Relation(gene, "unknown"))
            continue
        j = int(touch.member[i])
        holders = [(name, s[i, j]) for name, w, s in parts if w[i, j] > 0]
        sign = next((int(s) for _, s in holders if s), 0)
        who = " + ".join(DIRECTED.get(name, name) for name, _ in holders)
        text = f"{arrow.format(g=gene, m=members[j])} ({who}{_SIGN_WORD[sign]})"
        out.append(
            Relation(
                gene, kind, text, float(touch.strength[i]), module_name.get(members[j], ""),
                int(touch.n_touched[i]),
            )
        )  # fmt: skip
    return out
