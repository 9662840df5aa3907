"""Scripted judges with known preferences and known position bias are recovered."""

import json

import numpy as np
import pandas as pd
import pytest

from pertwise.benchmark import judging as J
from pertwise.errors import InputError
from pertwise.llm.base import ChatReply, ChatRequest, Message


def picks_of(batches, target="t", rounds=(1,), seeds=(0,), predictor="kernel"):
    rows = []
    for strategy, names in batches.items():
        for seed in seeds:
            for number in rounds:
                for place, name in enumerate(names, 1):
                    rows.append(
                        {
                            "target": target,
                            "predictor": predictor,
                            "strategy": strategy,
                            "seed": seed,
                            "round": number,
                            "place": place,
                            "perturbation": f"{name}-{seed}-{number}" if seeds != (0,) else name,
                        }
                    )
    return pd.DataFrame(rows)


class FunctionChat:
    """A Chat whose answers come from a function of (set A, set B); for statistics only."""

    def __init__(self, decide):
        self.decide, self.seen = decide, []

    def request(self, messages, **settings):
        settings.pop("json_schema", None)
        return ChatRequest(
            protocol="openai", endpoint="http://x", model="m", messages=messages, **settings
        )

    async def complete(self, request):
        text = request.messages[-1].content
        self.seen.append(text)
        a = text.split("<set_a>")[1].split("</set_a>")[0].split()
        b = text.split("<set_b>")[1].split("</set_b>")[0].split()
        preference = self.decide(a, b)
        answer = {"preference": preference, "confidence": 0.8, "reasons": ["r"]}
        return ChatReply(text=json.dumps(answer), finish_reason="stop")


def pairs(n_seeds=20, n_rounds=5):
    table = picks_of(
        {"good": ["G1", "G2", "G3"], "plain": ["P1", "P2", "P3"]},
        seeds=tuple(range(n_seeds)),
        rounds=tuple(range(1, n_rounds + 1)),
    )
    return J.make_pairs(table, rng=np.random.default_rng(0))


def ask(decide, many=None, swap=True):
    chosen = many or pairs()
    judges = decide if isinstance(decide, dict) else {"judge": decide}
    showings = J.make_showings(chosen, list(judges), {}, rng=np.random.default_rng(1), swap=swap)
    chats = {name: FunctionChat(f) for name, f in judges.items()}
    return J.ask_judges(showings, chats), chats


def prefers_good(a, b):
    return "A" if any(x.startswith("G") for x in a) else "B"


def test_pairs_match_size_and_iteration_and_drop_common_items():
    table = picks_of({"a": ["X", "Y", "Z", "W"], "b": ["X", "Q"]})
    (pair,) = J.make_pairs(table, rng=np.random.default_rng(0))
    assert pair.second_items == ("Q",)
    assert len(pair.first_items) == 1
    assert set(pair.first_items) <= {"Y", "Z", "W"}


def test_identical_batches_are_not_asked():
    table = picks_of({"a": ["X", "Y"], "b": ["Y", "X"]})
    assert J.make_pairs(table, rng=np.random.default_rng(0)) == []


def test_reference_is_always_the_second_side():
    table = picks_of({"a": ["X"], "b": ["Y"], "c": ["Z"]})
    found = J.make_pairs(table, reference="a", rng=np.random.default_rng(0))
    assert [(p.first, p.second) for p in found] == [("b", "a"), ("c", "a")]


def test_target_free_picks_stand_for_every_target():
    table = pd.concat(
        [picks_of({"random": ["X"]}, target="*"), picks_of({"llm": ["Y"]}, target="heme")]
    )
    (pair,) = J.make_pairs(table, rng=np.random.default_rng(0))
    assert (pair.target, pair.first, pair.second) == ("heme", "llm", "random")


def test_known_preference_is_recovered_and_blinded():
    answers, chats = ask(prefers_good)
    tables = J.judge_tables(answers)
    row = tables["overall"].iloc[0]
    assert (row["first"], row["wins"], row["losses"], row["ties"]) == ("good", 100, 0, 0)
    assert row["rate"] == 1.0
    assert row["p_binomial"] == pytest.approx(2 * 0.5**100)
    assert all("good" not in t and "plain" not in t for t in chats["judge"].seen)


def test_position_bias_is_measured_and_cancelled():
    """A judge that always says A: half of the showings each side, no vote for either strategy."""
    answers, _ = ask(lambda a, b: "A")
    tables = J.judge_tables(answers)
    bias = tables["position"].iloc[0]
    assert bias["share_a"] == 1.0
    assert bias["contradictions"] == 1.0
    assert bias["p_binomial"] < 1e-20
    row = tables["overall"].iloc[0]
    assert (row["wins"], row["losses"], row["ties"]) == (0, 0, 100)
    assert row["rate_half"] == 0.5


def test_partial_bias_and_preference_are_told_apart():
    """Says A with probability q whatever the sets, else prefers 'good': share_a = 1/2 + q/2."""
    rng = np.random.default_rng(5)
    q = 0.4

    def decide(a, b):
        return "A" if rng.random() < q else prefers_good(a, b)

    answers, _ = ask(decide, pairs(40, 10))
    bias = J.position_bias(answers).iloc[0]
    n = bias["n"]
    assert abs(bias["share_a"] - 0.7) < 4 * np.sqrt(0.21 / n)
    row = J.judge_tables(answers)["overall"].iloc[0]
    # Agreeing showings: good on A (always "A") and good on B (says B with 1 - q) -> vote good.
    assert row["losses"] == 0
    share_good = row["wins"] / (row["wins"] + row["ties"])
    assert abs(share_good - 0.6) < 4 * np.sqrt(0.24 / 400)


def test_vote_rules():
    def vote(*winners):
        table = pd.DataFrame(
            [
                {
                    "pair": "p",
                    "target": "t",
                    "predictor": "k",
                    "first": "a",
                    "second": "b",
                    "judge": "j",
                    "winner": w,
                }
                for w in winners
            ]
        )
        row = J.judge_votes(table).iloc[0]
        return row["vote"], bool(row["consistent"])

    assert vote("first", "first") == ("first", True)
    assert vote("first", "second") == ("tie", False)
    assert vote("first", "tie") == ("first", False)
    assert vote("", "second") == ("second", True)
    assert vote("", "") == ("", True)


def test_majority_of_three_judges():
    judges = {
        "one": prefers_good,
        "two": prefers_good,
        "three": lambda a, b: "B" if prefers_good(a, b) == "A" else "A",
    }
    answers, _ = ask(judges)
    tables = J.judge_tables(answers)
    assert tables["overall"].iloc[0]["wins"] == 100
    per_judge = tables["per_judge"].set_index("judge")
    assert per_judge.loc["three", "losses"] == 100
    # Every pair has votes (2, 1): P = (4 + 1 - 3) / 6 = 1/3; shares 2/3, 1/3: Pe = 5/9.
    assert tables["overall"].iloc[0]["kappa"] == pytest.approx((1 / 3 - 5 / 9) / (1 - 5 / 9))


def test_fleiss_kappa_equals_the_published_example():
    """Fleiss 1971's layout as worked on many textbook pages: 10 items, 14 raters, kappa 0.210."""
    table = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert J.fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_perfect_and_degenerate_agreement():
    assert J.fleiss_kappa([[3, 0], [0, 3]]) == pytest.approx(1.0)
    assert np.isnan(J.fleiss_kappa([[3, 0], [3, 0]]))
    with pytest.raises(InputError, match="same number"):
        J.fleiss_kappa([[3, 0], [1, 1]])


def test_win_rates_by_hand():
    found = J.win_rates(pd.Series(["first"] * 8 + ["second"] * 2 + ["tie"] * 2 + [""]))
    assert (found["wins"], found["losses"], found["ties"], found["failed"]) == (8, 2, 2, 1)
    assert found["rate"] == 0.8
    assert found["se"] == pytest.approx(np.sqrt(0.16 / 10))
    assert found["rate_half"] == pytest.approx(9 / 12)
    # 2 * (C(10,8) + C(10,9) + C(10,10)) / 2^10
    assert found["p_binomial"] == pytest.approx(2 * 56 / 1024)


def test_unusable_answers_stay_in_the_table():
    class Silent(FunctionChat):
        async def complete(self, request):
            return ChatReply(text="I would rather not compare them.", finish_reason="stop")

    showings = J.make_showings(pairs(1, 1), ["j"], {}, rng=np.random.default_rng(0))
    answers = J.ask_judges(showings, {"j": Silent(None)})
    assert list(answers["winner"]) == ["", ""]
    assert (answers["problem"] != "").all()
    assert J.judge_tables(answers)["overall"].iloc[0]["failed"] == 1


def test_prompts_are_reproducible():
    a = J.make_showings(pairs(2, 2), ["j"], {}, rng=np.random.default_rng(3))
    b = J.make_showings(pairs(2, 2), ["j"], {}, rng=np.random.default_rng(3))
    assert [s.messages for s in a] == [s.messages for s in b]
    assert isinstance(a[0].messages[0], Message)
