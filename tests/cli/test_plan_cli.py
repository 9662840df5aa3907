"""`pertwise plan` as a person uses it: files in, files out, every bad input named."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import anndata
import numpy as np
import pandas as pd
import pytest

from pertwise.acquire import Plan
from pertwise.cli.demo import blank
from pertwise.cli.main import main
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.llm import Ledger
from pertwise.screen import read_screen, simulate_screen
from pertwise.testing.server import (
    Answer,
    Fault,
    ScriptedServer,
    first_alphabetical,
    listed,
    picks_json,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A simulated screen with a third of its rows empty, and the knowledge that goes with it."""
    folder = tmp_path_factory.mktemp("world")
    simulation = simulate_screen(3, n_perturbations=45, n_features=30, n_pathways=3)
    names = sorted(simulation.screen.perturbations)
    hidden = names[::3]
    blank(simulation.screen, hidden).save(folder / "screen.h5ad")
    blank(simulation.screen, names).save(folder / "nothing.h5ad")
    build_knowledge(
        simulation.write_sources(folder / "sources"), folder / "knowledge", label="simulated"
    )
    (folder / "list.txt").write_text("\n".join(hidden[:12]))
    pathway = max(
        sorted(simulation.truth.pathways), key=lambda p: len(simulation.truth.pathways[p])
    )
    return folder, hidden, pathway


@pytest.fixture
def pertwise(monkeypatch, capsys):
    """Run the command in this process: (exit status, standard output, standard error)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["pertwise", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_cold_start_writes_three_files_and_a_summary(world, pertwise, tmp_path):
    folder, hidden, pathway = world
    code, out, err = pertwise(
        "plan", "--cold-start", "--knowledge", folder / "knowledge", "--pathway", pathway,
        "--candidates", folder / "list.txt", "--batch", 5, "--out", tmp_path / "o", "--by", "Ada",
    )  # fmt: skip
    assert (code, err) == (0, "")
    made = Plan.load(tmp_path / "o")
    assert len(made.picks) == 5
    assert set(made.genes) <= set(hidden)
    for gene in made.genes:
        assert gene in out
    assert "SIMULATED" in out
    table = pd.read_csv(tmp_path / "o" / "plan.csv")
    assert list(table.columns[:6]) == [
        "rank", "gene", "module", "relation", "uncertainty_rank", "uncertainty",
    ]  # fmt: skip
    assert "Simulated data" in (tmp_path / "o" / "plan.html").read_text()
    assert made.inputs["candidates"]["sha256"]
    assert made.decisions[0].by == "Ada"


def test_weights_of_the_knowledge_picker_decide(world, pertwise, tmp_path):
    folder, _, pathway = world
    command = [
        "plan", folder / "nothing.h5ad", "--knowledge", folder / "knowledge", "--pathway", pathway,
        "--batch", 5,
    ]  # fmt: skip
    only = ["--weight", "relation=10", "--weight", "information=0", "--weight", "redundancy=0"]
    assert pertwise(*command, *only, "--out", tmp_path / "a")[0] == 0
    members = Plan.load(tmp_path / "a")
    assert {p.relation for p in members.picks} == {"direct_member"}
    assert members.provenance["weights"]["relation"] == 10


def test_screen_with_nothing_measured_is_a_cold_start(world, pertwise, tmp_path):
    folder, _, pathway = world
    common = ["--knowledge", folder / "knowledge", "--pathway", pathway, "--batch", 4]
    code, _, _ = pertwise("plan", folder / "nothing.h5ad", *common, "--out", tmp_path)
    assert code == 0
    made = Plan.load(tmp_path)
    assert any("cold start" in w for w in made.warnings)
    assert len(made.candidates["gene"]) == 45


def test_two_rounds_with_the_ensemble_need_only_the_screen(world, pertwise, tmp_path):
    pytest.importorskip("torch")
    folder, hidden, pathway = world
    common = [
        "--knowledge", folder / "knowledge", "--pathway", pathway, "--batch", 4, "--seed", 1,
    ]  # fmt: skip
    code, _, err = pertwise("plan", folder / "screen.h5ad", *common, "--out", tmp_path / "1")
    assert (code, err) == (0, "")
    first = Plan.load(tmp_path / "1")
    assert set(first.candidates["gene"]) == set(hidden)
    assert sorted(first.candidate_table["uncertainty_rank"]) == list(range(1, len(hidden) + 1))
    # The very same command again: the same plan, from the stored uncertainty.
    stored = next((tmp_path / "1").glob("uncertainty-*.parquet"))
    moment = stored.stat().st_mtime_ns
    assert pertwise("plan", folder / "screen.h5ad", *common, "--out", tmp_path / "1")[0] == 0
    again = Plan.load(tmp_path / "1")
    assert stored.stat().st_mtime_ns == moment
    assert again.picks == first.picks
    assert again.candidates == first.candidates
    # What was picked is measured: the full screen with only the others empty.
    full = simulate_screen(3, n_perturbations=45, n_features=30, n_pathways=3).screen
    blank(full, [h for h in hidden if h not in first.genes]).save(tmp_path / "next.h5ad")
    assert int(read_screen(tmp_path / "next.h5ad").measured.sum()) == 45 - len(hidden) + 4
    assert pertwise("plan", tmp_path / "next.h5ad", *common, "--out", tmp_path / "2")[0] == 0
    second = Plan.load(tmp_path / "2")
    assert not set(second.genes) & set(first.genes)
    assert set(first.genes) <= set(second.measured["gene"])


def test_show_and_amend(world, pertwise, tmp_path):
    folder, _, pathway = world
    pertwise(
        "plan", "--cold-start", "--knowledge", folder / "knowledge", "--pathway", pathway,
        "--candidates", folder / "list.txt", "--batch", 4, "--out", tmp_path,
    )  # fmt: skip
    before = Plan.load(tmp_path)
    new = next(g for g in before.candidates["gene"] if g not in before.genes)
    code, out, _ = pertwise(
        "plan", "amend", tmp_path / "plan.json", "--replace", f"{before.genes[1]}={new}",
        "--by", "Ada", "--why", "no guides for it",
    )  # fmt: skip
    assert code == 0
    assert f"out {before.genes[1]}; in {new} (by Ada)" in out
    after = Plan.load(tmp_path)
    assert after.genes[1] == new
    assert after.decisions[-1].why == "no guides for it"
    assert list(pd.read_csv(tmp_path / "plan.csv")["gene"]) == list(after.genes)
    assert "no guides for it" in (tmp_path / "plan.html").read_text()
    code, out, _ = pertwise("plan", "show", tmp_path)
    assert code == 0
    assert "revision 2" in out
    code, _, err = pertwise("plan", "amend", tmp_path, "--replace", "A", "--by", "x", "--why", "y")
    assert code == 2
    assert "--replace wants OLD=NEW, got 'A'" in err
    assert Plan.load(tmp_path) == after


def test_dry_run_writes_nothing(world, pertwise, tmp_path):
    folder, _, pathway = world
    with ScriptedServer() as server:
        code, out, _ = pertwise(
            "plan", folder / "screen.h5ad", "--knowledge", folder / "knowledge", "--pathway",
            pathway, "--llm", server.openai(), "--batch", 3, "--out", tmp_path / "o", "--dry-run",
        )  # fmt: skip
        assert server.count == 0
    assert code == 0
    assert "candidates  15" in out
    assert "1 requests, 0 already in the ledger, 1 to send" in out
    assert not (tmp_path / "o").exists()


# -- with a chat endpoint --------------------------------------------------------------------------


def llm_command(folder, out, address, pathway="none", *more):
    return [
        "plan", folder / "nothing.h5ad", "--knowledge", folder / "knowledge", "--pathway", pathway,
        "--llm", address, "--batch", 5, "--out", out, *more,
    ]  # fmt: skip


def test_facts_conditions_and_the_rounds_left_reach_model_and_page(world, pertwise, tmp_path):
    folder, hidden, _ = world
    table = pd.DataFrame({"gene": hidden, "tpm": np.arange(len(hidden)) * 1.5, "stock": "yes"})
    table.to_csv(tmp_path / "facts.csv", index=False)
    with ScriptedServer(first_alphabetical) as server:
        command = [
            "plan", folder / "screen.h5ad", "--knowledge", folder / "knowledge", "--batch", 3,
            "--llm", server.openai(), "--facts", tmp_path / "facts.csv",
            "--require", "tpm > 4 and stock = yes", "--rounds-left", 2,
            "--shortlist", "information:6", "--out", tmp_path / "o",
        ]  # fmt: skip
        code, _, err = pertwise(*command, "--dry-run")
        assert (code, server.count) == (0, 0), err
        code, out, err = pertwise(*command)
        assert code == 0, err
        prompt = server.asked[0].first
    assert "2 more after it" in prompt
    assert len(listed(prompt)) == 6
    assert set(listed(prompt)) <= set(hidden[3:])
    assert "stock yes" in prompt
    assert "nearest measured: " in prompt
    made = Plan.load(tmp_path / "o")
    assert set(made.genes) <= set(hidden[3:])
    assert {"tpm", "stock"} <= set(pd.read_csv(tmp_path / "o" / "plan.csv"))
    assert "<th>stock</th>" in (tmp_path / "o" / "plan.html").read_text()
    assert "3 requirement" in out


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_llm_panel_with_reasons_repairs_and_replay(world, pertwise, tmp_path, protocol):
    folder, _, pathway = world

    def script(asked):
        names = sorted(listed(asked.first))
        if asked.turn == 1:
            return picks_json([names[0].lower(), names[0], "NOSUCHGENE", names[1]])
        answer = json.loads(picks_json(names[:5], reason="scripted reason about {name}"))
        for pick in answer["picks"]:
            pick["module"] = "what the model says"
        return json.dumps(answer)

    with ScriptedServer(script) as server:
        address = server.address(protocol)
        code, _, err = pertwise(*llm_command(folder, tmp_path, address, pathway))
        assert (code, err) == (0, "")
        assert server.paid == 2
    made = Plan.load(tmp_path)
    assert made.settings["strategy"] == "llm"
    assert not made.fallback
    assert all(p.reason == f"scripted reason about {p.gene}" for p in made.picks)
    assert len(made.provenance["ledger_keys"]) == 2
    assert made.provenance["re_asks"] == 1
    # The tables' module comes first; the model's word is shown as its word.
    for pick in made.picks:
        assert pick.module == "what the model says (says the model)" or pick.relation != "unknown"
    assert "written by the language model" in (tmp_path / "plan.html").read_text()
    # The server is gone; the ledger answers, and the plan is the same.
    code, _, _ = pertwise(*llm_command(folder, tmp_path, address, pathway, "--replay"))
    assert code == 0
    assert Plan.load(tmp_path).picks == made.picks


def test_llm_that_answers_too_little_is_filled_up_by_the_knowledge_picker(
    world, pertwise, tmp_path
):
    folder, _, pathway = world
    with ScriptedServer(lambda asked: picks_json(sorted(listed(asked.first))[:2])) as server:
        code, out, _ = pertwise(*llm_command(folder, tmp_path, server.openai(), pathway))
    assert code == 0
    made = Plan.load(tmp_path)
    assert made.fallback
    assert [p.chosen_by for p in made.picks] == ["strategy"] * 2 + ["strategy, fallback"] * 3
    assert all(p.reason.startswith("fallback knowledge: ") for p in made.picks[2:])
    assert {r.kind for r in made.repairs} >= {"too_few", "fallback"}
    assert "declared fallback" in (tmp_path / "plan.html").read_text()
    assert "fallback" in out


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_killed_in_the_middle_and_resumed_pays_nothing_twice(world, pertwise, tmp_path, protocol):
    """kill -9 between the first answer and the second; the resumed run asks only the second."""
    folder, _, pathway = world
    second_asked, let_go = threading.Event(), threading.Event()

    def script(asked):
        names = sorted(listed(asked.first))
        if asked.turn == 1:
            return picks_json(names[:1])  # too few: asked again
        if not second_asked.is_set():
            second_asked.set()
            let_go.wait(30)
            return Fault(503)  # the client is dead by now
        return picks_json(names[:5], reason="reason for {name}")

    with ScriptedServer(script) as server:
        command = [
            sys.executable,
            "-c",
            "from pertwise.cli.main import main; main()",
            *map(str, llm_command(folder, tmp_path / "o", server.address(protocol), pathway)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
            deadline = time.monotonic() + 180
            while not second_asked.wait(0.05):
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
            os.kill(process.pid, signal.SIGKILL)
        let_go.set()
        assert server.paid == 1
        assert len(Ledger(tmp_path / "o" / "ledger.sqlite")) == 1
        assert not (tmp_path / "o" / "plan.json").exists()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        assert server.paid == 2, "the first exchange was paid again"
        firsts = [a for a in server.asked if a.turn == 1]
        assert len(firsts) == 1
        asked = server.count
        arguments = llm_command(folder, tmp_path / "o", server.address(protocol), pathway)
        assert pertwise(*arguments)[0] == 0
        assert server.count == asked, "a finished run asks nothing"
    made = Plan.load(tmp_path / "o")
    assert [p.reason for p in made.picks] == [f"reason for {g}" for g in made.genes]


def test_wrong_key_stops_without_showing_it(world, pertwise, tmp_path, monkeypatch):
    folder, _, _ = world
    monkeypatch.setenv("PERTWISE_API_KEY_127_0_0_1", "sk-very-secret-123456")
    with ScriptedServer(key="another") as server:
        code, out, err = pertwise(*llm_command(folder, tmp_path, server.openai()))
    assert code == 2
    assert "sk-very-secret" not in out + err
    assert "key" in err
    assert not (tmp_path / "plan.json").exists()


def test_budget_stops_before_anything_is_sent(world, pertwise, tmp_path):
    folder, _, _ = world
    with ScriptedServer() as server:
        command = llm_command(folder, tmp_path, server.openai(), "none", "--budget-tokens", 50)
        code, _, err = pertwise(*command)
        assert server.count == 0
    assert code == 2
    assert "budget reached" in err


def test_a_slow_model_is_not_a_problem(world, pertwise, tmp_path):
    folder, _, _ = world
    with ScriptedServer(lambda a: Answer(first_alphabetical(a), delay=0.3)) as server:
        assert pertwise(*llm_command(folder, tmp_path, server.openai()))[0] == 0


# -- bad input: each one named, none a traceback ---------------------------------------------------


def cells(tmp_path, x, labels, name="bad.h5ad"):
    data = anndata.AnnData(
        np.asarray(x, dtype=np.float32),
        obs=pd.DataFrame({"perturbation": labels}, index=[f"r{i}" for i in range(len(labels))]),
    )
    data.var_names = [f"F{i}" for i in range(data.shape[1])]
    data.write_h5ad(tmp_path / name)
    return tmp_path / name


def bad_screen(kind, tmp_path, world):
    folder, _, _ = world
    rng = np.random.default_rng(0)
    if kind == "missing":
        return folder / "scren.h5ad"
    if kind == "not h5ad":
        path = tmp_path / "bad.h5ad"
        path.write_text("this is no HDF5")
        return path
    if kind == "no control":
        return cells(tmp_path, rng.random((3, 4)), ["SIM0001", "SIM0002", "SIM0003"])
    if kind == "unnormalised":
        return cells(tmp_path, rng.integers(0, 900, (3, 4)), ["SIM0001", "SIM0002", "control"])
    if kind == "duplicated":
        return cells(tmp_path, rng.random((3, 4)), ["SIM0001", "SIM0001", "control"])
    if kind == "single cells":
        return cells(tmp_path, rng.random((90, 4)), (["SIM0001"] * 30 + ["control"] * 60))
    return folder / "screen.h5ad"


BAD = {
    "missing": ([], r"no such file: .*scren\.h5ad.*screen\.h5ad"),
    "not h5ad": ([], r"bad\.h5ad is not an h5ad file"),
    "no control": ([], r"bad\.h5ad.*control"),
    "unknown control": (["--control", "controll"], "controll"),
    "unnormalised": ([], r"bad\.h5ad: .*look like unnormalised counts"),
    "duplicated": ([], r"perturbation 'SIM0001' has 2 rows"),
    "single cells": ([], r"holds single cells .*pertwise screen pseudobulk"),
    "no candidate known": (
        ["--candidates", "LIST:FOO1,FOO2"],
        r"none of the 2 candidates \(e\.g\.",
    ),
    "candidate file missing": (["--candidates", "no/list.txt"], "no such candidate file"),
    "pathway misspelt": (["--pathway", "SIM_PATHWAY_2"], "unknown pathway .*did you mean"),
    "feature misspelt": (["--features", "*nothing*"], r"unknown target feature '\*nothing\*'"),
    "batch": (["--batch", "0"], "got batch 0"),
    "strategy": (["--strategy", "balld"], "unknown strategy 'balld'; did you mean 'bald'"),
    "llm without model": (["--strategy", "llm"], "--llm MODEL@URL"),
    "model without llm": (["--strategy", "bald", "--llm", "m@http://x"], "'bald' asks no model"),
    "bad address": (["--llm", "gpt"], "no endpoint in model address 'gpt'"),
    "both": (["--cold-start"], "leave one of them out"),
    "weight misspelt": (["--weight", "relatoin=1"], "unknown weight 'relatoin'.*did you mean"),
    "weight of nothing": (["--weight", "relation=much"], "'much' is not a number"),
    "weight negative": (["--weight", "relation=-1"], "must be >= 0, got -1"),
    "shortlist of nothing": (["--strategy", "bald", "--shortlist", "9"], "has no shortlist"),
    "shortlist misspelt": (
        ["--strategy", "knowledge", "--shortlist", "uncertanty"],
        "unknown shortlist 'uncertanty'; did you mean 'uncertainty'",
    ),
    "shortlist without length": (["--shortlist", "all:many"], "'many' is no length"),
    "rounds told to no one": (["--rounds-left", "3"], "none is asked"),
    "hand over to a model": (["--hand-over", "bald"], "it looks at a model"),
    "facts missing": (["--facts", "no/facts.csv"], "no/facts.csv: no such file"),
    "condition on nothing": (
        ["--require", "tpm > 1"],
        "unknown fact 'tpm'.*known are expression in controls; --facts FILE",
    ),
    "measured pin": (["--pin", "MEASURED"], "already measured"),
    "context": (["--context", "SimLine2"], "unknown context 'SimLine2'; did you mean 'SimLine1'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_table(kind, world, pertwise, tmp_path):
    folder, hidden, _ = world
    args, message = BAD[kind]
    screen = bad_screen(kind, tmp_path, world)
    if kind == "unknown control":
        screen = cells(tmp_path, np.eye(3), ["SIM0001", "SIM0002", "control"])
    if kind == "measured pin":
        args = ["--pin", next(g for g in measured_names(folder) if g not in hidden)]
    args = list(args)
    for i, a in enumerate(args):
        if a.startswith("LIST:"):
            (tmp_path / "l.txt").write_text(a[5:].replace(",", "\n"))
            args[i] = tmp_path / "l.txt"
    code, out, err = pertwise(
        "plan", screen, "--knowledge", folder / "knowledge", "--out", tmp_path / "o", *args
    )
    assert code == 2, out + err
    assert re.search(message, err, re.DOTALL), err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "plan.json").exists()


def measured_names(folder):
    screen = read_screen(folder / "screen.h5ad")
    return list(screen.obs["perturbation"][screen.measured])


def test_knowledge_folder_of_another_version_or_none(world, pertwise, tmp_path):
    folder, _, _ = world
    code, _, err = pertwise("plan", "--cold-start", "--knowledge", tmp_path, "--out", tmp_path)
    assert code == 2
    assert "knowledge" in err
    other = tmp_path / "k"
    shutil.copytree(folder / "knowledge", other)
    manifest = json.loads((other / "manifest.json").read_text())
    key = next(k for k in manifest if "version" in k)
    manifest[key] = 99
    (other / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = pertwise("plan", "--cold-start", "--knowledge", other, "--out", tmp_path)
    assert code == 2
    assert "99" in err
    assert str(manifest[key]) != "1"
    assert Knowledge.open(folder / "knowledge").manifest[key] == 1


def test_arguments_that_are_missing(pertwise, world):
    folder, _, _ = world
    for args, message in (
        (["plan", "x.h5ad", "--out", "o"], "--knowledge DIR is needed"),
        (["plan", "--knowledge", folder / "knowledge", "--out", "o"], "say --cold-start"),
        (["plan", "--cold-start", "--knowledge", folder / "knowledge"], "--out DIR is needed"),
    ):
        code, _, err = pertwise(*args)
        assert code == 2
        assert message in err
    code, out, _ = pertwise("plan", "--help")
    assert code == 0
    assert "pertwise plan amend" in out.replace("\n", " ")


def test_planning_over_an_amended_panel_needs_overwrite(pertwise, tmp_path):
    from fake_knowledge import FakeKnowledge

    from pertwise.acquire import plan as make_plan
    from pertwise.report import write_plan

    first = make_plan(None, FakeKnowledge(), strategy="random", batch=3)
    write_plan(first.amend(drop=[first.genes[0]], by="A", why="B"), tmp_path / "round1")
    asked = ["plan", "--cold-start", "--knowledge", tmp_path, "--out", tmp_path / "round1"]
    code, _, err = pertwise(*asked)
    assert code == 2
    assert "holds 1 amendment " in err
    # with the word, it goes on to what is wrong next
    code, _, err = pertwise(*asked, "--overwrite")
    assert code == 2
    assert "amendment" not in err
