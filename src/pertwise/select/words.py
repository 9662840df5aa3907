"""Selectors in words, so that a configuration file or a command line can ask for any of them.

    graph:string                        neighbours in one graph
    graph:string,go,reactome            several graphs merged
    embedding:text+protein              nearest by an embedding, or by several joined
    kernel:string,go                    nearest by the mean of knowledge kernels (cosines of rows)
    kernel:chemistry, kernel:mechanism>0.3   the same for compounds, with a least similarity
    kernel:all                          nearest by the mean of all kernels that fit the screen
    recorded:answers.json.gz            neighbour lists from a file
    langpert                            a chat model's 5-10 (langpert:MODEL@URL for one of its own)
    edit:string                         graph neighbours corrected by a chat model
    learned                             by a similarity learned from the measured pairs

Any two are combined by " and " (intersection), " or " (union), " without " (difference), " else "
(the second where the first names less than half of what is asked for); several from left to right:
"graph:string and embedding:text or langpert", "recorded:lists.json else kernel:chemistry".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pertwise.arrays.gaussian_process import Floats
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.genes import gene_blocks
from pertwise.kernels.known import DRUG_KERNELS, fitting, mean_kernel
from pertwise.llm import open_chat
from pertwise.select.base import Selector
from pertwise.select.chat.edit import EditSelector
from pertwise.select.chat.selector import ChatSelector, knowledge_resolver
from pertwise.select.chat.similar import langpert_selector
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.kernel import HybridSelector, KernelSelector
from pertwise.select.learned import LearnedSelector, learned_selector
from pertwise.select.recorded import RecordedSelector
from pertwise.select.sets import SetSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.screen import Screen

KINDS = ("graph", "embedding", "kernel", "recorded", "langpert", "edit", "learned")
OPERATIONS = {"and": "intersection", "or": "union", "without": "difference"}
#: Settings that go to the chat selectors; see `chat_recipes.langpert` and `graph_edit`.
CHAT_SETTINGS = (
    "llm",
    "ledger",
    "chat_settings",
    "max_candidates",
    "prefilter",
    "max_edits",
    "seed",
)
_JOINED = r"\s+(and|or|without|else)\s+"
_CHAT = ("langpert", "edit")
_NEED_KNOWLEDGE = ("graph", "embedding", "kernel", "edit", "learned")


def selector_from(
    words: str,
    *,
    weighted: bool = True,
    exclude_from_screen: bool = True,
    rewire_seed: int | None = None,
    dim: int = 256,
    max_neighbours: int = 20,
    **chat: Any,
) -> Callable[[Knowledge | None, Screen], Selector]:
    """A function (knowledge, training screen) -> selector, from words (see the module).

    Parameters
    ----------
    weighted, exclude_from_screen, rewire_seed
        Of every graph selector in it; see `GraphSelector`.
    dim
        Columns of every computed embedding block.
    max_neighbours
        Most picks of each numeric selector, and what each of two combined selectors is asked for.
    chat
        `CHAT_SETTINGS`, for the chat selectors in it.

    Raises
    ------
    pertwise.errors.InputError
        If the words name no selector, or the oracle; or for an unknown setting.
    """
    for setting in chat:
        if setting not in CHAT_SETTINGS:
            known = ("weighted", "exclude_from_screen", "rewire_seed", "dim", "max_neighbours")
            raise unknown_name("setting", setting, (*known, *CHAT_SETTINGS))
    parts = re.split(_JOINED, words.strip())
    named = [_split(text) for text in parts[::2]]
    graph = {
        "weighted": weighted,
        "exclude_from_screen": exclude_from_screen,
        "rewire_seed": rewire_seed,
        "max_neighbours": max_neighbours,
    }

    def build(knowledge: Knowledge | None, screen: Screen) -> Selector:
        made = [_one(kind, what, knowledge, screen, graph, dim, chat) for kind, what in named]
        whole = made[0]
        for operation, other in zip(parts[1::2], made[1:], strict=True):
            if operation == "else":
                whole = HybridSelector(whole, other)
                continue
            whole = SetSelector(whole, other, OPERATIONS[operation], max_neighbours)
        return whole

    build.needs_screen = True  # type: ignore[attr-defined]
    build.needs_knowledge = any(k in _NEED_KNOWLEDGE for k, _ in named)  # type: ignore[attr-defined]
    build.name = words  # type: ignore[attr-defined]
    return build


def asks_a_model(words: str) -> bool:
    """Whether a selector in words asks a chat model."""
    return any(_split(t)[0] in _CHAT for t in re.split(_JOINED, words.strip())[::2])


def recorded_files(words: str) -> list[str]:
    """The files of recorded answers that a selector in words reads."""
    pairs = [t.partition(":") for t in re.split(_JOINED, words.strip())[::2]]
    return [what for kind, _, what in pairs if kind == "recorded" and what]


def placed_words(words: str, place: Callable[[str], str]) -> str:
    """The words with `place` applied to the path of every recorded file in them."""
    parts = re.split(_JOINED, words.strip())
    for i, text in enumerate(parts):
        kind, _, what = text.partition(":")
        if i % 2 == 0 and kind == "recorded" and what:
            parts[i] = f"recorded:{place(what)}"
        elif i % 2:
            parts[i] = f" {text} "
    return "".join(parts)


def _split(text: str) -> tuple[str, str]:
    kind, _, what = text.partition(":")
    if kind == "oracle":
        raise InputError(
            "the oracle sees the answers, so it cannot choose neighbours for a prediction; name "
            'the method "oracle" in `pertwise bench prediction` to see the bound it gives'
        )
    if kind not in KINDS:
        raise unknown_name("selector", text, KINDS)
    if kind == "recorded" and not what:
        raise InputError("the selector 'recorded' needs a file: recorded:answers.json.gz")
    return kind, what


def _one(
    kind: str,
    what: str,
    knowledge: Knowledge | None,
    screen: Screen,
    graph: dict[str, Any],
    dim: int,
    chat: dict[str, Any],
) -> Selector:
    if kind == "recorded":
        if knowledge is None:
            return RecordedSelector.from_file(what)
        made = knowledge.keep(("recorded", what), lambda: RecordedSelector.from_file(what))
        return made.resolving(knowledge)
    if kind == "langpert":
        given = {k: v for k, v in chat.items() if k != "max_edits"}
        own = {"llm": what} if what else {}
        return langpert_from(knowledge, screen, **{**given, **own})
    if knowledge is None:
        raise InputError(f"the selector {kind!r} needs a knowledge folder: give --knowledge DIR")
    if kind == "learned":
        return learned_selector(
            screen,
            knowledge,
            exclude_from_screen=graph["exclude_from_screen"],
            max_neighbours=graph["max_neighbours"],
        )
    names = tuple(what.split(",")) if what else ("string",)
    if kind == "graph":
        return GraphSelector(knowledge, names, **graph)
    if kind == "kernel":
        return _by_kernels(names, knowledge, graph, screen)
    if kind == "edit":
        base = GraphSelector(knowledge, names, **graph)
        return edit_from(knowledge, screen, base, **chat)
    most = graph["max_neighbours"]
    return EmbeddingSelector(knowledge, what or "text", dim=dim, max_neighbours=most)


def _by_kernels(
    kinds: Sequence[str], knowledge: Knowledge, graph: Mapping[str, Any], screen: Screen
) -> Selector:
    """Nearest by kernels at equal weights; no weight is learned, so any `kinds` will do."""
    names, _, least = ",".join(kinds).partition(">")
    kinds = fitting(knowledge, screen.perturbations) if names == "all" else names.split(",")
    if least or set(kinds) & set(DRUG_KERNELS):
        made = mean_kernel(knowledge, kinds)
        return KernelSelector(made, above=_number(least), max_neighbours=graph["max_neighbours"])

    def between(subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        asked, known = (
            gene_blocks(knowledge, names, kinds, exclude_from_screen=graph["exclude_from_screen"])
            for names in (subjects, candidates)
        )
        return np.asarray(asked.cross(known))

    return LearnedSelector(
        between,
        kinds,
        np.full(len(kinds), 1.0 / len(kinds)),
        max_neighbours=graph["max_neighbours"],
        name=f"kernel ({', '.join(kinds)})",
    )


def _number(text: str) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        raise InputError(
            f"a least similarity is a number, as in mechanism>0.3; not {text!r}"
        ) from None


def _chat(llm: str | Chat | None, ledger: str | os.PathLike[str] | None, **settings: Any) -> Chat:
    if llm is None:
        raise InputError("this method asks a chat model: give llm='MODEL@URL' (--llm)")
    return open_chat(llm, ledger=ledger, **settings) if isinstance(llm, str) else llm


#: What ranks the measured list where it is too long to show (`pertwise bench prefilter` says
#: how much of what matters it keeps).
PREFILTER = "embedding:text+graph"


def _prefilter(
    words: str,
    max_candidates: int | None,
    knowledge: Knowledge | None,
    screen: Screen,
) -> Selector | None:
    if max_candidates is None:
        return None
    if knowledge is None:
        raise InputError("max_candidates needs a knowledge folder to prefilter by")
    return selector_from(words, max_neighbours=max_candidates)(knowledge, screen)


def langpert_from(
    knowledge: Knowledge | None,
    screen: Screen,
    *,
    llm: str | Chat | None = None,
    k: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    prompt: str | os.PathLike[str] = "langpert",
    seed: int = 0,
) -> ChatSelector:
    """LangPert's selector with gene facts, aliases and a prefilter from the knowledge folder."""
    return langpert_selector(
        _chat(llm, ledger, **(chat_settings or {})),
        k=k,
        facts=None if knowledge is None else knowledge.facts,
        resolve=None if knowledge is None else knowledge_resolver(knowledge),
        max_candidates=max_candidates,
        prefilter=_prefilter(prefilter, max_candidates, knowledge, screen),
        prompt=prompt,
        seed=seed,
    )


def edit_from(
    knowledge: Knowledge,
    screen: Screen,
    base: Selector,
    *,
    llm: str | Chat | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    max_edits: int = 5,
    seed: int = 0,
) -> EditSelector:
    """The picks of `base`, corrected by a chat model."""
    return EditSelector(
        base,
        _chat(llm, ledger, **(chat_settings or {})),
        max_edits=max_edits,
        facts=knowledge.facts,
        resolve=knowledge_resolver(knowledge),
        max_candidates=max_candidates,
        prefilter=_prefilter(prefilter, max_candidates, knowledge, screen),
        seed=seed,
    )
