"""Ready compositions: a selector and an aggregation, or a kernel model with its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from pertwise.errors import unknown_name
from pertwise.kernels.genes import REFERENCE_KERNELS, SourceKernel
from pertwise.kernels.named import NamedNeighbours
from pertwise.kernels.ratings import GivenRatings
from pertwise.kernels.transfer import GivenScreens, open_others
from pertwise.models.base import Predictor
from pertwise.models.context_kernel import ContextKernelPredictor, HoldOut
from pertwise.models.contexts import joined
from pertwise.models.forest import ForestPredictor
from pertwise.models.kernel_ridge import Centre, KernelPredictor
from pertwise.models.looked_up import LookedUp
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.models.per_context import ByContexts, in_contexts
from pertwise.models.radial import RadialPredictor
from pertwise.models.stacked import StackedPredictor
from pertwise.parts import part
from pertwise.screen import Screen
from pertwise.select.base import Selector
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.recorded import LinkedSelector, RecordedSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: Trees of a forest inside a stack and on its inner folds, which only weigh the members, and the
#: pull of the weights to equal ones.
N_TREES, N_INNER_TREES = 300, 100
#: What a stretched prediction may lose of its squared error on the inner folds.
RETRIEVAL_TOLERANCE = 0.015
Purpose = Literal["error", "retrieval"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
STACKING_PRIOR = 0.1


@part(label="graph neighbours", needs="knowledge", words="fallbacks", argument="graphs*")
def graph_neighbours(
    graphs: Sequence[str] | str = ("string",),
    *,
    weighted: bool = True,
    exclude_from_screen: bool = True,
    rewire_seed: int | None = None,
    name: str = "graph neighbours",
    **settings: Any,
) -> NeighbourPredictor:
    """Mean of the strongest neighbours in knowledge graphs; settings of `NeighbourPredictor`."""

    def selector(knowledge: Knowledge) -> GraphSelector:
        return GraphSelector(
            knowledge,
            graphs,
            weighted=weighted,
            exclude_from_screen=exclude_from_screen,
            rewire_seed=rewire_seed,
        )

    return NeighbourPredictor(selector, name=name, **settings)


@part(label="rewired graph neighbours", needs="knowledge", words="fallbacks")
def rewired_graph_neighbours(rewire_seed: int = 0, **settings: Any) -> NeighbourPredictor:
    """`graph_neighbours` on a degree-preserving random graph: the control."""
    return graph_neighbours(
        rewire_seed=rewire_seed, **{"name": "rewired graph neighbours", **settings}
    )


@part(label="embedding neighbours", needs="knowledge", words="fallbacks", argument="kind")
def embedding_neighbours(
    kind: str = "text",
    *,
    k: int = 5,
    dim: int = 256,
    name: str = "embedding neighbours",
    **settings: Any,
) -> NeighbourPredictor:
    """Mean of the `k` nearest genes by the cosine of an embedding."""

    def selector(knowledge: Knowledge) -> EmbeddingSelector:
        return EmbeddingSelector(knowledge, kind, dim=dim, max_neighbours=k)

    return NeighbourPredictor(selector, k=k, name=name, **settings)


@part(label="gp text", needs="knowledge", argument="kinds*")
def gp_text(kinds: Sequence[str] = ("text",), name: str = "gp text") -> KernelPredictor:
    """GP on text embeddings ("gp text"), or text and a registered sequence embedding.

    The GP + LLM-embedding baseline of the perturbation-prediction literature, with the texts'
    TF-IDF/SVD embedding where no precomputed one is registered.
    """
    return KernelPredictor(
        [f"emb:{k}" for k in kinds], skip_missing=False, ratings=False, name=name
    )


@part(label="kernel ridge", needs="knowledge", reads=("other", "ratings"), argument="kernels*")
def kernel_ridge(
    kernels: Sequence[str] | None = None,
    *,
    hold_out: HoldOut = "perturbation",
    n_related: int = 5,
    ratings: GivenRatings = True,
    other: GivenScreens = (),
    constant: bool = True,
    centre: Centre = "mean",
    name: str = "kernel ridge",
    **settings: Any,
) -> ByContexts:
    """Kernel ridge on the plain sum of kernels, noise by leave-one-out.

    Over several contexts, or for compounds, `ContextKernelPredictor` (`settings` are its own) on
    the chemistry of compounds or the same kernels of genes. `ratings`, `other`: see `KernelModel`;
    the share of all other screens together is chosen by leave-one-out (`multi_kernel` learns a
    weight for each kernel); `constant` and `centre` (one context): see `KernelPredictor`.
    """
    return ByContexts(
        _looking_up(
            partial(
                KernelPredictor,
                kernels or REFERENCE_KERNELS,
                weights="equal",
                constant=constant,
                centre=centre,
            ),
            ratings=ratings,
            other=other,
            name=name,
        ),
        ContextKernelPredictor(
            kernels or "plain",
            hold_out=hold_out,
            n_related=n_related,
            ratings=ratings,
            other=other,
            name=name,
            **settings,
        ),
    )


@part(label="marks", reads="ratings", argument="ratings")
def marks(
    ratings: GivenRatings = True,
    *,
    hold_out: HoldOut = "perturbation",
    name: str = "marks",
    **settings: Any,
) -> ByContexts:
    """Kernel ridge on marks alone (`kernels.ratings`), weights of the kernels learned.

    What a judge's marks are worth without anything else that is known; `ratings` is a file, or True
    for those of the knowledge.
    """
    return ByContexts(
        KernelPredictor((), ratings=ratings, direction=0.5, name=name),
        ContextKernelPredictor((), ratings=ratings, hold_out=hold_out, name=name, **settings),
    )


def _looking_up(build: Callable[..., Predictor], **settings: Any) -> Predictor:
    """With other screens two models (`LookedUp`), else the one."""
    other = settings.pop("other", ())
    if not isinstance(other, Screen) and not other:
        return build(**settings)
    return LookedUp(lambda up: build(other=other, look_up=up, **settings), other)


def _listed(kernels: Sequence[str] | str) -> tuple[str, ...]:
    return (kernels,) if isinstance(kernels, str) else tuple(kernels)


def multi_kernel_of_genes(
    direction: float = 0.5, name: str = "multi-kernel", **settings: Any
) -> KernelPredictor:
    """All default kernels, learned weights, directions from half-scaled responses."""
    return KernelPredictor(direction=direction, name=name, **settings)


@part(needs="knowledge", reads=("other", "ratings"))
def multi_kernel(
    *,
    hold_out: HoldOut = "perturbation",
    n_related: int = 5,
    seed: int = 0,
    name: str = "multi-kernel",
    **settings: Any,
) -> ByContexts:
    """All kernels that fit, learned weights.

    Genes in one context: `multi_kernel_of_genes` (`settings` are its own). Several contexts, or
    compounds: `ContextKernelPredictor` with `hold_out`, `n_related`, `seed` and, where given,
    ``kernels``, ``ratings``, ``other`` and ``prior`` of the weights.
    """
    return ByContexts(
        _looking_up(multi_kernel_of_genes, name=name, **settings),
        ContextKernelPredictor(
            (
                *_listed(settings.get("kernels", "all")),
                *(SourceKernel(s, k) for s in settings.get("sources", ()) for k in s.kinds),
            ),
            weight_prior=settings.get("prior", 0.01),
            ratings=settings.get("ratings", True),
            other=settings.get("other", ()),
            hold_out=hold_out,
            n_related=n_related,
            seed=seed,
            name=name,
        ),
    )


@part(label="chat kernel", reads="answers", argument="answers")
def chat_kernel(
    answers: str | os.PathLike[str],
    *,
    hold_out: HoldOut = "perturbation",
    n_related: int = 5,
    name: str = "chat kernel",
    **settings: Any,
) -> ByContexts:
    """Kernel ridge on recorded neighbour lists and reasons alone (`ContextKernelPredictor`)."""
    recorded = RecordedSelector.from_file(answers)
    sources = (NamedNeighbours(recorded.answers, recorded.source),)
    return ByContexts(
        KernelPredictor((), sources=sources, ratings=False, name=name),
        ContextKernelPredictor(
            (),
            answers=recorded,
            ratings=False,
            hold_out=hold_out,
            n_related=n_related,
            name=name,
            **settings,
        ),
    )


@part(needs="knowledge", reads=("other", "ratings"))
def stacked(
    *,
    purpose: Purpose = "error",
    tolerance: float | None = None,
    turn: float = 0.5,
    n_trees: int = N_TREES,
    seed: int = 0,
    name: str = "stacked",
    **settings: Any,
) -> Predictor:
    """Multi-kernel, radial and forest, weighted by inner folds; better directions than alone.

    `purpose`: see `fused`; ``other``: screens of other lines (`KernelModel`).
    """
    tolerance = _tolerance(purpose, tolerance)

    def build(**settings: Any) -> StackedPredictor:
        def forest(trees: int) -> ForestPredictor:
            return ForestPredictor(direction=0.5, n_trees=trees, seed=seed, **settings)

        return StackedPredictor(
            {
                "multi-kernel": lambda: multi_kernel_of_genes(**settings),
                "radial": lambda: RadialPredictor(**settings),
                "forest": lambda: forest(n_trees),
            },
            inner={"forest": lambda: forest(min(n_trees, N_INNER_TREES))},
            tolerance=tolerance,
            turn=turn,
            prior=STACKING_PRIOR,
            seed=seed,
            name=name,
        )

    return _looking_up(build, **settings)


@part(
    label="langpert (recorded)",
    reads="answers",
    words="fallbacks",
    argument="answers",
    source="Märtens et al. 2025",
)
def recorded_langpert(
    answers: str | os.PathLike[str],
    *,
    k: int = 10,
    n_related: int = 5,
    context_text: str = "",
    name: str = "langpert (recorded)",
    **settings: Any,
) -> ByContexts:
    """LangPert (of compounds: LGR) from recorded answers: the mean of the named neighbours."""
    # Read at once, so that a file that cannot be read is told before anything is fitted.
    recorded = RecordedSelector.from_file(answers)

    def selector(knowledge: Knowledge | None, screen: Screen) -> Selector:
        return recorded.resolving(knowledge)

    selector.needs_screen, selector.needs_knowledge = True, False  # type: ignore[attr-defined]

    def build(text: str) -> NeighbourPredictor:
        said = joined(context_text, text)
        return NeighbourPredictor(selector, k=k, context_text=said, name=name, **settings)

    return in_contexts(build, n_related)


@part(
    needs="knowledge",
    reads=("answers", "edits", "other", "ratings"),
    argument="answers",
    gene_by_gene=True,
)
def fused(
    answers: str | os.PathLike[str] | None = None,
    *,
    edits: str | os.PathLike[str] | None = None,
    purpose: Purpose = "error",
    tolerance: float | None = None,
    turn: float = 0.5,
    n_trees: int = N_TREES,
    seed: int = 0,
    hold_out: HoldOut = "perturbation",
    n_related: int = 5,
    name: str = "fused",
    **settings: Any,
) -> ByContexts:
    """Knowledge and whatever a judge said in one: lists, reasons, marks, edited graph neighbours.

    Members: the multi-kernel model, the radial one and a forest, which see the knowledge kernels,
    those of the lists and reasons, and those of marks; a forest that sees what was said alone; and
    the mean of the neighbours that the lists link (`select.recorded.LinkedSelector`). Over several
    contexts, or for compounds: `ContextKernelPredictor` on all kernels and those of the lists.

    Parameters
    ----------
    answers, edits
        Files of neighbour lists and of edited graph neighbours (`knowledge.recorded`): those of a
        language model for the perturbations to predict and, where there are any, for the measured
        ones. Marks come with the knowledge, or as ``ratings=FILE``, other screens as ``other``.
    purpose
        "error": least squared error. "retrieval": predictions are stretched within `tolerance` more
        squared error (`RETRIEVAL_TOLERANCE` if None), which tells perturbations apart better and
        makes the error of weak ones larger.
    """
    if "look_up" not in settings and "other" in settings:
        again = partial(
            fused,
            answers,
            edits=edits,
            purpose=purpose,
            tolerance=tolerance,
            turn=turn,
            n_trees=n_trees,
            seed=seed,
            hold_out=hold_out,
            n_related=n_related,
            name=name,
        )
        one = _looking_up(lambda **own: again(**{"look_up": False, **own}).one, **settings)
        return ByContexts(one, again(look_up=True, **settings).several)
    tolerance = _tolerance(purpose, tolerance)
    recorded = [RecordedSelector.from_file(f) for f in (answers, edits) if f is not None]
    labels = ("named", "edited") if answers is not None else ("edited",)
    sources = tuple(
        NamedNeighbours(r.answers, r.source, label=label)
        for r, label in zip(recorded, labels, strict=False)
    )

    def forest(trees: int) -> ForestPredictor:
        return ForestPredictor(sources=sources, direction=0.5, n_trees=trees, seed=seed, **settings)

    def said(trees: int) -> ForestPredictor:
        marked = settings.get("ratings", True)
        return ForestPredictor(
            (),
            sources=sources,
            ratings=marked,
            direction=0.5,
            n_trees=trees,
            seed=seed,
            name=name,
        )

    members: dict[str, Callable[[], Predictor]] = {
        "multi-kernel": lambda: multi_kernel_of_genes(sources=sources, prior=0.003, **settings),
        "radial": lambda: RadialPredictor(sources=sources, **settings),
        "forest": lambda: forest(n_trees),
        "forest of what was said": lambda: said(n_trees),
    }
    few = min(n_trees, N_INNER_TREES)
    inner = {"forest": lambda: forest(few), "forest of what was said": lambda: said(few)}
    for found, label in zip(recorded, labels, strict=False):
        linked = LinkedSelector(found.answers, source=found.source)
        title = "linked neighbours" if label == "named" else "linked edited neighbours"
        members[title] = partial(
            NeighbourPredictor, linked, k=linked.max_neighbours, how="similarity", name=title
        )
    stack = StackedPredictor(
        members,
        inner=inner,
        tolerance=tolerance,
        turn=turn,
        prior=STACKING_PRIOR,
        seed=seed,
        name=name,
    )
    several = ContextKernelPredictor(
        settings.get("kernels", "all"),
        answers=recorded[0] if answers is not None else None,
        ratings=settings.get("ratings", True),
        other=settings.get("other", ()),
        hold_out=hold_out,
        n_related=n_related,
        seed=seed,
        name=name,
    )
    return ByContexts(stack, several)


@part(label="cross-line transfer", needs="knowledge", reads=("other", "ratings"), argument="other")
def transfer(
    other: GivenScreens,
    *,
    context: str | None = None,
    name: str = "cross-line transfer",
    **settings: Any,
) -> Predictor:
    """Multi-kernel with other screens as kernels (`kernels.transfer`).

    `other`: screens, files that `read_screen` recognises, or name -> one of them; `context`: of
    those the one line to use, all of them by default.
    """
    if context is not None:
        found = {k: s for k, s in open_others(other).items() if context in (k, *s.contexts)}
        if not found:
            raise unknown_name("context", context, open_others(other), "(of the other screens)")
        other = found
    return _looking_up(multi_kernel_of_genes, other=other, name=name, **settings)


def _tolerance(purpose: str, tolerance: float | None) -> float | None:
    """What stretching may cost for a purpose; None = no stretch."""
    if purpose not in PURPOSES:
        raise unknown_name("purpose", purpose, PURPOSES, "(error or retrieval)")
    return RETRIEVAL_TOLERANCE if purpose == "retrieval" and tolerance is None else tolerance
