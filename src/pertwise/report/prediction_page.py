"""prediction.html: predicted responses, what they rest on, and how far to trust them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from pertwise._io import write_text_atomic
from pertwise.prediction.explaining import NAMED, Explanation
from pertwise.prediction.predicting import Predicted
from pertwise.prediction.standing import LOWER_IS_BETTER, SHOWN
from pertwise.report.page import input_facts, render_page, version_facts
from pertwise.report.style import COLOURS

#: Rows of the overview; more are in prediction.csv.
MAX_ROWS = 200
_UP, _DOWN = (213, 94, 0), (0, 114, 178)


def write_page(found: Predicted, out: str | os.PathLike[str]) -> Path:
    """Write prediction.html into the folder `out`, atomically."""
    path = Path(out) / "prediction.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, render_prediction(found))
    return path


def render_prediction(found: Predicted) -> str:
    """The whole page as text; names and reasons are escaped."""
    names = found.prediction.perturbations
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    fallbacks = int((found.prediction.support["fallback"] != "").sum())
    return render_page(
        "prediction.html.j2",
        title=f"Predicted response: {shown}",
        simulated=found.simulated,
        found=found,
        lead=_lead(found),
        tiles=_tiles(found, fallbacks),
        trusted=found.standing is not None and found.standing.verdict == "better",
        scores=_scores(found),
        rows=_overview(found)[:MAX_ROWS],
        more=max(0, len(names) - MAX_ROWS),
        parts=[_part(e, found) for e in found.explanations],
        facts=_facts(found),
        record=json.dumps(found.record, indent=1, ensure_ascii=False, default=str),
    )


def _lead(found: Predicted) -> str:
    where = f" in {found.context}" if found.context else ""
    n = len(found.prediction.perturbations)
    text = (
        f"{n} perturbation{'s' if n != 1 else ''} predicted{where} by “{found.method}” from "
        f"{found.n_train} measured ones, {len(found.prediction.features)} features."
    )
    return f"{text} Unit: {found.unit}." if found.unit else text


def _tiles(found: Predicted, fallbacks: int) -> list[tuple[str, str]]:
    tiles = [(str(len(found.prediction.perturbations)), "predicted")]
    if fallbacks:
        tiles.append((str(fallbacks), "answered by a fallback"))
    standing = found.standing
    if standing is not None:
        row = standing.summary.loc[standing.decisive]
        if row["baseline"] > 0 and standing.verdict != "baseline":
            change = 100 * row["difference"] / row["baseline"]
            error = "squared error" if standing.decisive == "mse" else "correlation"
            tiles.append((f"{change:+.0f} %", f"{error} against the {standing.baseline}"))
        tiles.append((_sig(standing.summary.loc["cosine", "method"]), "held-out cosine"))
        if np.isfinite(standing.coverage):
            tiles.append((f"{100 * standing.coverage:.0f} %", "covered by 90 % intervals"))
    else:
        tiles.append(("not checked", "quality on this screen"))
    if found.repairs:
        tiles.append((str(len(found.repairs)), "repairs of answers"))
    return tiles


def _scores(found: Predicted) -> list[dict[str, str]]:
    rows = []
    standings = () if found.standing is None else (found.standing, *found.further)
    told = [(s, *each) for s in standings for each in s.summary.iterrows()]
    for standing, metric, row in told:
        lower = str(metric) in LOWER_IS_BETTER
        sure = row["high"] < 0 or row["low"] > 0
        good = (row["difference"] < 0) == lower
        rows.append(
            {
                "words": f"{SHOWN[str(metric)]}: {standing.setting}",
                "method": _sig(row["method"]),
                "baseline": _sig(row["baseline"]),
                "difference": f"{row['difference']:+.2g} ({row['low']:+.2g} to {row['high']:+.2g})",
                "verdict": "not distinguishable" if not sure else "better" if good else "worse",
            }
        )
    return rows


def _overview(found: Predicted) -> list[dict[str, Any]]:
    prediction = found.prediction
    measured = set(found.record["settings"]["hidden"])
    rows = []
    for i, name in enumerate(prediction.perturbations):
        mean = prediction.mean[i].astype(np.float64)
        top = np.argsort(-np.abs(mean), kind="stable")[:5]
        spread = None if prediction.spread is None else float(
            np.sqrt((prediction.spread[i].astype(np.float64) ** 2).mean())
        )  # fmt: skip
        rows.append(
            {
                "name": name,
                "length": float(np.sqrt((mean**2).sum())),
                "spread": spread,
                "top": ", ".join(
                    f"{prediction.features[j]} {'↑' if mean[j] > 0 else '↓'}"
                    for j in top
                    if mean[j]
                ),
                "support": int(prediction.support["n_support"].iloc[i]),
                "fallback": str(prediction.support["fallback"].iloc[i]),
                "measured": name in measured,
            }
        )
    return rows


def _part(e: Explanation, found: Predicted) -> dict[str, Any]:
    return {
        "e": e,
        "named": e.neighbours_from == NAMED,
        "anchor": "gene-" + "".join(c if c.isalnum() else "-" for c in e.perturbation),
        "bars": _bars(e.top, e.perturbation),
        "legend": _bar_legend(e.top),
        "bar_words": _bar_words(e),
        "heat": _heat(e) if len(e.neighbours) else None,
        "neighbours": [
            {k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in row.items()}
            for row in e.neighbours.to_dict("records")
        ],
        "agreement": _agreement(e),
        "failures": _failures(e, found),
        "checked": found.standing is not None,
    }


def _agreement(e: Explanation) -> str:
    n = len(e.neighbours)
    if n < 2:
        return f"{n} neighbour: nothing to compare, so agreement says nothing here."
    degree = next(
        words
        for least, words in ((0.6, "agree well"), (0.3, "agree in part"), (-np.inf, "hardly agree"))
        if np.nan_to_num(e.weighted_agreement) > least
    )
    return (
        f"The {n} neighbours {degree}: mean pairwise cosine of their measured responses "
        f"{e.agreement:.2f}, {e.weighted_agreement:.2f} by weight; standard deviation among them "
        f"{e.disagreement:.3g} (root mean square over features)."
    )


def _failures(e: Explanation, found: Predicted) -> str:
    if found.standing is None:
        return "Not known: without cross-validation no measured perturbation was ever held out."
    if not len(e.neighbours):
        return "No neighbour, so none whose prediction could have failed."
    n = int(e.neighbours["cv_difference"].notna().sum())
    if not len(e.failures):
        return f"None: each of the {n} neighbours was predicted better than by the training mean."
    names = "; ".join(
        f"{row.neighbour} (squared error {row.cv_mse:.3g}, {row.cv_difference:+.2g} against the "
        f"training mean, cosine {row.cv_cosine:.2f})"
        for row in e.failures.itertuples()
    )
    worse = int((e.neighbours["cv_difference"] > 0).sum())
    return (
        f"{worse} of {n} neighbours were predicted worse than by the training mean when they were "
        f"held out. Worst: {names}."
    )


def _bar_words(e: Explanation) -> str:
    top = e.top
    text = f"The {len(top)} features with the largest predicted change. "
    if top["spread"].isna().all():
        return text + "This method states no spread: there are no error bars to show."
    sure = int(((top["low"] > 0) | (top["high"] < 0)).sum())
    text += (
        "Bars: 90 % interval of the response that a measurement would show (sampling noise "
        f"included); {sure} of {len(top)} intervals leave out zero. "
        "The largest of many predicted values are picked, so their sizes lean high."
    )
    if top["measured"].notna().any():
        known = top[top["measured"].notna()]
        inside = int(known["measured"].between(known["low"], known["high"]).sum())
        text += f" Measured (hidden for this): {inside} of {len(known)} lie within their bar."
    return text


def _bar_legend(top: pd.DataFrame) -> list[tuple[str, str]]:
    legend = [
        (COLOURS["blue"], "predicted, with 90 % interval"),
        (COLOURS["grey"], "training mean (the same for every perturbation)"),
    ]
    if top["neighbour_mean"].notna().any():
        legend.append((COLOURS["orange"], "weighted mean of the neighbours"))
    if top["measured"].notna().any():
        legend.append((COLOURS["vermilion"], "measured"))
    return legend


def _bars(top: pd.DataFrame, name: str) -> Markup:
    """Dots with whiskers, one line a feature."""
    width, left, right, line = 900, 190, 20, 20
    height = line * len(top) + 44
    columns = ["predicted", "low", "high", "training_mean", "neighbour_mean", "measured"]
    values = top[columns].to_numpy(dtype=float)
    reach = float(np.nanmax(np.abs(values))) * 1.05 if np.isfinite(values).any() else 1.0
    reach = reach or 1.0

    def x(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (width - left - right)

    out = [
        f'<svg role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape('Predicted response of ' + name)}</title>"
    ]
    base = line * len(top) + 8
    from pertwise.report.svg import ticks

    for tick in ticks(-reach, reach, 6):
        out.append(
            f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{base}" '
            f'class="{"axis" if tick == 0 else "grid"}"/>'
            f'<text x="{x(tick):.1f}" y="{base + 15}" class="tick" text-anchor="middle">'
            f"{tick:g}</text>"
        )
    out.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 4}" class="name" '
        'text-anchor="middle">change against control</text>'
    )
    for i, row in enumerate(top.to_dict("records")):
        y = 4 + line * i + line / 2
        tip = f"{row['feature']}: predicted {row['predicted']:.3g}"
        if np.isfinite(row["spread"]):
            tip += f", 90 % interval {row['low']:.3g} to {row['high']:.3g}"
        tip += f"; training mean {row['training_mean']:.3g}"
        if np.isfinite(row["measured"]):
            tip += f"; measured {row['measured']:.3g}"
        out.append(
            f'<g><title>{escape(tip)}</title><text x="{left - 10}" y="{y + 4:.1f}" class="name" '
            f'text-anchor="end">{escape(_short(row["feature"], 26))}</text>'
        )
        if np.isfinite(row["spread"]):
            out.append(
                f'<line x1="{x(row["low"]):.1f}" x2="{x(row["high"]):.1f}" y1="{y:.1f}" '
                f'y2="{y:.1f}" stroke="{COLOURS["blue"]}" stroke-width="2" stroke-opacity=".55"/>'
            )
        for key, colour in (
            ("training_mean", COLOURS["grey"]),
            ("neighbour_mean", COLOURS["orange"]),
        ):
            if np.isfinite(row[key]):
                out.append(
                    f'<line x1="{x(row[key]):.1f}" x2="{x(row[key]):.1f}" y1="{y - 6:.1f}" '
                    f'y2="{y + 6:.1f}" stroke="{colour}" stroke-width="2.5"/>'
                )
        out.append(
            f'<circle cx="{x(row["predicted"]):.1f}" cy="{y:.1f}" r="4.2" '
            f'fill="{COLOURS["blue"]}"/>'
        )
        if np.isfinite(row["measured"]):
            a, d = x(row["measured"]), 5
            out.append(
                f'<path d="M{a:.1f} {y - d:.1f}L{a + d:.1f} {y:.1f}L{a:.1f} {y + d:.1f}'
                f'L{a - d:.1f} {y:.1f}Z" fill="none" stroke="{COLOURS["vermilion"]}" '
                'stroke-width="2"/>'
            )
        out.append("</g>")
    out.append("</svg>")
    return Markup("".join(out))


def _heat(e: Explanation) -> Markup:
    """Prediction and neighbours (rows) against the top features (columns)."""
    bold = ' font-weight="650"'
    # Bold letters are wider: the name gives way, "(predicted)" must stay readable.
    names = [f"{_short(e.perturbation, 12)} (predicted)", *e.neighbours["neighbour"]]
    features = list(e.top["feature"])
    left, cell, tall, top = 190, 28, 20, 6
    gap = 6
    width = left + cell * len(features) + 130
    bottom = 16 + int(6.6 * min(22, max((len(f) for f in features), default=1)))
    height = top + tall * len(names) + gap + bottom
    reach = float(np.nanmax(np.abs(e.heat))) if np.isfinite(e.heat).any() else 1.0
    reach = reach or 1.0
    out = [
        f'<svg role="img" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape('Neighbours of ' + e.perturbation)}</title>"
    ]
    for i, name in enumerate(names):
        y = top + tall * i + (gap if i else 0)
        out.append(
            f'<text x="{left - 10}" y="{y + 14}" class="name" text-anchor="end"'
            f"{bold if not i else ''}>{escape(_short(name, 28))}</text>"
        )
        for j, feature in enumerate(features):
            value = float(e.heat[i, j])
            words = "not measured" if np.isnan(value) else f"{value:.3g}"
            out.append(
                f'<rect x="{left + cell * j}" y="{y}" width="{cell - 1}" height="{tall - 1}" '
                f'fill="{_colour(value / reach)}"><title>{escape(f"{name}, {feature}: {words}")}'
                "</title></rect>"
            )
    base = top + tall * len(names) + gap + 10
    for j, feature in enumerate(features):
        a = left + cell * j + cell / 2 + 4
        out.append(
            f'<text transform="translate({a:.0f} {base}) rotate(-90)" class="tick" '
            f'text-anchor="end">{escape(_short(feature, 22))}</text>'
        )
    scale = left + cell * len(features) + 26
    for k in range(11):
        share = 1 - k / 5
        out.append(
            f'<rect x="{scale}" y="{top + 9 * k}" width="14" height="9" fill="{_colour(share)}"/>'
        )
    for k, text in ((0, f"+{reach:.2g}"), (5, "0"), (10, f"−{reach:.2g}")):
        out.append(f'<text x="{scale + 20}" y="{top + 9 * k + 8}" class="tick">{text}</text>')
    out.append("</svg>")
    return Markup("".join(out))


def _colour(share: float) -> str:
    """White at 0, vermilion up, blue down; grey when not measured."""
    if np.isnan(share):
        return COLOURS["pale"]
    end = _UP if share > 0 else _DOWN
    # A root brings out the small values, which are most of them.
    strength = min(1.0, abs(share)) ** 0.7
    return "#" + "".join(f"{round(255 + (c - 255) * strength):02x}" for c in end)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _sig(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"


def _facts(found: Predicted) -> Sequence[tuple[str, str]]:
    record = found.record
    more = {"screen": f"; {record['source']}"} if record["source"] else {}
    facts = input_facts(record["inputs"], **more)
    method = record["method"]
    facts.append(
        ("method", method["name"] + (f" ({method['use']})" if ":" in method["use"] else ""))
    )
    if method["settings"]:
        shown = ", ".join(f"{k} = {v}" for k, v in method["settings"].items())
        facts.append(("settings", shown))
    if method["llm"]:
        facts.append(("language model", str(method["llm"])))
    facts.append(("seed", str(record["settings"]["seed"])))
    facts.append(version_facts(record["versions"]))
    return facts


__all__ = ["render_prediction", "write_page"]
