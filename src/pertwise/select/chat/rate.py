"""`ChatRater`: a language model marks perturbations on programs, every mark checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertwise.knowledge.programs import Program, checked_programs
from pertwise.knowledge.ratings import Ratings
from pertwise.llm.templates import PromptTemplate, load_prompt
from pertwise.select.chat.selector import masker, seed_for
from pertwise.select.chat.sheets import Answered, Question, SheetAsker
from pertwise.select.closed_list import checked_candidates
from pertwise.select.rater import Marked


@dataclass(frozen=True)
class ChatRater(SheetAsker):
    """Perturbations x programs; batches, checks and re-asks as `SheetAsker` says.

    Names are shuffled by `seed`, anew for each replicate and context.

    Attributes
    ----------
    kind
        What a perturbation is called in the question.
    replicates
        Times that everything is asked.
    anonymise
        Show codes (G0001 ...) instead of names, also in `facts`; the answers are mapped back, and
        the provenance holds the codes. A control for what is remembered of a name.
    shuffle_annotations
        Show beside each name the facts of another one: what marks rest on the name alone.
    """

    prompt: PromptTemplate = field(default_factory=lambda: load_prompt("rate"))
    name: str = "rate"
    kind: str = "knock-down"
    replicates: int = 1
    anonymise: bool = False
    shuffle_annotations: bool = False

    # -- the questions ---------------------------------------------------------------------

    def questions(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        *,
        context: str = "",
        context_text: str = "",
        anew: bool = False,
    ) -> list[Question]:
        """What will be asked: batches of each replicate.

        Parameters
        ----------
        anew
            Answers about these programs disagreed: the question restates what a mark means, and
            asks for nothing else (strength, which lacks, is added otherwise).

        Raises
        ------
        pertwise.errors.InputError
            If there is nothing to mark, a name or program occurs twice, or a row does not fit.
        """
        pool = sorted(checked_candidates(names, 1))
        columns = tuple(programs) if anew else checked_programs(programs)
        size = self.batch(pool, columns)
        codes, donors = self._codes(pool, context), self._donors(pool, context)
        found = []
        for replicate in range(self.replicates):
            order = self._order(len(pool), context, f"{replicate}{' anew' if anew else ''}")
            shown = [pool[i] for i in order]
            found += [
                Question(
                    tuple(shown[i : i + size]),
                    columns,
                    context,
                    context_text,
                    replicate,
                    codes,
                    donors,
                    anew,
                )
                for i in range(0, len(shown), size)
            ]
        return found

    def _order(self, n: int, context: str, what: str) -> list[int]:
        seed = seed_for(self.seed, self.name, context, what)
        return list(map(int, np.random.default_rng(seed).permutation(n)))

    def _codes(self, pool: Sequence[str], context: str) -> dict[str, str]:
        if not self.anonymise:
            return {}
        width = max(4, len(str(len(pool))))
        order = self._order(len(pool), context, "codes")
        return {pool[i]: f"G{place:0{width}d}" for place, i in enumerate(order, start=1)}

    def _donors(self, pool: Sequence[str], context: str) -> dict[str, str]:
        if not self.shuffle_annotations:
            return {}
        order = self._order(len(pool), context, "annotations")
        return {pool[i]: pool[j] for i, j in zip(order, np.roll(order, 1), strict=True)}

    def values(self, question: Question) -> dict[str, Any]:
        """Kind, rows with facts, and whether it is asked anew."""
        rows = self._shared(question)["rows"]
        if question.codes:
            hide = masker(question.codes)
            rows = [{**row, "facts": hide(row["facts"])} for row in rows]
        return {"kind": self.kind, "rows": rows, "anew": question.anew}

    # -- the answers -----------------------------------------------------------------------

    def rate(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        *,
        context: str = "",
        context_text: str = "",
        anew: bool = False,
        at_once: int = 32,
        on_answer: Callable[[Answered], None] | None = None,
    ) -> Marked:
        """Mark every name in every program; see `questions`, and `SheetAsker.ask` for what stops
        the run.

        Raises
        ------
        pertwise.errors.InputError
            As `questions`.
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; see `pertwise.llm.converse`.
        """
        asked = self.questions(
            names, programs, context=context, context_text=context_text, anew=anew
        )
        answers = self.ask(asked, at_once=at_once, on_answer=on_answer)
        columns = asked[0].programs
        replicates = tuple(
            self._ratings([a for a in answers if a.question.replicate == r], columns, context)
            for r in range(self.replicates)
        )
        provenance = {
            **self.told(answers),
            "kind": self.kind,
            "replicates": self.replicates,
            "rows_a_question": len(asked[0].names),
        }
        if self.anonymise:
            provenance["codes"] = {code: name for name, code in asked[0].codes.items()}
        if self.shuffle_annotations:
            provenance["annotations_of"] = dict(asked[0].donors)
        return Marked(replicates, tuple(r for a in answers for r in a.repairs), provenance)

    def _ratings(
        self, answers: Sequence[Answered], programs: Sequence[Program], context: str
    ) -> Ratings:
        return Ratings.from_marks(
            [n for a in answers for n in a.question.names],
            [p.name for p in programs],
            np.vstack([a.sheet.marks for a in answers]),
            context=context,
            source=self.source,
            reasons={n: why for a in answers for n, why in a.reasons.items()},
        )
