"""Methods of a screen of compounds in several lines by name, from what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pertwise import parts
from pertwise.errors import unknown_name
from pertwise.kernels.known import drug_kernels
from pertwise.knowledge.store import Knowledge
from pertwise.models.base import Predictor
from pertwise.select.recorded import RecordedSelector

#: Methods that need a chat model's answers.
CHAT_METHODS = ("LGR", "LGR (shrunk)", "hybrid", "chat kernel", "fused")


@dataclass(frozen=True)
class MethodInputs:
    """What the methods of one run share.

    Attributes
    ----------
    answers
        File of a chat model's recorded neighbour lists; None leaves `CHAT_METHODS` out.
    hold_out
        What tuned methods hold out inside the training rows: what the test holds out.
    """

    knowledge: Knowledge
    answers: str | None = None
    k: int = 10
    n_related: int = 5
    seed: int = 0


def method_names(given: MethodInputs) -> tuple[str, ...]:
    """Names that `build_method` takes with what is given."""
    kernels, genes = drug_kernels(given.knowledge), bool(given.knowledge.path)
    names = ["context mean", "context mean (shrunk)", "perturbation mean", "additive contexts"]
    if "chemistry" in kernels:
        names += ["PCA + ridge", "chemistry kNN", "kernel ridge"]
    names += [f"{k} kNN" for k in ("mechanism", "target") if k in kernels]
    if len(kernels) > 1:
        names += ["combined kNN", "multi-kernel"]
    elif genes and not kernels:
        names += ["PCA + ridge", "combined kNN", "kernel ridge", "multi-kernel"]
    return (*names, *(CHAT_METHODS if given.answers is not None else ()))


def build_method(name: str, given: MethodInputs, hold_out: str = "perturbation") -> Predictor:
    """A fresh predictor of the catalogue by its name in the tables, tuned on what is held out.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of `method_names`.
    """
    if name not in method_names(given):
        hint = "(chat methods need neighbour lists)" if name in CHAT_METHODS else ""
        raise unknown_name("drug method", name, method_names(given), hint)
    near = {"n_related": given.n_related}
    tuned = {**near, "hold_out": hold_out, "seed": given.seed, "name": name}
    named = {**near, "k": given.k, "name": name}

    def by(words: str) -> Predictor:
        return _load("neighbours", selector=words, **named)

    makers: Mapping[str, Callable[[], Predictor]] = {
        "PCA + ridge": lambda: _load(name, **near, seed=given.seed),
        "chemistry kNN": lambda: by("kernel:chemistry"),
        # Same label, or nearly the same wording: letters shared by chance do not make a mechanism.
        "mechanism kNN": lambda: by("kernel:mechanism>0.3"),
        "target kNN": lambda: by("kernel:target"),
        "combined kNN": lambda: by("kernel:all"),
        "kernel ridge": lambda: _load(name, **tuned),
        "multi-kernel": lambda: _load(name, **tuned),
        "LGR": lambda: _listed(given, **named),
        "LGR (shrunk)": lambda: _listed(given, shrinkage="cv", **named),
        "hybrid": lambda: by(f"recorded:{given.answers} else kernel:chemistry"),
        "chat kernel": lambda: _load(name, answers=given.answers, **tuned),
        "fused": lambda: _load(name, answers=given.answers, **tuned),
    }
    return makers[name]() if name in makers else _load(name, **near)


def _listed(given: MethodInputs, **settings: Any) -> Predictor:
    return _load("langpert (recorded)", answers=given.answers, **settings)


def open_lists(given: MethodInputs) -> RecordedSelector | None:
    """The recorded lists, their names resolved."""
    if given.answers is None:
        return None
    return RecordedSelector.from_file(given.answers).resolving(given.knowledge)


def _load(use: str, /, **settings: Any) -> Predictor:
    model: Predictor = parts.load("predictor", use, **settings)
    return model
