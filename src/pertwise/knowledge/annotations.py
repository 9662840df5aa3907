"""What is annotated to a perturbation, without saying which one it is: for anonymous questions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pertwise._names import split_combination

if TYPE_CHECKING:
    from pertwise.knowledge.store import Knowledge

#: Terms of each kind that are shown, the most specific first.
SHOWN = 12


def anonymous_facts(knowledge: Knowledge, name: str) -> str:
    """GO terms and Reactome pathways of a gene, mechanism and targets of a drug; "" for none.

    Full name and summary are left out, since they name the gene, and so is every term that holds
    its symbol or one of its aliases as a word.
    """
    if knowledge.drugs is not None and name in knowledge.drugs:
        return knowledge.facts(name)
    return " + ".join(x for x in (_of_gene(knowledge, p) for p in split_combination(name)) if x)


def annotation_length(knowledge: Knowledge, name: str) -> int:
    """Characters of all that the folder says of a gene: a proxy for how much is written of it."""
    approved = knowledge.resolve([name]).approved.get(name, "")
    return len(knowledge.documents().get(approved, ""))


def _of_gene(knowledge: Knowledge, name: str) -> str:
    card = knowledge.cards([name])[name]
    if not card.known:
        return ""
    words = "|".join(re.escape(w) for w in sorted({card.symbol, *card.aliases, name}))
    own = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", re.IGNORECASE)
    said = []
    for label, terms in (
        ("GO", [t.name for t in card.go]),
        ("Reactome", _pathways(knowledge, card.symbol)),
    ):
        kept = [t for t in terms if not own.search(t)][:SHOWN]
        if kept:
            said.append(f"{label}: {', '.join(kept)}")
    return "; ".join(said)


def _pathways(knowledge: Knowledge, symbol: str) -> list[str]:
    if not knowledge.has("gene_set_members"):
        return []
    row = knowledge.features("reactome", [symbol])
    names = knowledge.feature_names("reactome")
    return sorted(names[i].removeprefix("REACTOME_").replace("_", " ") for i in row.indices)
