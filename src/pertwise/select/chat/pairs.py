"""`ChatPairs`: a language model marks pairs (perturbation, gene), every mark checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertwise.knowledge.programs import Program
from pertwise.llm.templates import PromptTemplate, load_prompt
from pertwise.select.chat.selector import seed_for
from pertwise.select.chat.sheets import Question, SheetAsker

#: Task -> the one column: 0 to 3 for whether a gene changes, -3 to 3 for its direction.
COLUMNS: Mapping[str, Program] = {
    "de": Program("change", "change", "how surely the gene changes, in either way", signed=False),
    "dir": Program("direction", "direction", "where the gene goes, and how surely"),
}


@dataclass(frozen=True)
class Evidence:
    """What is shown beside the question about one perturbation.

    Attributes
    ----------
    alike
        Measured perturbations, the most alike first.
    rows
        gene -> what was measured of it, in words.
    """

    alike: tuple[str, ...] = ()
    rows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PairQuestion(Question):
    """Genes that are asked together about one perturbation; `Question.names` are the genes."""

    subject: str = ""
    evidence: Evidence = field(default_factory=Evidence)


@dataclass(frozen=True)
class ChatPairs(SheetAsker):
    """One question a perturbation and batch of genes; checks and re-asks as `SheetAsker` says.

    Attributes
    ----------
    task
        A key of `COLUMNS`.
    """

    prompt: PromptTemplate = field(default_factory=lambda: load_prompt("perturbqa"))
    name: str = "perturbqa"
    task: str = "de"

    def questions(
        self,
        genes: Mapping[str, Sequence[str]],
        evidence: Mapping[str, Evidence],
        *,
        context: str = "",
        context_text: str = "",
    ) -> list[PairQuestion]:
        """What will be asked.

        Parameters
        ----------
        genes
            perturbation -> genes, each once.
        evidence
            perturbation -> what is shown with it.

        Raises
        ------
        pertwise.errors.InputError
            If not even one row fits the answer.
        """
        columns = (COLUMNS[self.task],)
        found = []
        for subject in sorted(genes):
            pool = sorted(genes[subject])
            size = self.batch(pool, columns)
            seed = seed_for(self.seed, self.name, context, self.task, subject)
            shown = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))]
            # Batches of equal size: the last one would else be the only short one.
            for part in np.array_split(np.array(shown, dtype=object), -(-len(shown) // size)):
                found.append(
                    PairQuestion(
                        tuple(part),
                        columns,
                        context,
                        context_text,
                        subject=subject,
                        evidence=evidence.get(subject, Evidence()),
                    )
                )
        return found

    def values(self, question: PairQuestion) -> dict[str, Any]:
        """Perturbation, those alike, and the rows with what was measured."""
        said = question.evidence
        rows = self._shared(question)["rows"]
        return {
            "subject": question.subject,
            "subject_facts": self._about(question, question.subject),
            "task": self.task,
            "alike": said.alike,
            "rows": [{**row, "evidence": said.rows.get(row["name"], "")} for row in rows],
        }
