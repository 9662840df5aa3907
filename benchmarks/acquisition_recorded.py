"""Recorded picks of a language model replayed with predictors that they were not made for.

    python benchmarks/acquisition_recorded.py PICKS.jsonl.gz [--ratings MARKS.csv] [--markdown OUT]

PICKS has one JSON object a line: strategy, seed, target, round, picks (objects with a name and a
reason), made in replays of the screen and targets of --config, by default
configs/acquisition_programs.toml. Nothing is asked: every pick is checked against the pool of its
round, and the same rounds are scored under each predictor:

- around the mean of the acquired: what the first paper's predictors do. A picker that prefers
  strong responders moves that mean, and the error of everything else with it;
- level estimated jointly (generalised least squares by a constant kernel): kernel ridge as it is;
- around no response: nothing that was chosen for its strength moves what is said of the others;
- with marks, and around marks that name a feature (`--ratings`): knowledge made without responses.

Rows: area of the held-out squared error against random on the same seeds and under the same
predictor, in per cent; by halves of the rounds; and how far the mean of the acquired is from that
of the held-out.
"""

from __future__ import annotations

import argparse
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise._files import read_text
from pertwise._progress import track
from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.benchmark.acquisition.config import AcquisitionConfig, Curve
from pertwise.benchmark.acquisition.loop_models import open_loop_model
from pertwise.benchmark.acquisition.replay import Replay
from pertwise.benchmark.acquisition.tables import (
    bias_table,
    curve_areas,
    mean_bias,
    round_table,
    sorted_rounds,
)
from pertwise.benchmark.acquisition.world import make_world
from pertwise.config import read_settings
from pertwise.errors import InputError
from pertwise.select.base import Pick, Selection

#: Predictors by label; settings of kernel ridge in the loop.
PREDICTORS: dict[str, dict[str, Any]] = {
    "around the mean of the acquired": {"constant": False, "ratings": False},
    "level estimated jointly": {"ratings": False},
    "around no response": {"constant": False, "centre": "zero", "ratings": False},
}
WITH_MARKS: dict[str, dict[str, Any]] = {
    "around no response, with marks": {"constant": False, "centre": "zero"},
    "level estimated jointly, with marks": {},
    "the same, around marks that name a feature": {"prior_marks": True},
}
BESIDE = ("random", "variance-reduction", "adaptive")


class Recorded:
    """The picks that stand in the file for one strategy, seed and target."""

    needs = "nothing"

    def __init__(self, name: str, rounds: dict[int, list[dict[str, str]]]) -> None:
        self.name, self.rounds = name, rounds

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The picks of this round, each of them a candidate."""
        picks = self.rounds[state.round]
        names = [p["name"] for p in picks]
        strangers = sorted(set(names) - set(state.candidates))
        if strangers or len(set(names)) != n:
            raise InputError(
                f"{self.name}, round {state.round}: {len(set(names))} different picks for {n} "
                f"places; not in the pool: {', '.join(strangers) or '-'}"
            )
        return Selection(tuple(Pick(p["name"], p.get("reason") or "-") for p in picks), self.name)


def read_picks(path: Path) -> dict[tuple[str, int, str], dict[int, list[dict[str, str]]]]:
    """(strategy, seed, target) -> round -> picks."""
    table = pd.read_json(StringIO(read_text(path, "recorded picks")), lines=True)
    found: dict[tuple[str, int, str], dict[int, list[dict[str, str]]]] = {}
    for row in table.itertuples():
        key = (str(row.strategy), int(row.seed), str(row.target))
        found.setdefault(key, {})[int(row.round)] = row.picks
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picks", type=Path)
    here = Path(__file__).parent
    parser.add_argument("--config", type=Path, default=here / "configs/acquisition_programs.toml")
    parser.add_argument("--ratings", type=Path, help="marks of these perturbations")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    args = parser.parse_args()
    recorded = read_picks(args.picks)
    config = read_settings(args.config, AcquisitionConfig)
    if args.ratings:
        config = config.model_copy(update={"ratings": (args.ratings,)})
    world = make_world(config)
    rows = dict(zip(world.names, world.embedding, strict=True))
    predictors = PREDICTORS | (WITH_MARKS if args.ratings else {})
    jobs: list[tuple[str, int, str, Strategy]] = [
        (strategy, seed, target, Recorded(strategy, rounds))
        for (strategy, seed, target), rounds in recorded.items()
    ]
    places = sorted({(seed, target) for _, seed, target in recorded})
    jobs += [(s, seed, t, parts.load("strategy", s)) for seed, t in places for s in BESIDE]
    n_rounds = min(max(rounds) for rounds in recorded.values())
    protocol = config.protocol.model_copy(update={"rounds": n_rounds})
    curves, biases = [], []
    for label, settings in predictors.items():
        make = partial(
            open_loop_model, label, {"use": "kernel-ridge", **settings}, rows, world.embedding_kind
        )
        for strategy, seed, target, picker in track(jobs, label):
            curve = Curve(
                target=target, predictor=label, strategy=strategy, initial=0, batch=20, seed=seed
            )
            records = Replay(world, curve, protocol, picker, make).run()
            curves.append(round_table(curve, records))
            biases.append(bias_table(curve, records))
    areas = curve_areas(sorted_rounds(curves))
    text = tables(areas[areas["metric"] == "mse"], mean_bias(biases), list(predictors))
    print(text)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")


def tables(areas: pd.DataFrame, bias: pd.DataFrame, predictors: list[str]) -> str:
    """The three tables in Markdown."""
    out = []
    for label in predictors:
        part = areas[areas["predictor"] == label]
        out += [f"**{label}**", "", against_random(part), ""]
    shown = bias[
        (bias["predictor"] == predictors[0]) & bias["round"].isin([1, bias["round"].max()])
    ]
    wide = shown.pivot_table(index="strategy", columns=["target", "round"], values="shift")
    wide.columns = [f"{target}, round {n}" for target, n in wide.columns]
    out += ["Root mean square distance of the mean of the acquired from that of the held-out:", ""]
    out += [markdown(wide, "{:.2f}"), ""]
    return "\n".join(out)


def against_random(areas: pd.DataFrame) -> str:
    """Area, and its halves, against random in per cent of random's, seeds averaged first."""
    mean = areas.groupby(["target", "strategy"])[["area", "area_first", "area_second"]].mean()
    random = mean.xs("random", level="strategy")
    cells: dict[str, dict[str, str]] = {}
    for (target, strategy), row in mean.iterrows():
        change = 100 * (row / random.loc[target] - 1)
        both = f"{change['area_first']:+.1f}, {change['area_second']:+.1f}"
        text = f"{row['area']:.3f}" if strategy == "random" else f"{change['area']:+.1f} ({both})"
        cells.setdefault(strategy, {})[target] = text
    table = pd.DataFrame.from_dict(cells, orient="index")
    return markdown(table.loc[sorted(table.index, key=lambda s: (s != "random", s))], "{}")


def markdown(table: pd.DataFrame, form: str) -> str:
    """A table in Markdown."""
    lines = ["| strategy | " + " | ".join(map(str, table.columns)) + " |"]
    lines.append("| --- " * (len(table.columns) + 1) + "|")
    for name, row in table.iterrows():
        cells = [form.format(v) if not isinstance(v, float) or np.isfinite(v) else "-" for v in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
