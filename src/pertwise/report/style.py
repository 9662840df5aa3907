"""Colours and words used the same way on every page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pertwise.errors import InputError, unknown_name

#: Formats of figures as files, and the bits that would make the same figure another file.
FORMATS: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
}
#: Formats that the figures of a page are written in beside it; None = what the page does anyway.
_WANTED: ContextVar[tuple[str, ...] | None] = ContextVar("figure formats", default=None)

#: Okabe & Ito 2008: told apart with every common form of colour blindness.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#AA4499",
    "sky": "#56B4E9",
    "grey": "#8A8F98",
    "ink": "#1F2430",
    "pale": "#D5D9E0",
}

#: Colours of several lines, one after another.
ORDER = ("blue", "vermilion", "green", "purple", "orange", "sky", "ink", "grey")

#: Relation to the target pathway -> (words, colour). Colour is never the only carrier.
RELATIONS = {
    "direct_member": ("member", COLOURS["blue"]),
    "upstream_regulator": ("upstream regulator", COLOURS["vermilion"]),
    "downstream_target": ("downstream target", COLOURS["green"]),
    "interacting_partner": ("interacting partner", COLOURS["purple"]),
    "unknown": ("no known relation", COLOURS["grey"]),
    "": ("", COLOURS["grey"]),
}


def wanted_formats(formats: str) -> tuple[str, ...]:
    """The formats in a comma list.

    Raises
    ------
    pertwise.errors.InputError
        For one that is not svg, png or pdf, or none.
    """
    wanted = tuple(dict.fromkeys(f.strip().lower() for f in formats.split(",") if f.strip()))
    for kind in wanted:
        if kind not in FORMATS:
            raise unknown_name("figure format", kind, FORMATS)
    if not wanted:
        raise InputError(f"no figure format given; choose from {', '.join(FORMATS)}")
    return wanted


@contextmanager
def figures_as(formats: str | None) -> Iterator[None]:
    """Figures of pages made inside this block are written as files of these formats, too."""
    token = _WANTED.set(None if formats is None else wanted_formats(formats))
    try:
        yield
    finally:
        _WANTED.reset(token)


def asked_formats() -> tuple[str, ...] | None:
    """The formats of `figures_as`, None outside."""
    return _WANTED.get()


def figure_bytes(figure: object, kind: str) -> bytes:
    """A matplotlib figure as a file of one of `FORMATS`: the same bytes every time."""
    import io

    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "pertwise", "svg.fonttype": "none", "pdf.fonttype": 42}):
        dots = {"dpi": 200} if kind == "png" else {}
        figure.savefig(  # type: ignore[attr-defined]
            buffer, format=kind, bbox_inches="tight", metadata=FORMATS[kind], **dots
        )
    return buffer.getvalue()


def figure_svg(figure: object) -> str:
    """A matplotlib figure as inline SVG text: no XML header, no date, the same bytes every time.

    Close the figure yourself when done with it.
    """
    text = figure_bytes(figure, "svg").decode("utf-8")
    return text[text.index("<svg") :]
