"""Prompt search by reward; the scripted server answers, and writes the prompts. No model is asked.

Tests of the search itself need gepa (extra train; it brings no dependency, so that the extra test
holds it too) and are skipped without; what is asked and refused is tested in any case.
"""

import json
import subprocess
import sys
import time

import jinja2
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import BudgetError, InputError, MissingDependencyError
from pertwise.llm import Ledger, load_prompt, open_chat
from pertwise.testing import ScriptedServer
from pertwise.testing.server import Answer, first_alphabetical
from pertwise.train.gold import edit_text, gold_answer
from pertwise.train.grading import Grader
from pertwise.train.making import make_tasks
from pertwise.train.prompt_asking import (
    Asking,
    names_held_out,
    start_of,
    template_with,
    with_system,
)
from pertwise.train.prompts import Search, search_prompt
from pertwise.train.tasks import write_tasks

RULE = "Trust what was measured, rule 7."


@pytest.fixture(scope="module")
def world(simulated):
    screen, knowledge = simulated
    tasks = make_tasks(screen, knowledge, n_folds=3)
    return tasks, Grader.of(screen, knowledge=knowledge), knowledge


@pytest.fixture(scope="module")
def files(simulated, world, tmp_path_factory):
    """Screen, tasks, and what every command of these tests begins with."""
    folder = tmp_path_factory.mktemp("prompts")
    simulated[0].save(folder / "s.h5ad")
    write_tasks(folder / "t.jsonl", world[0])
    return folder, [
        "train", "prompts", str(folder / "t.jsonl"), "--screen", str(folder / "s.h5ad"),
        "--knowledge", str(simulated[1].path), "--calls", "40", "--learn", "6",
        "--validation", "5", "--out",
    ]  # fmt: skip


def script_of(world, said=(f"```\n{RULE}\n```",), delay=0.0):
    """Answers best where the instructions hold the rule, changes nothing else; writes `said`."""
    tasks, arrays, _ = world
    best = {t.messages[-1].content: gold_answer(t, arrays) for t in tasks}
    written = iter(said)

    def script(asked):
        if asked.first.startswith("An assistant answers"):
            return next(written, said[-1])
        ruled = RULE in asked.messages[0]["content"]
        text = best.get(asked.first) if ruled else edit_text([], [])
        return Answer(text or first_alphabetical(asked), delay=delay)

    return script


def asking_of(world, chat, held=lambda text: False):
    tasks, arrays, _ = world
    return Asking(chat, chat, arrays, None, held, start_of(tasks)[1])


def reflected(asked):
    return asked.first.startswith("An assistant answers")


# -- without gepa --------------------------------------------------------------------------------


def test_a_candidate_changes_the_system_part_only():
    start = load_prompt("edit")
    text = 'Mind {"add": [{1}]} and {braces}, % signs, # and "quotes".\n\nSecond } paragraph %}.'
    made = template_with(start, text)
    old, new = (jinja2.Environment(trim_blocks=True).from_string(t.text) for t in (start, made))
    assert "".join(new.blocks["system"](new.new_context())).strip() == text
    assert made.text.partition("{% block user %}")[2] == start.text.partition("{% block user %}")[2]
    assert set(new.blocks) == set(old.blocks)


@pytest.mark.parametrize(
    "code", ["{{ 7 * 7 }}", "{% endraw %}{{ x }}", "{% include 'a' %}", "{# #}"]
)
def test_template_code_is_refused_and_never_asked(world, code):
    with ScriptedServer() as server:
        asking = asking_of(world, open_chat(server.openai()))
        (pair,) = asking.rewards(world[0][:1], f"Be careful. {code}")
        assert pair[1].total == 0
        assert server.count == 0
    assert asking.refused == [{"why": "it holds template code", "text": f"Be careful. {code}"}]
    with pytest.raises(InputError, match="template code"):
        template_with(load_prompt("edit"), code)


def test_held_out_names_are_refused_under_any_spelling(world):
    tasks, _, knowledge = world
    test = next(t for t in tasks if t.split == "test")
    train = next(t for t in tasks if t.split == "train")
    held = names_held_out(tasks, knowledge, start_of(tasks)[0].text)
    with ScriptedServer() as server:
        asking = asking_of(world, open_chat(server.openai()), held)
        assert asking.why_not(f"Think of {test.subject}.") == "it names what is held out"
        assert asking.why_not(f"Think of {test.subject.lower()}.") == "it names what is held out"
        assert asking.why_not(f"Think of {train.subject}.") == ""
    card = knowledge.cards([test.subject])[test.subject]
    for alias in card.aliases:
        assert asking.why_not(f"({alias})") == "it names what is held out"
    assert asking.why_not(asking.first) == ""
    assert asking.why_not("") == "it is empty"
    assert "longer than" in asking.why_not("a " * 5000)


def test_cells_of_a_line_left_out_are_held(world):
    tasks = [t.model_copy(update={"context": "K562" if t.split == "test" else "RPE1"})
             for t in world[0]]  # fmt: skip
    held = names_held_out(tasks, None, "")
    assert held("as in K562")
    assert held("as in k562 cells")
    assert not held("as in RPE1")


def test_a_candidate_opens_no_list_and_hides_nothing(world):
    with ScriptedServer() as server:
        asking = asking_of(world, open_chat(server.openai()))
        text = asking.text({"system": " <candidates>\nMYC\x1b[2J\u202e</candidates> \n"})
    assert text == "‹candidates>\nMYC‹/candidates>"


def test_the_question_stays_and_answers_are_kept(world):
    task = next(t for t in world[0] if t.split == "train")
    with ScriptedServer(script_of(world)) as server:
        asking = asking_of(world, open_chat(server.openai()))
        plain = asking.rewards([task], "Be brief.")[0][1].total
        ruled = asking.rewards([task], RULE)[0][1].total
        assert [a.messages[0]["content"] for a in server.asked] == ["Be brief.", RULE]
        assert {a.first for a in server.asked} == {task.messages[-1].content}
    assert ruled == pytest.approx(1.0)
    assert plain < ruled
    assert asking.seen[RULE] == {task.id: ruled}
    assert with_system(task, RULE).messages[1:] == task.messages[1:]


def test_tasks_of_several_prompts_are_refused(world):
    task = world[0][0]
    other = task.model_copy(update={"id": "x", "extra": {**task.extra, "prompt": "langpert"}})
    with pytest.raises(InputError, match="one built-in prompt"):
        start_of([task, other])
    old = task.model_copy(update={"extra": {**task.extra, "prompt_hash": "0" * 16}})
    with pytest.raises(InputError, match="as it is in this version"):
        start_of([old])


def test_learning_and_ranking_tasks_are_training_tasks(world):
    train, validation, test = Search(n_train=6, n_validation=5).parts(world[0])
    assert (len(train), len(validation)) == (6, 5)
    assert {t.split for t in (*train, *validation)} == {"train"}
    assert not {t.id for t in train} & {t.id for t in validation}
    assert {t.id for t in test} == {t.id for t in world[0] if t.split == "test"}
    with pytest.raises(InputError, match="do not reach"):
        Search(calls=5, n_validation=5)


def test_without_gepa_the_extra_is_named(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(MissingDependencyError, match=r"pertwise\[train\]"):
        search_prompt(world[0], world[1], None)


def test_dry_run_asks_nothing(files):
    folder, given = files
    with ScriptedServer() as server:
        done = CliRunner().invoke(
            app, [*given, str(folder / "dry"), "--llm", server.openai(), "--dry-run"]
        )
        assert done.exit_code == 0, done.output
        assert server.count == 0
    assert "at most 6 reflections" in done.output
    assert not (folder / "dry").exists()


# -- with gepa -----------------------------------------------------------------------------------


def run(files, out, server, *more):
    return CliRunner().invoke(app, [*files[1], str(out), "--llm", server.openai(), *more])


def test_reward_rises_and_the_prompt_is_taken_by_commands(files, world, simulated, tmp_path):
    pytest.importorskip("gepa")
    out = tmp_path / "out"
    with ScriptedServer(script_of(world)) as server:
        done = run(files, out, server)
        assert done.exit_code == 0, done.output
        table = pd.read_csv(out / "candidates.csv")
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        n_test = sum(t.split == "test" for t in world[0])
        tested = [a for a in server.asked if a.first in
                  {t.messages[-1].content for t in world[0] if t.split == "test"}]  # fmt: skip
        # Each of the two once, the start first.
        assert len(tested) == 2 * n_test
        assert not any(RULE in a.messages[0]["content"] for a in tested[:n_test])
        learnt = next(a for a in server.asked if reflected(a)).first
        assert not any(t.subject in learnt for t in world[0] if t.split == "test")
        before = server.count
        assert run(files, out, server).exit_code == 0
        assert server.count == before
    best = table[table["best"]].iloc[0]
    assert best["text"] == RULE
    assert best["parent"] == 0
    assert best["characters"] == len(RULE)
    assert best["validation"] == pytest.approx(1.0)
    assert table["validation"][0] < 1
    assert best["train"] > table["train"][0]
    assert summary["complete"]
    assert summary["n_test"] == n_test
    assert summary["test"]["low"] > 0
    assert "SIMULATED" in done.output
    screen, knowledge = simulated
    names = list(screen.perturbations)
    screen.take(range(len(names) - 2)).save(tmp_path / "s.h5ad")
    with ScriptedServer() as server:
        used = CliRunner().invoke(
            app,
            ["predict", str(tmp_path / "s.h5ad"), "--names", ",".join(names[-2:]), "--method",
             "graph-edit", "--set", f"prompt={out / 'prompt.j2'}", "--llm", server.openai(),
             "--knowledge", str(knowledge.path), "--out", str(tmp_path / "predicted")],
        )  # fmt: skip
        assert used.exit_code == 0, used.output
        assert server.asked
        for asked in server.asked:
            assert asked.messages[0]["content"] == RULE
            assert "<candidates>" in asked.first


def test_a_prompt_of_picks_is_taken_by_ask(simulated, tmp_path):
    pytest.importorskip("gepa")
    screen, knowledge = simulated
    tasks = make_tasks(screen, knowledge, ["pick"], n_folds=3)
    screen.save(tmp_path / "s.h5ad")
    write_tasks(tmp_path / "t.jsonl", tasks)
    world = (tasks, Grader.of(screen, knowledge=knowledge), knowledge)
    with ScriptedServer(script_of(world)) as server:
        found = CliRunner().invoke(
            app,
            ["train", "prompts", str(tmp_path / "t.jsonl"), "--screen", str(tmp_path / "s.h5ad"),
             "--knowledge", str(knowledge.path), "--calls", "20", "--validation", "4", "--llm",
             server.openai(), "--out", str(tmp_path / "out")],
        )  # fmt: skip
        assert found.exit_code == 0, found.output
        assert "pertwise ask" in found.output
        asked_before = server.count
        used = CliRunner().invoke(
            app,
            ["ask", str(tmp_path / "s.h5ad"), "--knowledge", str(knowledge.path), "--names",
             "MYC", "--no-measured", "--prompt", str(tmp_path / "out" / "prompt.j2"), "--llm",
             server.openai(), "--out", str(tmp_path / "a.jsonl")],
        )  # fmt: skip
        assert used.exit_code == 0, used.output
        for asked in server.asked[asked_before:]:
            assert asked.messages[0]["content"] == RULE
            assert "<candidates>" in asked.first


def test_no_better_prompt_leaves_the_start(files, world, tmp_path):
    pytest.importorskip("gepa")
    out = tmp_path / "out"
    with ScriptedServer(script_of(world, ["```\nBe brief.\n```"])) as server:
        done = run(files, out, server)
    assert done.exit_code == 0, done.output
    assert "no prompt beats it" in done.output
    assert "prompts written 6, kept 0, refused 0" in done.output
    assert (out / "prompt.j2").read_text(encoding="utf-8") == load_prompt("edit").text


def test_bad_candidates_are_told_and_not_kept(files, world, tmp_path):
    pytest.importorskip("gepa")
    held = next(t.subject for t in world[0] if t.split == "test")
    said = [f"```\n{RULE} {{{{ cycler.__init__ }}}}\n```", f"```\n{RULE} Mind {held}.\n```"]
    out = tmp_path / "out"
    with ScriptedServer(script_of(world, said)) as server:
        done = run(files, out, server)
        assert done.exit_code == 0, done.output
        systems = {a.messages[0]["content"] for a in server.asked if not reflected(a)}
    assert systems == {start_of(world[0])[1]}
    assert "refused (1): it holds template code" in done.output
    assert "refused (1): it names what is held out" in done.output
    refused = json.loads((out / "summary.json").read_text(encoding="utf-8"))["refused"]
    assert len(refused) == 2
    assert (out / "prompt.j2").read_text(encoding="utf-8") == load_prompt("edit").text


def test_a_budget_that_ends_keeps_the_best_so_far(files, world, tmp_path):
    pytest.importorskip("gepa")
    out, once = tmp_path / "out", tmp_path / "once"
    with ScriptedServer(script_of(world)) as server:
        assert run(files, once, server).exit_code == 0
        whole = server.paid
    used = Ledger(once / "ledger.sqlite", replay=True).summary()
    budget = int(0.6 * (used["prompt_tokens"] + used["completion_tokens"]).sum())
    with ScriptedServer(script_of(world)) as server:
        first = run(files, out, server, "--budget-tokens", str(budget))
        assert isinstance(first.exception, BudgetError), first.output
        assert "only the best so far" in first.output
        told = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        assert not told["complete"]
        assert told["n_test"] == 0
        assert 0 < server.paid < whole
        rest = run(files, out, server)
        assert rest.exit_code == 0, rest.output
        assert server.paid == whole
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["complete"]
    for name in ("prompt.j2", "candidates.csv", "scores.csv"):
        assert (out / name).read_bytes() == (once / name).read_bytes()


def test_killed_and_begun_again_asks_only_what_is_left(files, world, tmp_path):
    pytest.importorskip("gepa")
    out = tmp_path / "out"
    with ScriptedServer(script_of(world, delay=0.05)) as server:
        started = subprocess.Popen(
            [sys.executable, "-c", "from pertwise.cli.main import main; main()", *files[1],
             str(out), "--llm", server.openai(), "--concurrency", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while server.paid < 15 and started.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        started.kill()
        assert started.wait() == -9
        assert not (out / "summary.json").exists()
        done = run(files, out, server, "--concurrency", "1")
        assert done.exit_code == 0, done.output
        whole = server.paid
    with ScriptedServer(script_of(world)) as server:
        assert run(files, tmp_path / "once", server).exit_code == 0
        # The one under way may be paid twice.
        assert whole - server.paid in (0, 1)
    for name in ("prompt.j2", "candidates.csv", "scores.csv"):
        assert (out / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_search_from_python_says_what_ended_it(world, tmp_path):
    pytest.importorskip("gepa")
    tasks, arrays, knowledge = world
    with ScriptedServer(script_of(world)) as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "l.sqlite")
        found = search_prompt(
            tasks, arrays, chat, knowledge=knowledge,
            how=Search(calls=12, n_train=4, n_validation=4, batch=2),
        )  # fmt: skip
        assert found.ended is None
        assert any("difference +" in line for line in found.words())
        with pytest.raises(BudgetError):
            search_prompt(tasks, arrays, open_chat(server.openai(), budget_tokens=10))
