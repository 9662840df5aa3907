"""Who is held out of training prompts, under which spellings, and texts that do not name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pertwise._names import split_combination
from pertwise.arrays.folds import group_folds
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate.given import split_given
from pertwise.evaluate.splits import things
from pertwise.llm.base import Message

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Split -> what is held out. gene and drug: one thing under all its names (`Knowledge.identity`);
#: family: what shares a promoter or a scaffold (`Knowledge.families`); line: all of a context.
SPLITS = ("gene", "family", "line", "drug")
#: Edges of this weight (STRING: "highest confidence") make a neighbourhood.
NEAR = 0.9
_TOKEN = re.compile("[A-Za-z0-9]+")
#: Shorter aliases, and those without a capital or digit, are words of the language.
_SHORTEST = 3


@dataclass(frozen=True)
class Held:
    """What one fold holds out.

    Attributes
    ----------
    test
        Perturbations (split "line": contexts) that test tasks are about.
    quiet
        Measured perturbations that no training prompt names: those of `test`, their doubles and
        their neighbourhoods.
    words
        Every spelling of these, longest first.
    """

    split: str
    fold: int
    test: frozenset[str]
    quiet: frozenset[str]
    words: tuple[str, ...] = field(repr=False)

    @property
    def by_line(self) -> bool:
        """Whether whole contexts are held out."""
        return self.split == "line"

    @cached_property
    def _index(self) -> Words:
        return Words(self.words)

    def mask(self, text: str) -> str:
        """The text with every held-out name made "another one"."""
        parts, end = [], 0
        for start, stop in self._index.places(text):
            parts += [text[end:start], "another one"]
            end = stop
        return "".join([*parts, text[end:]])

    def named(self, messages: Iterable[Message]) -> list[str]:
        """Held-out names that the messages hold as words."""
        texts = [m.content for m in messages]
        return sorted({t[a:b] for t in texts for a, b in self._index.places(t)})


class Words:
    """Finds many names in texts as whole words, with no letter or digit on either side.

    One look-up a token of the text, however many names: thousands of aliases in prompts of
    thousands of names would take an alternation minutes.
    """

    def __init__(self, words: Iterable[str]) -> None:
        #: first run of letters and digits -> (where it stands in the name, the name), longest first
        self._by_token: dict[str, list[tuple[int, str]]] = {}
        for word in sorted(set(words), key=lambda w: (-len(w), w)):
            if first := _TOKEN.search(word):
                self._by_token.setdefault(first.group(), []).append((first.start(), word))

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of every name, in order; the longest where several stand."""
        end = 0
        for token in _TOKEN.finditer(text):
            for before, word in self._by_token.get(token.group(), ()):
                start = token.start() - before
                stop = start + len(word)
                if start >= end and text.startswith(word, start) and _alone(text, start, stop):
                    yield start, stop
                    end = stop
                    break


def _alone(text: str, start: int, stop: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[stop : stop + 1]
    return not (_TOKEN.match(before) or _TOKEN.match(after))


def hold_out(
    screens: Sequence[Screen],
    knowledge: Knowledge | None,
    *,
    split: str = "gene",
    fold: int = 0,
    n_folds: int = 5,
    seed: int = 0,
    folds_from: str | os.PathLike[str] | None = None,
    near: float | None = NEAR,
    plain: str = "",
) -> Held:
    """What fold `fold` of a split holds out, the same in every screen.

    Parameters
    ----------
    folds_from
        A file of recorded answers whose folds are taken instead of drawn ones (one screen).
    near
        Weight of STRING edges (same mechanism for compounds) that make a neighbourhood: measured
        perturbations that near to a held-out one are named in no training prompt either. None:
        they are.
    plain
        Text that belongs to the prompts themselves: an alias that is a word of it is left alone.

    Raises
    ------
    pertwise.errors.InputError
        For an unknown split or fold, or too few groups for the folds.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    names = sorted({p for s in screens for p in s.only_measured().perturbations})
    contexts = sorted({c for s in screens for c in s.contexts})
    if split == "line":
        test = _fold(contexts, contexts, fold, min(n_folds, len(contexts)), seed, split)
        return Held(split, fold, test, frozenset(), tuple(sorted(c for c in test if c)))
    if folds_from is not None:
        given = split_given(names, folds_from)
        if not 0 <= fold < len(given):
            raise InputError(f"{folds_from} has folds 0 to {len(given) - 1}, not {fold}")
        test = frozenset(given[fold].test)
    else:
        group = things(names, knowledge)
        if split == "family" and knowledge is not None:
            group = knowledge.families(names)
        test = _fold(names, [group[n] for n in names], fold, n_folds, seed, split)
    quiet = test | _doubles(names, test, knowledge)
    if near is not None:
        quiet |= _neighbourhood(names, test, knowledge, near)
    others = [n for n in names if n not in quiet]
    words = hidden_words(quiet, others, knowledge, plain)
    # A read-through such as RBM14-RBM4 names RBM4.
    index = Words(words | quiet)
    quiet |= {n for n in others if any(True for _ in index.places(n))}
    return Held(split, fold, test, quiet, tuple(sorted(words | quiet)))


def hidden_words(
    quiet: Iterable[str], others: Iterable[str], knowledge: Knowledge | None, plain: str
) -> set[str]:
    """Spellings of `quiet` that are neither a name of `others` nor a word of the text `plain`."""
    # An alias of one gene may be the name of another: what may be named is no held-out word.
    others = sorted(others)
    free = {*others, *({} if knowledge is None else knowledge.resolve(others).approved.values())}
    words = _spellings(quiet, knowledge) - free
    return words - {plain[a:b] for a, b in Words(words).places(plain)}


def _fold(
    items: Sequence[str], groups: Sequence[str], fold: int, n_folds: int, seed: int, split: str
) -> frozenset[str]:
    n_groups = len(set(groups))
    if n_groups < max(2, n_folds):
        raise InputError(f"split {split!r}: {n_groups} groups are too few for {n_folds} folds")
    if not 0 <= fold < n_folds:
        raise InputError(f"fold {fold} of {n_folds}: give 0 to {n_folds - 1}")
    where = group_folds(groups, n_folds, seed)
    return frozenset(n for n, f in zip(items, where, strict=True) if f == fold)


def _doubles(
    names: Sequence[str], test: frozenset[str], knowledge: Knowledge | None
) -> frozenset[str]:
    """What is one thing or one family with a held-out one, or a combination with it."""
    parts = {p for t in test for p in split_combination(t)}
    found = {n for n in names if parts & set(split_combination(n))}
    for group in _groups(names, knowledge):
        held = {group[t] for t in test}
        found |= {n for n in names if group[n] in held}
    return frozenset(found)


def _groups(names: Sequence[str], knowledge: Knowledge | None) -> list[Mapping[str, str]]:
    if knowledge is None:
        return []
    return [knowledge.identity(names), knowledge.families(names)]


def _neighbourhood(
    names: Sequence[str], test: frozenset[str], knowledge: Knowledge | None, near: float
) -> frozenset[str]:
    from pertwise.select.graph import GraphSelector

    if knowledge is None:
        return frozenset()
    found: set[str] = set()
    if knowledge.drugs is not None:
        cards = {n: c for n in names if (c := knowledge.drugs.find(n)) is not None}
        held = {cards[t].mechanism for t in test if t in cards} - {""}
        found = {n for n, c in cards.items() if c.mechanism in held}
    if "string" in knowledge.graph_names():
        asked = sorted(test)
        weight = GraphSelector(knowledge, exclude_from_screen=False).similarity(asked, names)
        close = np.asarray((weight >= near).any(axis=0))
        found |= {n for n, is_close in zip(names, close, strict=True) if is_close}
    return frozenset(found)


def _spellings(names: Iterable[str], knowledge: Knowledge | None) -> set[str]:
    """The names, and in any table the other names of what they are."""
    found = set(names)
    if knowledge is None:
        return found
    genes = sorted({p for n in found for p in split_combination(n)})
    approved = knowledge.resolve(genes).approved
    for gene, card in knowledge.cards(genes).items():
        found |= {approved.get(gene, gene), *card.aliases} if card.known else set()
    if knowledge.drugs is not None:
        listed = sorted({*knowledge.drugs.cards, *found})
        same = knowledge.identity(listed)
        held = {same[n] for n in found if n in same}
        found |= {n for n in listed if same[n] in held}
        found |= {w for n in found if (c := knowledge.drugs.find(n)) for w in c.synonyms}
    return {w for w in found if len(w) >= _SHORTEST and re.search(r"[A-Z0-9]", w)}


def masked_facts(
    knowledge: Knowledge | None, mask: Callable[[str], str]
) -> Callable[[str], str] | None:
    """`Knowledge.facts` of a perturbation with held-out names masked."""
    if knowledge is None:
        return None
    return lambda name: mask(knowledge.facts(name))
