"""Methods of the drug bench by name, built from what is known about the drugs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pertwise.errors import InputError, unknown_name
from pertwise.evaluate.drug_splits import INNER
from pertwise.kernels.drugs import (
    CombinedSimilarity,
    DrugSimilarity,
    FeatureSimilarity,
    NeighbourSimilarity,
    chemistry_similarity,
    mechanism_similarity,
    pathway_similarity,
    target_graph_similarity,
    target_sets,
    target_similarity,
    text_similarity,
)
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.lines import CellTable
from pertwise.knowledge.store import Knowledge
from pertwise.models.drugs import CellMean, DrugMean, DrugPlusCell, DrugPredictor
from pertwise.models.drugs_linear import FingerprintRidge
from pertwise.models.drugs_lines import retrieve
from pertwise.models.drugs_ridge import LINE_PRIOR, DrugKernelRidge
from pertwise.select.base import Selector
from pertwise.select.drugs import DrugSelector, HybridSelector
from pertwise.select.recorded import RecordedSelector

#: Methods that need a chat model's answers.
CHAT_METHODS = ("LGR", "LGR (shrunk)", "hybrid", "chat kernel", "fused")


@dataclass
class DrugKnowledge:
    """Everything the methods may know; kernels are built once and shared.

    Attributes
    ----------
    table
        Names, structures, targets, mechanisms.
    cells
        Cell-line facts; None = an unmeasured line borrows from all lines alike.
    genes
        Knowledge folder that links targets to graphs and pathways; None leaves those kernels out.
    lists
        Neighbour lists: a chat model's recorded answers, or a live chat selector.
    """

    table: DrugTable
    cells: CellTable | None = None
    genes: Knowledge | None = None
    lists: Selector | None = None
    k: int = 10
    seed: int = 0
    n_related: int = 5
    _kernels: dict[str, DrugSimilarity] = field(default_factory=dict, repr=False)

    def kernel_names(self) -> tuple[str, ...]:
        """Kernels that can be built from what is given."""
        names = ["chemistry"] if any(c.structure for c in self.table.cards.values()) else []
        if any(c.mechanism for c in self.table.cards.values()):
            names.append("mechanism")
        if any(c.targets for c in self.table.cards.values()):
            names += ["target", *(("target_graph", "pathway") if self.genes is not None else ())]
        if isinstance(self.lists, RecordedSelector):
            names.append("chat")
            if any(self._notes().values()):
                names.append("chat mechanism")
        return tuple(names)

    def _notes(self) -> dict[str, str]:
        if not isinstance(self.lists, RecordedSelector):
            return {}
        return {n: reason for n, (_, reason) in self.lists.answers.items() if "\t" not in n}

    def kernel(self, name: str) -> DrugSimilarity:
        """A kernel by name (cached).

        Raises
        ------
        pertwise.errors.UnknownNameError
            When it cannot be built from the tables given.
        """
        if name not in self._kernels:
            if name not in self.kernel_names():
                raise unknown_name("drug kernel", name, self.kernel_names(), "(from these tables)")
            self._kernels[name] = self._make(name)
        return self._kernels[name]

    def _make(self, name: str) -> DrugSimilarity:
        if name == "chemistry":
            return chemistry_similarity(self.table)
        if name == "mechanism":
            return mechanism_similarity(self.table)
        if name == "chat mechanism":
            return text_similarity(name, self._notes())
        if name == "chat" and isinstance(self.lists, RecordedSelector):
            return NeighbourSimilarity("chat", merged_lists(self.lists))
        targets = target_sets(self.table, self.genes)
        if name == "target" or self.genes is None:
            return target_similarity(targets)
        if name == "target_graph":
            return target_graph_similarity(targets, self.genes)
        return pathway_similarity(targets, self.genes)

    def known_kernels(self) -> list[str]:
        """Kernels that need no chat model."""
        return [n for n in self.kernel_names() if not n.startswith("chat")]


def merged_lists(recorded: RecordedSelector) -> dict[str, tuple[str, ...]]:
    """One list a drug: lists given per line are merged by the sum of 1 / rank (ties by name)."""
    scores: dict[str, dict[str, float]] = {}
    for key, (names, _) in recorded.answers.items():
        own = scores.setdefault(key.rpartition("\t")[2], {})
        for rank, name in enumerate(names, start=1):
            own[name] = own.get(name, 0.0) + 1.0 / rank
    return {
        subject: tuple(sorted(own, key=lambda n: (-own[n], n))) for subject, own in scores.items()
    }


def method_names(known: DrugKnowledge) -> tuple[str, ...]:
    """Names that `build_method` takes with what is given."""
    kernels = known.kernel_names()
    names = ["cell mean", "cell mean (shrunk)", "drug mean", "drug + cell"]
    if "chemistry" in kernels:
        names += ["PCA + ridge", "chemistry kNN", "kernel ridge"]
    if "mechanism" in kernels:
        names.append("mechanism kNN")
    if "target" in kernels:
        names.append("target kNN")
    if len(known.known_kernels()) > 1:
        names += ["combined kNN", "multi-kernel"]
    if known.lists is not None:
        names += ["LGR", "LGR (shrunk)", "hybrid"]
    if "chat" in kernels:
        names += ["chat kernel", "fused"]
    return tuple(names)


def build_method(
    name: str, known: DrugKnowledge, regime: str, drugs: Sequence[str]
) -> DrugPredictor:
    """A fresh predictor by name, tuned inside on what `regime` holds out.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of `method_names`.
    """
    if name not in method_names(known):
        hint = "(chat methods need neighbour lists)" if name in CHAT_METHODS else ""
        raise unknown_name("drug method", name, method_names(known), hint)
    cells, related = known.cells, known.n_related
    compounds = known.table.compounds(list(drugs))

    def ridge(kernels: Sequence[str]) -> DrugKernelRidge:
        return DrugKernelRidge(
            [known.kernel(n) for n in kernels],
            name=name,
            hold_out=INNER.get(regime, "drug"),
            compounds=compounds,
            cells=cells,
            n_related=related,
            seed=known.seed,
        )

    def near(kernel: DrugSimilarity, above: float = 0.0) -> DrugPredictor:
        selector = DrugSelector(kernel, above=above)
        return retrieve(selector, k=known.k, name=name, cells=cells, n_related=related)

    def listed(shrinkage: float | str = 0.0, selector: Selector | None = None) -> DrugPredictor:
        chosen = selector or known.lists
        if chosen is None:
            raise InputError(f"{name!r} needs neighbour lists")
        return retrieve(
            chosen, k=known.k, name=name, shrinkage=shrinkage, cells=cells, n_related=related
        )

    makers: Mapping[str, Callable[[], DrugPredictor]] = {
        "cell mean": lambda: CellMean(cells=cells, n_related=related),
        "cell mean (shrunk)": lambda: _named(
            CellMean(cells=cells, n_related=related, prior=LINE_PRIOR), name
        ),
        "drug mean": lambda: DrugMean(cells=cells, n_related=related),
        "drug + cell": lambda: DrugPlusCell(cells=cells, n_related=related),
        "PCA + ridge": lambda: FingerprintRidge(
            _features(known.kernel("chemistry")), compounds=compounds, cells=cells,
            n_related=related, seed=known.seed,
        ),
        "chemistry kNN": lambda: near(known.kernel("chemistry")),
        # Same label, or nearly the same wording: letters shared by chance do not make a mechanism.
        "mechanism kNN": lambda: near(known.kernel("mechanism"), above=0.3),
        "target kNN": lambda: near(known.kernel("target")),
        "combined kNN": lambda: near(_combined(known)),
        "kernel ridge": lambda: ridge(["chemistry"]),
        "multi-kernel": lambda: ridge(known.known_kernels()),
        "LGR": lambda: listed(),
        "LGR (shrunk)": lambda: listed("cv"),
        "hybrid": lambda: listed(selector=_hybrid(known)),
        "chat kernel": lambda: ridge([n for n in known.kernel_names() if n.startswith("chat")]),
        "fused": lambda: ridge(list(known.kernel_names())),
    }  # fmt: skip
    return makers[name]()


def _named(model: CellMean, name: str) -> CellMean:
    model.name = name
    return model


def _features(kernel: DrugSimilarity) -> FeatureSimilarity:
    if not isinstance(kernel, FeatureSimilarity):
        raise InputError(f"kernel {kernel.name!r} has no features")
    return kernel


def _combined(known: DrugKnowledge) -> CombinedSimilarity:
    return CombinedSimilarity(tuple(known.kernel(n) for n in known.known_kernels()))


def _hybrid(known: DrugKnowledge) -> HybridSelector:
    if known.lists is None:
        raise InputError("the hybrid needs neighbour lists")
    return HybridSelector(known.lists, DrugSelector(known.kernel("chemistry")))
