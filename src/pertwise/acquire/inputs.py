"""Reading what a person gives: gene lists, pathways, feature patterns."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from pertwise.errors import InputError, UnknownNameError, suggest
from pertwise.knowledge import Knowledge, Pathway, load_pathway
from pertwise.screen import Screen


def open_pathway(
    knowledge: Knowledge, pathway: Pathway | str | Sequence[str] | None
) -> Pathway | None:
    """The target pathway from whatever form it was given in.

    A `Pathway`; text as `load_pathway` reads it (name, GMT file, gene list, genes with commas);
    genes as a sequence; None or "none" = whole response.

    Raises
    ------
    pertwise.errors.InputError
        See `load_pathway`; also when no gene of the sequence is known.
    """
    if pathway is None or isinstance(pathway, Pathway):
        return pathway
    if not isinstance(pathway, str):
        return knowledge.pathway_from_genes("gene list", list(pathway))
    if pathway.strip().casefold() in ("", "none"):
        return None
    return load_pathway(knowledge, pathway)


def match_features(screen: Screen, patterns: Sequence[str]) -> tuple[str, ...] | None:
    """Features named exactly or by a glob ('*erythroid*', case-insensitive); None = all.

    Raises
    ------
    pertwise.errors.UnknownNameError
        When a pattern matches nothing; the nearest features are suggested.
    """
    if not patterns:
        return None
    wanted: dict[str, None] = {}
    for pattern in patterns:
        if pattern in screen.features:
            wanted[pattern] = None
            continue
        hits = [f for f in screen.features if fnmatch.fnmatchcase(f.casefold(), pattern.casefold())]
        if not hits:
            raise _unknown_feature(pattern, screen.features)
        wanted.update(dict.fromkeys(hits))
    return tuple(f for f in screen.features if f in wanted)


def _unknown_feature(pattern: str, known: Sequence[str]) -> UnknownNameError:
    """Suggests features that hold a word like the pattern: their full names are long."""
    words: dict[str, list[str]] = {}
    for feature in known:
        for word in re.split(r"[^A-Za-z0-9]+", feature):
            words.setdefault(word.casefold(), []).append(feature)
    near = suggest(pattern, known) or tuple(
        dict.fromkeys(f for w in suggest(pattern.strip("*?"), words) for f in words[w])
    )
    message = f"unknown target feature {pattern!r}"
    if near:
        message += f"; did you mean {', '.join(map(repr, near[:3]))}?"
    message += f" (the screen has {len(known)}, e.g. {', '.join(map(repr, known[:3]))}; globs work)"
    return UnknownNameError(message, tuple(near[:3]))


def one_context(screen: Screen, context: str | None) -> Screen:
    """The rows of one context, one dose.

    Raises
    ------
    pertwise.errors.InputError
        Several contexts and none chosen, an unknown one, or several doses of one perturbation.
    """
    if context is None:
        if len(screen.contexts) > 1:
            raise InputError(
                f"the screen has {len(screen.contexts)} contexts "
                f"({', '.join(map(repr, screen.contexts[:6]))}): choose one with --context"
            )
    else:
        screen = screen.in_context(context)
    repeated = screen.obs["perturbation"].duplicated()
    if repeated.any():
        name = screen.obs["perturbation"][repeated].iloc[0]
        doses = sorted(set(screen.obs["dose"][screen.obs["perturbation"] == name]))
        raise InputError(
            f"perturbation {name!r} was measured at several doses ({doses[:5]}): a panel needs one "
            "row a perturbation; give a screen with one dose"
        )
    return screen
