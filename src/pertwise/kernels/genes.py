"""From a knowledge folder to kernels between perturbed genes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack

from pertwise import parts as registry
from pertwise._names import split_combination
from pertwise._shown import Shown
from pertwise.arrays.memory import rows_at_once
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.base import Kernel, same_names
from pertwise.kernels.kept import kept_rows
from pertwise.knowledge import Knowledge
from pertwise.knowledge.genes.features import take_rows, unit_rows

#: Features taken of promoter partners too.
PARTNER_KINDS = ("string", "go", "reactome", "text")
#: Kernels of forests: trees choose among features one by one, and near copies only dilute them.
FOREST_KERNELS = (
    "string",
    "string_ge800",
    "string_experiments",
    "string_coexpression",
    "string_database",
    "go",
    "reactome",
    "complexes",
    "text",
    "omnipath",
    "shared_promoter",
    "symbol",
    "emb:graph",
    "emb:text",
    "text@string",
    "go@string",
)
#: Kernels of the multi-kernel predictor. NAME = IDF-weighted rows of a feature kind or graph;
#: "emb:NAME" = a dense embedding; "NAME@GRAPH" = the mean features of a gene's graph neighbours;
#: "NAME&GRAPH" = the gene's own features plus those of its graph neighbours;
#: "diffusion:GRAPH" = walks with restart from the gene;
#: "symbol" = beginnings of the gene symbol, a cheap guide to gene families (MRPL.., SF3B..).
#: With the graph of shared promoters the last two say what a CRISPRi guide silences besides the
#: gene it was made for.
DEFAULT_KERNELS = (
    *FOREST_KERNELS,
    "diffusion:string_coexpression",
    "diffusion:string_ge800",
    *(f"{kind}{sign}shared_promoter" for sign in "@&" for kind in PARTNER_KINDS),
)
#: The kernels of the plain kernel ridge reference.
REFERENCE_KERNELS = ("string", "go", "reactome", "text")
#: Above this share of entries that are not zero a sparse product is the slower one.
DENSE = 0.3
#: In a product of which more than so many pairs of rows share a column, the columns that more than
#: this share of all pairs have are multiplied densely. Below it costs nothing either way.
MANY_PAIRS, FREQUENT = 20_000_000, 0.02


class KernelSource(Protocol):
    """Kernels that do not come from the knowledge folder: named neighbours, another screen, one's
    own.

    As a part (`path/to/file.py:Class`) its constructor is handed what it names of ``knowledge``
    and ``exclude_from_screen``; several `kinds` then count as one kernel, their mean.
    """

    kinds: tuple[str, ...]
    source: str

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows, zero where nothing is known; independent of the other genes."""
        ...


@dataclass(frozen=True, repr=False)
class GeneBlocks(Shown):
    """Feature rows of perturbations, one sparse block a kernel; cosine kernels are their products.

    Attributes
    ----------
    names
        (n,) perturbations; the row of "A+B" is the unit-length mean of the rows of A and B.
    kinds
        Names of the blocks.
    blocks
        csr (n, k_m), unit rows; a zero row where the block knows nothing.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    blocks: tuple[csr_matrix, ...]

    def cross(self, other: GeneBlocks) -> np.ndarray:
        """(m, n, n_other) cosine kernels between two sets of perturbations."""
        out = np.empty((len(self.blocks), len(self.names), len(other.names)))
        for i, (a, b) in enumerate(zip(self.blocks, other.blocks, strict=True)):
            out[i] = product(a, b)
        return out

    def gram(self) -> np.ndarray:
        """(m, n, n) kernels with 1 on the diagonal, also where a block knows nothing.

        A gene without features is then alike to nothing but itself (adding to the diagonal keeps a
        kernel positive definite).
        """
        return _ones_on_diagonal(self.cross(self))

    def cross_blocks(
        self, other: GeneBlocks, *, lower: bool = False
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """`cross` for some rows at a time: (rows, (m, n_rows, n_other)).

        All kernels at once take m n n_other values; a block takes `memory.BLOCK_BYTES`. There is
        always one block, be it empty. `lower` leaves out the columns after the last row of a block.
        """
        step = rows_at_once(8 * len(self.blocks) * len(other.names))
        pairs = list(zip(self.blocks, other.blocks, strict=True))
        if step >= len(self.names):
            yield slice(0, len(self.names)), self.cross(other)
            return
        # How to multiply is decided by the whole, and the right side made once.
        made = [_Product(a, b) for a, b in pairs]
        for start in range(0, len(self.names), step):
            rows = slice(start, min(start + step, len(self.names)))
            width = rows.stop if lower else len(other.names)
            out = np.empty((len(pairs), rows.stop - start, width))
            for i, (a, _) in enumerate(pairs):
                out[i] = made[i].of(a[rows], width)
            yield rows, out

    def gram_blocks(self, *, lower: bool = False) -> Iterator[tuple[slice, np.ndarray]]:
        """`gram` for some rows at a time: (rows, (m, n_rows, n)).

        `lower`: (m, n_rows, rows.stop), without what the symmetry tells.
        """
        for rows, out in self.cross_blocks(self, lower=lower):
            yield rows, _ones_on_diagonal(out, rows.start)

    def grams(self) -> Iterator[np.ndarray]:
        """The (n, n) kernels of `gram` one by one."""
        for block in self.blocks:
            yield _ones_on_diagonal(product(block, block)[None].astype(np.float64))[0]

    def take(self, rows: Sequence[int] | np.ndarray) -> GeneBlocks:
        """Some of the perturbations, in the order asked for."""
        names = tuple(self.names[i] for i in rows)
        return GeneBlocks(names, self.kinds, tuple(b[rows] for b in self.blocks))

    @property
    def known(self) -> np.ndarray:
        """(n,) True where any block has a feature."""
        counts = [np.asarray(b.getnnz(axis=1)) for b in self.blocks]
        return np.asarray(np.sum(counts, axis=0) > 0)


class _RowKernel:
    """Cosine of unit rows as a `Kernel`."""

    reads_pool: ClassVar[bool] = False

    def _rows(self, names: Sequence[str]) -> csr_matrix:
        """(n_names, k) unit rows, zero where nothing is known."""
        raise NotImplementedError

    def between(
        self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str] = ()
    ) -> np.ndarray:
        """(n_rows, n_others) cosine; does not depend on `pool`."""
        out = product(self._rows(rows), self._rows(others)).astype(np.float64)
        out[same_names(rows, others)] = 1.0
        return out

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names without a feature."""
        known = np.asarray(self._rows(names).getnnz(axis=1)) > 0
        return tuple(n for n, k in zip(names, known, strict=True) if not k)


@dataclass(frozen=True)
class GeneKernel(_RowKernel):
    """One kind of feature rows of a knowledge folder as a `Kernel`; see `DEFAULT_KERNELS`."""

    knowledge: Knowledge
    name: str
    exclude_from_screen: bool = True

    def _rows(self, names: Sequence[str]) -> csr_matrix:
        found = gene_blocks(
            self.knowledge, names, (self.name,), exclude_from_screen=self.exclude_from_screen
        )
        return found.blocks[0]


@dataclass(frozen=True)
class SourceKernel(_RowKernel):
    """One kind of a `KernelSource` as a `Kernel`."""

    source: KernelSource
    kind: str

    @property
    def name(self) -> str:
        """The kind."""
        return self.kind

    def _rows(self, names: Sequence[str]) -> csr_matrix:
        return csr_matrix(self.source.rows(self.kind, list(names)))


def product(a: csr_matrix, b: csr_matrix) -> np.ndarray:
    """(n_a, n_b) dense a b^T; see `_Product`."""
    return _Product(a, b).of(a, b.shape[0])


class _Product:
    """a b^T: a dense product of the columns that many rows have, and a sparse one of the others.

    Embeddings, which have no zeros, are dense as a whole. A sparse product visits every pair of
    rows that share a column: the few frequent columns are nearly all of its work.
    """

    def __init__(self, a: csr_matrix, b: csr_matrix) -> None:
        pairs = np.multiply(*(np.bincount(x.indices, minlength=x.shape[1]) for x in (a, b)))
        if min(a.nnz, b.nnz) > DENSE * max(a.shape[0], b.shape[0]) * a.shape[1]:
            frequent = np.ones(len(pairs), dtype=bool)
        else:
            at_least = FREQUENT * a.shape[0] * b.shape[0] if pairs.sum() > MANY_PAIRS else np.inf
            frequent = pairs > at_least
        self._frequent, self._others = np.flatnonzero(frequent), np.flatnonzero(~frequent)
        self._dense = _columns(b, self._frequent).toarray()
        self._sparse = _columns(b, self._others)

    def of(self, a: csr_matrix, width: int) -> np.ndarray:
        """(n_a, width) product of some rows with the first `width` rows of the right side."""
        dense = _columns(a, self._frequent).toarray() @ self._dense[:width].T
        if not len(self._others):
            return np.asarray(dense)
        sparse = (_columns(a, self._others) @ self._sparse[:width].T.tocsr()).toarray()
        return np.asarray(sparse + dense if len(self._frequent) else sparse)


def _columns(matrix: csr_matrix, some: np.ndarray) -> csr_matrix:
    return matrix if len(some) == matrix.shape[1] else matrix[:, some]


def _ones_on_diagonal(kernels: np.ndarray, start: int = 0) -> np.ndarray:
    """The same (m, n_rows, n) array with 1 where row start + i meets column start + i."""
    rows = np.arange(kernels.shape[1])
    kernels[:, rows, start + rows] = 1.0
    return kernels


def linked(parts: np.ndarray) -> np.ndarray:
    """(q,) True for rows of (m, q, n) kernels that are alike to any of the n measured ones.

    The others share no feature with anything measured: a prediction can only be the mean.
    """
    return np.asarray((parts != 0).any(axis=(0, 2)))


def gene_blocks(
    knowledge: Knowledge,
    names: Sequence[str],
    kinds: Sequence[str] = DEFAULT_KERNELS,
    *,
    sources: Sequence[KernelSource] = (),
    exclude_from_screen: bool = True,
    skip_missing: bool = False,
) -> GeneBlocks:
    """Feature rows for perturbations, combinations included.

    Weights (IDF) come from all genes of the folder, never from the names asked for, so that the
    kernel between two genes does not depend on what else is predicted.

    Parameters
    ----------
    kinds
        See `DEFAULT_KERNELS`; any `Knowledge.features` kind, graph name or embedding works, and
        any other kernel of `pertwise.parts` (``path/to/file.py:Class``).
    sources
        Further kernels, all kinds of each, after the others.
    skip_missing
        Leave out kinds that this folder was built without (instead of raising); the kinds used are
        those of the result.
    """
    if not kinds and not sources:
        raise InputError("at least one kernel is needed")
    parts = [split_combination(n) for n in names]
    genes = list(dict.fromkeys(g for group in parts for g in group))
    place = {g: i for i, g in enumerate(genes)}
    pick = csr_matrix(
        (
            np.ones(sum(map(len, parts)), dtype=np.float32),
            (
                [i for i, group in enumerate(parts) for _ in group],
                [place[g] for group in parts for g in group],
            ),
        ),
        shape=(len(parts), len(genes)),
    )
    single = len(genes) == len(names) and all(len(g) == 1 for g in parts)
    used, blocks = [], []
    for kind in kinds:
        if skip_missing and not available(knowledge, kind):
            continue
        make = partial(_block, knowledge, kind, exclude_from_screen=exclude_from_screen)
        rows = kept_rows(knowledge, (kind, exclude_from_screen), genes, make)
        blocks.append(rows if single else unit_rows((pick @ rows).tocsr()))
        used.append(kind)
    for source in sources:
        for kind in source.kinds:
            rows = kept_rows(source, (kind,), genes, partial(source.rows, kind))
            blocks.append(rows if single else unit_rows((pick @ rows).tocsr()))
            used.append(kind)
    if not blocks:
        raise InputError(
            f"the knowledge folder {knowledge.path} has none of the kernels {list(kinds)}"
        )
    return GeneBlocks(tuple(names), tuple(used), tuple(blocks))


def available(knowledge: Knowledge, kind: str) -> bool:
    """Whether the folder can give this kernel; one that is not of the folder is there."""
    if kind == "symbol" or _of_elsewhere(kind):
        return True
    if kind.startswith("emb:"):
        return kind.removeprefix("emb:").split(":")[0] in knowledge.embedding_kinds()
    wanted = re.split("[@&]", kind.removeprefix("diffusion:"))
    known = {*knowledge.feature_kinds(), *knowledge.graph_names()}
    return all(w in known for w in wanted)


def _block(
    knowledge: Knowledge, kind: str, genes: Sequence[str], exclude_from_screen: bool
) -> csr_matrix:
    kind = kind.removeprefix("features:")
    if _of_elsewhere(kind):
        return _own_rows(knowledge, kind, genes, exclude_from_screen)
    if kind == "symbol":
        return _symbol_rows(knowledge, genes)
    if kind.startswith("emb:"):
        return unit_rows(csr_matrix(knowledge.embedding(genes, kind.removeprefix("emb:")).matrix))
    if not available(knowledge, kind):
        known = (*knowledge.feature_kinds(), *knowledge.graph_names())
        raise unknown_name("kernel", kind, known, "(or NAME@GRAPH, NAME&GRAPH, emb:NAME)")
    if "@" in kind or "&" in kind:
        base, sign, graph_name = re.split("([@&])", kind, maxsplit=1)
        graph = knowledge.graph(graph_name, exclude_from_screen)
        approved = knowledge.resolve(genes).approved
        rows = take_rows(graph.adjacency, graph.nodes, [approved.get(g, "") for g in genes])
        touched = np.unique(rows.indices)
        neighbours = [graph.nodes[i] for i in touched]
        if sign == "&":
            # One call for both, so that the columns of a gene and of its neighbours agree.
            features = knowledge.features(
                base, [*genes, *neighbours], exclude_from_screen, weighted=True
            )
            own, theirs = features[: len(genes)], features[len(genes) :]
            return unit_rows((own + (rows[:, touched] > 0) @ theirs).tocsr())
        total = np.asarray(rows.sum(axis=1)).ravel()
        scale = np.divide(1.0, total, out=np.zeros_like(total, dtype=float), where=total > 0)
        features = knowledge.features(base, neighbours, exclude_from_screen, weighted=True)
        return unit_rows((diags(scale) @ rows[:, touched] @ features).tocsr())
    return knowledge.features(kind, genes, exclude_from_screen, weighted=True)


def _of_elsewhere(kind: str) -> bool:
    """Whether a kernel is a class of one's own or of another package, not of the folder."""
    slug = registry.slugify(kind.partition(":")[0])
    if slug in registry.names("kernel", offered=False):
        return False
    return ":" in kind or slug in registry.names("kernel")


def own_kernel(
    knowledge: Knowledge, kind: str, exclude_from_screen: bool = True
) -> KernelSource | Kernel | None:
    """A kernel that is not of the folder (one's own, of another package), None for those that are.

    Raises
    ------
    pertwise.errors.InputError
        If its class cannot be found or made.
    """
    if not _of_elsewhere(kind):
        return None
    made: KernelSource | Kernel = registry.describe("kernel", kind).serve(
        knowledge=knowledge, exclude_from_screen=exclude_from_screen
    )
    return made


def _own_rows(
    knowledge: Knowledge, kind: str, genes: Sequence[str], exclude_from_screen: bool
) -> csr_matrix:
    made: Any = own_kernel(knowledge, kind, exclude_from_screen)
    if not hasattr(made, "kinds"):
        raise InputError(
            f"the kernel {kind} has no feature rows, only similarities: give it rows(kind, names) "
            "and kinds, or use it over several contexts or for compounds"
        )
    rows = [csr_matrix(made.rows(k, genes)) for k in made.kinds]
    return rows[0] if len(rows) == 1 else unit_rows(hstack(rows).tocsr())


def _symbol_rows(knowledge: Knowledge, genes: Sequence[str]) -> csr_matrix:
    """Unit rows over all beginnings (two signs or more) of the approved symbol, hashed."""
    from sklearn.feature_extraction.text import HashingVectorizer

    approved = knowledge.resolve(genes).approved
    hashing = HashingVectorizer(
        analyzer=lambda symbol: [symbol[:k] for k in range(2, len(symbol) + 1)],
        n_features=2**18,
        alternate_sign=False,
    )
    if not genes:
        return csr_matrix((0, hashing.n_features))
    return hashing.transform([approved.get(g, "") for g in genes]).tocsr()
