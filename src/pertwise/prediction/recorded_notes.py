"""What a file of recorded answers does and does not say about the perturbations of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise import parts
from pertwise._names import genes_of
from pertwise.knowledge.recorded import Recording, context_key, read_recording
from pertwise.models.methods import answer_files

if TYPE_CHECKING:
    from pertwise.screen import Screen

#: Genes named in one note.
SHOWN = 10


def recorded_notes(
    use: str, settings: Mapping[str, Any], asked: Sequence[str], train: Screen
) -> list[str]:
    """Notes on asked perturbations without a recorded answer, and on what else the file lacks.

    Parameters
    ----------
    use, settings
        Method and settings (`pertwise.models.methods`); methods that read no recorded answers
        get no note.
    asked
        Perturbations to predict. A method that works gene by gene (`fused`) looks up the genes of
        a combination one by one, the neighbour methods look up its name.
    train
        Measured rows of one context, what is learned from.
    """
    gene_by_gene = bool(parts.describe("predictor", use).facts.more.get("gene_by_gene"))
    context = train.contexts[0]
    notes = []
    for path in answer_files(use, settings):
        found = read_recording(path)
        names = genes_of(asked) if gene_by_gene else list(asked)
        notes += _missing(found, path, names, context, gene_by_gene)
        if gene_by_gene:
            measured = genes_of(train.perturbations)
            n = sum(_state(found, g, context) == "" for g in measured)
            if n < len(measured):
                notes.append(
                    f"{path} answers for {n} of {len(measured)} measured perturbations: how far to "
                    "trust the answers is learned from these alone"
                )
        if found.contexts and context and context not in found.contexts:
            notes.append(
                f"{path} was asked about {', '.join(found.contexts)}, but these cells are {context}"
            )
    return notes


def _state(found: Recording, name: str, context: str) -> str:
    """ "" with an answer, else "missing" or what went wrong when it was asked."""
    key = context_key(name, context)
    if key not in found.answers:
        key = name
    if key not in found.answers:
        return "missing"
    if found.answers[key][0]:
        return ""
    return ", ".join(found.problems.get(key, ())) or "no neighbour named"


def _missing(
    found: Recording, path: str, names: Sequence[str], context: str, gene_by_gene: bool
) -> list[str]:
    then = (
        "rests on the other kernels alone"
        if gene_by_gene
        else "has no neighbours from this file to rest on"
    )
    states = {name: _state(found, name, context) for name in names}
    absent = [name for name, state in states.items() if state == "missing"]
    notes = []
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        one = len(absent) == 1
        notes.append(
            f"{', '.join(absent[:SHOWN])}{more}: no recorded answer in {Path(path)}; "
            f"{'its prediction' if one else 'each prediction'} {then} (`pertwise ask` asks "
            "for it)"
        )
    notes += [
        f"{name}: {path} holds no usable answer ({state}); its prediction {then}"
        for name, state in states.items()
        if state not in ("", "missing")
    ]
    return notes
