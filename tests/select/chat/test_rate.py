"""Marks of a chat model against the scripted server (no real model), with both protocols."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from pertwise.errors import BudgetError, InputError, ReplayMissError
from pertwise.knowledge.programs import Program, strength
from pertwise.llm import open_chat
from pertwise.llm.answers import MarksAnswer
from pertwise.llm.loop import run_sync
from pertwise.llm.parse import AnswerError, parse_answer
from pertwise.select.chat.marks import Sheet
from pertwise.select.chat.rate import ChatRater
from pertwise.select.chat.sheets import FILL, MOST_ROWS
from pertwise.testing.raters import CHECKS, check_rater
from pertwise.testing.server import Answer, Fault, ScriptedServer, listed, marks_json

FAST = {"backoff_s": 0.001, "backoff_max_s": 0.002, "attempts": 2, "timeout_s": 5}
NAMES = [f"GENE{i:02d}" for i in range(12)]
PROGRAMS = (
    Program("isr", "integrated stress response", "targets of ATF4", ("ASNS",)),
    Program("foxo", "FOXO", "targets of FOXO", ("IRS2",), ("HK2",)),
)
KEYS = ["isr", "foxo", "strength"]
OLD = {"OLD07": "GENE07", "GENE07": "GENE07"}


def resolve(names):
    return {n: OLD[n] for n in names if n in OLD}


def rows(asked, names=None):
    shown = listed(asked.first) if names is None else names
    return json.loads(marks_json(shown, listed(asked.first, "programs")))["marks"]


def good(asked):
    return json.dumps({"marks": rows(asked)})


def truth(names=NAMES):
    made = json.loads(marks_json(names, KEYS))["marks"]
    return np.array([[row[k] for k in KEYS] for row in made])


def changed(change, every=False):
    """Misbehave on the first question (or always): `change` gets the rows, gives what is sent."""

    def script(asked):
        if asked.turn > 1 and not every:
            return good(asked)
        sent = change({r["name"]: r for r in rows(asked)})
        return sent if isinstance(sent, Answer) else json.dumps({"marks": sent})

    return script


def edit(name, **marks):
    return lambda table: [r | (marks if n == name else {}) for n, r in table.items()]


def without(*names):
    return lambda table: [r for n, r in table.items() if n not in names]


def renamed(old, new):
    return lambda table: [r | ({"name": new} if n == old else {}) for n, r in table.items()]


def transposed(table):
    return [{"name": k, **{n: r[k] for n, r in table.items()}} for k in KEYS]


def text(words):
    return lambda asked: words if asked.turn == 1 else good(asked)


@dataclass
class Case:
    """A script and what must come of asking for all of NAMES."""

    script: object
    repairs: dict = field(default_factory=dict)
    requests: int = 1
    re_ask: str = ""
    #: Names whose marks stay empty: whole rows, or (name, key).
    empty: tuple = ()


CASES = {
    "well-behaved": Case(good),
    "prose and a fence around it": Case(lambda a: f"Gladly:\n```json\n{good(a)}\n```\nDone."),
    "rows as an object of names": Case(
        lambda a: json.dumps({"ratings": {r.pop("name"): r for r in rows(a)}})
    ),
    "marks nested, names of programs as keys, numbers as text": Case(
        lambda a: json.dumps(
            {
                "rows": [
                    {
                        "gene": r["name"],
                        "marks": {
                            "Integrated stress response": f"{r['isr']:+}",
                            "FOXO": str(r["foxo"]).replace("-", "\u2212"),
                            "STRENGTH": r["strength"],
                        },
                    }
                    for r in rows(a)
                ]
            }
        )
    ),
    "missing rows": Case(
        changed(without("GENE03", "GENE09")),
        {"missing": 2},
        2,
        "these rows lack marks: GENE",
    ),
    "missing rows every time": Case(
        changed(without("GENE03"), every=True),
        {"missing": 3, "left_empty": 1},
        3,
        "GENE03 (all programs)",
        ("GENE03",),
    ),
    "a mark that is null": Case(
        changed(edit("GENE03", isr=None)), {"missing": 1}, 2, "GENE03 (isr)"
    ),
    "a mark that is no number": Case(
        changed(edit("GENE03", isr="strong", foxo=[1], strength=True)),
        {"invalid": 3},
        2,
        "no number: GENE03, isr, GENE03, foxo, GENE03, strength",
    ),
    "a mark that is not finite, every time": Case(
        changed(edit("GENE03", isr="nan", foxo="1e999"), every=True),
        {"invalid": 6, "left_empty": 1},
        3,
        "GENE03 (isr, foxo)",
        (("GENE03", "isr"), ("GENE03", "foxo")),
    ),
    "one row outside the scale": Case(
        changed(edit("GENE03", isr=7)),
        {"out_of_scale": 1},
        2,
        "GENE03 (all programs); a mark is outside the scale (at most 3 in size): GENE03, isr",
    ),
    "one row outside the scale every time": Case(
        changed(edit("GENE03", isr=7), every=True),
        {"out_of_scale": 3, "left_empty": 1},
        3,
        "",
        ("GENE03",),
    ),
    "another scale": Case(
        changed(
            lambda t: [{k: v * 30 if k in KEYS else v for k, v in r.items()} for r in t.values()]
        ),
        None,
        2,
        "another scale",
    ),
    "strength below 0 in one row": Case(
        changed(edit("GENE03", strength=-2)),
        {"swapped": 1},
        2,
        "columns or names may be swapped: GENE03, strength",
    ),
    "names and programs transposed": Case(
        changed(transposed), {"swapped": 3, "missing": 12}, 2, "may be swapped: isr, foxo, strength"
    ),
    "numbers without keys": Case(
        changed(lambda t: [[r["name"], r["isr"], r["foxo"], r["strength"]] for r in t.values()]),
        {"unreadable_row": 12, "missing": 12},
        2,
        "some rows hold no name or no keys",
    ),
    "unknown names beside the rows": Case(
        changed(lambda t: [*t.values(), {"name": "TP53", **dict.fromkeys(KEYS, 1)}]),
        {"out_of_list": 1},
    ),
    "an unknown name in the place of one": Case(
        changed(renamed("GENE03", "TP53")),
        {"out_of_list": 1, "missing": 1},
        2,
        "not in the list: TP53",
    ),
    "an unknown program": Case(changed(edit("GENE03", apoptosis=2)), {"unknown_program": 1}),
    "a name twice, the same": Case(changed(lambda t: [*t.values(), t["GENE03"]]), {"duplicate": 1}),
    "a name twice, otherwise": Case(
        changed(lambda t: [*t.values(), t["GENE03"] | {"isr": 0.25}]),
        {"duplicate": 1},
        2,
        "marked twice with different marks: GENE03",
    ),
    "alias": Case(changed(renamed("GENE07", "OLD07")), {"alias": 1}),
    "other spelling": Case(changed(renamed("GENE07", " gene-07 ")), {"case": 1}),
    "lone surrogates": Case(
        changed(lambda t: [*t.values(), {"name": "GENE\ud800", **dict.fromkeys(KEYS, 1)}]),
        {"out_of_list": 1},
    ),
    "prose only": Case(
        text("GENE00 will raise the stress response."),
        {"unparsable": 1},
        2,
        "no complete JSON object",
    ),
    "a refusal": Case(text("I'm sorry, but I cannot help."), {"refusal": 1}, 2, "You declined"),
    "a refusal by flag": Case(text(Answer("No.", finish="refusal")), {"refusal": 1}, 2),
    "nothing": Case(text(""), {"empty": 1}, 2, "your answer was empty"),
    "the same key twice in a row": Case(
        lambda a: good(a) if a.turn > 1 else good(a).replace('"isr": ', '"isr": 9, "isr": ', 1),
        {"unparsable": 1},
        2,
    ),
    "cut off once": Case(
        lambda a: good(a) if a.turn > 1 else Answer(good(a)[:70], finish="length"),
        {"truncated": 1},
        2,
        "cut off at the token limit",
    ),
    "no call succeeds": Case(
        lambda a: Fault(500), {"call_failed": 1, "left_empty": 12}, 2, "", tuple(NAMES)
    ),
}


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("name", CASES)
def test_case(name, protocol, tmp_path):
    case = CASES[name]
    path = tmp_path / "ledger.sqlite"
    with ScriptedServer(case.script) as server:
        address = server.address(protocol)
        rater = ChatRater(open_chat(address, ledger=path, **FAST), resolve=resolve)
        marked = rater.rate(NAMES, PROGRAMS, context="K562")
        assert server.count == case.requests
        assert case.re_ask in server.asked[-1].last
        paid = server.paid
        if "call_failed" not in (case.repairs or {}):
            again = ChatRater(open_chat(address, ledger=path, **FAST), resolve=resolve)
            again.rate(NAMES, PROGRAMS, context="K562")
            assert server.paid == paid, "an answered exchange was paid twice"
    if case.repairs is not None:
        assert marked.repair_counts() == case.repairs
    wanted = truth()
    for gone in case.empty:
        row, column = (gone, slice(None)) if isinstance(gone, str) else (gone[0], gone[1])
        at = column if isinstance(column, slice) else KEYS.index(column)
        wanted[NAMES.index(row), at] = np.nan
    np.testing.assert_array_equal(marked.ratings.marks, wanted)
    assert marked.ratings.programs == ("integrated stress response", "FOXO", "strength")
    # Replay from the ledger alone, the server gone: the same, repairs included.
    replay = ChatRater(open_chat(address, ledger=path, replay=True), resolve=resolve)
    replayed = replay.rate(NAMES, PROGRAMS, context="K562")
    np.testing.assert_array_equal(replayed.ratings.marks, marked.ratings.marks)
    assert replayed.repair_counts() == marked.repair_counts()


def test_only_the_rows_that_lack_something_are_asked_again():
    with ScriptedServer(changed(without("GENE03", "GENE09"))) as server:
        ChatRater(open_chat(server.openai(), **FAST)).rate(NAMES, PROGRAMS)
        last = server.asked[1].last
    end = last.split("nothing else: ")[1]
    assert sorted(end.split(", ")) == ["GENE03", "GENE09"]
    assert "Give these 2 rows only" in last


def test_what_was_marked_validly_is_not_overwritten():
    def script(asked):
        if asked.turn == 1:
            return json.dumps({"marks": without("GENE03")({r["name"]: r for r in rows(asked)})})
        return json.dumps({"marks": [{"name": n, **dict.fromkeys(KEYS, 0)} for n in NAMES]})

    with ScriptedServer(script) as server:
        marks = ChatRater(open_chat(server.openai(), **FAST)).rate(NAMES, PROGRAMS).ratings
    wanted = truth()
    wanted[3] = 0
    np.testing.assert_array_equal(marks.marks, wanted)


def test_an_answer_that_never_fits_is_halved():
    def script(asked):
        n = len(listed(asked.first))
        return good(asked) if n <= 3 else Answer(good(asked)[:60], finish="length")

    with ScriptedServer(script) as server:
        rater = ChatRater(open_chat(server.openai(), **FAST), max_reasks=0)
        marked = rater.rate(NAMES, PROGRAMS)
        sizes = [len(listed(a.first)) for a in server.asked]
    np.testing.assert_array_equal(marked.ratings.marks, truth())
    assert sorted(sizes) == [3, 3, 3, 3, 6, 6, 12]
    assert marked.repair_counts() == {"truncated": 3}


# -- what is asked ---------------------------------------------------------------------------


def test_the_question_says_cells_programs_scale_and_facts():
    with ScriptedServer(good) as server:
        rater = ChatRater(
            open_chat(server.openai(), **FAST), facts=lambda n: f"facts of <b> | {n}", reasons=True
        )
        marked = rater.rate(NAMES, PROGRAMS, context="K562")
        asked = server.asked[0]
    assert "BCR-ABL1" in asked.first
    assert "isr | integrated stress response | targets of ATF4 | ASNS rise | -3 to 3" in asked.first
    assert "foxo | FOXO | targets of FOXO | IRS2 rise; HK2 fall | -3 to 3" in asked.first
    assert "| 0 to 3\n</programs>" in asked.first
    assert "GENE03 | facts of ‹b> / GENE03" in asked.first
    fields = asked.schema["properties"]["marks"]["items"]["properties"]
    assert list(fields) == ["name", *KEYS, "reason"]
    assert sorted(fields["name"]["enum"]) == NAMES
    assert marked.ratings.reasons["GENE03"] == "scripted: the letters of GENE03"


def test_rows_of_a_question_fit_the_answer():
    names = [f"GENE{i:03d}" for i in range(100)]
    with ScriptedServer(good) as server:
        for most, rows_ in ((700, None), (4096, None), (100_000, MOST_ROWS)):
            chat = open_chat(server.openai(), max_tokens=most)
            rater = ChatRater(chat)
            questions = rater.questions(names, PROGRAMS)
            size = max(len(q.names) for q in questions)
            requests = rater.first_requests(questions)
            assert all(r.answer_tokens <= FILL * most for r in requests)
            assert rows_ is None or size == rows_
            assert sorted(n for q in questions for n in q.names) == names
            with_reasons = ChatRater(chat, reasons=True).questions(names, PROGRAMS)
            assert len(with_reasons) >= len(questions)
        with pytest.raises(InputError, match="fewer programs or a smaller batch"):
            ChatRater(open_chat(server.openai(), max_tokens=100)).questions(names, PROGRAMS)
        rater = ChatRater(open_chat(server.openai(), max_tokens=1000), batch_size=50)
        with pytest.raises(InputError, match="50 rows of 3 programs need about"):
            rater.questions(names, PROGRAMS)
        assert server.count == 0


def test_marks_depend_neither_on_order_nor_on_batches():
    found = []
    with ScriptedServer(good) as server:
        for size, names, seed in ((None, NAMES, 0), (5, NAMES[::-1], 0), (1, NAMES, 3)):
            rater = ChatRater(open_chat(server.openai(), **FAST), batch_size=size, seed=seed)
            found.append(rater.rate(names, PROGRAMS).ratings)
        shown = [listed(a.first) for a in server.asked]
    for other in found[1:]:
        assert other.names == found[0].names
        np.testing.assert_array_equal(other.marks, found[0].marks)
    assert shown[0] != sorted(shown[0])


def test_the_shuffle_is_seeded_and_new_for_each_replicate():
    with ScriptedServer(good) as server:
        chat = open_chat(server.openai(), **FAST)
        orders = [q.names for q in ChatRater(chat, replicates=3).questions(NAMES, PROGRAMS)]
        assert orders == [
            q.names for q in ChatRater(chat, replicates=3).questions(NAMES[::-1], PROGRAMS)
        ]
        other = [q.names for q in ChatRater(chat, seed=1).questions(NAMES, PROGRAMS)]
    assert len({*orders, *other}) == 4


def test_replicates_give_mean_spread_and_agreement():
    """The second asker gives the opposite sign for FOXO and one unit more of strength."""

    def script(asked):
        table = rows(asked)
        if asked.number == 2:
            table = [r | {"foxo": -r["foxo"], "strength": min(3, r["strength"] + 1)} for r in table]
        return json.dumps({"marks": table})

    with ScriptedServer(script) as server:
        chat = open_chat(server.openai(), concurrency=1, **FAST)
        marked = ChatRater(chat, replicates=2).rate(NAMES, PROGRAMS)
        assert server.count == 2
    first = truth()
    second = first * [1, -1, 1]
    second[:, 2] = np.minimum(3, first[:, 2] + 1)
    np.testing.assert_allclose(marked.ratings.marks, (first + second) / 2)
    np.testing.assert_allclose(marked.ratings.spread, np.abs(first - second) / np.sqrt(2))
    table = marked.agreement.set_index("program")
    assert table.loc["integrated stress response", "spearman"] == pytest.approx(1)
    assert table.loc["FOXO", "spearman"] == pytest.approx(-1)
    assert (table["n"] == len(NAMES)).all()


DEEP = "[" * 900 + "]" * 900
ODD = [
    "null", "[]", "{}", "7", '"x"', "true", "[null]", '[{"name": ""}]', '[{"name": 3, "isr": 1}]',
    '{"GENE00": 1}', '{"GENE00": {"isr": {"isr": 1}}}', '[{"name": "GENE00", "marks": [1, 2, 3]}]',
    '[{"name": "GENE00", "isr": 1' + "0" * 400 + "}]", f'[{{"name": "GENE00", "isr": {DEEP}}}]',
    '[{"name": "GENE00", "": 1, "name ": 2}]', '[[["GENE00"]]]',
    '[{"gene": "GENE00", "isr": "1_0"}]',
    '[{"name": "GENE00", "isr": "0x1"}, "GENE01", 5]', '[{"name": "isr", "GENE00": 1, "TP53": 1}]',
]  # fmt: skip


@pytest.mark.parametrize("inner", ODD)
def test_odd_answers_mark_nothing_and_break_nothing(inner):
    with ScriptedServer(lambda a: f'{{"marks": {inner}}}') as server:
        chat = open_chat(server.openai(), **FAST)
        marked = ChatRater(chat, max_reasks=1).rate(NAMES[:2], PROGRAMS)
    assert np.isnan(marked.ratings.marks).all()
    assert marked.repair_counts()["left_empty"] == 2


def test_damaged_answers_never_leave_the_scale():
    rng = np.random.default_rng(5)
    sound = json.dumps({"marks": json.loads(marks_json(NAMES, KEYS))["marks"]})
    pieces = [*'{}[]",:-.0123456789eE', "null", "\ud800", "NaN", "1e999", "isr", "GENE07"]
    for _ in range(400):
        text = sound
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(text)))
            text = text[:at] + pieces[rng.integers(len(pieces))] + text[at + rng.integers(0, 9) :]
        sheet = Sheet(NAMES, (*PROGRAMS, strength()))
        try:
            problem = sheet.read(parse_answer(text, MarksAnswer))
        except AnswerError:
            continue
        given = np.isfinite(sheet.marks)
        assert (np.abs(sheet.marks[given]) <= 3).all()
        assert (sheet.marks[:, 2][given[:, 2]] >= 0).all()
        assert bool(problem) == bool(sheet.lacking)


# -- money -----------------------------------------------------------------------------------


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with ScriptedServer(good) as server:
        poor = open_chat(server.openai(), ledger=path, budget_tokens=4000, run="rate", **FAST)
        with pytest.raises(BudgetError, match="budget reached"):
            ChatRater(poor, batch_size=2).rate(NAMES, PROGRAMS)
        paid = server.paid
        assert 0 < paid < 6
        rich = open_chat(server.openai(), ledger=path, run="rate", **FAST)
        ChatRater(rich, batch_size=2).rate(NAMES, PROGRAMS)
        assert server.paid == 6
        replay = open_chat(server.openai(), ledger=path, replay=True)
        with pytest.raises(ReplayMissError):
            ChatRater(replay, batch_size=2).rate([*NAMES, "NEW"], PROGRAMS)
        assert server.paid == 6


def test_estimates_send_nothing_and_price_a_hundred_rows():
    with ScriptedServer(good) as server:
        prices = {"scripted": {"input": 1.0, "output": 10.0}}
        rater = ChatRater(open_chat(server.openai(), prices=prices), replicates=2)
        questions = rater.questions(NAMES, PROGRAMS)
        requests = rater.first_requests(questions)
        words = rater.cost_of_100(questions)
        assert server.count == 0
    prompt, answer = (int(w) for w in words.replace("tokens,", "").split() if w.isdigit()
                      and w != "100")  # fmt: skip
    assert answer == round(100 / 24 * sum(r.answer_tokens for r in requests))
    assert f"${(prompt + 10 * answer) / 1e6:.4f}" in words


# -- conformance -----------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("script", ["well-behaved", "one row outside the scale every time"])
def test_conformance(check, script):
    with ScriptedServer(CASES[script].script) as server:
        chat = open_chat(server.openai(), **FAST)
        check(lambda: ChatRater(chat, batch_size=5), NAMES, (*PROGRAMS, strength()))


class Broken:
    """Marks nothing and says nothing of it."""

    name = "broken"

    def rate(self, names, programs, *, context="", context_text=""):
        from pertwise.knowledge.ratings import Ratings
        from pertwise.select.rater import Marked

        empty = np.full((len(names), len(programs)), np.nan)
        return Marked((Ratings.from_marks(names, [p.name for p in programs], empty),))


def test_the_suite_finds_a_broken_rater():
    with pytest.raises(AssertionError):
        check_rater(Broken, NAMES, (*PROGRAMS, strength()))


def test_settings_that_mean_nothing_are_refused():
    with ScriptedServer() as server:
        chat = open_chat(server.openai())
        for bad in ({"replicates": 0}, {"batch_size": 0}, {"max_reasks": -1}):
            with pytest.raises(InputError, match=next(iter(bad))):
                ChatRater(chat, **bad)
        run_sync(chat.close())
