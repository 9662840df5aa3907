"""Kernels by name from what is known, and which of them fit the perturbations of a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError, unknown_name
from pertwise.kernels.base import Kernel
from pertwise.kernels.drugs import (
    FeatureKernel,
    ListKernel,
    MeanKernel,
    chemistry_similarity,
    mechanism_similarity,
    pathway_similarity,
    target_graph_similarity,
    target_sets,
    target_similarity,
    text_similarity,
)
from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    REFERENCE_KERNELS,
    GeneKernel,
    available,
    own_kernel,
)
from pertwise.knowledge.recorded import Answer
from pertwise.knowledge.store import Knowledge

#: Kernels of compounds whose features make `compound_features`.
FEATURES = ("chemistry", "mechanism", "target")
#: Kernels between compounds, in the order in which they are used.
DRUG_KERNELS = ("chemistry", "mechanism", "target", "target_graph", "pathway")


def drug_kernels(knowledge: Knowledge) -> tuple[str, ...]:
    """The `DRUG_KERNELS` that can be built: those whose facts the drug table holds."""
    cards = () if knowledge.drugs is None else knowledge.drugs.cards.values()
    names = ["chemistry"] if any(c.structure for c in cards) else []
    if any(c.mechanism for c in cards):
        names.append("mechanism")
    if any(c.targets for c in cards):
        names += ["target", *(("target_graph", "pathway") if knowledge.path else ())]
    return tuple(names)


def kernel(knowledge: Knowledge, name: str, *, exclude_from_screen: bool = True) -> Kernel:
    """A kernel by name; those of compounds are built once and kept.

    Parameters
    ----------
    name
        One of `DRUG_KERNELS`, of the kernels of genes (`genes.DEFAULT_KERNELS`), or another part
        (``path/to/file.py:Class``), which gives feature rows or similarities.

    Raises
    ------
    pertwise.errors.UnknownNameError
        When it cannot be built from what is known.
    """
    name = name.replace("target-graph", "target_graph")
    if name in DRUG_KERNELS:
        there = drug_kernels(knowledge)
        if name not in there:
            raise unknown_name("drug kernel", name, there, "(from these tables)")
        return knowledge.keep(("kernel", name), lambda: _compounds(knowledge, name))
    if not available(knowledge, name):
        known = (*drug_kernels(knowledge), *knowledge.feature_kinds(), *knowledge.graph_names())
        raise unknown_name("kernel", name, known)
    own = own_kernel(knowledge, name, exclude_from_screen)
    return own if isinstance(own, Kernel) else GeneKernel(knowledge, name, exclude_from_screen)


def only_similarities(knowledge: Knowledge, name: str) -> bool:
    """Whether a kernel has no feature rows that gene kernels could be stacked with."""
    name = name.replace("target-graph", "target_graph")
    return name in DRUG_KERNELS or isinstance(own_kernel(knowledge, name), Kernel)


def _compounds(knowledge: Knowledge, name: str) -> Kernel:
    table = knowledge.drugs
    if table is None:
        raise InputError(f"the kernel {name!r} needs a table of drugs")
    if name == "chemistry":
        return chemistry_similarity(table)
    if name == "mechanism":
        return mechanism_similarity(table)
    targets = target_sets(table, knowledge if knowledge.path else None)
    if name == "target":
        return target_similarity(targets)
    if name == "target_graph":
        return target_graph_similarity(targets, knowledge)
    return pathway_similarity(targets, knowledge)


def compound_features(
    knowledge: Knowledge, names: Sequence[str], dim: int = 256
) -> NDArray[np.float32]:
    """(n_names, k <= dim) unit rows of structure, mechanism and targets; zero where unknown.

    Each kernel's features have length 1 (or 0) and count alike; all drugs of the table together are
    reduced by a truncated SVD, so that a row does not depend on what else is asked for.
    """

    def make() -> dict[str, NDArray[np.float32]]:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize

        drugs = () if knowledge.drugs is None else tuple(knowledge.drugs.cards)
        made = [kernel(knowledge, k) for k in drug_kernels(knowledge) if k in FEATURES]
        blocks = [normalize(k.rows(drugs)) for k in made if isinstance(k, FeatureKernel)]
        if not blocks:
            return {}
        rows = np.hstack(blocks)
        if rows.shape[1] > dim < len(drugs):
            rows = TruncatedSVD(dim, random_state=0).fit_transform(rows)
        return dict(zip(drugs, normalize(rows).astype(np.float32), strict=True))

    known = knowledge.keep(("compound features", dim), make)
    width = len(next(iter(known.values()))) if known else 1
    empty = np.zeros(width, dtype=np.float32)
    return np.array([known.get(n, empty) for n in names]).reshape(len(names), width)


def fitting(knowledge: Knowledge, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the kernels that fit perturbations: of compounds, of genes, of both when mixed."""
    found = set(knowledge.kinds(names).values())
    compounds = drug_kernels(knowledge) if found & {"compound", "both"} else ()
    genes = [k for k in DEFAULT_KERNELS if available(knowledge, k)] if knowledge.path else []
    return (*compounds, *(genes if found & {"gene", "both"} or not compounds else ()))


def plain(knowledge: Knowledge, names: Sequence[str]) -> tuple[str, ...]:
    """The kernels of a plain reference: chemistry of compounds, else `genes.REFERENCE_KERNELS`."""
    fits = fitting(knowledge, names)
    return tuple(k for k in ("chemistry", *REFERENCE_KERNELS) if k in fits) or fits


def mean_kernel(knowledge: Knowledge, names: Sequence[str]) -> Kernel:
    """One kernel, or the mean of several, by name."""
    made = tuple(kernel(knowledge, n) for n in names)
    return made[0] if len(made) == 1 else MeanKernel(made)


def list_kernels(answers: Mapping[str, Answer]) -> tuple[Kernel, ...]:
    """Kernels of recorded neighbour lists: who was named ("chat"), and what was said of a name.

    `answers`: subject, or context + tab + subject -> (names, best first; a reason), e.g.
    `RecordedSelector.answers`. "chat mechanism" compares the reasons; there is none without.
    """
    notes = {n: reason for n, (_, reason) in answers.items() if "\t" not in n}
    lists = ListKernel("chat", merged_lists(answers))
    if not any(notes.values()):
        return (lists,)
    return (lists, text_similarity("chat mechanism", notes))


def merged_lists(answers: Mapping[str, Answer]) -> dict[str, tuple[str, ...]]:
    """One list a subject: lists given per context are merged by the sum of 1 / rank (ties by
    name)."""
    scores: dict[str, dict[str, float]] = {}
    for key, (names, _) in answers.items():
        own = scores.setdefault(key.rpartition("\t")[2], {})
        for rank, name in enumerate(names, start=1):
            own[name] = own.get(name, 0.0) + 1.0 / rank
    return {
        subject: tuple(sorted(own, key=lambda n: (-own[n], n))) for subject, own in scores.items()
    }
