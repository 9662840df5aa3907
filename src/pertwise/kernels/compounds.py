"""The kernels of compounds as parts: `parts.load("kernel", "chemistry", knowledge=k)`."""

from __future__ import annotations

from pertwise.kernels.base import Kernel
from pertwise.kernels.known import kernel
from pertwise.knowledge import Knowledge
from pertwise.parts import part


@part(needs=("chemistry", "rdkit"))
def chemistry(knowledge: Knowledge) -> Kernel:
    """Tanimoto similarity of Morgan fingerprints of the parent compounds."""
    return kernel(knowledge, "chemistry")


@part(needs="mechanism")
def mechanism(knowledge: Knowledge) -> Kernel:
    """Same label of the mechanism of action, or similar wording."""
    return kernel(knowledge, "mechanism")


@part(needs="target")
def target(knowledge: Knowledge) -> Kernel:
    """Shared target genes: cosine of 0/1 sets."""
    return kernel(knowledge, "target")


@part(needs=("target", "knowledge"))
def target_graph(knowledge: Knowledge) -> Kernel:
    """Walks with restart from the targets on STRING, compared by their visits."""
    return kernel(knowledge, "target_graph")


@part(needs=("target", "knowledge"))
def pathway(knowledge: Knowledge) -> Kernel:
    """Shared gene sets of the targets: cosine of IDF-weighted membership."""
    return kernel(knowledge, "pathway")
