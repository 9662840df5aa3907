"""Tasks as rows: what training prompts name, what a file may hold, and the live selectors."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.screen import make_screen, read_screen
from pertwise.select.base import Query
from pertwise.select.chat.recipes import edit
from pertwise.testing import ScriptedServer
from pertwise.train.gold import gold_answer
from pertwise.train.grading import Grader
from pertwise.train.held_out import Held, Words, hold_out
from pertwise.train.making import Making, make_tasks
from pertwise.train.rewards import reward
from pertwise.train.tasks import Task, read_tasks, write_tasks

KINDS = ("edit", "pick", "rate", "acquire")


def words_in(tasks):
    text = "\n".join(m.content for t in tasks for m in t.messages)
    return set(re.findall(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", text)), text


@pytest.fixture(scope="module")
def screens(simulated):
    screen, knowledge = simulated
    rng = np.random.default_rng(0)
    keep = [i for i in range(len(screen)) if i % 7]
    noise = rng.normal(0, 0.1, size=(len(keep), screen.n_features))
    names = [screen.obs["perturbation"].iloc[i] for i in keep]
    first = make_screen(screen.responses, screen.obs["perturbation"], screen.features, context="L1")
    second = make_screen(screen.responses[keep] + noise, names, screen.features, context="L2")
    return (first, second), knowledge


@pytest.mark.parametrize("split", ["gene", "family", "line"])
def test_no_training_prompt_names_what_is_held_out(screens, split):
    both, knowledge = screens
    kinds = KINDS if split == "gene" else ("edit", "acquire")
    made = make_tasks(both, knowledge, kinds, split=split, n_folds=4, how=Making(n_rounds=2))
    held = hold_out(both, knowledge, split=split, n_folds=4)
    train = [t for t in made if t.split == "train"]
    words, text = words_in(train)
    assert held.test
    for name in held.test | held.quiet:
        assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text), name
    assert not words & set(held.words)
    test = [t for t in made if t.split == "test"]
    assert {t.kind for t in train} == {t.kind for t in test} == set(kinds)
    if split == "line":
        assert {t.context for t in test} == held.test
        assert not {t.context for t in train} & held.test
    else:
        assert {t.subject for t in test} - {""} == held.test
        # The same perturbations are held out in both lines, and nothing held out is offered.
        assert len({t.context for t in test}) == 2
        assert not held.test & {n for t in test if t.kind in ("edit", "pick") for n in t.available}
        assert not held.quiet & {n for t in train for n in (*t.available, t.subject)}


@pytest.fixture(scope="module")
def genes_known(shared_data, tmp_path_factory):
    small = tmp_path_factory.mktemp("sources")
    for name in ("gene_alias.tsv.gz", "gene_summary.tsv.gz", "string_v12_notext_weighted.tsv.gz"):
        (small / name).symlink_to(shared_data / "knowledge" / name)
    return Knowledge.open(build_knowledge(small, tmp_path_factory.mktemp("known") / "knowledge"))


@pytest.mark.shared
@pytest.mark.parametrize("line", ["k562", "rpe1"])
def test_no_leak_on_recorded_screens(shared_data, genes_known, line):
    knowledge = genes_known
    screen = read_screen(shared_data / "screens" / f"replogle_{line}_pcs50.h5ad")
    made = make_tasks(screen, knowledge, ("edit",))
    held = hold_out([screen], knowledge)
    words, _ = words_in(t for t in made if t.split == "train")
    assert len(held.test) == 60
    assert held.test < held.quiet
    spelled = {a for c in knowledge.cards(sorted(held.test)).values() for a in c.aliases}
    measured = set(screen.perturbations) - held.quiet
    assert not words & (held.quiet | {a for a in spelled - measured if a in held.words})
    assert sum(t.split == "test" for t in made) == 60


def test_neighbourhood_and_doubles_are_quiet(screens):
    both, knowledge = screens
    wide = hold_out(both, knowledge, near=0.0)
    none = hold_out(both, knowledge, near=None)
    assert none.test == wide.test
    assert none.quiet <= wide.quiet
    assert len(wide.quiet) > len(none.quiet)


@settings(max_examples=150)
@given(
    words=st.lists(st.text("AB1-+( )", min_size=1, max_size=5), max_size=6),
    text=st.text("AB1-+( )x", max_size=30),
)
def test_names_are_found_as_an_alternation_would(words, text):
    words = [w for w in words if re.search("[A-Z0-9]", w)]
    listed = "|".join(map(re.escape, sorted(set(words), key=lambda w: (-len(w), w))))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])")
    assert any(Words(words).places(text)) == bool(words and pattern.search(text))
    held = Held("gene", 0, frozenset(), frozenset(), tuple(words))
    assert not words or not pattern.search(held.mask(text).replace("another one", "?"))


def test_thousands_of_names_are_all_found():
    words = Words(f"G{i}" for i in range(20_000))
    text = " ".join(f"G{i}" for i in range(10_000, 60_000))
    assert sum(1 for _ in words.places(text)) == 10_000


def test_double_under_another_name_is_quiet():
    class Twins:
        """Knows that B2 is B, and that E shares a promoter with A."""

        drugs = None

        def identity(self, names):
            return {n: {"B2": "B"}.get(n, n) for n in names}

        def families(self, names):
            return {n: {"E": "A"}.get(n, n) for n in names}

        def resolve(self, names):
            return type("R", (), {"approved": {n: n for n in names}})()

        def cards(self, names):
            card = type("C", (), {"known": True, "aliases": ("OLD1", "and", "X")})
            return dict.fromkeys(names, card)

        def graph_names(self):
            return ()

    names = ["A", "B", "B2", "C", "D", "E", "A+D"]
    screen = make_screen(np.eye(7), names, [f"f{i}" for i in range(7)])
    for fold in range(3):
        held = hold_out([screen], Twins(), n_folds=3, fold=fold)
        if "B" in held.test or "B2" in held.test:
            assert {"B", "B2"} <= held.quiet
        if "A" in held.test:
            assert {"A", "E", "A+D"} <= held.quiet
        assert "OLD1" in held.words
        assert "and" not in held.words


def test_prompts_are_those_of_the_live_selector(simulated):
    screen, knowledge = simulated
    task = next(t for t in make_tasks(screen, knowledge, near=None) if t.split == "test")
    with ScriptedServer() as server:
        rows = screen.of_perturbations(task.available)
        selector = edit(rows, knowledge, llm=f"m@{server.url}")
        query = Query(task.subject, task.context)
        selector.select(query, sorted(task.available), 25)
        sent = server.asked[0].messages
    assert [m["content"] for m in sent] == [m.content for m in task.messages]


def test_same_tasks_for_any_order_of_rows(simulated):
    screen, knowledge = simulated
    turned = screen.take(np.arange(len(screen))[::-1])
    one, other = (make_tasks(s, knowledge, ("edit", "acquire")) for s in (screen, turned))
    assert [t.model_dump_json() for t in one] == [t.model_dump_json() for t in other]


def test_marks_need_programs(simulated):
    screen, knowledge = simulated
    plain = make_screen(screen.responses, screen.obs["perturbation"],
                        [f"PC{i}" for i in range(screen.n_features)])  # fmt: skip
    with pytest.raises(InputError, match="leave out the kind 'rate'"):
        make_tasks(plain, knowledge, ("rate",))


def test_names_that_hold_a_held_out_name_are_quiet():
    names = [*(f"G{i}" for i in range(8)), "G0-G1", "X1-G2"]
    screen = make_screen(np.eye(10), names, [f"f{i}" for i in range(10)])
    for fold in range(4):
        held = hold_out([screen], None, n_folds=4, fold=fold)
        assert ("X1-G2" in held.quiet) == bool({"G2", "X1-G2"} & held.test)
        assert ("G0-G1" in held.quiet) == bool({"G0", "G1", "G0-G1"} & held.test)


def test_programs_with_like_names_have_keys_of_their_own():
    names = [f"G{i}" for i in range(9)]
    features = ["10-unfolded protein response and more", "11-unfolded protein response and more"]
    screen = make_screen(np.random.default_rng(0).normal(size=(9, 2)), names, features)
    task = make_tasks(screen, None, ("rate",), n_folds=3)[0]
    keys = [p["key"] for p in task.extra["programs"]]
    assert len(set(keys)) == 3
    assert reward(task, gold_answer(task, Grader.of(screen)), Grader.of(screen)).total > 0.99


def sample(**more):
    given = {
        "id": "t", "kind": "edit", "subject": "S", "context": "K562", "shown": ["A"],
        "allowed": ["B"], "messages": [{"role": "user", "content": "?"}],
    }  # fmt: skip
    return {**given, **more}


def test_round_trip_and_plain_json(tmp_path):
    task = Task.model_validate(sample(extra={"max_edits": 2}))
    path = tmp_path / "tasks.jsonl"
    write_tasks(path, [task])
    assert read_tasks(path) == [task]
    assert json.loads(path.read_text())["shown"] == ["A"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        json.dumps(sample(kind="other")),
        json.dumps(sample(shown=["A", "A"])),
        json.dumps(sample(shown=["B"])),
        json.dumps(sample(allowed=["S"])),
        json.dumps(sample(allowed=[])),
        json.dumps(sample(subject="")),
        json.dumps(sample(messages=[])),
        json.dumps(sample(messages=[{"role": "assistant", "content": "x"}])),
        json.dumps(sample(surplus=1)),
        json.dumps(sample(id="")),
        json.dumps(sample(shown=[1])),
        '{"id":"\\ud800"}',
        "[" * 100_000,
        json.dumps(sample(extra={"x": 1}))[:-1].replace('"x": 1', '"x": NaN'),
    ],
)
def test_hostile_line_is_named(tmp_path, line):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(sample()) + "\n\n" + line + "\n")
    with pytest.raises(InputError, match=r"tasks\.jsonl line 3 is no task"):
        read_tasks(path)


def test_twice_and_nothing(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text((json.dumps(sample()) + "\n") * 2)
    with pytest.raises(InputError, match="'t' occurs twice"):
        read_tasks(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no task"):
        read_tasks(path)
    path.write_text(json.dumps(sample()) + "\n")
    with pytest.raises(InputError, match="there are edit train"):
        read_tasks(path, split="test")
    with pytest.raises(InputError, match="no whole number"):
        Task.model_validate(sample(extra={"n": -1})).number("n", 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"split": "genes"}, "split"),
        ({"fold": 9}, "fold 9 of 5"),
        ({"n_folds": 1000}, "too few"),
        ({"kinds": ("edits",)}, "kind of task"),
    ],
)
def test_wrong_settings_are_named(simulated, given, said):
    with pytest.raises(InputError, match=said):
        make_tasks(*simulated, **given)
