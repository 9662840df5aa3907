"""Typed answers of a knowledge folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pertwise._shown import Shown

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

RelationKind = Literal[
    "direct_member", "upstream_regulator", "downstream_target", "interacting_partner", "unknown"
]


@dataclass(frozen=True, repr=False)
class Resolution(Shown):
    """Names turned into approved symbols.

    Attributes
    ----------
    approved
        input name -> approved symbol, for every input that could be resolved.
    unknown
        Inputs that no table knows (kept in order).
    ambiguous
        input -> the approved symbols it could mean (it is then resolved to none of them unless it
        is itself an approved symbol).
    """

    approved: Mapping[str, str]
    unknown: tuple[str, ...] = ()
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class GoTerm:
    """One GO annotation; `namespace` is P, F or C; `depth` grows with specificity."""

    id: str
    name: str
    namespace: str
    depth: int = 0
    n_genes: int = 0


@dataclass(frozen=True)
class GeneCard:
    """What a prompt or a page shows of a gene. `summary` has at most 20 words."""

    symbol: str
    full_name: str = ""
    summary: str = ""
    go: tuple[GoTerm, ...] = ()
    aliases: tuple[str, ...] = ()
    known: bool = True


@dataclass(frozen=True, repr=False)
class Pathway(Shown):
    """A gene set with description and functional modules (module name -> members)."""

    name: str
    members: tuple[str, ...]
    description: str = ""
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = ""
    #: "curated", "computed" or "none": where the modules come from.
    modules_from: str = "none"
    #: Names of a user's gene list that could not be resolved (unknown or ambiguous).
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Relation:
    """How a gene stands to a pathway, with the edge that says so ("" for unknown).

    `weight` in [0, 1]: 1 for members; the STRING score / 1000 for partners; for directed kinds the
    share of the folder's directed resources that hold the edge.
    """

    gene: str
    kind: RelationKind
    evidence: str = ""
    weight: float = 0.0
    #: Module of the pathway this gene belongs to or touches; "" when none.
    module: str = ""
    #: Number of pathway members this gene has an edge of that kind with (0 for members).
    n_touched: int = 0


@dataclass(frozen=True, repr=False)
class Graph(Shown):
    """Weighted gene graph.

    Attributes
    ----------
    nodes
        Approved symbols, sorted.
    adjacency
        (n_nodes, n_nodes) csr float32, weights in (0, 1]; symmetric unless `directed`
        (row = source, column = target). Signed graphs keep the sign in `sign`.
    from_screen
        True when edges were derived from a perturbation screen (to be left out of honest tests).
    """

    name: str
    nodes: tuple[str, ...]
    adjacency: csr_matrix
    directed: bool = False
    from_screen: bool = False
    sign: csr_matrix | None = None


@dataclass(frozen=True, repr=False)
class Embedding(Shown):
    """Gene features: (n_genes, k) float32 in the order asked for; missing genes are zero rows."""

    name: str
    genes: tuple[str, ...]
    matrix: NDArray[np.float32]
    missing: tuple[str, ...] = ()
