"""What marks are worth on a screen, and what is left of it under controls for memorisation.

    python benchmarks/marks.py SCREEN --ratings MARKS.csv --knowledge DIR [--folds RECORDED.json.gz]
        [--second AGAIN.csv] [--other OTHER_LINE.csv [--same OURS=THEIRS ...]]
        [--anonymous CODES.csv] [--shuffled SHUFFLED.csv] [--methods multi-kernel stacked]

Rows: a method without marks; with them; with marks dealt to wrong perturbations; with the strength
alone and with all but it; with the marks of a second asking (`--second`), of another cell line
(`--other`, with how many of this screen's perturbations it marks), made of anonymous codes with
annotations (`--anonymous`, a table of `pertwise rate --anonymise`) and of names beside the
annotation of another gene (`--shuffled`, of `--shuffle-annotations`); and marks without any
knowledge. The last column is the share of the gain that is left. Then, with `--other`, the
perturbations that both tables mark: their marks exchanged for those asked for the other line, in
the programs that both have (`--same` names those that are called otherwise). Then squared error
saved on thirds of the perturbations by number of GO terms and by length of all annotation, proxies
for how much is written about a gene: a gain that came from remembered papers on well-studied genes
would be there. Splits: five folds, or those of a file of recorded answers, so that lists and marks
are measured on the same. Differences to the method without marks are paired over perturbations
(95 % bootstrap interval).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

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
from pertwise.knowledge.annotations import annotation_length
from pertwise.knowledge.ratings import STRENGTH, Ratings, read_ratings
from pertwise.screen import Screen, read_screen


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


def variants(args: argparse.Namespace, own: tuple[Ratings, ...]) -> dict[str, tuple[Ratings, ...]]:
    """Label -> tables of marks; the deals are averaged later."""
    found = {"+ marks": own}
    found |= {f"+ marks dealt {i}": tuple(r.dealt(i) for r in own) for i in range(args.deals)}
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
    if args.anonymous:
        found["+ marks of anonymous codes with annotations"] = read_ratings(args.anonymous)
    if args.shuffled:
        found["+ marks of names beside another's annotation"] = read_ratings(args.shuffled)
    return found


def exchanged(own: Ratings, other: Ratings, same: dict[str, str]) -> tuple[Ratings, Ratings, list]:
    """(own, own with the other line's marks where there are some, whose those are), in the programs
    that both tables have."""
    theirs = {p: same.get(p, p) for p in own.programs if same.get(p, p) in other.programs}
    mine = own.of(list(theirs))
    both = sorted(set(own.names) & set(other.names))
    marks = mine.marks.copy()
    marks[[mine.names.index(n) for n in both]] = other.of(list(theirs.values())).take(both)
    return mine, replace(mine, marks=marks), both


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
    parser.add_argument("--anonymous")
    parser.add_argument("--shuffled")
    parser.add_argument("--same", nargs="*", default=[], metavar="OURS=THEIRS")
    parser.add_argument("--deals", type=int, default=5, help="times marks are dealt wrongly")
    args = parser.parse_args()
    screen, knowledge = read_screen(args.screen), Knowledge.open(args.knowledge)
    names = screen.perturbations
    splits = split_given(names, args.folds) if args.folds else split_folds(names, 5, 1, 0)
    own = read_ratings(args.ratings)
    tables = variants(args, own)
    for method in args.methods:

        def score(ratings: object, method: str = method) -> pd.DataFrame:
            return scored(screen, knowledge, method, splits, ratings)

        made = {"without marks": score(False)}
        for label, ratings in track(list(tables.items()), f"{method}"):
            made[label] = score(ratings)
        deals = [made.pop(f"+ marks dealt {i}") for i in range(args.deals)]
        if deals:
            label = f"+ marks dealt to wrong genes (mean of {len(deals)})"
            made[label] = sum(deals) / len(deals)
        made["marks alone"] = score(own, "marks")
        print(f"\n### {method}\n")
        print(
            "| | squared error | cosine | retrieval | error saved (95 % interval) | of the gain |"
        )
        print("| --- | --- | --- | --- | --- | --- |")
        base = made["without marks"]
        gain = (base["error"] - made["+ marks"]["error"]).mean()
        for label, table in made.items():
            mean = table.mean()
            left = (base["error"] - table["error"]).mean() / gain
            saved = "| |" if table is base else f"{_saved(base, table)} | {100 * left:.0f} % |"
            print(
                f"| {label} | {mean['error']:.2f} | {mean['cosine']:.3f} | "
                f"{mean['retrieval']:.3f} | {saved}"
            )
        if args.other:
            same = dict(pair.split("=", 1) for pair in args.same)
            mine, swapped, both = exchanged(own[0], read_ratings(args.other)[0], same)
            _exchange(score, base, mine, swapped, both)
        for what, size in (
            ("GO terms", lambda n: len(knowledge.cards([n])[n].go)),
            ("characters of annotation", lambda n: annotation_length(knowledge, n)),
        ):
            _by_size(what, size, base["error"], made["+ marks"]["error"])


def _saved(base: pd.DataFrame, table: pd.DataFrame) -> str:
    low, high = _interval(base["error"] - table["error"])
    share = 100 / base["error"].mean()
    mean = (base["error"] - table["error"]).mean()
    return f"{share * mean:.1f} % ({share * low:.1f} to {share * high:.1f})"


def _exchange(
    score: Callable[[object], pd.DataFrame],
    base: pd.DataFrame,
    mine: Ratings,
    swapped: Ratings,
    both: list,
) -> None:
    """Error saved on the perturbations whose marks were exchanged for those of another line."""
    before = base.loc[[n for n in both if n in base.index]]
    print(f"\n| {len(before)} genes that both lines mark, {len(mine.programs)} programs | ", end="")
    print("squared error | cosine | error saved (95 % interval) |\n| --- | --- | --- | --- |")
    print(f"| without marks | {before['error'].mean():.2f} | {before['cosine'].mean():.3f} | |")
    for label, ratings in (("asked for this line", mine), ("asked for the other line", swapped)):
        table = score((ratings,)).loc[before.index]
        print(
            f"| {label} | {table['error'].mean():.2f} | {table['cosine'].mean():.3f} | "
            f"{_saved(before, table)} |"
        )


def _interval(differences: pd.Series) -> tuple[float, float]:
    found = bootstrap_mean(differences.to_numpy(), np.random.default_rng(0))
    return found.low, found.high


def _by_size(what: str, size: Callable[[str], int], before: pd.Series, after: pd.Series) -> None:
    """Error saved on thirds by how much is annotated."""
    terms = pd.Series({n: size(n) for n in before.index})
    third = pd.qcut(terms.rank(method="first"), 3, labels=["fewest", "middle", "most"])
    print(f"\n| {what} | genes | error before | error saved |\n| --- | --- | --- | --- |")
    for label in ("fewest", "middle", "most"):
        own = third.index[third == label]
        b, a = before[own].mean(), after[own].mean()
        print(
            f"| {label} ({terms[own].min()} to {terms[own].max()}) | {len(own)} | {b:.2f} | "
            f"{100 * (b - a) / b:.1f} % |"
        )


if __name__ == "__main__":
    main()
