"""Small hand-made SVG charts: crisp, printable, with a tooltip on every mark.

All text is escaped here; names and reasons on a page may come from a language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

#: Steps within a power of ten on a logarithmic axis.
_STEPS = (1, 2, 5)
#: Left, top, right, bottom.
_Box = tuple[float, float, float, float]


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """About `n` round numbers within [low, high]; [low] when the range is empty."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, steps: Sequence[int] = _STEPS) -> list[float]:
    """`steps` x powers of ten within [low, high]; low > 0."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**p for p in powers for m in steps]
    return [v for v in values if low <= v <= high]


def text_width(text: str, size: float) -> float:
    """Width of bold words in the widest of the usual fonts: what a label may need."""

    def one(letter: str) -> float:
        if letter in "MW@%":
            return 1.1
        if letter in "IJl.,-:;' ()|":
            return 0.43
        return 0.79 if letter.isupper() else 0.71

    return size * sum(map(one, text))


@dataclass
class Chart:
    """A plot area with linear axes. Draw, then `render`.

    Attributes
    ----------
    x, y
        Data ranges (low, high).
    title
        Read by screen readers.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    title: str
    x_label: str = ""
    y_label: str = ""
    width: int = 760
    height: int = 340
    left: int = 64
    right: int = 16
    top: int = 14
    bottom: int = 46
    axes: bool = True
    log_x: bool = False
    grid_y: bool = True
    log_steps: tuple[int, ...] = _STEPS
    #: Second line under the tick of a value.
    below: dict[float, str] = field(default_factory=dict)
    _marks: list[str] = field(default_factory=list)
    _labels: list[tuple[float, float, str]] = field(default_factory=list)
    _occupied: list[tuple[float, float]] = field(default_factory=list)
    #: Labels for which `render` found no place free of others.
    unplaced: list[str] = field(default_factory=list)

    def px(self, value: float) -> float:
        """Data x to pixels."""
        low, high = self.x
        if self.log_x:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        """Data y to pixels."""
        low, high = self.y
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)

    def point(
        self,
        x: float,
        y: float,
        colour: str,
        tip: str = "",
        *,
        radius: float = 3.0,
        opacity: float = 1.0,
        outline: str = "none",
        shape: str = "circle",
        solid: bool = False,
    ) -> None:
        """One mark with a tooltip; `solid` ones keep labels away from themselves."""
        a, b = self.px(x), self.py(y)
        body = f"<title>{escape(tip)}</title>" if tip else ""
        style = f'fill="{colour}" fill-opacity="{opacity:g}" stroke="{outline}"'
        if shape == "circle":
            self._marks.append(
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}" {style}>{body}</circle>'
            )
        else:
            d = radius * 1.25
            path = (
                f"M{a:.1f} {b - d:.1f}L{a + d:.1f} {b:.1f}L{a:.1f} {b + d:.1f}L{a - d:.1f} {b:.1f}Z"
            )
            self._marks.append(f'<path d="{path}" {style}>{body}</path>')
        if solid:
            self._occupied.append((a, b))

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5) -> None:
        """A polyline in data coordinates."""
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        self._marks.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        )

    def vertical(self, x: float, text: str, colour: str = "#555") -> None:
        """A dashed vertical line with words at its head."""
        a = self.px(x)
        self._marks.append(
            f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{self.top}" y2="{self.height - self.bottom}" '
            f'stroke="{colour}" stroke-dasharray="4 3"/>'
            f'<text x="{a + 5:.1f}" y="{self.top + 11}" class="note">{escape(text)}</text>'
        )

    def lane(self, low: float, high: float, text: str, colour: str, shaded: bool) -> None:
        """A horizontal band of the plot with its name at the left."""
        top, bottom = self.py(high), self.py(low)
        fill = "#f5f7fa" if shaded else "#ffffff"
        width = self.width - self.left - self.right
        self._marks.append(
            f'<rect x="{self.left}" y="{top:.1f}" width="{width}" height="{bottom - top:.1f}" '
            f'fill="{fill}"/><rect x="{self.left - 6}" y="{top + 3:.1f}" width="4" '
            f'height="{bottom - top - 6:.1f}" fill="{colour}"/>'
            + (
                f'<text x="{self.left - 14}" y="{(top + bottom) / 2 + 4:.1f}" class="name" '
                f'text-anchor="end">{escape(text)}</text>'
                if self.left > 40
                else f'<text x="{self.left + 6}" y="{top + 13:.1f}" class="note">'
                f"{escape(text)}</text>"
            )
        )

    def label(self, x: float, y: float, text: str) -> None:
        """Words beside a point; the place is found when rendering."""
        self._labels.append((self.px(x), self.py(y), text))

    def render(self) -> Markup:
        """The complete <svg> element."""
        parts = [
            f'<svg role="img" viewBox="0 0 {self.width} {self.height}" '
            f'xmlns="http://www.w3.org/2000/svg"><title>{escape(self.title)}</title>'
        ]
        if self.axes:
            parts.append(self._frame())
        parts += self._marks
        parts += self._placed_labels()
        parts.append("</svg>")
        return Markup("".join(parts))

    def _frame(self) -> str:
        base, end = self.height - self.bottom, self.width - self.right
        out = []
        for value in ticks(*self.y) if self.grid_y else []:
            b = self.py(value)
            out.append(
                f'<line x1="{self.left}" x2="{end}" y1="{b:.1f}" y2="{b:.1f}" class="grid"/>'
                f'<text x="{self.left - 7}" y="{b + 4:.1f}" class="tick" text-anchor="end">'
                f"{value:g}</text>"
            )
        for value in log_ticks(*self.x, self.log_steps) if self.log_x else ticks(*self.x):
            a = self.px(value)
            below = self.below.get(value, "") if self.below else ""
            if below:
                out.append(
                    f'<text x="{a:.1f}" y="{base + 31}" class="tick" text-anchor="middle">'
                    f"{escape(below)}</text>"
                )
            out.append(
                f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{base}" y2="{base + 4}" class="axis"/>'
                f'<text x="{a:.1f}" y="{base + 17}" class="tick" text-anchor="middle">{value:g}'
                "</text>"
            )
        middle = (self.top + base) / 2
        out.append(
            f'<line x1="{self.left}" x2="{end}" y1="{base}" y2="{base}" class="axis"/>'
            f'<text x="{(self.left + end) / 2:.0f}" y="{self.height - 8}" class="name" '
            f'text-anchor="middle">{escape(self.x_label)}</text>'
            f'<text transform="translate(14 {middle:.0f}) rotate(-90)" class="name" '
            f'text-anchor="middle">{escape(self.y_label)}</text>'
        )
        return "".join(out)

    def _placed_labels(self) -> list[str]:
        """Greedy label placement: the nearest of several spots that covers no other label.

        Those for which there is none are left out (`unplaced`): nobody could read them.
        """
        size = 11.5
        boxes: list[_Box] = []
        out = []
        spots = [
            (distance * math.cos(angle), distance * math.sin(angle))
            for distance in (9, 16, 26, 38, 54, 72, 92, 115, 140)
            for angle in (
                math.radians(a)
                for a in (0, 180, -45, 45, -135, 135, -90, 90, -22, 22, -158, 158, -68, 68)
            )
        ]
        for a, b, text in sorted(self._labels):
            width = text_width(text, size)
            best: tuple[float, _Box, float] | None = None
            for dx, dy in spots:
                x0 = a + dx if dx > 1 else a + dx - width if dx < -1 else a - width / 2
                box = (x0, b + dy - size * 0.62, x0 + width, b + dy + size * 0.5)
                if self._covers(box, boxes):
                    continue
                cost = math.hypot(dx, dy) * 0.05 + self._clash(box)
                if best is None or cost < best[0]:
                    best = (cost, box, math.hypot(dx, dy))
            if best is None:
                self.unplaced.append(text)
                continue
            _, box, distance = best
            boxes.append(box)
            if distance > 12:
                near_x = min(max(a, box[0]), box[2])
                out.append(
                    f'<line x1="{a:.1f}" y1="{b:.1f}" x2="{near_x:.1f}" '
                    f'y2="{(box[1] + box[3]) / 2:.1f}" class="leader"/>'
                )
            # Anchored on the side of the mark: the true width of the text is not known here.
            if box[0] >= a:
                x, anchor = box[0], "start"
            elif box[2] <= a:
                x, anchor = box[2], "end"
            else:
                x, anchor = (box[0] + box[2]) / 2, "middle"
            out.append(
                f'<text x="{x:.1f}" y="{box[3] - 2.5:.1f}" class="label" text-anchor="{anchor}">'
                f"{escape(text)}</text>"
            )
        return out

    def _covers(self, box: _Box, boxes: Sequence[_Box]) -> bool:
        """Whether a label would lie on another, or leave the plot."""
        floor = self.height - (self.bottom - 4 if self.axes else 2)
        if box[0] < 2 or box[2] > self.width - 2 or box[1] < 2 or box[3] > floor:
            return True
        return any(
            box[0] < o[2] and box[2] > o[0] and box[1] < o[3] and box[3] > o[1] for o in boxes
        )

    def _clash(self, box: _Box) -> float:
        return 9.0 * sum(
            box[0] - 4 < x < box[2] + 4 and box[1] - 4 < y < box[3] + 4 for x, y in self._occupied
        )


def stacked_bars(
    rows: Sequence[tuple[str, Sequence[tuple[int, str]]]],
    colours: Sequence[tuple[str, str]],
    title: str,
    width: int = 1000,
    notes: Sequence[str] = (),
) -> Markup:
    """Horizontal stacked bars, one row each, in members (not percent).

    Parameters
    ----------
    rows
        (name, [(count, tooltip) for every colour]).
    colours
        (fill, text colour) of each part.
    notes
        Words after each bar; the total when not given.
    """
    bar, gap, left, right, above = 22, 8, 340, 210, 0
    if width < 600:  # a telephone: the name stands above its bar
        left, right, above = 4, 104, 18
    height = len(rows) * (above + bar + gap) + gap
    largest = max((sum(n for n, _ in parts) for _, parts in rows), default=1) or 1
    scale = (width - left - right) / largest
    out = [
        f'<svg role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>"
    ]
    for i, (name, parts) in enumerate(rows):
        y = gap + i * (above + bar + gap) + above
        shown = name if len(name) <= 48 else name[:47] + "…"
        place = (
            f'x="{left}" y="{y - 5}" class="name"'
            if above
            else f'x="{left - 10}" y="{y + bar / 2 + 4:.0f}" class="name" text-anchor="end"'
        )
        out.append(f"<text {place}>{escape(shown)}<title>{escape(name)}</title></text>")
        x = float(left)
        for (count, tip), (fill, ink) in zip(parts, colours, strict=True):
            if not count:
                continue
            w = count * scale
            out.append(
                f'<g><title>{escape(tip)}</title><rect x="{x:.1f}" y="{y}" width="{w:.1f}" '
                f'height="{bar}" fill="{fill}" stroke="#fff"/>'
            )
            if w > 8 + 7 * len(str(count)):
                out.append(
                    f'<text x="{x + w / 2:.1f}" y="{y + bar / 2 + 4:.0f}" text-anchor="middle" '
                    f'class="count" style="fill:{ink}">{count}</text>'
                )
            out.append("</g>")
            x += w
        out.append(
            f'<text x="{x + 6:.1f}" y="{y + bar / 2 + 4:.0f}" class="tick">'
            f"{escape(notes[i]) if notes else sum(n for n, _ in parts)}</text>"
        )
    out.append("</svg>")
    return Markup("".join(out))
