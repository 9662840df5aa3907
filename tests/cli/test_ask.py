"""`pertwise ask` and what is made of its file, against the scripted server (no real model)."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import BudgetError, InputError, ReplayMissError
from pertwise.knowledge import build_knowledge
from pertwise.knowledge.recorded import read_recorded, read_recording
from pertwise.screen import make_screen, simulate_screen
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical, listed, picks_json

RUNNER = CliRunner()
NAMES = [f"G{i:02d}" for i in range(9)]


def save(path, names=NAMES, context="K562"):
    x = np.random.default_rng(0).normal(size=(len(names), 4))
    make_screen(x, names, ["a", "b", "c", "d"], context=context).save(path)
    return path


@pytest.fixture
def screen(tmp_path):
    return save(tmp_path / "screen.h5ad")


def call(screen, out, address, *more):
    return ["langpert", str(screen), "--llm", address, "--out", str(out), *more]


def lines(path):
    return {row["subject"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_every_named_and_measured_gene_is_asked_once(screen, tmp_path):
    out = tmp_path / "answers.jsonl"
    with ScriptedServer() as server:
        call_ = call(screen, out, server.openai(), "--genes", "NEW1,G03")
        done = RUNNER.invoke(app, call_)
        assert done.exit_code == 0, done.output
        assert "questions: 10 (2 named, 8 measured), among 9 measured in K562" in done.output
        assert "G03 is measured: it is asked as if it were not" in done.output
        assert "answers: 10 of 10 usable" in done.output
        shown = {}
        for asked in server.asked:
            subject = asked.first.split("knock-down of ")[1].split(" ")[0]
            shown[subject] = listed(asked.first)
            assert "BCR-ABL1" in asked.first  # the cells are named and described
        assert server.count == 10
        again = RUNNER.invoke(app, call_)
        assert again.exit_code == 0
        assert server.count == 10, "the ledger answers the second time"
    assert sorted(shown["NEW1"]) == NAMES
    assert sorted(shown["G03"]) == [n for n in NAMES if n != "G03"]
    rows = lines(out)
    assert list(rows) == ["NEW1", "G03", *(n for n in NAMES if n != "G03")]
    assert rows["G00"]["neighbours"] == NAMES[1:]
    assert rows["G00"]["reasons"][0] == "scripted: G01 comes early"
    assert rows["G00"]["context"] == "K562"
    assert (rows["G00"]["asked"]["n_candidates"], rows["G00"]["asked"]["n_shown"]) == (8, 8)
    assert rows["NEW1"]["asked"]["n_candidates"] == 9
    answers, origin = read_recorded(out)
    assert answers["G00"][0] == tuple(NAMES[1:])
    assert answers["G00"][1].startswith("scripted: G01 comes early; scripted: G02 comes early")
    assert origin["model"].startswith("langpert (scripted@")
    assert not (tmp_path / "answers.partial.jsonl").exists()


def test_no_measured_file_of_genes_k_and_own_prompt(screen, tmp_path):
    (tmp_path / "genes.txt").write_text("NEW1\nNEW2+G04\n")
    shown = RUNNER.invoke(app, ["llm", "prompt", "langpert"])
    (tmp_path / "own.j2").write_text(shown.output.replace("You are a", "You are MY"))
    out = tmp_path / "answers.jsonl"
    with ScriptedServer() as server:
        more = ["--genes", f"@{tmp_path / 'genes.txt'}", "--no-measured", "--k", "3"]
        more += ["--prompt", str(tmp_path / "own.j2")]
        done = RUNNER.invoke(app, call(screen, out, server.openai(), *more))
        assert done.exit_code == 0, done.output
        assert all("You are MY" in a.messages[0]["content"] for a in server.asked)
    assert "G04+NEW2 is a combination: its genes are asked one by one" in done.output
    rows = lines(out)
    assert list(rows) == ["NEW1", "G04", "NEW2"]
    assert rows["G04"]["neighbours"] == ["G00", "G01", "G02"]


def test_replay_needs_no_server_and_refuses_what_it_does_not_hold(screen, tmp_path):
    out, ledger = tmp_path / "a.jsonl", tmp_path / "kept.sqlite"
    with ScriptedServer() as server:
        address = server.openai()
        asked = call(screen, out, address, "--genes", "NEW1", "--ledger", str(ledger))
        assert RUNNER.invoke(app, asked).exit_code == 0
    first = out.read_text()
    out.unlink()
    replayed = RUNNER.invoke(app, [*asked, "--replay"])
    assert replayed.exit_code == 0, replayed.output
    assert out.read_text() == first
    other = call(screen, out, address, "--genes", "NEW2", "--ledger", str(ledger), "--replay")
    done = RUNNER.invoke(app, other)
    assert isinstance(done.exception, ReplayMissError)
    assert out.read_text() == first, "a run that failed does not touch the file"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed(end, tmp_path):
    screen = save(tmp_path / "screen.h5ad", [f"G{i:03d}" for i in range(159)])
    out = tmp_path / "answers.jsonl"
    with ScriptedServer(lambda a: Answer(first_alphabetical(a), delay=0.1)) as server:
        asked = call(screen, out, server.openai(), "--genes", "NEW1")
        run = [sys.executable, "-c", "from pertwise.cli.main import main; main()", *asked]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True) as process:
            while not (tmp_path / "answers.partial.jsonl").exists():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.005)
            time.sleep(0.3)
            os.kill(process.pid, end)
        assert not out.exists()
        partly = read_recorded(tmp_path / "answers.partial.jsonl")[0]
        assert 1 <= len(partly) < 160
        before = server.count
        done = RUNNER.invoke(app, asked)
        assert done.exit_code == 0, done.output
        asked_again = server.count - before
        assert 0 < asked_again <= 160 - len(partly), "what was answered is not asked again"
        paid = server.count
        assert RUNNER.invoke(app, asked).exit_code == 0
        assert server.count == paid, "nothing is asked when all is in the ledger"
    assert len(lines(out)) == 160
    assert not (tmp_path / "answers.partial.jsonl").exists()


def test_an_exhausted_budget_leaves_what_was_answered(screen, tmp_path):
    out = tmp_path / "answers.jsonl"
    with ScriptedServer() as server:
        asked = call(screen, out, server.openai(), "--genes", "NEW1")
        done = RUNNER.invoke(app, [*asked, "--budget-tokens", "6500"])
        assert isinstance(done.exception, BudgetError)
        assert 0 < server.count < 10
        assert "stopped early; the answers so far" in done.output
        assert len(read_recorded(tmp_path / "answers.partial.jsonl")[0]) == server.count
        assert not out.exists()
        assert RUNNER.invoke(app, asked).exit_code == 0
        assert server.count == 10, "only what was missing is asked"


def test_a_refusal_is_an_empty_list_counted_and_told(screen, tmp_path):
    def answer(asked):
        if "knock-down of NEW1 " in asked.first:
            return Answer("No.", finish="refusal")
        if "knock-down of G01 " in asked.first:
            return picks_json(["G02", "NOSUCH", "G03", "G04", "G05", "G06"], reason="")
        return first_alphabetical(asked)

    out = tmp_path / "answers.jsonl"
    with ScriptedServer(answer) as server:
        done = RUNNER.invoke(app, call(screen, out, server.openai(), "--genes", "NEW1,NEW2"))
    assert done.exit_code == 0, done.output
    assert "answers: 10 of 11 usable" in done.output
    assert "out_of_list 1" in done.output
    assert "no usable answer for NEW1: refusal 3" in done.output
    row = lines(out)["NEW1"]
    assert (row["neighbours"], row["repairs"]["refusal"]) == ([], 3)
    found = read_recording(out)
    assert found.answers["NEW1"] == ((), "")
    assert "refusal 3" in found.problems["NEW1"]
    # What a model did not say is not said for it.
    assert lines(out)["G01"]["reasons"] == [""] * 5
    assert found.answers["G01"][1] == ""


def test_mistakes_are_told_before_anything_is_asked(screen, tmp_path):
    out = tmp_path / "answers.jsonl"
    few = save(tmp_path / "few.h5ad", NAMES[:5])
    with ScriptedServer() as server:
        ask = partial(call, out=out, address=server.openai())
        for asked, message in (
            ([*ask(few), "--genes", "NEW1"], r"few.h5ad measures 5 perturbations.*6 or more"),
            ([*ask(few), "--genes", "NEW1", "--k", "5"], "6 or more"),
            ([*ask(screen), "--no-measured"], "no gene to ask about"),
            ([*ask(screen), "--genes", "A", "--max-candidates", "4"], "give --knowledge"),
            ([*ask(screen), "--genes", "A", "--prefilter", "graph:string"], "--max-candidates"),
            ([*ask(screen), "--genes", "A", "--context", "RPE1"], "RPE1"),
            (ask(tmp_path / "absent.h5ad"), "absent.h5ad"),
        ):
            done = RUNNER.invoke(app, asked)
            assert isinstance(done.exception, InputError), asked
            assert pd.Series([str(done.exception)]).str.contains(message).all(), done.exception
        dry = RUNNER.invoke(app, [*ask(screen), "--genes", "NEW1", "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert server.count == 0
    assert not out.exists()
    assert not list(tmp_path.glob("*.sqlite")), "no ledger is made for a question never asked"


def test_the_cells_may_be_named_by_the_caller(tmp_path):
    screen = tmp_path / "screen.csv"  # a plain table names no cells
    values = np.random.default_rng(0).normal(size=(len(NAMES), 4))
    pd.DataFrame(values, index=NAMES, columns=list("abcd")).to_csv(screen, index_label="gene")
    out = tmp_path / "answers.jsonl"
    with ScriptedServer() as server:
        ask = call(screen, out, server.openai(), "--genes", "NEW1", "--no-measured")
        done = RUNNER.invoke(app, ask)
        assert "give --context" in done.output
        assert "Cells:" not in server.asked[0].first
        named = RUNNER.invoke(app, [*ask, "--context", "X9", "--context-text", "Made-up cells."])
        assert named.exit_code == 0, named.output
        assert "Cells: X9. Made-up cells." in server.asked[1].first
    assert lines(out)["NEW1"]["context"] == "X9"


# -- what is made of the file ----------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A simulated screen with the last three genes kept from it, knowledge, recorded answers.

    The scripted endpoint refuses the second of the three and is never asked about the third. What
    it names is fixed by the simulated pathways of no gene: first in the alphabet.
    """
    folder = tmp_path_factory.mktemp("world")
    simulation = simulate_screen(3, n_perturbations=44, n_features=20, n_pathways=4)
    simulation.write_sources(folder / "sources")
    build_knowledge(folder / "sources", folder / "knowledge", label="simulated")
    held = list(simulation.screen.perturbations[-3:])
    simulation.screen.hide(held).save(folder / "screen.h5ad")

    def answer(asked):
        if f"knock-down of {held[1]} " in asked.first:
            return Answer("No.", finish="refusal")
        return first_alphabetical(asked)

    with ScriptedServer(answer) as server:
        more = ["--genes", ",".join([*held[:2], "NOSUCHGENE1"])]
        more += ["--knowledge", str(folder / "knowledge")]
        asked = call(folder / "screen.h5ad", folder / "answers.jsonl", server.openai(), *more)
        done = RUNNER.invoke(app, asked)
        assert done.exit_code == 0, done.output
        cut = call(folder / "screen.h5ad", folder / "cut.jsonl", server.openai(), *more)
        cut += ["--max-candidates", "12", "--prefilter", "graph:string", "--no-measured"]
        short = RUNNER.invoke(app, cut)
        assert short.exit_code == 0, short.output
    return folder, held, done.output


def test_an_unknown_gene_is_noted_and_asked(world):
    folder, _, output = world
    assert "NOSUCHGENE1 is not a gene of the knowledge folder" in output
    assert lines(folder / "answers.jsonl")["NOSUCHGENE1"]["neighbours"]
    cut = lines(folder / "cut.jsonl")["NOSUCHGENE1"]["asked"]
    assert (cut["n_candidates"], cut["n_shown"]) == (41, 12)
    assert cut["cut"].startswith("12 of 41")


def test_fused_on_the_file_end_to_end(world, tmp_path, monkeypatch):
    folder, held, _ = world
    monkeypatch.chdir(folder)  # --set answers is relative to the working directory
    run = ["predict", "screen.h5ad", "--genes", ",".join(held), "--knowledge", "knowledge"]
    run += ["--method", "fused", "--set", "answers=answers.jsonl", "--set", "n_trees=5"]
    run += ["--folds", "0", "--out", str(tmp_path / "out")]
    done = RUNNER.invoke(app, run)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    notes = "\n".join(record["notes"])
    assert f"{held[1]}: answers.jsonl holds no usable answer (refusal 3" in notes
    assert f"{held[2]}: no recorded answer in answers.jsonl; its prediction rests on" in notes
    assert f"{held[0]}:" not in notes
    assert "measured perturbations: how far" not in notes  # all 41 were asked
    members = record["prediction"]["members"]
    alone = {"forest of what was said", "linked neighbours"}
    assert set(members) == {"multi-kernel", "radial", "forest", *alone}
    assert any(s.startswith("recorded answers: langpert (scripted@")
               for s in members["multi-kernel"]["sources"])  # fmt: skip
    assert list(record["method"]["files_sha256"]) == ["answers.jsonl"]
    assert "no recorded answer in answers.jsonl" in done.output.replace("\n", " ")
    table = pd.read_csv(tmp_path / "out" / "prediction.csv")
    assert set(table["perturbation"]) == set(held)
    assert np.isfinite(table["mean"]).all()

    done = RUNNER.invoke(app, [*run, "--llm", "m@http://127.0.0.1:1/v1"])
    assert "`pertwise ask` asks a model first" in str(done.exception)

    # Only the asked genes were recorded: nothing measured says how far to trust the model.
    only = [w.replace("answers=answers.jsonl", "answers=cut.jsonl") for w in run]
    done = RUNNER.invoke(app, only)
    assert done.exit_code == 0, done.output
    notes = json.loads((tmp_path / "out" / "prediction.json").read_text())["notes"]
    assert any("cut.jsonl answers for 0 of 41 measured perturbations" in n for n in notes)


def test_the_benchmark_reads_the_file_beside_its_toml_and_sees_it_change(world, tmp_path):
    folder, _, _ = world
    answers = tmp_path / "sub" / "answers.jsonl"
    answers.parent.mkdir()
    answers.write_text((folder / "answers.jsonl").read_text())
    toml = tmp_path / "sub" / "bench.toml"
    toml.write_text(
        f"""
screen = "{folder / "screen.h5ad"}"
knowledge = "{folder / "knowledge"}"
methods = [
  {{ use = "fused", settings = {{ answers = "answers.jsonl", n_trees = 3 }} }},
  {{ use = "langpert (recorded)", settings = {{ answers = "answers.jsonl" }} }},
  {{ use = "training mean" }},
]
[split]
folds = 2
shuffles = 1
[metrics]
tops = []
"""
    )
    out = tmp_path / "out"
    run = ["bench", "prediction", str(toml), "--out", str(out)]
    done = RUNNER.invoke(app, run)
    assert done.exit_code == 0, done.output
    first = pd.read_parquet(out / "results.parquet")
    assert not (first["error"] != "").any()
    units = {p.name for p in (out / "units").glob("*.parquet")}
    assert RUNNER.invoke(app, run).exit_code == 0
    assert {p.name for p in (out / "units").glob("*.parquet")} == units, "nothing changed"

    rows = lines(answers)
    for row in rows.values():
        row["neighbours"], row["reasons"] = row["neighbours"][::-1][:1], ["another answer"]
    answers.write_text("".join(json.dumps(r) + "\n" for r in rows.values() if r["neighbours"]))
    assert RUNNER.invoke(app, run).exit_code == 0
    again = pd.read_parquet(out / "results.parquet")

    def error(table, method):
        part = table[(table["method"] == method) & (table["metric"] == "squared_error")]
        return part.sort_values(["fold", "perturbation"])["value"].to_numpy()

    for method in ("fused", "langpert (recorded)"):
        assert not np.allclose(error(first, method), error(again, method)), method
    np.testing.assert_array_equal(error(first, "training mean"), error(again, "training mean"))


def test_without_names_codes_and_annotations_are_shown_and_the_file_holds_the_names(
    simulated, tmp_path
):
    screen, knowledge = simulated
    path = tmp_path / "screen.h5ad"
    screen.save(path)
    out, folder = tmp_path / "answers.jsonl", str(knowledge.path)
    subject = screen.perturbations[0]
    with ScriptedServer() as server:
        blind = ("--anonymise", "--no-measured", "--genes", subject)
        without = RUNNER.invoke(app, call(path, out, server.openai(), *blind))
        assert without.exit_code != 0
        assert "--knowledge DIR" in str(without.exception)
        assert server.count == 0
        call_ = call(path, out, server.openai(), *blind, "--knowledge", folder)
        done = RUNNER.invoke(app, call_)
        assert done.exit_code == 0, done.output
        (prompt,) = [a.first for a in server.asked]
    for name in screen.perturbations:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt), name
    assert "knock-down of G0000 " in prompt
    rows = [x for x in prompt.splitlines() if re.match(r"G\d{4} \| ", x)]
    assert len(rows) == len(screen.perturbations) - 1
    assert any(x.split(" | ", 1)[1].startswith(("GO: ", "Reactome: ")) for x in rows)
    (row,) = lines(out).values()
    assert row["subject"] == subject
    assert row["asked"]["anonymised"] is True
    codes = row["asked"]["codes"]
    assert sorted(codes.values()) == sorted(set(screen.perturbations) - {subject})
    assert [codes[reason.split()[1]] for reason in row["reasons"]] == row["neighbours"]
    assert set(row["neighbours"]) <= set(screen.perturbations) - {subject}
    assert row["neighbours"]
