"""Checking proposed names against a closed list: pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pertwise._text import in_prompt, one_line
from pertwise.errors import InputError
from pertwise.select.base import Repair

#: Names -> approved names, for those it knows (see `knowledge_resolver`).
Resolver = Callable[[Sequence[str]], Mapping[str, str]]


def checked_candidates(candidates: Sequence[str], n: int) -> tuple[str, ...]:
    """The candidates as a tuple.

    Raises
    ------
    pertwise.errors.InputError
        If there are none, one repeats, or `n` < 1.
    """
    items = tuple(candidates)
    if n < 1:
        raise InputError(f"asked for n = {n} picks; n must be at least 1")
    if not items:
        raise InputError("the candidate list is empty: there is nothing to pick from")
    if len(set(items)) != len(items):
        seen: set[str] = set()
        twice = next(i for i in items if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise InputError(f"candidate {twice!r} occurs twice in the list")
    return items


@dataclass(frozen=True)
class Checked:
    """What is left of a proposal.

    Attributes
    ----------
    items
        Valid names as they stand in the list, in the proposed order, no duplicates.
    positions
        For each item, its position in the proposal (to find its reason).
    repairs
        What was corrected or dropped, in order.
    problem
        "" when there are enough valid names, else the exact problem in words for a re-ask.
    """

    items: tuple[str, ...]
    positions: tuple[int, ...]
    repairs: tuple[Repair, ...]
    problem: str


class ClosedList:
    """An index of a closed list that recognises other spellings of its names.

    A name matches exactly; else ignoring case, quotes, spaces, hyphens and list decoration
    ("3. MYC (proto-oncogene)"); else as an alias through `resolve` (two names with the same
    approved name are the same gene). Whatever could mean two entries matches none.

    Parameters
    ----------
    candidates
        The list, without duplicates.
    resolve
        Names -> approved names; None to know no aliases.
    subject
        The query: removed from the list under every spelling.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        resolve: Resolver | None = None,
        subject: str | None = None,
    ) -> None:
        self._resolve = resolve
        approved = dict(resolve(candidates)) if resolve is not None else {}
        self._subject_names: set[str] = set()
        self._subject_approved = ""
        if subject is not None:
            self._subject_names = {subject, _fold(subject)}
            if resolve is not None:
                self._subject_approved = resolve([subject]).get(subject, subject)
        self.excluded = tuple(
            c
            for c in candidates
            if c == subject
            or (self._subject_approved and approved.get(c, c) == self._subject_approved)
        )
        gone = set(self.excluded)
        self.items = tuple(c for c in candidates if c not in gone)
        self._exact = set(self.items)
        self._folded = _unique((_fold(c), c) for c in self.items)
        self._approved = _unique((approved.get(c, c), c) for c in self.items)

    def match(self, name: str) -> tuple[str | None, str]:
        """(entry, how): how is "", "case" or "alias"; entry None with "query_itself" or
        "out_of_list"."""
        forms = _forms(name)
        for form in forms:
            if form in self._exact:
                return form, "" if form == name else "case"
        for form in forms:
            if form in self._subject_names or _fold(form) in self._subject_names:
                return None, "query_itself"
            found = self._folded.get(_fold(form))
            if found:
                return found, "case"
        if self._resolve is not None:
            known = self._resolve(list(forms))
            for form in forms:
                approved = known.get(form, form)
                if approved == self._subject_approved:
                    return None, "query_itself"
                found = self._approved.get(approved)
                if found:
                    return found, "alias"
        return None, "out_of_list"

    def check(self, proposed: Sequence[str], *, n_min: int, n_max: int) -> Checked:
        """Validate a proposal.

        Parameters
        ----------
        n_min, n_max
            Fewer valid names than `n_min` are a problem worth asking again; names beyond `n_max`
            are cut.
        """
        items: list[str] = []
        positions: list[int] = []
        repairs: list[Repair] = []
        wrong: dict[str, list[str]] = {"out_of_list": [], "duplicate": [], "query_itself": []}
        for position, name in enumerate(proposed):
            entry, how = self.match(name)
            if entry is None:
                repairs.append(Repair(how, quoted(name), "dropped"))
                wrong[how].append(name)
                continue
            if entry in items:
                repairs.append(Repair("duplicate", quoted(name), "dropped, first mention kept"))
                wrong["duplicate"].append(name)
                continue
            if how:
                repairs.append(Repair(how, quoted(name), f"read as {entry}"))
            items.append(entry)
            positions.append(position)
        if len(items) > n_max:
            repairs.extend(
                Repair("too_many", i, f"dropped, only the first {n_max} count")
                for i in items[n_max:]
            )
            del items[n_max:], positions[n_max:]
        problem = ""
        if len(items) < n_min:
            problem = _problem(len(items), n_min, n_max, len(proposed), wrong)
        return Checked(tuple(items), tuple(positions), tuple(repairs), problem)


def _problem(
    n_valid: int, n_min: int, n_max: int, n_named: int, wrong: Mapping[str, Sequence[str]]
) -> str:
    wanted = f"exactly {n_max}" if n_min == n_max else f"between {n_min} and {n_max}"
    parts = [
        f"{wanted} valid names are needed, but of the {n_named} you named only {n_valid} can be "
        "used"
    ]
    if wrong["out_of_list"]:
        parts.append(f"not in the list: {_some(wrong['out_of_list'])}")
    if wrong["duplicate"]:
        parts.append(f"named more than once: {_some(wrong['duplicate'])}")
    if wrong["query_itself"]:
        parts.append(f"that is the query itself: {_some(wrong['query_itself'])}")
    return "; ".join(parts)


def quoted(name: str) -> str:
    """A name that a model made up, fit to be quoted back or stored: one line, bounded."""
    return one_line(name, 80)


def _some(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(quoted, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _fold(name: str) -> str:
    return re.sub(r"[\s\-_‐-―]+", "", in_prompt(name)).casefold()


_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s+")
_QUOTES = "\"'`*“”‘’"


def _forms(name: str) -> tuple[str, ...]:
    """The name itself, then with decoration taken off step by step."""
    forms = [name]
    bare = (
        _BULLET.sub("", name.strip().strip(_QUOTES)).strip().strip(_QUOTES).rstrip(".,;:").strip()
    )
    forms.append(bare)
    for separator in (" (", ": ", " - ", " – ", " | ", ", "):
        if separator in bare:
            forms.append(bare.split(separator)[0].strip())
    return tuple(dict.fromkeys(f for f in forms if f))


def _unique(pairs: object) -> dict[str, str]:
    """key -> entry, leaving out keys that two entries share."""
    found: dict[str, str | None] = {}
    for key, entry in pairs:  # type: ignore[attr-defined]
        found[key] = None if key in found else entry
    return {k: v for k, v in found.items() if v is not None}
