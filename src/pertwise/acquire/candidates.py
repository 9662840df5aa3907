"""The closed list: who can be picked, who cannot, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pertwise._names import COMBINATION, canonical_perturbation, split_combination
from pertwise.acquire.panel import LeftOut, RepairNote
from pertwise.acquire.targets import targetable
from pertwise.errors import InputError, suggest
from pertwise.knowledge import Knowledge, read_gene_list
from pertwise.knowledge.genes.species import same_species, species_note
from pertwise.screen import Screen
from pertwise.screen.labels import guide_gene, numbered_gene

#: Words that stand for a list instead of naming a file.
WORDS = ("auto", "all", "screen", "targetable", "knowledge")


@dataclass(frozen=True)
class Pool:
    """Candidates after all checks.

    Attributes
    ----------
    candidates
        Sorted, unique; pinned ones are not among them.
    measured
        Sorted names measured in this context, as the screen spells them.
    pinned
        On the panel by decision, in the order given.
    symbols
        Approved symbol of every candidate, pinned and measured name (itself when unknown).
    unknown
        Candidates kept although the knowledge folder does not know them.
    origin
        One sentence: where the list comes from.
    notes
        What to know about the measured names.
    """

    candidates: tuple[str, ...]
    measured: tuple[str, ...]
    pinned: tuple[str, ...]
    symbols: dict[str, str]
    unknown: tuple[str, ...]
    origin: str
    left_out: tuple[LeftOut, ...] = ()
    repairs: tuple[RepairNote, ...] = field(default_factory=tuple)
    notes: tuple[str, ...] = ()


def list_candidates(
    source: str | os.PathLike[str] | Sequence[str],
    screen: Screen | None,
    knowledge: Knowledge,
) -> tuple[list[str], str]:
    """Names on the list and where they come from.

    "screen" = rows of the screen with nothing measured (a library that was designed but not
    measured yet); "targetable" = protein-coding genes with a position, as far as detected in the
    controls (`targets.targetable`); "knowledge" = every gene that the knowledge folder has a card
    for; "auto" and "all" = "screen" where the screen has such rows, else "targetable" and
    "knowledge". Anything else is a file (see `read_gene_list`) or a sequence of names.
    """
    if not isinstance(source, str | os.PathLike):
        return [str(s) for s in source], f"{len(source)} names given in the call"
    word = str(source)
    unmeasured: list[str] = []
    if screen is not None:
        done = set(screen.obs["perturbation"][screen.measured])
        unmeasured = [p for p in screen.perturbations if p not in done]
    if word in ("auto", "all"):
        word = "screen" if unmeasured else "targetable" if word == "auto" else "knowledge"
    if word == "screen":
        if not unmeasured:
            raise InputError(
                "--candidates screen: every row of the screen is measured; give a file, or "
                "'knowledge' for all known genes"
            )
        return unmeasured, f"the {len(unmeasured)} rows of the screen with nothing measured"
    if word in ("knowledge", "targetable"):
        if knowledge.drugs is not None:
            drugs = list(knowledge.drugs.cards)
            return drugs, f"all {len(drugs)} drugs of the table"
        genes = list(knowledge.genes())
        if word == "targetable":
            return targetable(genes, screen, knowledge)
        return genes, f"all {len(genes)} genes of the knowledge folder"
    if not Path(word).is_file():
        raise InputError(
            f"no such candidate file: {word} (give a file with one gene a line, or one of "
            f"{', '.join(WORDS)})"
        )
    names = read_gene_list(word)
    return names, f"{len(names)} names in {Path(word).name}"


def _symbols(knowledge: Knowledge, names: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Name -> approved form (parts of a combination one by one), and the names fully known."""
    if knowledge.drugs is not None:
        return _compounds(knowledge, names)
    parts = list(dict.fromkeys(g for n in names for g in split_combination(n)))
    approved = knowledge.resolve(parts).approved
    symbols, known = {}, set()
    for name in names:
        genes = split_combination(name)
        symbols[name] = canonical_perturbation(COMBINATION.join(approved.get(g, g) for g in genes))
        if all(g in approved for g in genes):
            known.add(name)
    return symbols, known


def _compounds(knowledge: Knowledge, names: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """The same for drugs: one name stands for all salts and spellings of a compound."""
    drugs = knowledge.drugs
    found = {} if drugs is None else drugs.resolve(list(dict.fromkeys(names))).approved
    same = knowledge.identity([*dict.fromkeys(found.get(n, n) for n in names)])
    first: dict[str, str] = {}
    for name in sorted(same):
        first.setdefault(same[name], name)
    return {n: first[same[found.get(n, n)]] for n in names}, set(found)


def make_pool(
    names: Sequence[str],
    origin: str,
    screen: Screen | None,
    knowledge: Knowledge,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pin: Sequence[str] = (),
    keep_unknown: bool = False,
) -> Pool:
    """Check the list against what is measured, what is known and what the person decided.

    `include` adds names to the list, `exclude` takes names off it, `pin` puts names on the panel
    whatever the strategy says (they are added to the list if need be). All three match by
    approved symbol, so old names work. A name that no table knows is left out unless
    `keep_unknown`: it is a typing error more often than a new gene.

    Raises
    ------
    pertwise.errors.InputError
        A pinned name that is measured, excluded or unknown; an exclude that is on no list;
        no candidate left, or none known; a screen of another species than the folder.
    """
    measured: tuple[str, ...] = ()
    if screen is not None:
        measured = tuple(sorted(set(screen.obs["perturbation"][screen.measured])))
    names = [canonical_perturbation(n) for n in names if str(n).strip()]
    include, exclude, pin = (
        [canonical_perturbation(n) for n in group] for group in (include, exclude, pin)
    )
    symbols, known = _symbols(knowledge, [*names, *measured, *include, *exclude, *pin])
    told = same_species("measured", measured, knowledge)
    drugs = () if knowledge.drugs is None else knowledge.drugs
    foreign = species_note([n for n in names if n not in drugs], knowledge.species)
    told += [f"candidates: {foreign}"] if foreign else []
    guides, notes = _unknown_measured(measured, known, knowledge)
    measured_as = guides | {symbols[m]: m for m in measured}
    excluded = {symbols[e]: e for e in exclude}
    _check_decisions(pin, include, exclude, symbols, known, measured_as, keep_unknown)
    offered = {symbols[n] for n in [*names, *include, *pin]}
    for name in exclude:
        if symbols[name] not in offered and symbols[name] not in measured_as:
            near = suggest(name, names)
            raise InputError(
                f"--exclude {name}: not on the candidate list"
                + (f"; did you mean {', '.join(near)}?" if near else "")
            )
    left_out: list[LeftOut] = []
    repairs: list[RepairNote] = []
    taken: dict[str, str] = {}
    pinned = []
    for name in dict.fromkeys(pin):
        if symbols[name] in taken:
            raise InputError(f"--pin {name} and --pin {taken[symbols[name]]} are the same gene")
        taken[symbols[name]] = name
        pinned.append(name)
    candidates = []
    unknown = []
    for name in [*names, *include]:
        symbol = symbols[name]
        if symbol in measured_as:
            other = measured_as[symbol]
            as_other = "" if other == name else f" as {other}"
            left_out.append(LeftOut(gene=name, kind="measured", why=f"already measured{as_other}"))
        elif symbol in excluded:
            left_out.append(LeftOut(gene=name, kind="excluded", why="excluded by --exclude"))
        elif symbol in taken:
            if taken[symbol] != name:
                left_out.append(
                    LeftOut(gene=name, kind="duplicate", why=f"same gene as {taken[symbol]}")
                )
                repairs.append(
                    RepairNote(
                        stage="candidates",
                        kind="alias",
                        item=name,
                        action=f"same gene as {taken[symbol]} ({symbol}): listed once",
                    )
                )
            elif name not in pinned:
                repairs.append(
                    RepairNote(
                        stage="candidates", kind="duplicate", item=name, action="listed once"
                    )
                )
        elif name not in known and not keep_unknown:
            left_out.append(
                LeftOut(gene=name, kind="unknown", why="not known to the knowledge folder")
            )
        else:
            taken[symbol] = name
            candidates.append(name)
            if name not in known:
                unknown.append(name)
    if not candidates and not pinned:
        _nobody_left(names, left_out, foreign or f"are they {knowledge.species} gene symbols?")
    return Pool(
        candidates=tuple(sorted(candidates)),
        measured=measured,
        pinned=tuple(pinned),
        symbols=symbols,
        unknown=tuple(sorted(unknown)),
        origin=origin,
        left_out=tuple(_unique(left_out)),
        repairs=tuple(repairs),
        notes=(*notes, *told),
    )


def _unknown_measured(
    measured: Sequence[str], known: set[str], knowledge: Knowledge
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Genes whose guides are measured under names that the knowledge lacks; and what to say."""
    unknown = [m for m in measured if m not in known]
    if not unknown:
        return {}, ()
    drugs = knowledge.drugs is not None
    gene_of = {m: g for m in unknown if not drugs and (g := guide_gene(m) or numbered_gene(m))}
    approved = knowledge.resolve(sorted(set(gene_of.values()))).approved
    guides = {approved[g]: m for m, g in gene_of.items() if g in approved}
    more = " ..." if len(unknown) > 3 else ""
    told = "none" if len(unknown) == len(measured) else f"{len(measured) - len(unknown)}"
    note = (
        f"{told} of the {len(measured)} measured names is known to the knowledge folder; unknown: "
        f"{', '.join(unknown[:3])}{more} ({len(unknown)}), so nothing is known about them"
    )
    if not guides:
        doubt = "; are they names of the table?" if len(unknown) > len(measured) / 2 else ""
        return {}, (note + doubt,)
    gene, guide = next(iter(guides.items()))
    return guides, (
        f"{note}; {len(guides)} genes are taken as measured by a guide ({guide} is {gene}) and not "
        "proposed again: fold guides to genes with pertwise screen convert --labels genes",
    )


def _check_decisions(
    pin: Sequence[str],
    include: Sequence[str],
    exclude: Sequence[str],
    symbols: dict[str, str],
    known: set[str],
    measured_as: dict[str, str],
    keep_unknown: bool,
) -> None:
    excluded = {symbols[e]: e for e in exclude}
    for flag, group in (("--pin", pin), ("--include", include)):
        for name in group:
            if symbols[name] in excluded:
                raise InputError(
                    f"{flag} {name} and --exclude {excluded[symbols[name]]} contradict each other"
                )
            if symbols[name] in measured_as:
                raise InputError(
                    f"{flag} {name}: already measured in this screen"
                    + (
                        ""
                        if measured_as[symbols[name]] == name
                        else f" as {measured_as[symbols[name]]}"
                    )
                )
            if name not in known and not keep_unknown:
                raise InputError(
                    f"{flag} {name}: the knowledge folder does not know this gene; check the "
                    "spelling, or keep such names with --keep-unknown"
                )


def _unique(rows: Sequence[LeftOut]) -> list[LeftOut]:
    return list({(r.gene, r.kind): r for r in rows}.values())


def _nobody_left(names: Sequence[str], left_out: Sequence[LeftOut], doubt: str) -> None:
    """Say which of the possible reasons emptied the list."""
    if not names:
        raise InputError("the candidate list is empty")
    kinds = {row.kind for row in left_out}
    if kinds == {"unknown"}:
        raise InputError(
            f"none of the {len(set(names))} candidates (e.g. {names[0]!r}) is known to the "
            f"knowledge folder; {doubt} Keep them anyway with --keep-unknown"
        )
    counts = {k: sum(r.kind == k for r in left_out) for k in sorted(kinds)}
    text = ", ".join(f"{n} {k}" for k, n in counts.items())
    raise InputError(f"no candidate is left to choose from ({text})")
