"""Marks on programs: which perturbations, programs and cells to ask about."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from pertwise._names import canonical_perturbation
from pertwise._text import one_line
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.genes.species import same_species, species_told
from pertwise.knowledge.programs import (
    Program,
    checked_programs,
    distinct_keys,
    feature_programs,
    general_programs,
    pathway_programs,
    programs_for,
    read_programs,
)
from pertwise.prediction.asked import unknown_genes
from pertwise.prediction.predicting import screen_of
from pertwise.screen.core import Screen
from pertwise.select.chat.similar import cell_line_text

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.knowledge import Knowledge
    from pertwise.select.chat.rate import ChatRater
    from pertwise.select.chat.sheets import Question

#: The general lists, and what a perturbation of each is called.
KINDS: Mapping[str, str] = {"genes": "knock-down", "drugs": "drug"}
#: Most programs of a question: each costs tokens in every row.
MOST_PROGRAMS = 60


@dataclass(frozen=True)
class ToMark:
    """What will be marked.

    Attributes
    ----------
    names
        context -> perturbations, sorted.
    texts
        context -> what is said of the cells.
    programs
        Of every context; `programs_in` says which are asked in one.
    kind
        What a perturbation is called.
    notes
        What a person must know before paying.
    species
        Whose cells the questions say they are.
    """

    names: Mapping[str, tuple[str, ...]]
    texts: Mapping[str, str]
    programs: tuple[Program, ...]
    kind: str
    knowledge: Knowledge | None = None
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    species: str = "human"

    def programs_in(self, context: str) -> tuple[Program, ...]:
        """Programs that are asked in a context."""
        return programs_for(self.programs, context)

    def questions(self, rater: ChatRater) -> list[Question]:
        """Every question that a rater would ask."""
        return [
            q
            for context, names in self.names.items()
            for q in rater.questions(
                names,
                self.programs_in(context),
                context=context,
                context_text=self.texts[context],
            )
        ]


class WhatToMark(TypedDict, total=False):
    """What is marked: settings of `list_marks` and of `rate`.

    programs
        "genes" or "drugs" (the general lists), a file (`read_programs`) or programs. Default: the
        general list of what most of the names are, unless `features` or `pathways` are given.
    features, pathways
        Also the features of the screen (all, or these), and gene sets of the knowledge folder.
    knowledge
        Facts shown, aliases, compounds.
    context, context_text
        Which cells, and what the question says of them.
    kind
        What a perturbation is called in the question; default "knock-down" or "drug".
    """

    programs: Sequence[Program] | str | os.PathLike[str] | None
    features: bool | Sequence[str]
    pathways: Sequence[str]
    knowledge: Knowledge | None
    context: str | None
    context_text: str
    kind: str | None


def list_marks(
    screen: Screen | str | os.PathLike[str] | AnnData | None = None,
    names: Sequence[str] = (),
    *,
    reading: Mapping[str, Any] | None = None,
    **what: Unpack[WhatToMark],
) -> ToMark:
    """Perturbations, programs and cells of a question for marks.

    Parameters
    ----------
    screen
        Its perturbations are marked, in each of its contexts, or in ``context``.
    names
        Marked instead of those of the screen. Without both, every compound of the drug table.
    reading
        Settings of `read_screen`.
    what
        See `WhatToMark`.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a context, feature or pathway that does not exist.
    pertwise.errors.InputError
        If there is nothing to mark, or too many programs.
    """
    check_keys(what, WhatToMark)
    programs, knowledge = what.get("programs"), what.get("knowledge")
    context = what.get("context")
    where = str(screen) if isinstance(screen, str | os.PathLike) else ""
    if screen is not None and not isinstance(screen, Screen):
        screen = screen_of(screen, context, **dict(reading or {}))
    asked = _names_by_context(screen, names, knowledge, context)
    every = sorted({n for group in asked.values() for n in group})
    drugs = knowledge is not None and knowledge.mostly_compounds(every)
    notes = unknown_genes([n for n in dict.fromkeys(names) if n in every], knowledge)
    if knowledge is not None:
        notes += same_species("perturbations", every, knowledge)
    genes = () if drugs else every
    species = species_told(knowledge, genes, () if screen is None else screen.features)
    texts = {c: what.get("context_text") or _facts_of(c, knowledge) for c in asked}
    notes += [_cells_note(c) for c, text in texts.items() if not cell_line_text(c, text)]
    own = _own_programs(screen, what.get("features", False), what.get("pathways", ()), knowledge)
    listed = _listed(programs, "drugs" if drugs else "genes", knowledge, has_own=bool(own))
    more = [p for p in listed if p.name not in {o.name for o in own}]
    whole = checked_programs(distinct_keys([*more, *own]))
    columns = tuple(p for p in whole if any(p in programs_for(whole, c) for c in asked))
    notes += _program_notes(whole, columns, tuple(asked))
    if len(columns) > MOST_PROGRAMS:
        raise InputError(
            f"{len(columns)} programs are too many for one question (at most {MOST_PROGRAMS}): "
            "choose some with --feature NAME or a table of programs"
        )
    inputs = {"screen": where} if where else {}
    if isinstance(programs, str | os.PathLike) and str(programs) not in KINDS:
        inputs["programs"] = os.fspath(programs)
    return ToMark(
        asked,
        texts,
        columns,
        what.get("kind") or KINDS["drugs" if drugs else "genes"],
        knowledge,
        tuple(notes),
        inputs,
        species,
    )


def check_keys(given: Mapping[str, Any], known: type) -> None:
    """As Python does for parameters that a signature names."""
    wrong = [key for key in given if key not in known.__annotations__]
    if wrong:
        raise InputError(f"no setting {wrong[0]!r}; there are {', '.join(known.__annotations__)}")


def _names_by_context(
    screen: Screen | None,
    names: Sequence[str],
    knowledge: Knowledge | None,
    context: str | None,
) -> dict[str, tuple[str, ...]]:
    given = tuple(sorted({n for n in (one_line(canonical_perturbation(x)) for x in names) if n}))
    if screen is None:
        if not given and knowledge is not None and knowledge.drugs is not None:
            given = tuple(sorted(knowledge.drugs.cards))
        if not given:
            raise InputError("nothing to mark: give a screen, --names MYC,SMG5 or --drugs TABLE")
        return {context or "": given}
    contexts = screen.contexts
    if context is not None:
        if context not in contexts:
            raise unknown_name("context", context, contexts)
        contexts = (context,)
    found = {c: given or tuple(sorted(screen.in_context(c).perturbations)) for c in contexts}
    if not any(found.values()):
        raise InputError("the screen holds no perturbation to mark")
    return {c: group for c, group in found.items() if group}


def _facts_of(context: str, knowledge: Knowledge | None) -> str:
    return "" if knowledge is None else knowledge.context_facts(context)


def _cells_note(context: str) -> str:
    if not context:
        return "nothing names the cells, so the question does not: give --context"
    return f"the question says no more of the cells than {context!r}: give --context-text"


def _program_notes(
    whole: Sequence[Program], columns: Sequence[Program], contexts: Sequence[str]
) -> list[str]:
    notes = []
    open_ones = [p.name for p in columns if p.signed and not p.plus]
    if open_ones:
        shown = ", ".join(open_ones[:3]) + (" ..." if len(open_ones) > 3 else "")
        notes.append(
            f"{len(open_ones)} programs have no marker genes ({shown}), so that what + means is "
            "left open: name genes in a table of programs (--template writes one; --programs FILE)"
        )
    lineages = {c for p in whole for c in p.contexts}
    bare = [c for c in contexts if c and not any(p.contexts for p in programs_for(whole, c))]
    if lineages and bare:
        notes.append(
            f"no program of its lineage is known for {', '.join(bare[:5])} (there is one for "
            f"{', '.join(sorted(lineages))}): add one by --programs FILE"
        )
    return notes


def _own_programs(
    screen: Screen | None,
    features: bool | Sequence[str],
    pathways: Sequence[str],
    knowledge: Knowledge | None,
) -> list[Program]:
    """Programs of the screen's features and of gene sets."""
    found: list[Program] = []
    if features:
        if screen is None:
            raise InputError("features are those of a screen: give one")
        chosen = screen if features is True else screen.of_features(list(features))
        if chosen.n_features > MOST_PROGRAMS:
            raise InputError(
                f"the screen has {chosen.n_features} features, and at most {MOST_PROGRAMS} fit a "
                "question: choose some with --feature NAME"
            )
        found += feature_programs(chosen.features, chosen.feature_table)
    if pathways:
        if knowledge is None:
            raise InputError("pathways are those of a knowledge folder: give --knowledge DIR")
        found += pathway_programs(knowledge, pathways)
    return found


def _listed(
    programs: Sequence[Program] | str | os.PathLike[str] | None,
    usual: str,
    knowledge: Knowledge | None,
    *,
    has_own: bool,
) -> Sequence[Program]:
    if programs is None:
        return () if has_own else general_programs(usual, knowledge)
    if isinstance(programs, str) and programs in KINDS:
        return general_programs(programs, knowledge)
    if isinstance(programs, str | os.PathLike):
        return read_programs(programs)
    return programs
