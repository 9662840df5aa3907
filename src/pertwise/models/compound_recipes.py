"""Compositions for compounds: nearest by one kind of facts, or as a chat model named them."""

from __future__ import annotations

import os
from typing import Any

from pertwise.models.neighbour_recipes import neighbours
from pertwise.models.per_context import ByContexts
from pertwise.models.recipes import recorded_langpert
from pertwise.parts import part


@part(label="chemistry kNN", needs="chemistry")
def chemistry_knn(
    *, k: int = 10, n_related: int = 5, name: str = "chemistry kNN", **settings: Any
) -> ByContexts:
    """Mean of the `k` compounds of the most similar structure in the same context."""
    return neighbours("kernel:chemistry", k=k, n_related=n_related, name=name, **settings)


@part(label="mechanism kNN", needs="mechanism")
def mechanism_knn(
    *, k: int = 10, n_related: int = 5, name: str = "mechanism kNN", **settings: Any
) -> ByContexts:
    """Mean of compounds of the same mechanism, or nearly the same wording of it.

    Letters shared by chance do not make a mechanism: a similarity of 0.3 or less counts for
    nothing.
    """
    return neighbours("kernel:mechanism>0.3", k=k, n_related=n_related, name=name, **settings)


@part(label="target kNN", needs="target")
def target_knn(
    *, k: int = 10, n_related: int = 5, name: str = "target kNN", **settings: Any
) -> ByContexts:
    """Mean of the `k` compounds that share most targets."""
    return neighbours("kernel:target", k=k, n_related=n_related, name=name, **settings)


@part(label="combined kNN", needs="knowledge")
def combined_knn(
    *, k: int = 10, n_related: int = 5, name: str = "combined kNN", **settings: Any
) -> ByContexts:
    """Mean of the `k` nearest by the mean of all kernels that fit (genes or compounds)."""
    return neighbours("kernel:all", k=k, n_related=n_related, name=name, **settings)


@part(label="LGR", reads="answers", argument="answers")
def lgr(
    answers: str | os.PathLike[str],
    *,
    k: int = 10,
    n_related: int = 5,
    name: str = "LGR",
    **settings: Any,
) -> ByContexts:
    """Mean of the measured compounds that a chat model named, from recorded answers."""
    return recorded_langpert(answers, k=k, n_related=n_related, name=name, **settings)


@part(label="LGR (shrunk)", reads="answers", argument="answers")
def lgr_shrunk(
    answers: str | os.PathLike[str],
    *,
    k: int = 10,
    n_related: int = 5,
    name: str = "LGR (shrunk)",
    **settings: Any,
) -> ByContexts:
    """`lgr` pulled to the mean of the context, as far as leaving one out there says."""
    given = {"shrinkage": "cv", **settings}
    return recorded_langpert(answers, k=k, n_related=n_related, name=name, **given)


@part(needs="chemistry", reads="answers", argument="answers")
def hybrid(
    answers: str | os.PathLike[str],
    *,
    k: int = 10,
    n_related: int = 5,
    name: str = "hybrid",
    **settings: Any,
) -> ByContexts:
    """What a chat model named where it named enough, else the most similar structures."""
    words = f"recorded:{answers} else kernel:chemistry"
    return neighbours(words, k=k, n_related=n_related, name=name, **settings)
