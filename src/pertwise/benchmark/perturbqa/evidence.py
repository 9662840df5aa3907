"""What is measured around a pair (perturbation, gene), in words for a chat model.

In the manner of SUMMER (Wu et al. 2025): neighbours of the perturbation in prior knowledge with
their measured labels for that gene, and neighbours of the gene under those perturbations. Nothing
but training labels is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pertwise.select.base import Query, Selector, select_many
from pertwise.select.chat.pairs import Evidence

#: Label -> what happened, by task.
WORDS: Mapping[str, tuple[str, str]] = {"de": ("unchanged", "changed"), "dir": ("fell", "rose")}
#: Alike perturbations that are named, and how deep the list is searched for labels of a gene.
NAMED, DEEP = 8, 100
#: Measured labels shown: of the gene itself, and of genes alike to it, one each.
OWN, RELATED = 6, 3
#: Alike genes, and perturbations under which they are looked up.
GENES, UNDER = 10, 20


@dataclass(frozen=True)
class Retrieval:
    """Finds what is shown with a question.

    Attributes
    ----------
    train
        Labelled pairs: pert, gene, label.
    task
        "de" or "dir".
    selector
        Who is alike, for perturbations and genes; None: only how often a gene changes is told.
        It must give up to `DEEP` names.
    """

    train: pd.DataFrame
    task: str
    selector: Selector | None = None

    def find(self, pairs: pd.DataFrame) -> dict[str, Evidence]:
        """perturbation -> evidence for the genes it is paired with."""
        labels = {
            str(gene): dict(zip(part["pert"], part["label"], strict=True))
            for gene, part in self.train.groupby("gene", sort=True)
        }
        asked = {str(p): list(part["gene"]) for p, part in pairs.groupby("pert", sort=True)}
        alike = self._alike(list(asked), sorted(set(self.train["pert"])), DEEP)
        related = self._alike(sorted(set(pairs["gene"])), sorted(labels), GENES)
        return {
            pert: Evidence(
                tuple(alike[pert][:NAMED]),
                {g: self._row(g, alike[pert], related[g], labels) for g in genes},
            )
            for pert, genes in asked.items()
        }

    def _alike(
        self, subjects: Sequence[str], candidates: Sequence[str], n: int
    ) -> dict[str, tuple[str, ...]]:
        if self.selector is None:
            return dict.fromkeys(subjects, ())
        questions = [(Query(s), candidates) for s in subjects]
        found = select_many(self.selector, questions, n)
        return {s: f.items for s, f in zip(subjects, found, strict=True)}

    def _row(
        self,
        gene: str,
        alike: Sequence[str],
        related: Sequence[str],
        labels: Mapping[str, Mapping[str, int]],
    ) -> str:
        own = labels.get(gene, {})
        said = []
        if own:
            said.append(f"{WORDS[self.task][1]} in {sum(own.values())} of {len(own)} knock-downs")
        nearest = [(p, own[p]) for p in alike if p in own][:OWN]
        said += [
            f"{word} in {', '.join(names)}"
            for label, word in enumerate(WORDS[self.task])
            if (names := [p for p, found in nearest if found == label])
        ]
        near = [
            f"{other} {WORDS[self.task][labels[other][first]]} in {first}"
            for other in related
            if (first := next((p for p in alike[:UNDER] if p in labels[other]), None))
        ][:RELATED]
        if near:
            said.append(f"alike genes: {', '.join(near)}")
        return "; ".join(said)
