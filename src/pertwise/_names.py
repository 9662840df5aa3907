"""One spelling of a perturbation for every table: responses, drug tables, recorded lists."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Joins the parts of a combination of perturbations, as in "KLF1+GATA1" (parts are sorted).
COMBINATION = "+"
_OPEN, _CLOSE = "([{", ")]}"
# "Ca2+ ionophore", "Na+/K+ pump": the charge of an ion.
_ION = re.compile(r"(?<![A-Za-z0-9])(?:NADP?|NH4|H|Na|K|Li|Ca2?|Mg2?|Zn2?|Mn2?|Fe[23]?|Cu2?)$")


# "2.31E+13": what a spreadsheet makes of the clone 2310000K13.
_POWER = re.compile(r"\d+(?:\.\d+)?[eE]\+\d+")


def with_parts_of(names: Iterable[str], held: Iterable[str]) -> set[str]:
    """Those of `names` that are combinations with all parts of one of `held`, which they are not.

    What is measured with A+B tells about A: it must not be learned from where A is held out.
    """
    whole = [frozenset(split_combination(h)) for h in set(held)]
    found = set()
    for name in set(names):
        parts = frozenset(split_combination(name))
        if len(parts) > 1 and any(h < parts for h in whole):
            found.add(name)
    return found


def split_combination(name: str) -> list[str]:
    """The parts of a combination, in order; one part for a single perturbation.

    A plus sign inside brackets, after an ion, in a power of ten, or beside nothing that could be a
    name belongs to the name: "JQ1 (+)", "S-(+)-ibuprofen", "Ca2+ ionophore", "2.31E+13" and
    "AAAS_+_53715355.23" are single.
    """
    whole = str(name).strip()
    if COMBINATION not in whole or _POWER.fullmatch(whole):
        return [whole]
    parts, start, depth = [], 0, 0
    for i, character in enumerate(whole):
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth < 0:
                return [whole]
        elif character == COMBINATION and depth == 0:
            charge = whole[i + 1 : i + 2] in ("", " ", "/") and _ION.search(
                whole[max(0, i - 6) : i]
            )
            if not charge:
                parts.append(whole[start:i].strip())
                start = i + 1
    parts.append(whole[start:].strip())
    return parts if depth == 0 and all(map(_could_be_name, parts)) else [whole]


def _could_be_name(part: str) -> bool:
    return bool(part) and (part[0].isalnum() or part[0] in "([{'\"") and part[-1] not in "_-/|:,;+"


def is_combination(name: str) -> bool:
    """Whether a name stands for several perturbations at once."""
    return len(split_combination(name)) > 1


def canonical_perturbation(name: str) -> str:
    """Sorted parts of a combination: "B + A" -> "A+B"; any other name as it stands, stripped."""
    return COMBINATION.join(sorted(split_combination(name)))


def genes_of(perturbations: Iterable[str]) -> list[str]:
    """The genes of perturbations, "A+B" taken apart, each once, in order of appearance."""
    return list(dict.fromkeys(g for p in perturbations for g in split_combination(p)))
