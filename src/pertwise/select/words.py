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
    path/to/file.py:Class               a selector of one's own (or package.module:Class)

Any two are combined by " and " (intersection), " or " (union), " without " (difference), " else "
(the second where the first names less than half of what is asked for); several from left to right:
"graph:string and embedding:text or langpert", "recorded:lists.json else kernel:chemistry". What a
word means is looked up in `pertwise.parts`; a class of one's own is handed what its constructor
names of ``knowledge``, ``screen`` and the settings below.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pertwise import parts
from pertwise.errors import InputError, unknown_name
from pertwise.parts import Part
from pertwise.select.base import Selector
from pertwise.select.kernel import HybridSelector
from pertwise.select.sets import SetSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

OPERATIONS = {"and": "intersection", "or": "union", "without": "difference"}
_JOINED = re.compile(r"\s+(and|or|without|else)\s+")
#: What a selector is handed besides settings.
_GIVEN = ("knowledge", "screen")


def selector_from(
    words: str, *, max_neighbours: int = 20, **settings: Any
) -> Callable[[Knowledge | None, Screen], Selector]:
    """A function (knowledge, training screen) -> selector, from words (see the module).

    Parameters
    ----------
    max_neighbours
        Most picks of each numeric selector, and what each of two combined selectors is asked for.
    settings
        Of any selector of `pertwise.parts`: weighted, exclude_from_screen, rewire_seed, dim, llm,
        ledger ...; each selector in the words gets those that it knows.

    Raises
    ------
    pertwise.errors.InputError
        If the words name no selector, or one that sees the answers; or for a setting that no
        selector has.
    """
    texts = _JOINED.split(words.strip())
    named = [_described(text) for text in texts[::2]]
    _check_settings(settings, named)
    shared = {"max_neighbours": max_neighbours, **settings}

    def build(knowledge: Knowledge | None, screen: Screen) -> Selector:
        made = [_made(part, knowledge, screen, shared) for part in named]
        whole = made[0]
        for operation, other in zip(texts[1::2], made[1:], strict=True):
            if operation == "else":
                whole = HybridSelector(whole, other)
                continue
            whole = SetSelector(whole, other, OPERATIONS[operation], max_neighbours)
        return whole

    build.needs_screen = True  # type: ignore[attr-defined]
    build.needs_knowledge = any(map(_needs_knowledge, named))  # type: ignore[attr-defined]
    build.name = words  # type: ignore[attr-defined]
    return build


def asks_a_model(words: str) -> bool:
    """Whether a selector in words asks a chat model."""
    return any("chat" in part.facts.needs for part in _parts(words))


def recorded_files(words: str) -> list[str]:
    """The files (recorded answers) that a selector in words reads."""
    return [text for part in _parts(words) if (text := _file(part))]


def own_files(words: str) -> list[str]:
    """The files with classes of one's own that a selector in words names, kernels included."""
    named = [text for part in _parts(words) for text in (part.name, *_listed(part))]
    return [text.rpartition(":")[0] for text in named if parts.is_file(text)]


def placed_words(words: str, place: Callable[[str], str]) -> str:
    """The words with `place` applied to the path of every file in them."""
    texts = _JOINED.split(words.strip())
    for i, text in enumerate(texts):
        if i % 2:
            texts[i] = f" {text} "
        elif parts.is_file(text):
            texts[i] = place(text)
        elif _file(part := _described(text)):
            texts[i] = f"{part.name}:{place(str(part.given))}"
        elif any(map(parts.is_file, _listed(part))):
            listed = [place(t) if parts.is_file(t) else t for t in _listed(part)]
            texts[i] = f"{part.name}:{','.join(listed)}"
    return "".join(texts)


def _parts(words: str) -> list[Part]:
    return [_described(text) for text in _JOINED.split(words.strip())[::2]]


def _listed(part: Part) -> list[str]:
    return [text for value in part.settings.values() if isinstance(value, list) for text in value]


def _file(part: Part) -> str:
    """The file that the argument of a selector names; "" where it names none."""
    return part.given or "" if part.facts.argument in part.facts.reads else ""


def _described(text: str) -> Part:
    part = parts.describe("selector", text)
    if "truth" in part.facts.needs:
        raise InputError(
            f"the selector {part.name!r} sees the answers, so it cannot choose neighbours for a "
            'prediction; name the method "oracle" in `pertwise bench prediction` to see the bound '
            "it gives"
        )
    if part.facts.reads and not part.given:
        raise InputError(f"the selector {part.name!r} needs a file: {part.name}:answers.json.gz")
    return part


def _check_settings(settings: dict[str, Any], named: list[Part]) -> None:
    """A setting must be one that some selector knows: the built-in ones, or one of the words."""
    if not settings:
        return
    built_in = [parts.describe("selector", n) for n in parts.names("selector", offered=False)]
    known = {
        key
        for part in (*built_in, *named)
        for key, parameter in part.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY or part.own
    } - set(_GIVEN)
    for key in settings:
        if key not in known:
            raise unknown_name("setting", key, sorted(known))


def _needs_knowledge(part: Part) -> bool:
    given = part.parameters.get("knowledge")
    required = given is not None and given.default is given.empty
    return required or "knowledge" in part.facts.needs


def _made(
    part: Part, knowledge: Knowledge | None, screen: Screen, settings: dict[str, Any]
) -> Selector:
    if knowledge is None and _needs_knowledge(part):
        raise InputError(
            f"the selector {part.name!r} needs a knowledge folder: give --knowledge DIR"
        )
    made: Selector = part.serve(knowledge=knowledge, screen=screen, **settings)
    return made
