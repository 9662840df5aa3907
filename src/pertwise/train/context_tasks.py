"""`Place`: one context of one screen, which makes its tasks, one method a kind."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pertwise.errors import ChatError, InputError
from pertwise.knowledge.genes.species import species_told
from pertwise.knowledge.programs import (
    Program,
    distinct_keys,
    feature_programs,
    general_programs,
)
from pertwise.llm.base import ChatReply, ChatRequest, Message
from pertwise.llm.templates import PromptTemplate
from pertwise.select.base import Query, Selector
from pertwise.select.chat.acquire import Show, acquisition_selector, candidate_facts
from pertwise.select.chat.edit import EditSelector
from pertwise.select.chat.rate import ChatRater
from pertwise.select.chat.recipes import PREFILTER
from pertwise.select.chat.selector import ChatSelector, knowledge_resolver, seed_for
from pertwise.select.chat.similar import cell_line_text, langpert_selector, lgr_selector
from pertwise.select.words import selector_from
from pertwise.train.grading import measurable
from pertwise.train.held_out import Held, masked_facts
from pertwise.train.tasks import Kind, Side, Task

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


@dataclass(frozen=True)
class Making:
    """How tasks are made.

    Attributes
    ----------
    base
        Selector in words whose neighbours are edited; "" = STRING for genes, all kernels that fit
        for compounds.
    k, max_edits
        Most neighbours shown, and most additions and removals.
    n_picks
        Picks asked for; None = as LangPert (5 to 10) or LGR (10).
    max_candidates, prefilter
        Longest list of additions or picks, and the selector in words that cuts it.
    batch
        Perturbations of one question of marks; None = as many as an answer holds.
    n_rounds, n_batch
        Questions of acquisition a context and split, and picks of each.
    programs
        What is marked; () = the features of the screen, or the shipped programs of marker genes.
    """

    base: str = ""
    k: int = 20
    max_edits: int = 5
    n_picks: int | None = None
    max_candidates: int | None = None
    prefilter: str = PREFILTER
    batch: int | None = None
    n_rounds: int = 20
    n_batch: int = 10
    programs: tuple[Program, ...] = ()


class _Paper:
    """A chat that writes requests down and answers nothing."""

    name = "paper"

    def request(self, messages: tuple[Message, ...], **settings: Any) -> ChatRequest:
        return ChatRequest(protocol="openai", endpoint="", model="", messages=messages, **settings)

    async def complete(self, request: ChatRequest) -> ChatReply:
        raise ChatError("tasks are written down, not asked")


@dataclass(frozen=True)
class Place:
    """One context of one screen: makes its tasks, one method a kind.

    Attributes
    ----------
    screen
        The measured rows of the context.
    held
        What no training prompt names.
    """

    screen: Screen
    knowledge: Knowledge | None
    held: Held
    how: Making
    seed: int

    @functools.cached_property
    def context(self) -> str:
        return self.screen.contexts[0]

    @functools.cached_property
    def names(self) -> list[str]:
        return sorted(self.screen.perturbations)

    @functools.cached_property
    def fingerprint(self) -> str:
        return "" if self.knowledge is None else self.knowledge.fingerprint()

    @functools.cached_property
    def compounds(self) -> bool:
        """Whether most of what was measured is a compound."""
        return self.knowledge is not None and self.knowledge.mostly_compounds(self.names)

    def sides(self) -> Iterator[tuple[Side, list[str], list[str]]]:
        """(split, subjects, what may be shown) of this context."""
        if self.held.by_line:
            yield "test" if self.context in self.held.test else "train", self.names, self.names
            return
        train = [n for n in self.names if n not in self.held.quiet]
        yield "train", train, train
        known = [n for n in self.names if n not in self.held.test]
        yield "test", [n for n in self.names if n in self.held.test], known

    def mask(self, split: str, text: str) -> str:
        return self.held.mask(text) if split == "train" else text

    def facts(self, split: str) -> Any:
        return masked_facts(self.knowledge, functools.partial(self.mask, split))

    @property
    def species(self) -> str:
        """Whose cells the questions say they are."""
        genes = () if self.compounds else self.screen.perturbations
        return species_told(self.knowledge, genes, self.screen.features)

    def context_text(self, split: str) -> str:
        known = "" if self.knowledge is None else self.knowledge.context_facts(self.context)
        return self.mask(split, cell_line_text(self.context, known))

    def resolve(self) -> Any:
        return None if self.knowledge is None else knowledge_resolver(self.knowledge)

    def base(self, available: Sequence[str]) -> tuple[Selector, str]:
        words = self.how.base or ("kernel:all" if self.compounds else "graph:string")
        made = selector_from(words, max_neighbours=max(1, self.how.k))
        return made(self.knowledge, self.screen.of_perturbations(available)), words

    def prefilter(self, available: Sequence[str]) -> Selector | None:
        limit = self.how.max_candidates
        if limit is None or self.knowledge is None:
            return None
        made = selector_from(self.how.prefilter, max_neighbours=limit)
        return made(self.knowledge, self.screen.of_perturbations(available))

    def task(
        self, kind: Kind, split: Side, subject: str, prompt: PromptTemplate, **more: Any
    ) -> Task:
        said = {"prompt": prompt.name, "prompt_hash": prompt.hash, "split": self.held.split}
        return Task(
            id=f"{kind}-{self.held.split}{self.held.fold}-{split}-{self.context}-{subject}",
            kind=kind,
            subject="" if kind in ("rate", "acquire") else subject,
            context=self.context,
            split=split,
            knowledge=self.fingerprint,
            extra={**said, **more.pop("extra")},
            **more,
        )

    def edit(self) -> Iterator[Task]:
        """Graph neighbours to be corrected."""
        for split, subjects, available in self.sides():
            if len(subjects) == 0 or len(available) < 2:
                continue
            base, words = self.base(available)
            selector = EditSelector(
                base,
                _Paper(),
                max_edits=self.how.max_edits,
                facts=self.facts(split),
                resolve=self.resolve(),
                max_candidates=self.how.max_candidates,
                prefilter=self.prefilter(available),
                seed=self.seed,
            )
            n = self.how.k + self.how.max_edits
            for subject in subjects:
                query = Query(subject, self.context, self.context_text(split))
                asked = selector.question(query, [c for c in available if c != subject], n)
                if asked is None or not asked.offered:
                    continue
                yield self.task(
                    "edit", split, subject, selector.prompt,
                    messages=asked.request.messages,
                    shown=asked.before.items,
                    allowed=asked.offered,
                    extra={"max_edits": self.how.max_edits, "n_max": n, "base": words},
                )  # fmt: skip

    def pick(self) -> Iterator[Task]:
        """Measured perturbations that act alike (LangPert, LGR)."""
        for split, subjects, available in self.sides():
            if len(subjects) == 0 or len(available) < 2:
                continue
            base, words = self.base(available)
            selector = self._picker(split, available)
            n = self.how.n_picks or 10
            for subject in subjects:
                query = Query(subject, self.context, self.context_text(split))
                others = [c for c in available if c != subject]
                asked = selector.question(query, others, n)
                if asked is None:
                    continue
                allowed = tuple(asked.names.values())
                graph = [i for i in base.select(query, others, self.how.k).items if i in allowed]
                yield self.task(
                    "pick", split, subject, selector.prompt,
                    messages=asked.request.messages,
                    allowed=allowed,
                    extra={
                        "n_min": asked.n_min, "n_max": asked.n_max, "base": words, "graph": graph,
                    },
                )  # fmt: skip

    def _picker(self, split: str, available: Sequence[str]) -> ChatSelector:
        given: dict[str, Any] = {
            "facts": self.facts(split),
            "resolve": self.resolve(),
            "max_candidates": self.how.max_candidates,
            "prefilter": self.prefilter(available),
            "seed": self.seed,
            "species": self.species,
        }
        if self.compounds:
            return lgr_selector(_Paper(), k=self.how.n_picks or 10, **given)
        return langpert_selector(_Paper(), k=self.how.n_picks, **given)

    def rate(self) -> Iterator[Task]:
        """Marks of perturbations on programs."""
        programs = self.how.programs or self._programs()
        if not measurable(self.screen, programs):
            raise InputError(
                "marks cannot be judged on this screen: its features are neither named programs "
                "nor genes; leave out the kind 'rate', or name the programs"
            )
        for split, subjects, _ in self.sides():
            if not subjects:
                continue
            rater = ChatRater(
                _Paper(),
                kind="compound" if self.compounds else "knock-down",
                facts=self.facts(split),
                resolve=self.resolve(),
                batch_size=self.how.batch and min(self.how.batch, len(subjects)),
                seed=self.seed,
                species=self.species,
            )
            shown = [q for p in programs if (q := self._quiet(p, split)) is not None]
            text = self.context_text(split)
            asked = rater.questions(subjects, shown, context=self.context, context_text=text)
            for number, (question, request) in enumerate(
                zip(asked, rater.first_requests(asked), strict=True)
            ):
                columns = [
                    {"key": p.key, "name": p.name, "definition": p.definition, "up": list(p.up),
                     "down": list(p.down), "signed": p.signed}
                    for p in question.programs
                ]  # fmt: skip
                yield self.task(
                    "rate", split, str(number), rater.prompt,
                    messages=request.messages,
                    shown=question.names,
                    extra={"programs": columns},
                )  # fmt: skip

    def _programs(self) -> tuple[Program, ...]:
        named = tuple(
            distinct_keys(feature_programs(self.screen.features, self.screen.feature_table))
        )
        if len(named) <= 100:
            return named
        return general_programs("drugs" if self.compounds else "genes", self.knowledge)

    def _quiet(self, program: Program, split: str) -> Program | None:
        """The program without held-out genes; None for one that is called like one."""
        if split == "test":
            return program
        if self.held.mask(program.name) != program.name:
            return None
        up, down = (
            tuple(g for g in genes if self.held.mask(g) == g)
            for genes in (program.up, program.down)
        )
        return replace(program, definition=self.held.mask(program.definition), up=up, down=down)

    def acquire(self) -> Iterator[Task]:
        """One round: what to measure next."""
        for split, subjects, available in self.sides():
            for number in range(self.how.n_rounds):
                seed = seed_for(self.seed, "acquire", split, self.context, str(number))
                rng = np.random.default_rng(seed)
                order = [available[i] for i in rng.permutation(len(available))]
                known = sorted(order[: len(order) // 3])
                listed = [n for n in subjects if n not in set(known)]
                if len(listed) <= self.how.n_batch:
                    continue
                limit = self.how.max_candidates or len(listed)
                listed = sorted(listed[i] for i in rng.permutation(len(listed))[:limit])
                yield self._round(split, number, known, listed)

    def _round(self, split: Side, number: int, known: list[str], listed: list[str]) -> Task:
        n = self.how.n_batch
        cards = None
        if self.knowledge is not None:
            cards = {
                g: replace(
                    card,
                    summary=self.mask(split, card.summary),
                    full_name=self.mask(split, card.full_name),
                    go=tuple(replace(t, name=self.mask(split, t.name)) for t in card.go),
                )
                for g, card in self.knowledge.cards(listed).items()
            }
        selector = acquisition_selector(
            _Paper(),
            candidate_facts(listed, cards=cards),
            objective=(
                f"Choose {n} perturbations to measure next, so that the response of all measured "
                "features to unmeasured perturbations can be predicted better."
            ),
            acquired=known,
            show=Show(uncertainty=False, relation=False),
            resolve=self.resolve(),
            seed=self.seed,
        )
        query = Query(None, self.context, self.context_text(split))
        asked = selector.question(query, listed, n)
        if asked is None:
            raise InputError("there is nothing to choose from")
        return self.task(
            "acquire", split, str(number), selector.prompt,
            messages=asked.request.messages,
            shown=tuple(known),
            allowed=tuple(asked.names.values()),
            extra={"n_min": n, "n_max": n},
        )  # fmt: skip
