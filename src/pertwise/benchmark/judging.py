"""A blinded panel of LLM judges compares size-matched batches of two strategies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pertwise.errors import InputError
from pertwise.knowledge import Pathway
from pertwise.llm.answers import JudgeAnswer, judge_schema, tokens_for
from pertwise.llm.base import Chat, Message
from pertwise.llm.converse import converse
from pertwise.llm.loop import run_many
from pertwise.llm.templates import load_prompt

FIRST, SECOND, TIE = "first", "second", "tie"


@dataclass(frozen=True)
class Pair:
    """Two batches of equal size, of the same target, seed and round, from two strategies."""

    target: str
    predictor: str
    seed: int
    round: int
    first: str
    second: str
    first_items: tuple[str, ...]
    second_items: tuple[str, ...]

    @property
    def key(self) -> str:
        """Readable identity of the pair."""
        return (
            f"{self.target}|{self.predictor}|s{self.seed}|r{self.round}|{self.first}|{self.second}"
        )


def make_pairs(
    picks: pd.DataFrame,
    *,
    reference: str | None = None,
    rounds: Sequence[int] | None = None,
    rng: np.random.Generator,
) -> list[Pair]:
    """Pairs matched in size and iteration from the picks of a run.

    Items that both batches hold are taken out (they cannot tell the batches apart) and the larger
    rest is thinned at random to the size of the smaller; a pair with nothing left is not asked.

    Parameters
    ----------
    picks
        Table of `pick_table`.
    reference
        Compare every strategy with this one only; None = all pairs of strategies.
    """
    keys = ["target", "predictor", "seed", "round"]
    chosen = picks if rounds is None else picks[picks["round"].isin(list(rounds))]
    targets = sorted(set(chosen["target"]) - {"*"})
    shared = chosen[chosen["target"] == "*"]
    # Picks of a strategy that ignores the target stand for every target.
    chosen = (
        pd.concat([chosen[chosen["target"] != "*"], *[shared.assign(target=t) for t in targets]])
        if targets
        else chosen
    )
    pairs = []
    for key, group in chosen.groupby(keys, sort=True):
        batches = {
            s: tuple(part.sort_values("place")["perturbation"])
            for s, part in group.groupby("strategy", sort=True)
        }
        for a, b in itertools.combinations(sorted(batches), 2):
            if reference is not None and reference not in (a, b):
                continue
            if a == reference:
                a, b = b, a
            common = set(batches[a]) & set(batches[b])
            left = [x for x in batches[a] if x not in common]
            right = [x for x in batches[b] if x not in common]
            size = min(len(left), len(right))
            if size == 0:
                continue
            target, predictor, seed, number = key
            pairs.append(
                Pair(
                    target=str(target),
                    predictor=str(predictor),
                    seed=int(seed),
                    round=int(number),
                    first=a,
                    second=b,
                    first_items=_thin(left, size, rng),
                    second_items=_thin(right, size, rng),
                )
            )
    return pairs


def _thin(items: list[str], size: int, rng: np.random.Generator) -> tuple[str, ...]:
    kept = sorted(rng.choice(len(items), size=size, replace=False)) if len(items) > size else None
    return tuple(items if kept is None else [items[i] for i in kept])


@dataclass(frozen=True)
class Showing:
    """One question to one judge: which batch stands on side A, and the prompt."""

    pair: Pair
    judge: str
    side_a: str
    repeat: int
    messages: tuple[Message, ...]


def make_showings(
    pairs: Sequence[Pair],
    judges: Sequence[str],
    pathways: Mapping[str, Pathway | None],
    *,
    rng: np.random.Generator,
    swap: bool = True,
    sample: int = 30,
    context: str = "",
    context_text: str = "",
    prompt: str = "judge",
) -> list[Showing]:
    """Blinded prompts: sides randomised; with `swap` each pair is shown a second time reversed.

    Judges see the same prompts, so that they can be compared. The order of genes within a set is
    shuffled: rank would betray a strategy. `sample` genes of the pathway are shown.
    """
    template = load_prompt(prompt)
    showings: list[Showing] = []
    for pair in pairs:
        pathway = pathways.get(pair.target)
        description = {
            "name": pathway.name if pathway is not None else pair.target,
            "description": pathway.description if pathway is not None else "",
        }
        members = list(pathway.members) if pathway is not None else []
        some = sorted(
            members[i] for i in rng.permutation(len(members))[: min(sample, len(members))]
        )
        first_on_a = bool(rng.integers(2))
        orders = {
            FIRST: [pair.first_items[i] for i in rng.permutation(len(pair.first_items))],
            SECOND: [pair.second_items[i] for i in rng.permutation(len(pair.second_items))],
        }
        for repeat in range(2 if swap else 1):
            side_a = FIRST if first_on_a == (repeat == 0) else SECOND
            side_b = SECOND if side_a == FIRST else FIRST
            messages = template.render(
                pathway=description,
                sample=some,
                context=context,
                context_text=context_text,
                set_a=orders[side_a],
                set_b=orders[side_b],
            )
            showings.extend(Showing(pair, judge, side_a, repeat, messages) for judge in judges)
    return showings


def judge_tokens(showing: Showing) -> int:
    """Tokens for a verdict that gives its reasons and may name every item of both batches."""
    return 1000 + tokens_for(len(showing.pair.first_items) // 2)


def ask_judges(showings: Sequence[Showing], chats: Mapping[str, Chat]) -> pd.DataFrame:
    """Put every showing to its judge; one row each.

    Columns: pair identity, judge, repeat, side_a, preference (A, B, tie; "" when the judge gave no
    usable answer), winner (first, second, tie, ""), confidence, reasons, differentiators, problem,
    ledger_keys. A failed showing stays in the table with an empty winner.
    """
    calls = [
        partial(
            converse,
            chats[s.judge],
            s.messages,
            JudgeAnswer,
            json_schema=judge_schema(),
            answer_tokens=judge_tokens(s),
        )
        for s in showings
    ]
    rows = []
    for showing, talk in zip(showings, run_many(calls, description="judging"), strict=True):
        answer = talk.accepted
        preference = "" if answer is None else answer.preference
        other = SECOND if showing.side_a == FIRST else FIRST
        winner = {"A": showing.side_a, "B": other, "tie": TIE, "": ""}[preference]
        pair = asdict(showing.pair)
        pair.pop("first_items")
        pair.pop("second_items")
        rows.append(
            {
                "pair": showing.pair.key,
                **pair,
                "size": len(showing.pair.first_items),
                "judge": showing.judge,
                "repeat": showing.repeat,
                "side_a": showing.side_a,
                "preference": preference,
                "winner": winner,
                "confidence": np.nan if answer is None else answer.confidence,
                "reasons": "" if answer is None else "; ".join(answer.reasons),
                "differentiators": "" if answer is None else "; ".join(answer.differentiators),
                "problem": talk.turns[-1].problem,
                "ledger_keys": ",".join(r.request_key for r in talk.replies),
            }
        )
    return pd.DataFrame(rows)


def judge_votes(answers: pd.DataFrame) -> pd.DataFrame:
    """One vote per (pair, judge) from its showings.

    Both orders agree: that side. They contradict each other, or one is a tie: the one that is not a
    tie wins unless they contradict, which is a tie (the judge followed the position, not the
    genes). No usable answer: vote "".
    """
    rows = []
    identity = ["pair", "target", "predictor", "first", "second", "judge"]
    for key, group in answers.groupby(identity, sort=True):
        said = [w for w in group["winner"] if w]
        sides = {w for w in said if w != TIE}
        if not said:
            vote = ""
        elif len(sides) == 1:
            vote = sides.pop()
        else:
            vote = TIE
        consistent = len(said) < 2 or len(set(said)) == 1
        rows.append((*key, vote, len(said), consistent))
    return pd.DataFrame(rows, columns=[*identity, "vote", "n_answers", "consistent"])


def majority(votes: pd.DataFrame) -> pd.DataFrame:
    """The panel's verdict per pair: the side with more votes; equal numbers are a tie."""
    rows = []
    identity = ["pair", "target", "predictor", "first", "second"]
    for key, group in votes.groupby(identity, sort=True):
        n_first = int((group["vote"] == FIRST).sum())
        n_second = int((group["vote"] == SECOND).sum())
        n_tie = int((group["vote"] == TIE).sum())
        if n_first == n_second:
            verdict = TIE if n_first + n_second + n_tie else ""
        else:
            verdict = FIRST if n_first > n_second else SECOND
        rows.append((*key, verdict, n_first, n_second, n_tie))
    return pd.DataFrame(rows, columns=[*identity, "verdict", "n_first", "n_second", "n_tie"])


def win_rates(verdicts: pd.Series) -> dict[str, float]:
    """Wins of the first side, with standard error and a two-sided exact binomial test.

    rate = wins / (wins + losses), ties left out and counted; se = sqrt(r (1 - r) / n);
    `rate_half` counts a tie as half a win over all pairs.
    """
    wins = int((verdicts == FIRST).sum())
    losses = int((verdicts == SECOND).sum())
    ties = int((verdicts == TIE).sum())
    failed = int((verdicts == "").sum())
    n = wins + losses
    nan = float("nan")
    rate = wins / n if n else nan
    return {
        "wins": wins,
        "losses": losses,
        "ties": ties,
        "failed": failed,
        "rate": rate,
        "se": float(np.sqrt(rate * (1 - rate) / n)) if n else nan,
        "rate_half": (wins + 0.5 * ties) / (n + ties) if n + ties else nan,
        "p_binomial": float(stats.binomtest(wins, n, 0.5).pvalue) if n else nan,
    }


def position_bias(answers: pd.DataFrame) -> pd.DataFrame:
    """How often each judge prefers side A, over all its decided showings.

    Sides are randomised and swapped, so an unbiased judge chooses A half of the time whatever the
    batches are worth. Columns: judge, n (decided), share_a, se, p_binomial, contradictions (share
    of pairs shown in both orders where the judge named the same *side* both times).
    """
    rows = []
    for judge, group in answers.groupby("judge", sort=True):
        decided = group[group["preference"].isin(["A", "B"])]
        n, a = len(decided), int((decided["preference"] == "A").sum())
        both = decided.groupby("pair")["preference"].agg(["count", "nunique"])
        twice = both[both["count"] == 2]
        share = a / n if n else float("nan")
        rows.append(
            {
                "judge": judge,
                "n": n,
                "share_a": share,
                "se": float(np.sqrt(share * (1 - share) / n)) if n else float("nan"),
                "p_binomial": float(stats.binomtest(a, n, 0.5).pvalue) if n else float("nan"),
                "contradictions": float((twice["nunique"] == 1).mean())
                if len(twice)
                else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def fleiss_kappa(counts: ArrayLike) -> float:
    """Agreement of several raters beyond chance (Fleiss 1971).

    kappa = (P - Pe) / (1 - Pe); P = mean over items of (sum_j n_ij^2 - n) / (n (n - 1)),
    Pe = sum_j p_j^2 with p_j the share of all ratings in category j.

    Parameters
    ----------
    counts
        (n_items, n_categories) number of raters per category; every row sums to the same n >= 2.

    Returns
    -------
    kappa; NaN when all ratings are in one category (chance agreement is then 1).

    Raises
    ------
    pertwise.errors.InputError
        When rows have different sums or fewer than two raters.
    """
    table: NDArray[np.float64] = np.asarray(counts, dtype=np.float64)
    n = table.sum(axis=1)
    if table.size == 0 or not (n == n[0]).all() or n[0] < 2:
        raise InputError("Fleiss' kappa needs the same number (at least 2) of ratings per item")
    raters = n[0]
    observed = float((((table**2).sum(axis=1) - raters) / (raters * (raters - 1))).mean())
    share = table.sum(axis=0) / table.sum()
    chance = float((share**2).sum())
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def agreement(votes: pd.DataFrame) -> float:
    """Fleiss' kappa over pairs that every judge voted on; NaN with one judge or no such pair."""
    wide = votes[votes["vote"] != ""].pivot_table(
        index="pair", columns="vote", values="judge", aggfunc="count", fill_value=0
    )
    n_judges = votes["judge"].nunique()
    complete = wide[wide.sum(axis=1) == n_judges]
    if n_judges < 2 or complete.empty:
        return float("nan")
    return fleiss_kappa(complete.to_numpy())


def judge_tables(answers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All tables of a panel: per comparison, per target, per judge, position bias.

    "overall", "per_target": win rates of the panel's majority, of `first` against `second`;
    "per_judge": the same from one judge's votes; "position": `position_bias`; "votes", "verdicts".
    """
    votes = judge_votes(answers)
    verdicts = majority(votes)

    def rates(table: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
        rows = []
        for key, group in table.groupby(by, sort=True):
            rows.append({**dict(zip(by, key, strict=True)), **win_rates(group[column])})
        return pd.DataFrame(rows)

    overall = rates(verdicts, ["first", "second"], "verdict")
    overall["kappa"] = [
        agreement(votes[(votes["first"] == a) & (votes["second"] == b)])
        for a, b in zip(overall["first"], overall["second"], strict=True)
    ]
    return {
        "overall": overall,
        "per_target": rates(verdicts, ["first", "second", "target"], "verdict"),
        "per_judge": rates(votes, ["first", "second", "judge"], "vote"),
        "position": position_bias(answers),
        "votes": votes,
        "verdicts": verdicts,
    }


def estimate_cost(showings: Sequence[Showing], chats: Mapping[str, Chat]) -> dict[str, Any]:
    """Per judge: number of questions and, where the back end can say, tokens and money at most."""
    out: dict[str, Any] = {}
    for judge, chat in chats.items():
        requests = [
            chat.request(s.messages, json_schema=judge_schema(), answer_tokens=judge_tokens(s))
            for s in showings
            if s.judge == judge
        ]
        estimate = getattr(chat, "estimate", None)
        out[judge] = {"questions": len(requests)} if estimate is None else estimate(requests)
    return out
