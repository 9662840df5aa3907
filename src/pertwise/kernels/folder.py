"""The kernels of the knowledge folder as parts: `parts.load("kernel", "emb:text", knowledge=k)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.sparse import csr_matrix

from pertwise.kernels.genes import gene_blocks
from pertwise.knowledge import Knowledge
from pertwise.parts import part


@dataclass(frozen=True)
class FolderKernel:
    """One kernel of the folder, by the names of `kernels.genes.DEFAULT_KERNELS`."""

    knowledge: Knowledge
    kinds: tuple[str, ...]
    exclude_from_screen: bool = True
    source: str = "knowledge folder"

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows; zero where the folder knows nothing."""
        exclude = self.exclude_from_screen
        return gene_blocks(self.knowledge, genes, [kind], exclude_from_screen=exclude).blocks[0]


@part(needs="knowledge", argument="kind")
def features(knowledge: Knowledge, kind: str, exclude_from_screen: bool = True) -> FolderKernel:
    """IDF-weighted features or graph by its name (string, go, reactome ...); A@GRAPH, A&GRAPH."""
    return FolderKernel(knowledge, (kind,), exclude_from_screen)


@part(needs="knowledge", argument="kind")
def emb(knowledge: Knowledge, kind: str = "text", exclude_from_screen: bool = True) -> FolderKernel:
    """Cosine of a dense embedding."""
    return FolderKernel(knowledge, (f"emb:{kind}",), exclude_from_screen)


@part(needs="knowledge", argument="graph")
def diffusion(
    knowledge: Knowledge, graph: str = "string", exclude_from_screen: bool = True
) -> FolderKernel:
    """Walks with restart on a graph."""
    return FolderKernel(knowledge, (f"diffusion:{graph}",), exclude_from_screen)


@part(needs="knowledge")
def symbol(knowledge: Knowledge) -> FolderKernel:
    """Beginnings of the gene symbol, a cheap guide to gene families (MRPL.., SF3B..)."""
    return FolderKernel(knowledge, ("symbol",))
