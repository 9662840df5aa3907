"""One self-contained HTML page: styles, figures and the few lines of script are inside it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


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
    "simulated" when told so. Values are escaped unless they are `markupsafe.Markup`.
    """
    from pertwise import __version__

    return (
        environment()
        .get_template(template)
        .render(title=title, simulated=simulated, version=__version__, **values)
    )
