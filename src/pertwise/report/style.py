"""Colours and words used the same way on every page."""

from __future__ import annotations

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

#: Relation to the target pathway -> (words, colour). Colour is never the only carrier.
RELATIONS = {
    "direct_member": ("member", COLOURS["blue"]),
    "upstream_regulator": ("upstream regulator", COLOURS["vermilion"]),
    "downstream_target": ("downstream target", COLOURS["green"]),
    "interacting_partner": ("interacting partner", COLOURS["purple"]),
    "unknown": ("no known relation", COLOURS["grey"]),
    "": ("", COLOURS["grey"]),
}


def figure_svg(figure: object) -> str:
    """A matplotlib figure as inline SVG text: no XML header, no date, the same bytes every time.

    Close the figure yourself when done with it.
    """
    import io

    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "pertwise", "svg.fonttype": "none"}):
        figure.savefig(  # type: ignore[attr-defined]
            buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    return text[text.index("<svg") :]
