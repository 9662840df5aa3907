"""Self-contained pages: styles, figures and the few lines of script are inside one HTML file.

`Page` is the builder: sections, tables, figures, notes and facts put in one after another, told as
HTML and as Markdown. Pages with a layout of their own have a template and use `render_page`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from pertwise import __version__
from pertwise._io import atomic_path, write_csv_atomic, write_text_atomic
from pertwise.config import user_settings
from pertwise.report.style import asked_formats, figure_bytes, figure_svg

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

#: Longer tables are folded on the page.
FOLDED_ROWS = 12
#: Shows one cell of a table.
Show = Callable[[Any], str]


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Templates of this package, with autoescape on: names and reasons are untrusted text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("pertwise.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["sig"] = lambda v, digits=3: "" if v is None else f"{v:.{digits}g}"
    return made


def render_page(template: str, *, title: str, simulated: bool, **values: Any) -> str:
    """Fill a template that extends ``base.html.j2``.

    The base forbids every external request (Content-Security-Policy) and shows the banner
    "simulated" when told so. Values are escaped unless they are `markupsafe.Markup`. The theme is
    that of the user's defaults (`pertwise.config.user_settings`).
    """
    return (
        environment()
        .get_template(template)
        .render(
            title=title,
            simulated=simulated,
            version=__version__,
            theme=user_settings().theme,
            **values,
        )
    )


@dataclass
class Page:
    """A page under construction.

    Attributes
    ----------
    folder
        Where every named table is written as csv, every named figure as svg; None = nowhere.
    blocks
        (kind, content), in order.
    """

    title: str
    lead: str = ""
    simulated: bool = False
    folder: Path | None = None
    blocks: list[tuple[str, Any]] = field(default_factory=list)

    def head(self, text: str, level: int = 2) -> None:
        """A heading."""
        self.blocks.append((f"h{level}", text))

    def say(self, text: str, *, small: bool = False) -> None:
        """A paragraph; `code` and **bold** as in Markdown."""
        self.blocks.append(("small" if small else "p", text))

    def warn(self, text: str) -> None:
        """A note that must not be overlooked."""
        self.blocks.append(("warning", text))

    def table(
        self, table: pd.DataFrame, name: str = "", *, show: Show | None = None, fold: str = ""
    ) -> None:
        """A table of a data frame's columns.

        Parameters
        ----------
        name
            Of the csv file beside the page.
        show
            Text of a cell; by default `fixed`.
        fold
            Words to click on; a long table is folded anyway when `name` is given.
        """
        shown = show or fixed
        file = f"tables/{name}.csv" if name else ""
        if name and self.folder is not None:
            write_csv_atomic(self.folder / file, table)
        if name and len(table) > FOLDED_ROWS:
            fold = fold or f"Table, {len(table)} rows"
        rows = [[shown(v) for v in row] for row in table.itertuples(index=False)]
        columns = [str(c) for c in table.columns]
        self.blocks.append(
            ("table", {"columns": columns, "rows": rows, "file": file, "fold": fold})
        )

    def figure(self, figure: Figure, name: str = "", words: str = "") -> None:
        """A matplotlib figure (it is closed) with words below; a named one is drawn at its size."""
        import matplotlib.pyplot as plt

        text, file, width = figure_svg(figure), "", 0
        for kind in (asked_formats() or ()) if name and self.folder is not None else ():
            place = Path(str(self.folder)) / "figures" / f"{name}.{kind}"
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(place) as made:
                made.write_bytes(figure_bytes(figure, kind))
        plt.close(figure)
        if name:
            file = f"figures/{name}.svg"
            # A page is wider than most figures; blown up, their letters would outgrow headings.
            points = re.search(r'width="([\d.]+)pt"', text)
            width = round(float(points[1]) * 4 / 3) if points else 600
        if name and self.folder is not None and asked_formats() is None:
            header = '<?xml version="1.0" encoding="utf-8"?>\n'
            write_text_atomic(self.folder / file, header + text)
        self.blocks.append(
            ("figure", {"svg": Markup(text), "words": words, "width": width, "file": file})
        )

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Names and values, one a line."""
        self.blocks.append(("facts", list(facts)))

    def html(self) -> str:
        """The whole page."""
        blocks = [(k, inline(c) if isinstance(c, str) else c) for k, c in self.blocks]
        return render_page(
            "page.html.j2",
            title=self.title,
            simulated=self.simulated,
            lead=self.lead,
            blocks=blocks,
        )

    def markdown(self) -> str:
        """The same as Markdown."""
        parts = [f"# {self.title}"] if self.title else []
        parts += [self.lead] if self.lead else []
        for kind, content in self.blocks:
            if kind == "table":
                parts.append(_lines(content["columns"], content["rows"]))
                parts += [f"(`{content['file']}`)"] if content["file"] else []
            elif kind == "figure":
                parts += [f"![{content['words']}]({content['file']})"] if content["file"] else []
            elif kind == "facts":
                parts.append("\n".join(f"- {name}: {value}" for name, value in content))
            else:
                mark = "#" * int(kind[1]) + " " if kind in ("h2", "h3") else ""
                parts.append(f"{mark}{'Note: ' if kind == 'warning' else ''}{content}")
        return "\n\n".join(parts) + "\n"

    def write(
        self, path: str | os.PathLike[str], markdown: str | os.PathLike[str] | None = None
    ) -> Path:
        """Write the page, and its Markdown when a place is given, atomically."""
        if markdown is not None:
            write_text_atomic(markdown, self.markdown())
        write_text_atomic(path, self.html())
        return Path(path)


def inline(text: str) -> Markup:
    """Markdown's `code` and **bold** as HTML; everything else is escaped."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


def fixed(value: Any, digits: int = 3) -> str:
    """A number with so many decimals, small ones as powers; unknown is empty."""
    if not isinstance(value, float | np.floating):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.0e}" if 0 < abs(float(value)) < 10.0**-digits else f"{value:.{digits}f}"


def significant(value: Any) -> str:
    """A number with four significant digits; unknown is "-"."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return "-" if np.isnan(value) else f"{value:.4g}"


def markdown_table(table: pd.DataFrame, show: Show = fixed) -> str:
    """A data frame as a Markdown table."""
    rows = [[show(v) for v in row] for row in table.itertuples(index=False)]
    return _lines([str(c) for c in table.columns], rows)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[str(v).replace("|", "\\|") for v in row] for row in (columns, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def input_facts(inputs: Mapping[str, Mapping[str, Any]], **more: str) -> list[tuple[str, str]]:
    """A line per input: where it came from, the beginning of its checksum, what is `more` known."""
    facts = []
    for name, entry in inputs.items():
        text = str(entry.get("path") or entry.get("note") or entry.get("origin") or "")
        for key in ("sha256", "fingerprint"):
            if key in entry:
                text += f" ({key} {str(entry[key])[:16]}…)"
        facts.append((name, text + more.get(name, "")))
    return facts


def version_facts(versions: Mapping[str, str]) -> tuple[str, str]:
    """All versions in one line."""
    return ("versions", ", ".join(f"{k} {v}" for k, v in versions.items()))


def record_facts(record: Mapping[str, Any], **more: str) -> list[tuple[str, str]]:
    """What run.json says: inputs, `more`, versions, the checksum of the settings."""
    return [
        *input_facts(record["inputs"]),
        *more.items(),
        version_facts(record["versions"]),
        ("settings sha256", str(record["settings_sha256"])),
    ]
