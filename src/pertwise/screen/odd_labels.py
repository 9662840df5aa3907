"""Labels that may not be what they look like: joined names, dates for genes, doses in names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from pertwise._names import COMBINATION, canonical_perturbation

_MARKS = re.compile(r"\s*[|;,&/_]\s*")
#: "1,2-..." , "A/B" and "a_b" are names of drugs.
_DRUG_MARKS = re.compile(r"\s*[|;&]\s*")
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)"
_DATE = re.compile(
    rf"\d{{1,2}}-{_MONTH}(?:-\d\d(?:\d\d)?)?|{_MONTH}-\d\d|(?:19|20)\d\d-\d\d-\d\d(?: 00:00:00)?",
    re.IGNORECASE,
)
_DOSE = re.compile(r"\S.{0,150}[\s_\-@(]\d+(?:[.,]\d+)?\s?(?:[pnuµμm]M|[pnuµμm]g/m[lL])\)?")


def some_labels(labels: Sequence[str], n: int = 5) -> str:
    """The first `n` labels in quotation marks, and how many more there are."""
    more = f" and {len(labels) - n} more" if len(labels) > n else ""
    return ", ".join(map(repr, labels[:n])) + more


def is_date(label: str) -> bool:
    """Whether a name is a date, as a spreadsheet makes of MARCH1 and SEPT2 ("1-Mar", "Sep-02")."""
    return _DATE.fullmatch(label) is not None


def joined_names(label: str, known: Collection[str], drugs: bool = False) -> str:
    """ "A+B" for "A|B", "A;B", "A,B", "A & B", "A/B" and "A_B" of which every part is a known name
    and the whole is none; else ""."""
    parts = (_DRUG_MARKS if drugs else _MARKS).split(label) if len(label) <= 1000 else []
    if len(parts) < 2 or len(set(parts)) < len(parts) or not all(p in known for p in parts):
        return ""
    return canonical_perturbation(COMBINATION.join(parts))


def odd_notes(
    names: Sequence[str], features: Iterable[str], known: Collection[str], drugs: bool
) -> list[str]:
    """What people should look at before they believe these names."""
    notes = []
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(name)
    differ = [n for same in alike.values() if len(same) > 1 for n in same]
    if differ:
        notes.append(
            f"{some_labels(differ)}: differ only in letter case and are kept apart; rename"
        )
    dosed = [n for n in names if _DOSE.fullmatch(n)]
    if dosed:
        notes.append(
            f"{some_labels(dosed)}: end in a dose, which is taken as part of the name; give names "
            "and doses columns of their own to compare doses"
        )
    if drugs:
        return notes
    dates = sorted({n for n in (*names, *features) if is_date(n)})
    if dates:
        notes.append(
            f"{some_labels(dates)}: dates, as a spreadsheet makes of MARCH1 or MARC1 (1-Mar) and "
            "SEPT2 (2-Sep); put the names back from the source"
        )
    hyphens = [n for n in names if "-" in n and joined_names(n.replace("-", "|"), known)]
    if hyphens:
        notes.append(f"{some_labels(hyphens)}: taken as one name; A+B is a combination of A and B")
    return notes
