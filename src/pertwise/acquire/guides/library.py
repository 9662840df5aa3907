"""Guide libraries as people have them: csv, tsv, xlsx; in a known layout or with named columns."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._files import reading
from pertwise._io import optional_import, text_of_csv
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError, unknown_name
from pertwise.screen.labels import control_kind

#: Rows of a sheet that are looked at for a header.
_TOP = 20
#: Largest workbook that is opened: packed sheets unfold to fifty times their size.
_MAX_WORKBOOK = 60 << 20
#: Labels of controls that name no kind of control (Sanson et al. 2018).
_NO_SITE = re.compile(r"(?i)no_current_\d+|inactive[-_ ]?\w{0,8}")
#: Columns of `GuideLibrary.table`.
COLUMNS = ("row", "gene", "entrez", "id", "rank", "sequence_a", "sequence_b")


@dataclass(frozen=True)
class LibraryLayout:
    """Column names of a published library, folded (lower case, letters and digits only).

    `rank` may begin with "-": larger values come first. Several names are alternatives.
    """

    name: str
    gene: tuple[str, ...]
    sequence: tuple[str, ...]
    second: tuple[str, ...] = ()
    entrez: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()


#: In the order in which they are tried; the last one is any plain table.
LAYOUTS = (
    LibraryLayout(
        "Replogle dual-guide (Replogle et al. 2022)",
        ("gene",),
        ("protospacera", "targetingsequencea"),
        ("protospacerb", "targetingsequenceb"),
        id=("sgidab", "uniquesgrnapairid"),
    ),
    LibraryLayout(
        "Horlbeck hCRISPRi-v2 (Horlbeck et al. 2016)",
        ("gene",),
        ("protospacersequence",),
        id=("sgid",),
        rank=("selectionrank",),
    ),
    LibraryLayout(
        "Brunello (Doench et al. 2016)",
        ("targetgenesymbol",),
        ("sgrnatargetsequence",),
        entrez=("targetgeneid",),
        rank=("-ruleset2score",),
    ),
    LibraryLayout(
        "Dolcetto (Sanson et al. 2018)",
        ("annotatedgenesymbol",),
        ("sgrnasequence", "barcodesequence"),
        entrez=("annotatedgeneid",),
    ),
    LibraryLayout(
        "CRISPick designs (Broad GPP)",
        ("targetgenesymbol",),
        ("sgrnasequence",),
        entrez=("targetgeneid",),
        rank=("pickorder",),
    ),
)
PLAIN = LibraryLayout(
    "a table of guides",
    ("gene", "symbol", "genesymbol", "target", "targetgene", "hgncsymbol"),
    ("sequence", "sgrnasequence", "grnasequence", "guidesequence", "protospacer", "spacer", "sgrna",
     "grna", "guide"),
    entrez=("entrez", "entrezid", "geneid", "ncbigeneid"),
    id=("id", "guideid", "sgrnaid", "sgid", "grnaid", "name"),
    rank=("rank",),
)  # fmt: skip


@dataclass(frozen=True)
class LibraryColumns:
    """Columns that the user names, where the layout is not known; `sequence` may hold two."""

    gene: str | None = None
    sequence: tuple[str, ...] = ()
    id: str | None = None
    rank: str | None = None
    controls: tuple[str, ...] = ()
    sheet: str | None = None


@dataclass(frozen=True)
class GuideLibrary:
    """All guides of a file.

    Attributes
    ----------
    table
        Columns `COLUMNS`: row of the file (the header is row 1), gene as the file spells it,
        sequences in upper case as they stand (not yet checked); `sequence_b` "" for single guides.
        In the order of the file, within a gene by rank.
    controls
        The rows that hit no gene, of the same columns.
    layout
        What it was recognised as.
    """

    path: str
    table: pd.DataFrame
    controls: pd.DataFrame
    layout: str

    @property
    def dual(self) -> bool:
        """Whether an element holds two guides."""
        return bool((self.table["sequence_b"] != "").any())


def read_library(
    path: str | os.PathLike[str], columns: LibraryColumns | None = None
) -> GuideLibrary:
    """Read a guide library.

    Parameters
    ----------
    columns
        What the user says about it; the rest is recognised by the header (`LAYOUTS`).

    Raises
    ------
    pertwise.errors.InputError
        No such file or column, a header of no layout or of two, no guide in it; names the file.
    """
    named = columns or LibraryColumns()
    file = Path(path)
    frame = _sheet(file, named) if file.suffix.lower() in (".xlsx", ".xlsm") else _text_frame(file)
    layout, chosen = _recognise(frame, named, file)
    table = pd.DataFrame(
        {
            "row": frame["__row__"],
            "gene": frame[chosen["gene"]],
            "entrez": frame[chosen["entrez"]] if "entrez" in chosen else "",
            "id": frame[chosen["id"]] if "id" in chosen else "",
            "rank": frame[chosen["rank"]] if "rank" in chosen else "",
            "sequence_a": frame[chosen["sequence"]].str.upper(),
            "sequence_b": frame[chosen["second"]].str.upper() if "second" in chosen else "",
        }
    )
    table = table[(table["gene"] != "") | (table["sequence_a"] != "")]
    if table.empty:
        raise InputError(f"{file}: no guide in it")
    if "rank" in chosen:
        order = pd.to_numeric(table["rank"], errors="coerce")
        if chosen["rank_down"] == "yes":
            order = -order
        table = table.assign(_order=order).sort_values("_order", kind="stable", na_position="last")
    own = set(named.controls)
    marks = {g: g in own or (not own and is_control_label(g)) for g in table["gene"].unique()}
    missing = own - set(marks)
    if missing:
        raise unknown_name("control label", sorted(missing)[0], list(marks), f"in {file}")
    control = table["gene"].map(marks).astype(bool)
    table = table[list(COLUMNS)]
    return GuideLibrary(
        str(file),
        table[~control].reset_index(drop=True),
        table[control].reset_index(drop=True),
        layout + str(frame.attrs.get("sheet", "")),
    )


def is_control_label(label: str) -> bool:
    """Whether a library means a guide without a target in any gene by this gene label."""
    return bool(control_kind(label) or _NO_SITE.fullmatch(label))


def _text_frame(file: Path) -> pd.DataFrame:
    frame = read_frame(file, dtype=str, keep_default_na=False)
    frame = frame.fillna("").astype(str).apply(lambda c: c.str.strip())
    return frame.assign(__row__=range(2, len(frame) + 2))


def _sheet(file: Path, named: LibraryColumns) -> pd.DataFrame:
    """The sheet that is named, or the first one with a header that is recognised."""
    openpyxl = optional_import("openpyxl", "excel", "Reading an Excel workbook")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.stat().st_size > _MAX_WORKBOOK:
        raise InputError(f"{file} is larger than {_MAX_WORKBOOK >> 20} MB: save the sheet as csv")
    with reading(file, "an Excel workbook"):
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            if named.sheet is not None and named.sheet not in book.sheetnames:
                raise unknown_name("sheet", named.sheet, book.sheetnames, f"in {file}")
            found: dict[str, int] = {}
            tried = []
            for name in [named.sheet] if named.sheet is not None else book.sheetnames:
                top = _rows(book[name], _TOP)
                if (at := _header_row(top, named)) is not None:
                    found[name] = at
                tried.append(f"{name!r}: {', '.join(c for c in (top or [[]])[0] if c)[:120]}")
            if found:
                name, *others = found
                frame = _framed(_rows(book[name]), found[name], file)
                frame.attrs["sheet"] = f", sheet {name!r}" + (
                    f" (not {', '.join(map(repr, others))}: --library-sheet)" if others else ""
                )
                return frame
        finally:
            book.close()
    raise InputError(
        f"{file}: no sheet has a header of a guide library ({'; '.join(tried)[:400]}); name the "
        "columns with --library-gene and --library-sequence, and the sheet with --library-sheet"
    )


def _rows(sheet: Any, most: int | None = None) -> list[list[str]]:
    return [
        ["" if v is None else str(text_of_csv(str(v))).strip() for v in row]
        for row in sheet.iter_rows(max_row=most, values_only=True)
    ]


def _header_row(rows: Sequence[Sequence[str]], named: LibraryColumns) -> int | None:
    for i, row in enumerate(rows[:_TOP]):
        if named.gene is not None and named.sequence:
            if {named.gene, *named.sequence} <= set(row):
                return i
        elif _matching(row):
            return i
    return None


def _framed(rows: Sequence[Sequence[str]], at: int, file: Path) -> pd.DataFrame:
    header = [c or f"unnamed {i}" for i, c in enumerate(rows[at])]
    twice = [c for i, c in enumerate(header) if c in header[:i]]
    if twice:
        raise InputError(f"{file}: column {twice[0]!r} occurs twice in the header")
    body = [list(r[: len(header)]) + [""] * (len(header) - len(r)) for r in rows[at + 1 :]]
    frame = pd.DataFrame(body, columns=header, dtype=str)
    return frame.assign(__row__=range(at + 2, at + 2 + len(body)))


def _fold(name: str) -> str:
    return "".join(c for c in str(name).lower() if c.isalnum())


def _matching(columns: Sequence[str]) -> list[LibraryLayout]:
    """Published layouts that a header has all columns of; else `PLAIN`, or nothing."""
    folded = {_fold(c) for c in columns}

    def has(layout: LibraryLayout) -> bool:
        groups = [layout.gene, layout.sequence, *([layout.second] if layout.second else [])]
        return all(folded & set(group) for group in groups)

    found = [layout for layout in LAYOUTS if has(layout)]
    return found or ([PLAIN] if has(PLAIN) else [])


def _recognise(
    frame: pd.DataFrame, named: LibraryColumns, file: Path
) -> tuple[str, dict[str, str]]:
    """What the table is, and role -> its column."""
    columns = [str(c) for c in frame.columns if c != "__row__"]
    for given in (named.gene, *named.sequence, named.id, (named.rank or "").lstrip("-") or None):
        if given is not None and given not in columns:
            raise unknown_name("column", given, columns, f"in {file}")
    if len(named.sequence) > 2:
        raise InputError("an element has one guide or two: give --library-sequence at most twice")
    found = _matching(columns)
    if named.gene is not None and named.sequence:
        layout, words = PLAIN, "columns named by the user"
    elif not found:
        raise InputError(
            f"{file} has no layout of a guide library that is known (columns "
            f"{columns_of(frame.drop(columns='__row__'))}); name them with --library-gene and "
            "--library-sequence"
        )
    elif len(found) > 1:
        raise InputError(
            f"{file} has the columns of two layouts, {' and '.join(x.name for x in found)}; say "
            "which ones count with --library-gene and --library-sequence"
        )
    else:
        layout, words = found[0], found[0].name
    chosen: dict[str, str] = {}
    for role in ("gene", "sequence", "second", "entrez", "id", "rank"):
        names = getattr(layout, role)
        at = next((c for n in names for c in columns if _fold(c) == n.lstrip("-")), None)
        if at is not None:
            chosen[role] = at
    down = any(n.startswith("-") for n in layout.rank)
    if named.gene is not None:
        chosen["gene"] = named.gene
    if named.sequence:
        chosen["sequence"] = named.sequence[0]
        chosen.pop("second", None)
        if len(named.sequence) == 2:
            chosen["second"] = named.sequence[1]
    if named.id is not None:
        chosen["id"] = named.id
    if named.rank is not None:
        chosen["rank"], down = named.rank.lstrip("-"), named.rank.startswith("-")
    return words, chosen | {"rank_down": "yes" if down else ""}
