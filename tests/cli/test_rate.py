"""`pertwise rate`, `pw.rate` and their files, against the scripted server (no real model)."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise.cli.main import app
from pertwise.errors import BudgetError, InputError, ReplayMissError
from pertwise.knowledge.ratings import read_ratings
from pertwise.screen import make_screen
from pertwise.testing.server import (
    Answer,
    Fault,
    ScriptedServer,
    first_alphabetical,
    listed,
    marks_json,
)

RUNNER = CliRunner()
NAMES = [f"G{i:02d}" for i in range(9)]


def save(path, names=NAMES, context="K562", features=("a", "b")):
    x = np.random.default_rng(0).normal(size=(len(names), len(features)))
    make_screen(x, list(names), list(features), context=context).save(path)
    return path


@pytest.fixture
def screen(tmp_path):
    return save(tmp_path / "screen.h5ad")


def run(*words):
    return RUNNER.invoke(app, ["rate", *map(str, words)])


def ok(*words):
    done = run(*words)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


def opposite(asked):
    """By the letters; the second time that everything is asked, one program has the other sign."""
    said = json.loads(first_alphabetical(asked))
    if asked.number % 2 == 0:
        for row in said["marks"]:
            row["ribosome"] = -row["ribosome"]
    return json.dumps(said)


def test_a_screen_is_marked_and_written_to_be_read_by_anyone(screen, tmp_path):
    out = tmp_path / "marks.csv"
    with ScriptedServer() as server:
        call = (screen, "--llm", server.openai(), "--out", out)
        said = ok(*call)
        assert "to mark: 9 knock-downs in 16 programs, in K562: 1 questions" in said
        assert "marks: 144 of 144; repairs: none" in said
        assert "BCR-ABL1" in server.asked[0].first
        paid = server.paid
        assert ok(*call) == said
        assert server.paid == paid, "the ledger answers the second time"
    frame = pd.read_csv(out)
    assert list(frame.columns[:3]) == ["perturbation", "context", "integrated stress response"]
    assert list(frame["perturbation"]) == NAMES
    assert set(frame["context"]) == {"K562"}
    (found,) = read_ratings(out)
    keys = listed(server.asked[0].first, "programs")
    made = json.loads(marks_json(NAMES, keys))["marks"]
    np.testing.assert_array_equal(found.marks, [[r[k] for k in keys] for r in made])
    assert found.source.startswith("rate (scripted@")
    programs = pd.read_csv(tmp_path / "marks.programs.csv")
    assert list(programs["name"]) == list(found.programs)
    assert programs.loc[0, "up"].startswith("ASNS")
    record = json.loads((tmp_path / "marks.json").read_text())
    assert record["marks"] == {"given": 144, "asked": 144}
    assert record["contexts"][0]["prompt"] == "rate"
    assert record["inputs"]["screen"]["sha256"]
    assert not (tmp_path / "marks.replicates.csv").exists()
    assert not (tmp_path / "marks.partial.csv").exists()


def test_replicates_that_disagree_are_told_and_left_out(screen, tmp_path):
    out = tmp_path / "marks.csv"
    with ScriptedServer(opposite) as server:
        call = (screen, "--llm", server.openai(), "--out", out, "--concurrency", "1")
        said = ok(*call, "--replicates", "2", "--reasons")
        assert server.count == 2
        assert re.search(r"cytosolic ribosome and translation +rank correlation -1\.00", said)
        assert "left out in K562, agreement below 0.5: cytosolic ribosome and translation" in said
        ribosome = "cytosolic ribosome and translation"
        (found,) = read_ratings(out)
        assert ribosome not in found.programs
        assert len(found.programs) == 15
        assert (found.spread == 0).all()
        both = pd.read_csv(tmp_path / "marks.replicates.csv")
        assert list(both["replicate"].value_counts()) == [9, 9]
        one, two = (
            both[both["replicate"] == r].set_index("perturbation")[ribosome] for r in (1, 2)
        )
        assert (one == -two).all()
        # The table of replicates is a table of marks, too: they are averaged.
        (mean,) = read_ratings(tmp_path / "marks.replicates.csv")
        assert (mean.marks[:, mean.programs.index(ribosome)] == 0).all()
        table = pd.read_csv(tmp_path / "marks.agreement.csv").set_index("program")
        assert table.loc[ribosome, "spearman"] == pytest.approx(-1)
        kept = ok(*call, "--replicates", "2", "--reasons", "--min-agreement", "-1")
        assert "left out" not in kept
        assert ribosome in read_ratings(out)[0].programs
        ok(*call)
        assert not (tmp_path / "marks.replicates.csv").exists(), "of an earlier run"
    assert found.reasons["G00"] == "scripted: the letters of G00"


def test_nothing_is_left_when_replicates_agree_on_nothing(screen, tmp_path):
    def script(asked):
        said = json.loads(first_alphabetical(asked))
        rng = np.random.default_rng(asked.number)
        for row in said["marks"]:
            row.update({k: float(rng.integers(0, 4)) for k in row if k not in ("name", "reason")})
        return json.dumps(said)

    out = tmp_path / "marks.csv"
    with ScriptedServer(script) as server:
        call = (screen, "--llm", server.openai(), "--out", out, "--replicates", "2")
        done = run(*call, "--min-agreement", "1")
        assert isinstance(done.exception, InputError)
        assert "replicates agree on no program" in str(done.exception)
    assert not out.exists()
    assert (tmp_path / "marks.replicates.csv").exists()


def test_names_cells_pathways_and_aliases(simulated, tmp_path):
    simulation, knowledge = simulated
    folder = knowledge.path
    pathway = knowledge.pathway_names()[0]
    names = simulation.perturbations[:4]
    out = tmp_path / "marks.csv"
    with ScriptedServer() as server:
        said = ok(
            "--names", f"{names[2]},{names[0]},NOSUCH1", "--names", names[1], "--knowledge", folder,
            "--pathway", pathway, "--context", "X9", "--context-text", "Made-up cells.",
            "--llm", server.anthropic(), "--out", out,
        )  # fmt: skip
        prompt = server.asked[0].first
    assert "NOSUCH1 is not a gene of the knowledge folder" in said
    assert "to mark: 4 knock-downs in 2 programs, in X9" in said
    assert "Cells: X9. Made-up cells." in prompt
    (found,) = read_ratings(out)
    assert found.programs == (pathway, "strength")
    assert found.context == "X9"
    assert set(found.names) == {*names[:3], "NOSUCH1"}


def test_features_of_a_screen_and_a_table_of_programs(tmp_path):
    features = ("18-cell cycle", "20-cell cycle", "UPR")
    screen = save(tmp_path / "s.h5ad", features=features)
    mine = tmp_path / "mine.csv"
    mine.write_text("name,definition,up\nUPR,the ER,HSPA5\n")
    with ScriptedServer() as server:
        call = (screen, "--llm", server.openai(), "--out", tmp_path / "m.csv")
        said = ok(*call, "--features")
        assert "3 programs have no marker genes" in said
        (found,) = read_ratings(tmp_path / "m.csv")
        assert found.programs == (*features, "strength")
        ok(*call, "--feature", "UPR", "--programs", "genes")
        assert len(read_ratings(tmp_path / "m.csv")[0].programs) == 17
        ok(*call, "--programs", mine)
        assert "| UPR | the ER | HSPA5 rise |" in server.asked[-1].first
        assert read_ratings(tmp_path / "m.csv")[0].programs == ("UPR", "strength")
        wrong = run(*call, "--feature", "NOSUCH")
        assert isinstance(wrong.exception, InputError)
        wide = save(tmp_path / "wide.h5ad", features=[f"x{i}" for i in range(90)])
        many = run(wide, "--features", "--llm", server.openai(), "--out", tmp_path / "w.csv")
        assert "--feature NAME" in str(many.exception)


def test_compounds_are_marked_in_every_line(tmp_path):
    from drug_example import drug_frame, drug_screen

    made = drug_screen()
    made.save(tmp_path / "s.h5ad")
    drug_frame().to_parquet(tmp_path / "d.parquet")
    out = tmp_path / "m.csv"
    with ScriptedServer() as server:
        call = (tmp_path / "s.h5ad", "--drugs", tmp_path / "d.parquet", "--llm", server.openai())
        said = ok(*call, "--out", out)
        assert f"{len(made.perturbations)} drugs in 20 programs" in said
        found = read_ratings(out)
        assert [r.context for r in found] == list(made.contexts)
        assert all(set(r.names) == set(made.in_context(r.context).perturbations) for r in found)
        ok(*call, "--out", tmp_path / "one.csv", "--context", made.contexts[0])
        assert len(read_ratings(tmp_path / "one.csv")) == 1
        wrong = run(*call, "--out", tmp_path / "x.csv", "--context", "NOSUCH")
        assert "NOSUCH" in str(wrong.exception)


# -- money, stopping, replay -----------------------------------------------------------------


def test_a_dry_run_sends_nothing_and_says_what_a_hundred_cost(screen, tmp_path):
    with ScriptedServer() as server:
        said = ok(screen, "--llm", server.openai(), "--dry-run", "--replicates", "3")
        assert server.count == 0
    assert "3 requests, 0 already in the ledger, 3 to send" in said
    assert re.search(r"100 knock-downs: about \d+ \+ at most \d+ tokens, at most \$0\.0000", said)
    assert [p.name for p in tmp_path.iterdir()] == ["screen.h5ad"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_it_goes_on_without_paying_twice(tmp_path, end):
    names = [f"G{i:03d}" for i in range(120)]
    screen, out = save(tmp_path / "screen.h5ad", names), tmp_path / "marks.csv"
    partial = tmp_path / "marks.partial.csv"
    with ScriptedServer(lambda a: Answer(first_alphabetical(a), delay=0.1)) as server:
        call = ["rate", screen, "--llm", server.openai(), "--out", out, "--batch-size", "2"]
        call = [*map(str, call), "--concurrency", "2"]
        code = [sys.executable, "-c", "from pertwise.cli.main import main; main()", *call]
        with subprocess.Popen(code, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
            while not partial.exists():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.005)
            time.sleep(0.3)
            os.kill(process.pid, end)
            told = process.stderr.read()
        assert not out.exists()
        if end != signal.SIGKILL:
            assert "marks.partial.csv" in told
            assert "goes on from" in told
        (part,) = read_ratings(partial)
        assert 2 <= len(part.names) < 120
        before = server.paid
        assert RUNNER.invoke(app, call).exit_code == 0
        # Two calls were under way at the end: paid for, and perhaps not yet in the ledger.
        assert 0 < server.paid - before <= 60 - len(part.names) // 2 + 2
        assert server.paid <= 60 + 2
        paid = server.paid
        assert RUNNER.invoke(app, call).exit_code == 0
        assert server.paid == paid
    (whole,) = read_ratings(out)
    assert whole.names == tuple(names)
    assert not partial.exists()
    at = [names.index(n) for n in part.names]
    np.testing.assert_array_equal(part.marks, whole.marks[at])
    # The server is gone: the same table from the ledger, elsewhere.
    again = tmp_path / "again.csv"
    ledger = tmp_path / "marks.ledger.sqlite"
    call = [str(again) if w == str(out) else w for w in call]
    done = RUNNER.invoke(app, [*call, "--replay", "--ledger", str(ledger)])
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == out.read_bytes()


def test_budget_and_replay_stop_the_run(screen, tmp_path):
    out = tmp_path / "marks.csv"
    with ScriptedServer() as server:
        call = (screen, "--llm", server.openai(), "--out", out, "--batch-size", "1")
        done = run(*call, "--budget-tokens", "12000")
        assert isinstance(done.exception, BudgetError)
        assert 0 < server.paid < 9
        assert "stopped early; the answers so far" in done.output
        assert len(read_ratings(tmp_path / "marks.partial.csv")[0].names) == server.paid
        missing = run(*call, "--replay")
        assert isinstance(missing.exception, ReplayMissError)
        ok(*call)
        assert server.paid == 9


def test_two_writers_are_one_too_many(screen, tmp_path):
    from pertwise._process import only_writer

    out = tmp_path / "marks.csv"
    with ScriptedServer() as server, only_writer(out):
        done = run(screen, "--llm", server.openai(), "--out", out)
        assert "is being written by another pertwise process" in str(done.exception)
        assert server.count == 0


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda a: Answer("I am sorry, I cannot help with that."), "refusal"),
        (lambda a: Fault(400, "prompt too long"), "prompt too long"),
        (lambda a: json.dumps({"marks": [{"name": "NOSUCH", "isr": 1}]}), "out_of_list"),
    ],
)
def test_no_usable_mark_ends_with_status_1(script, said, screen, tmp_path):
    with ScriptedServer(script) as server:
        done = run(screen, "--llm", server.openai(), "--out", tmp_path / "m.csv")
    assert done.exit_code == 1
    assert "error: no answer of scripted@" in done.output
    assert said in done.output
    assert np.isnan(read_ratings(tmp_path / "m.csv")[0].marks).all(), "nothing is invented"


# -- by hand ---------------------------------------------------------------------------------


def test_a_template_is_filled_in_by_hand_and_read(screen, tmp_path):
    out = tmp_path / "hand.csv"
    said = ok(screen, "--template", "--out", out)
    assert "hand.programs.csv" in said
    frame = pd.read_csv(out, dtype=str, keep_default_na=False)
    assert list(frame["perturbation"]) == NAMES
    assert list(frame.columns[-2:]) == ["strength", "reason"]
    frame.loc[3, "G2/M and mitosis"] = "-2,5".replace(",", ".")
    frame.loc[3, "reason"] = "arrests in G1"
    frame.to_csv(out, index=False, sep=";")
    (found,) = read_ratings(out)
    assert found.take(["G03"])[0, found.programs.index("G2/M and mitosis")] == -2.5
    assert np.isfinite(found.marks).sum() == 1
    assert found.reasons == {"G03": "arrests in G1"}
    again = run(screen, "--template", "--out", out)
    assert "is there already" in str(again.exception)
    # The definitions can be edited and asked.
    with ScriptedServer() as server:
        call = (screen, "--programs", tmp_path / "hand.programs.csv", "--llm", server.openai())
        ok(*call, "--out", tmp_path / "m.csv")
        lost = run(*call, "--out", out)
        assert "nothing made by hand is lost" in str(lost.exception)
        assert server.count == 1
        edited = tmp_path / "m.csv"
        edited.write_text(edited.read_text().replace("G03,K562,", "G03,K562,3,", 1))
        assert "was changed since" in str(run(*call, "--out", edited).exception)


def test_two_tables_are_compared(tmp_path):
    table = pd.DataFrame({"gene": NAMES, "up": range(-4, 5), "STR": [1.0] * 9})
    table["up"] = table["up"] * 0.75
    table.to_csv(tmp_path / "a.csv", index=False)
    table.assign(up=-table["up"]).to_csv(tmp_path / "b.csv", index=False)
    said = ok(tmp_path / "a.csv", "--compare", tmp_path / "b.csv")
    assert re.search(r"up +rank correlation -1\.00  mean difference 3\.33  n 9", said)
    for more in (["--llm", "m@http://127.0.0.1:1/v1"], ["--seed", "1"], ["--context", "K562"]):
        done = run(tmp_path / "a.csv", "--compare", tmp_path / "b.csv", *more)
        assert "not used here" in str(done.exception), more


def test_mistakes_are_told_before_anything_is_asked(screen, tmp_path):
    with ScriptedServer() as server:
        llm = ("--llm", server.openai())
        out = ("--out", tmp_path / "m.csv")
        for words, message in (
            ((screen, *llm), "--out ratings.csv"),
            ((screen, *out), "--llm MODEL@URL"),
            ((*llm, *out), "nothing to mark"),
            ((screen, *llm, "--out", tmp_path / "m.tsv"), "is a .csv file"),
            ((screen, *llm, *out, "--context", "RPE1"), "RPE1"),
            ((screen, *llm, *out, "--pathway", "x"), "--knowledge DIR"),
            ((screen, *llm, *out, "--programs", tmp_path / "no.csv"), "no.csv"),
            ((screen, *llm, *out, "--min-agreement", "0.3"), "there is one replicate"),
            ((screen, *llm, *out, "--ratings", tmp_path / "r.csv"), "--ratings: not used here"),
            (("--names", "A", *llm, *out, "--features"), "features are those of a screen"),
            (("--names", "A", *llm, *out, "--control", "x"), "no screen is read"),
            ((screen, *llm, *out, "--template"), "asks no model"),
            ((screen, *out, "--template", "--reasons"), "asks no model"),
            ((screen, *llm, *out, "--batch-size", "500"), "smaller batch"),
            ((screen, *llm, *out, "--prompt", "nosuch"), "nosuch"),
        ):
            done = run(*words)
            assert isinstance(done.exception, InputError), (words, done.output)
            assert message in str(done.exception), (words, done.exception)
        assert server.count == 0
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".csv"] == []


# -- in Python -------------------------------------------------------------------------------


def test_the_front_door(screen, tmp_path):
    with ScriptedServer(opposite) as server:
        chat = pw.chat(server.openai(), concurrency=1)
        found = pw.rate(pw.read_screen(screen), llm=chat, replicates=2)
        assert found.left_out == {"K562": ["cytosolic ribosome and translation"]}
        assert len(found.table) == 9
        assert found.n_marks == (288, 288)
        assert found.repair_counts() == {}
        files = found.write(tmp_path / "m.csv")
        pd.testing.assert_frame_equal(pd.read_csv(files["table"]), found.table, check_dtype=False)
        one = pw.rate(names=["MYC", "B+A"], llm=server.openai(), context="K562")
        assert one.ratings[0].names == ("A+B", "MYC")
        assert one.agreement.empty
        with pytest.raises(InputError, match=r"is a \.csv file"):
            pw.rate(screen, llm=chat, out=tmp_path / "m.xlsx")
