"""What a question to a language model says of target, measurements and candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import Floats
from pertwise.acquire.facts import known_facts, shown_fact
from pertwise.acquire.shortlists import Shortlist
from pertwise.knowledge import Relation
from pertwise.knowledge.programs import (
    Program,
    feature_programs,
    general_programs,
    named_by,
    pathway_programs,
)
from pertwise.select.chat.acquire import Briefing, CandidateFacts, TargetFeature

#: Features of the target that get a label and a line of their own.
MOST_FEATURES = 6
#: Measured perturbations named for each end of a feature, names a row gives for its group.
EXTREMES = 6
NAMED = 5
HALLMARK = "HALLMARK_"
#: From this many robust standard deviations on a continuous response counts as one.
RESPONDS = 2.0


@dataclass(frozen=True)
class Measured:
    """Responses of the target's features that are shown.

    Attributes
    ----------
    features
        (d,) names, the most variable ones where there are more than `MOST_FEATURES`.
    columns
        (d,) their places among the target's features.
    names, values
        (n,) measured perturbations and (n, d) responses; NaN = not measured.
    n_features
        Features of the target.
    """

    features: tuple[str, ...]
    columns: tuple[int, ...]
    names: tuple[str, ...]
    values: Floats
    n_features: int

    def of(self, name: str) -> Floats | None:
        """(d,) responses of one perturbation, None where it was not measured."""
        return self.values[self.names.index(name)] if name in self.names else None


def measured(state: AcquisitionState) -> Measured:
    """What of `state.screen` the question shows; empty at a cold start."""
    screen = state.screen
    if screen is None:
        named = state.target.features or ()
        kept = tuple(named[:MOST_FEATURES])
        return Measured(kept, tuple(range(len(kept))), (), np.zeros((0, len(kept))), len(named))
    target = state.target.features or screen.features
    place = {f: i for i, f in enumerate(screen.features)}
    known = set(state.measured)
    rows = [i for i, p in enumerate(screen.perturbations) if p in known]
    y = np.asarray(screen.responses, dtype=np.float64)[rows][:, [place[f] for f in target]]
    columns = list(range(len(target)))
    if len(target) > MOST_FEATURES:
        size = np.nan_to_num(np.where(np.isfinite(y), y, 0.0) ** 2).mean(axis=0)
        columns = sorted(np.argsort(-size, kind="stable")[:MOST_FEATURES].tolist())
    return Measured(
        tuple(target[c] for c in columns),
        tuple(columns),
        tuple(screen.perturbations[i] for i in rows),
        y[:, columns],
        len(target),
    )


def brief(state: AcquisitionState, shown: Measured, relations: Mapping[str, Relation]) -> Briefing:
    """Target, base rates, who moved it, and what the modules did."""
    features = []
    for j, name in enumerate(shown.features):
        program = _program(state, name)
        y = shown.values[:, j]
        features.append(
            TargetFeature(
                label=f"F{j + 1}",
                name=name,
                definition="" if program is None else program.definition,
                plus="" if program is None else program.plus,
                base=base_rate(y),
                extremes=extremes(shown.names, y),
            )
        )
    return Briefing(
        features=tuple(features),
        more_features=max(shown.n_features - len(shown.features), 0) if features else 0,
        meaning=_meaning(state),
        modules=_modules(shown, relations),
        rounds_left=state.rounds_left,
    )


def _program(state: AcquisitionState, feature: str) -> Program | None:
    """What the screen says of its feature, else the shipped program that its name holds."""
    table = None if state.screen is None else state.screen.feature_table
    if table is not None and feature in table.index:
        return feature_programs([feature], table)[0]
    shipped = {p.name: p for p in general_programs("genes", state.knowledge)}
    name = named_by(feature, list(shipped))
    if name is not None:
        return shipped[name]
    if state.knowledge is None:
        return None
    sets = {n.removeprefix(HALLMARK).replace("_", " "): n for n in state.knowledge.pathway_names()
            if n.startswith(HALLMARK)}  # fmt: skip
    name = named_by(feature, list(sets))
    if name is None:
        return None
    found = pathway_programs(state.knowledge, [sets[name]])[0]
    genes = ", ".join(found.up)
    # What its name says it is about; which way the score of this screen points is not known.
    return Program(found.key, feature, f"genes like those of {sets[name]} ({genes})")


def _meaning(state: AcquisitionState) -> str:
    """What a value and a missing value mean."""
    if state.screen is None:
        return ""
    meta = state.screen.meta
    text = str(meta.get("note") or "response to the knock-down minus control")
    unit = str(meta.get("unit") or "")
    if unit and not meta.get("note"):
        text += f" ({unit})"
    return f"{text}; - = not measured, which says nothing about the response"


def is_labels(y: Floats) -> bool:
    """Whether the values are labels -1, 0 and 1."""
    known = y[np.isfinite(y)]
    return bool(len(known)) and bool(np.isin(known, (-1.0, 0.0, 1.0)).all())


def base_rate(y: Floats) -> str:
    """How often and how far a feature moved, of (n,) values; "" where none is known."""
    known = y[np.isfinite(y)]
    if not len(known):
        return ""
    limit, lacking = 0.5, "not labelled"
    if not is_labels(y):
        lacking = "not measured"
        limit = RESPONDS * float(np.median(np.abs(known))) / 0.6745
    up, down = int((known > limit).sum()), int((known < -limit).sum())
    text = f"{up} of {len(known)} measured up, {down} down"
    if not is_labels(y):
        text += f" (beyond {limit:.2g}), mean {known.mean():+.2g}, sd {known.std():.2g}"
    missing = len(y) - len(known)
    return text + (f"; {missing} {lacking}" if missing else "")


def extremes(names: Sequence[str], y: Floats) -> str:
    """Who moved a feature most, up and down."""
    order = [int(i) for i in np.argsort(-np.nan_to_num(y), kind="stable")]
    up = [f"{names[i]} {y[i]:+.2g}" for i in order[:EXTREMES] if y[i] > 0]
    down = [f"{names[i]} {y[i]:+.2g}" for i in order[::-1][:EXTREMES] if y[i] < 0]
    ends = [f"up {', '.join(up)}" if up else "", f"down {', '.join(down)}" if down else ""]
    return "; ".join(e for e in ends if e)


def _modules(shown: Measured, relations: Mapping[str, Relation]) -> tuple[str, ...]:
    """One line a module with measured genes: how many, mean of each feature, the most extreme."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(shown.names):
        module = relations[name].module if name in relations else ""
        if module:
            groups.setdefault(module, []).append(i)
    lines = []
    for module, rows in sorted(groups.items()):
        y = shown.values[rows]
        means = responses(np.array([_mean(column) for column in y.T]))
        size = np.nan_to_num(y**2).sum(axis=1)
        top = shown.names[rows[int(size.argmax())]]
        lines.append(f"{module}: {len(rows)} measured, {means}; largest {top}")
    return tuple(lines)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def responses(values: Floats | None) -> str:
    """(d,) responses in words: `F1 +0.8 F2 -`."""
    if values is None:
        return ""
    return " ".join(
        f"F{j + 1} {v:+.2g}" if np.isfinite(v) else f"F{j + 1} -" for j, v in enumerate(values)
    )


def with_groups(
    rows: Mapping[str, CandidateFacts], state: AcquisitionState, short: Shortlist, shown: Measured
) -> dict[str, CandidateFacts]:
    """The rows with whom they speak for, their nearest measured, prediction and other facts."""
    names = state.candidates
    listed = [names[j] for j in short.listed]
    table = known_facts(listed, state.screen, state.knowledge, state.target.features, state.facts)
    out = dict(rows)
    for j in short.listed:
        group = short.groups.get(j, [])
        near = []
        for m, alike in short.nearest.get(j, []):
            found = responses(shown.of(state.measured[m]))
            near.append(f"{state.measured[m]} {alike:.2f}" + (f" ({found})" if found else ""))
        facts = (shown_fact(str(c), v) for c, v in table.loc[names[j]].items())
        out[names[j]] = replace(
            out[names[j]],
            speaks_for=tuple(names[g] for g in group[:NAMED]),
            n_speaks_for=len(group),
            nearest=tuple(near),
            prediction=_prediction(state, [j, *group], shown),
            facts=tuple(f for f in facts if f),
        )
    return out


def _prediction(state: AcquisitionState, group: Sequence[int], shown: Measured) -> str:
    """Mean prediction of a group for the features shown, ± the root of its mean u(p)."""
    if state.prediction is None:
        return ""
    mean = state.prediction[list(group)][:, list(shown.columns)].astype(np.float64).mean(axis=0)
    text = responses(mean)
    if state.uncertainty is not None:
        u = state.uncertainty.to_numpy(dtype=np.float64)[list(group)]
        text += f" ± {np.sqrt(u.mean()):.2g}"
    return text
