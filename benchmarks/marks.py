"""What marks are worth on a screen, and what is left of it under controls for memorisation.

    python benchmarks/marks.py SCREEN --ratings MARKS.csv --knowledge DIR [--folds RECORDED.json.gz]
        [--second AGAIN.csv] [--other OTHER_LINE.csv] [--methods multi-kernel stacked]

Rows: a method without marks; with them; with marks dealt to wrong perturbations (five deals); with
the strength alone and with all but it; with the marks of a second asking (`--second`) and of
another cell line (`--other`, with how many of this screen's perturbations it marks); and marks
without any knowledge. Then squared error saved on thirds of the perturbations by number of GO
terms, a proxy for how much is written about a gene: if a gain came from remembered papers on
well-studied genes it would be there. Splits: five folds, or those of a file of recorded answers, so
that lists and marks are measured on the same. Differences to the method without marks are paired
over perturbations (95 % bootstrap interval).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise._progress import track
from pertwise.evaluate.given import split_given
from pertwise.evaluate.metrics import cosine, squared_error
from pertwise.evaluate.retrieval import retrieval
from pertwise.evaluate.splits import split_folds
from pertwise.evaluate.statistics import bootstrap_mean
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import STRENGTH, Ratings, read_ratings
from pertwise.screen import Screen, read_screen

DEALS = 5


def scored(
    screen: Screen, knowledge: Knowledge, method: str, splits: Sequence, ratings: object
) -> pd.DataFrame:
    """Squared error (summed over features), cosine and retrieval of every held-out perturbation."""
    place = {p: i for i, p in enumerate(screen.perturbations)}
    out = []
    for split in splits:
        model = parts.load("predictor", method, ratings=ratings)
        found = model.fit(screen.of_perturbations(split.train), knowledge).predict(split.test)
        truth = screen.responses[[place[p] for p in split.test]].astype(float)
        mean = found.mean.astype(float)
        out.append(
            pd.DataFrame(
                {
                    "error": squared_error(truth, mean),
                    "cosine": cosine(truth, mean),
                    "retrieval": retrieval(mean, truth).score,
                },
                index=list(split.test),
            )
        )
    return pd.concat(out).groupby(level=0).mean()


def variants(args: argparse.Namespace) -> dict[str, tuple[Ratings, ...]]:
    """Label -> tables of marks; the deals are averaged later."""
    own = read_ratings(args.ratings)
    found = {"+ marks": own}
    found |= {f"+ marks dealt {i}": tuple(r.dealt(i) for r in own) for i in range(DEALS)}
    if all(STRENGTH in r.programs for r in own):
        found["+ strength alone"] = tuple(r.of([STRENGTH]) for r in own)
        rest = [[p for p in r.programs if p != STRENGTH] for r in own]
        found["+ all but strength"] = tuple(r.of(p) for r, p in zip(own, rest, strict=True))
    if args.second:
        found["+ marks of a second asking"] = read_ratings(args.second)
    if args.other:
        other = read_ratings(args.other)
        shared = {n for r in own for n in r.names} & {n for r in other for n in r.names}
        found[f"+ marks for another line ({len(shared)} here)"] = other
    return found


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("screen")
    parser.add_argument("--ratings", required=True)
    parser.add_argument("--knowledge", required=True)
    parser.add_argument("--folds")
    parser.add_argument("--second")
    parser.add_argument("--other")
    parser.add_argument("--methods", nargs="+", default=["multi-kernel"])
    args = parser.parse_args()
    screen, knowledge = read_screen(args.screen), Knowledge.open(args.knowledge)
    names = screen.perturbations
    splits = split_given(names, args.folds) if args.folds else split_folds(names, 5, 1, 0)
    tables = variants(args)
    for method in args.methods:
        made = {"without marks": scored(screen, knowledge, method, splits, False)}
        for label, ratings in track(list(tables.items()), f"{method}"):
            made[label] = scored(screen, knowledge, method, splits, ratings)
        deals = [made.pop(f"+ marks dealt {i}") for i in range(DEALS)]
        made[f"+ marks dealt to wrong genes (mean of {DEALS})"] = sum(deals) / DEALS
        made["marks alone"] = scored(screen, knowledge, "marks", splits, tables["+ marks"])
        print(f"\n### {method}\n")
        print("| | squared error | cosine | retrieval | error saved (95 % interval) |")
        print("| --- | --- | --- | --- | --- |")
        base = made["without marks"]
        for label, table in made.items():
            mean = table.mean()
            saved = ""
            if table is not base:
                low, high = _interval(base["error"] - table["error"])
                share = 100 / base["error"].mean()
                saved = (
                    f"{share * (base['error'] - table['error']).mean():.1f} % "
                    f"({share * low:.1f} to {share * high:.1f})"
                )
            print(
                f"| {label} | {mean['error']:.2f} | {mean['cosine']:.3f} | "
                f"{mean['retrieval']:.3f} | {saved} |"
            )
        _by_annotation(knowledge, base["error"], made["+ marks"]["error"])


def _interval(differences: pd.Series) -> tuple[float, float]:
    found = bootstrap_mean(differences.to_numpy(), np.random.default_rng(0))
    return found.low, found.high


def _by_annotation(knowledge: Knowledge, before: pd.Series, after: pd.Series) -> None:
    """Error saved on thirds by the number of GO terms."""
    terms = pd.Series({n: len(knowledge.cards([n])[n].go) for n in before.index})
    third = pd.qcut(terms.rank(method="first"), 3, labels=["fewest", "middle", "most"])
    print("\n| GO terms | genes | error before | error saved |\n| --- | --- | --- | --- |")
    for label in ("fewest", "middle", "most"):
        own = third.index[third == label]
        b, a = before[own].mean(), after[own].mean()
        print(
            f"| {label} ({terms[own].min()} to {terms[own].max()}) | {len(own)} | {b:.2f} | "
            f"{100 * (b - a) / b:.1f} % |"
        )


if __name__ == "__main__":
    main()
