"""What is asked for: names of genes and drugs, the context, and the rows that must be hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation, split_combination, with_parts_of
from pertwise._shown import Shown
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.evaluate.splits import things
from pertwise.knowledge.genes.species import species_note
from pertwise.screen.core import Screen

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge


@dataclass(frozen=True, repr=False)
class Asked(Shown):
    """Perturbations by the names that the screen and the knowledge know them under.

    Attributes
    ----------
    names, explain
        To predict (those to explain among them), and to explain.
    knowledge
        With a card for every new compound that was given as SMILES.
    notes
        How names were understood.
    """

    names: list[str]
    explain: list[str]
    knowledge: Knowledge | None
    notes: list[str]


def read_asked(
    names: Sequence[str], more: Sequence[str], screen: Screen, knowledge: Knowledge | None
) -> Asked:
    """Understand the names of genes, combinations and drugs (any spelling, salt or SMILES).

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name in a screen of compounds that is no drug, no gene and no SMILES.
    pertwise.errors.InputError
        If no name is given.
    """
    notes: list[str] = []
    read: list[list[str]] = []
    for group in (names, more):
        found = []
        for name in group:
            if name.strip():
                known, knowledge, note = _identified(name.strip(), screen, knowledge)
                found.append(known)
                notes += [note] if note else []
        read.append(list(dict.fromkeys(found)))
    every = list(dict.fromkeys([*read[0], *read[1]]))
    if not every:
        raise InputError("nothing to predict: give --genes MYC,SMG5 (combinations as A+B) or drugs")
    return Asked(every, read[1], knowledge, list(dict.fromkeys(notes)))


def _identified(
    name: str, screen: Screen, knowledge: Knowledge | None
) -> tuple[str, Knowledge | None, str]:
    """The name that is used, the knowledge that knows it, and a note where they differ."""
    plain = canonical_perturbation(name)
    drugs = None if knowledge is None else knowledge.drugs
    if drugs is None or knowledge is None or plain in screen.perturbations:
        return plain, knowledge, ""
    if name not in drugs and all(p in knowledge.resolve([p]).approved for p in _parts(plain)):
        return plain, knowledge, ""
    card, how = drugs.identify(name)
    note = "" if card.name == name else f"{name}: {how}"
    if card.name not in drugs:
        knowledge = knowledge.with_drug(card)
        note = f"{name}: {how}; nothing but its structure is known about it"
    same = knowledge.identity([card.name])[card.name]
    there = things(screen.perturbations, knowledge)
    measured = [n for n, thing in there.items() if thing == same]
    if measured and card.name not in measured:
        # The measured name is the one that lists and tables of this screen use.
        return measured[0], knowledge, f"{name}: {how}; here it is called {measured[0]!r}"
    return card.name, knowledge, note


def _parts(name: str) -> list[str]:
    return split_combination(name)


def context_of(screen: Screen, context: str | None, knowledge: Knowledge | None) -> str:
    """The context to predict in: the only one, a measured one, or one that facts are known about.

    Raises
    ------
    pertwise.errors.InputError
        If there are several and none is chosen, or the one chosen is unknown.
    """
    if context is None:
        if len(screen.contexts) > 1:
            shown = ", ".join(map(repr, screen.contexts[:8]))
            raise InputError(
                f"the screen holds {len(screen.contexts)} contexts ({shown}); choose one with "
                "--context"
            )
        return screen.contexts[0]
    lines = None if knowledge is None else knowledge.lines
    resolved = lines.resolve(context) if lines is not None else None
    if context in screen.contexts or resolved is None:
        if context not in screen.contexts:
            hint = "(not measured, and no facts about it to borrow by)"
            raise unknown_name("context", context, screen.contexts, hint)
        return context
    return resolved


def hidden_rows(
    asked: Sequence[str], screen: Screen, context: str, knowledge: Knowledge | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[str]]:
    """What must not be learned from, each (n_rows,), and notes: rows of asked perturbations in the
    context, under any of their names; and rows there of combinations that contain one of them.
    """
    same = things([*asked, *screen.perturbations], knowledge)
    wanted = {same[n]: n for n in asked}
    thing = screen.obs["perturbation"].map(same)
    here = (screen.obs["context"] == context).to_numpy()
    hit = thing.isin(set(wanted)).to_numpy()
    notes = []
    for name in asked:
        own = (thing == same[name]).to_numpy()
        names = list(dict.fromkeys(screen.obs.loc[own & here, "perturbation"]))
        if names:
            called = "" if names == [name] else f" (as {', '.join(names)})"
            place = f" in {context}" if len(screen.contexts) > 1 else ""
            notes.append(
                f"{name} was measured in this screen{called}{place}: its rows are hidden and it is "
                "predicted from the others"
            )
        n = screen.obs.loc[own & ~here, "context"].nunique()
        if n:
            notes.append(f"{name} was measured in {n} other contexts, which this prediction uses")
    beside = with_parts_of(set(thing), wanted)
    with_it = thing.isin(beside).to_numpy() & here & ~hit
    if with_it.any():
        names = list(dict.fromkeys(screen.obs.loc[with_it, "perturbation"]))
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        notes.append(
            f"{', '.join(names[:5])}{more} contain{'s' * (len(names) == 1)} what is asked for: "
            "hidden, too"
        )
    return hit & here, with_it, notes


def unknown_genes(asked: Sequence[str], knowledge: Knowledge | None) -> list[str]:
    """A note for each asked gene that the knowledge folder has not, with the nearest names."""
    if knowledge is None or not knowledge.path:
        return []
    drugs = knowledge.drugs
    kept = [p for p in asked if drugs is None or p not in drugs]
    genes = list(dict.fromkeys(g for p in kept for g in split_combination(p)))
    approved = knowledge.resolve(genes).approved
    known = knowledge.genes() if len(approved) < len(genes) else ()
    notes = []
    for gene in genes:
        if gene not in approved:
            near = suggest(gene, known)
            words = f"; did you mean {', '.join(near)}?" if near else ""
            notes.append(f"{gene} is not a gene of the knowledge folder{words}")
    foreign = species_note(genes, knowledge.species)
    return notes + ([f"genes asked for: {foreign}"] if foreign else [])
