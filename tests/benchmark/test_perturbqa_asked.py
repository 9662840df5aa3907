"""PerturbQA by a chat model, against the scripted server (no real model)."""

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
from benchmark.test_perturbqa import split, table
from typer.testing import CliRunner

from pertwise.benchmark import bench
from pertwise.benchmark.perturbqa import ChatScorer, evaluate_scorer
from pertwise.benchmark.perturbqa.evidence import NAMED, Retrieval
from pertwise.cli.main import app
from pertwise.errors import BudgetError, InputError, ReplayMissError
from pertwise.llm import open_chat
from pertwise.select.base import Pick, Selection
from pertwise.testing.server import Answer, ScriptedServer, listed

RUNNER = CliRunner()
FAST = {"backoff_s": 0.001, "backoff_max_s": 0.002, "attempts": 2, "timeout_s": 5}


def subject(asked):
    return re.search(r"^(\S+) is knocked down", asked.first, re.MULTILINE).group(1)


def marks(asked, names=None):
    """By the rule behind `table`: this server knows the answer, to test the harness."""
    third = int(subject(asked)[1:]) % 3
    (key,) = listed(asked.first, "programs")
    low = 0 if key == "change" else -3
    return [
        {"name": n, key: 3 if int(n[1:]) % 3 == third else low}
        for n in (listed(asked.first) if names is None else names)
    ]


def good(asked):
    return json.dumps({"marks": marks(asked)})


def truth(pairs, low=0.0):
    same = pairs["pert"].str[1:].astype(int) % 3 == pairs["gene"].str[1:].astype(int) % 3
    return np.where(same, 3.0, low)


@pytest.fixture
def labels(tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    for name, seed in (("k562-de.csv.gz", 0), ("k562-dir.csv", 1)):
        table(seed=seed).to_csv(folder / name, index=False)
    return folder


def run(*words):
    return RUNNER.invoke(app, ["bench", "perturbqa", *map(str, words)])


def ok(*words):
    done = run(*words)
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


# -- one table, same pairs ---------------------------------------------------------------------


def test_a_model_stands_beside_the_numeric_scorers_in_one_table(labels, tmp_path):
    out = tmp_path / "out"
    with ScriptedServer(good) as server:
        call = (labels, "--method", "training-mean", "--llm", server.openai("judge"), "--out", out)
        said = ok(*call)
        summary = pd.read_csv(out / "summary.csv").set_index(["task", "method"])
        assert list(summary.loc["de"].index) == ["gene frequency", "training mean", "asked judge"]
        test = split(table(seed=0))[1]
        n = len(test) + len(split(table(seed=1))[1])
        assert f"asked judge: 20 questions, marks {n} of {n}, 0 re-asks" in said
        assert said.count("repairs: none") == 1
        for task in ("de", "dir"):
            rows = summary.loc[task]
            assert rows["n_genes"].nunique() == rows["n_pairs"].nunique() == 1, "same pairs"
            assert rows.loc["asked judge", "auroc"] > 0.6 > rows.loc["training mean", "auroc"]
            assert rows.loc["asked judge", "coverage"] == 1
        given = pd.read_csv(out / "marks.csv")
        assert set(given.loc[given["task"] == "dir", "mark"]) == {-3.0, 3.0}
        de = given[given["task"] == "de"]
        np.testing.assert_array_equal(de["mark"], truth(de))
        assert set(map(tuple, de[["pert", "gene"]].to_numpy())) == set(
            map(tuple, test[["pert", "gene"]].to_numpy())
        )
        paid = server.paid
        assert ok(*call) == said
        assert server.paid == paid, "finished parts are kept"
        prompts = [a.first for a in server.asked]
    record = (out / "run.json").read_text()
    assert "judge@http" in record
    assert "In which direction" in prompts[-1]
    assert "Does the mRNA" in prompts[0]
    # The server is gone: the same from the ledger alone, in another folder.
    again = ok(*call[:-1], tmp_path / "again", "--replay", "--ledger", out / "ledger.sqlite")
    assert again.replace("again", "out") == said
    assert (tmp_path / "again" / "summary.csv").read_bytes() == (out / "summary.csv").read_bytes()


def test_genes_are_drawn_for_all_scorers_alike(labels, tmp_path):
    with ScriptedServer(good) as server:
        call = (labels, "--llm", server.openai(), "--task", "de", "--genes", "3")
        ok(*call, "--method", "training-mean", "--out", tmp_path / "a")
        ok(*call, "--seed", "5", "--out", tmp_path / "b")
    summary = pd.read_csv(tmp_path / "a" / "summary.csv")
    assert (summary["n_genes"] == 3).all()
    assert summary["n_pairs"].nunique() == 1
    genes = [set(pd.read_csv(tmp_path / d / "per_gene.csv")["gene"]) for d in "ab"]
    assert all(len(g) == 3 for g in genes)
    assert genes[0] != genes[1]


def test_the_front_door_and_inner_folds(labels):
    with ScriptedServer(good) as server:
        made = bench(
            {"labels": str(labels), "llm": server.openai("m"), "tasks": ["de"], "inner": 2}
        )
    row = made.summary.set_index("method").loc["asked m"]
    assert row["auroc"] > 0.6
    assert set(made.read("marks.csv")["fold"]) == {0, 1}
    assert not made.read("marks.csv")["pert"].isin([f"P{i}" for i in range(30, 40)]).any()


# -- what is shown -------------------------------------------------------------------------------


class Numbers:
    """Alike by the rule behind `table`."""

    name = "numbers"

    def select(self, query, candidates, n):
        same = [c for c in candidates if int(c[1:]) % 3 == int(query.subject[1:]) % 3]
        picks = [Pick(c, "same third") for c in same if c != query.subject]
        return Selection(tuple(picks[:n]), self.name)


def test_evidence_is_the_training_labels_of_alike_perturbations_and_genes():
    train = pd.DataFrame(
        [("P00", "G00", 1), ("P03", "G00", 0), ("P01", "G00", 1), ("P06", "G03", 1)],
        columns=["pert", "gene", "label"],
    )
    pairs = pd.DataFrame({"pert": ["P33", "P33"], "gene": ["G00", "G06"]})
    found = Retrieval(train, "de", Numbers()).find(pairs)["P33"]
    assert found.alike == ("P00", "P03", "P06")
    assert found.rows["G00"] == (
        "changed in 2 of 3 knock-downs; unchanged in P03; changed in P00; alike genes: "
        "G03 changed in P06"
    )
    assert found.rows["G06"] == "alike genes: G00 changed in P00, G03 changed in P06"
    down = Retrieval(train, "dir", Numbers()).find(pairs)["P33"]
    assert down.rows["G00"].startswith("rose in 2 of 3 knock-downs; fell in P03; rose in P00")
    bare = Retrieval(train, "de").find(pairs)["P33"]
    assert bare.alike == ()
    assert bare.rows["G00"] == "changed in 2 of 3 knock-downs"


def test_the_question_shows_facts_and_neighbours_but_no_label_of_the_test_split(simulated):
    simulation, knowledge = simulated
    names = list(simulation.perturbations)
    rng = np.random.default_rng(0)
    rows = [(p, g, int(rng.random() < 0.5)) for p in names[:30] for g in names[30:38]]
    whole = pd.DataFrame(rows, columns=["pert", "gene", "label"])
    train, test = whole[whole["pert"].isin(names[:22])], whole[~whole["pert"].isin(names[:22])]

    def script(asked):
        return json.dumps({"marks": [{"name": n, "change": 1.5} for n in listed(asked.first)]})

    with ScriptedServer(script) as server:
        scorer = ChatScorer(open_chat(server.openai(), **FAST), "k562", "de", knowledge)
        scores = scorer(train, test[["pert", "gene"]])
        prompts = {re.search(r"(\S+) is knocked", a.first).group(1): a.first for a in server.asked}
    np.testing.assert_array_equal(scores, 1.5)
    assert set(prompts) == set(names[22:30])
    held = set(names[22:30])
    for pert, prompt in prompts.items():
        assert f"About {pert}: " in prompt
        assert "BCR-ABL1" in prompt, "the line is described"
        alike = re.search(r"the nearest first: (.*)\.\n", prompt).group(1).split(", ")
        assert 0 < len(alike) <= NAMED
        assert set(alike) <= set(names[:22])
        assert re.search(r"changed in \d+ of 22 knock-downs; ", prompt)
        block = re.search(r"<candidates>\n(.*)</candidates>", prompt, re.DOTALL).group(1)
        for words in re.findall(r"(?:un)?changed in ([^;|\n]*)", block):
            assert not held & set(words.split(", "))


# -- misbehaviour --------------------------------------------------------------------------------


def misbehave(change):
    """On the first question of each conversation `change` gets the rows, then all is well."""

    def script(asked):
        if asked.turn > 1:
            return good(asked)
        sent = change(marks(asked))
        return sent if isinstance(sent, Answer | str) else json.dumps({"marks": sent})

    return script


CASES = {
    "another scale": (
        lambda rows: [{**r, "change": 60} for r in rows],
        {"out_of_scale", "other_scale"},
    ),
    "a missing row": (lambda rows: rows[1:], {"missing"}),
    "columns swapped": (
        lambda rows: [{"name": "change", **{r["name"]: r["change"] for r in rows}}],
        {"swapped", "missing"},
    ),
    "below zero": (lambda rows: [{**r, "change": -2} for r in rows], {"swapped", "other_scale"}),
    "prose": (lambda rows: "It will surely change most of these genes.", {"unparsable"}),
    "a refusal": (lambda rows: "I'm sorry, but I cannot help.", {"refusal"}),
    "a name twice": (lambda rows: [*rows, {**rows[0], "change": 1}], {"duplicate"}),
    "another gene": (
        lambda rows: [*rows[1:], {**rows[0], "name": "TP53"}],
        {"out_of_list", "missing"},
    ),
    "words for marks": (lambda rows: [{**r, "change": "yes"} for r in rows], {"invalid"}),
    "cut off": (lambda rows: Answer('{"marks": [{"na', finish="length"), {"truncated"}),
}


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@pytest.mark.parametrize("name", CASES)
def test_misbehaviour_is_repaired_and_counted(name, protocol, tmp_path):
    change, kinds = CASES[name]
    train, test = split(table())
    pairs = test[["pert", "gene"]].reset_index(drop=True)
    ledger = tmp_path / "ledger.sqlite"
    with ScriptedServer(misbehave(change)) as server:
        address = server.address(protocol)
        scorer = ChatScorer(open_chat(address, ledger=ledger, **FAST), "k562", "de")
        scores = scorer(train, pairs)
        paid = server.paid
    np.testing.assert_array_equal(scores, truth(pairs))
    repairs = scorer.repairs()
    assert kinds <= set(repairs["kind"]) <= kinds | {"missing"}
    assert set(repairs["pert"]) == set(pairs["pert"])
    told = scorer.asked().iloc[0]
    assert told["re_asks"] == told["questions"] == paid / 2 == pairs["pert"].nunique()
    assert told["marks"] == told["pairs"] == len(pairs)
    again = ChatScorer(open_chat(address, ledger=ledger, replay=True), "k562", "de")
    np.testing.assert_array_equal(again(train, pairs), scores)
    pd.testing.assert_frame_equal(again.repairs(), repairs)


def test_what_never_comes_stays_without_a_score_and_in_the_table():
    train, test = split(table())

    def script(asked):
        return json.dumps({"marks": [r for r in marks(asked) if r["name"] != "G03"]})

    with ScriptedServer(script) as server:
        scorer = ChatScorer(open_chat(server.openai(), **FAST), "k562", "de")
        result = evaluate_scorer(scorer, train, test, np.random.default_rng(0))
    assert result.coverage == pytest.approx((test["gene"] != "G03").mean())
    assert result.n_pairs == len(test)
    assert result.per_gene["G03"] == 0.5
    assert (scorer.repairs()["kind"] == "left_empty").sum() == (test["gene"] == "G03").sum()


@pytest.mark.parametrize("script", [lambda a: "I am sorry, I cannot help.", lambda a: "No idea."])
def test_no_usable_answer_ends_with_status_1_and_the_frequency_in_the_table(script, labels):
    with ScriptedServer(script) as server:
        done = run(labels, "--llm", server.openai(), "--task", "de")
    assert done.exit_code == 1
    assert "error: no answer of model 'asked scripted' could be used" in done.output
    assert re.search(r"asked scripted │ 0\.500 .*│ +0\.000", done.output), done.output


# -- money, stopping ---------------------------------------------------------------------------


def test_a_dry_run_asks_nothing_and_leaves_nothing(labels, tmp_path):
    with ScriptedServer(good) as server:
        said = ok(labels, "--llm", server.openai(), "--dry-run", "--out", tmp_path / "out")
        assert server.count == 0
    assert "20 requests, 0 already in the ledger, 20 to send" in said
    assert re.search(r"100 pairs: about \d+ \+ at most \d+ tokens", said)
    assert not (tmp_path / "out").exists()


def test_a_budget_stops_it_and_replay_never_calls(labels, tmp_path):
    out = tmp_path / "out"
    with ScriptedServer(good) as server:
        call = (labels, "--llm", server.openai(), "--out", out, "--task", "de")
        done = run(*call, "--budget-tokens", "3000", "--concurrency", "1")
        assert isinstance(done.exception, BudgetError)
        paid = server.paid
        assert 0 < paid < 10
        assert isinstance(run(*call, "--replay").exception, ReplayMissError)
        ok(*call)
        assert server.paid == 10


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_killed_it_goes_on_without_paying_twice(labels, tmp_path, end):
    out = tmp_path / "out"
    with ScriptedServer(lambda a: Answer(good(a), delay=0.3)) as server:
        call = ["bench", "perturbqa", labels, "--llm", server.openai(), "--out", out]
        call = [*map(str, call), "--concurrency", "1"]
        code = [sys.executable, "-c", "from pertwise.cli.main import main; main()", *call]
        with subprocess.Popen(code, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
            while server.paid < 4:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            os.kill(process.pid, end)
            process.stderr.read()
        before = server.paid
        assert not (out / "summary.csv").exists()
        server.script = good
        done = RUNNER.invoke(app, call)
        assert done.exit_code == 0, done.output
        # One call was under way at the end: paid for, and perhaps not yet in the ledger.
        assert server.paid - before <= 20 - 4 + 1
        assert server.paid <= 20 + 1
    with ScriptedServer(good) as server:
        whole = bench({"labels": str(labels), "llm": server.openai()}).summary
    found = pd.read_csv(out / "summary.csv")
    pd.testing.assert_frame_equal(found, whole, check_dtype=False)


def test_options_that_mean_nothing_are_refused(labels, tmp_path):
    llm = ("--llm", "m@http://127.0.0.1:1/v1")
    for words, message in (
        (("--dry-run",), "--dry-run: not used here, since no model is asked"),
        (("--replay",), "--replay: not used here"),
        (("--neighbours", "graph:string"), "--neighbours: not used here"),
        (("--drugs", tmp_path / "d.csv"), "--drugs: not used here"),
        ((*llm, "--neighbours", "graph:string"), "needs a knowledge folder"),
        ((*llm, "--prompt", "nosuch"), "nosuch"),
        ((*llm, "--genes", "3", "--line", "rpe1"), "none is in lines"),
    ):
        done = run(labels, *words)
        assert isinstance(done.exception, InputError), (words, done.output)
        assert message in str(done.exception), (words, done.exception)


def test_an_address_with_a_key_in_it_is_not_written(labels, tmp_path):
    with ScriptedServer(good) as server:
        address = server.openai() + "?api-version=hush"
        ok(labels, "--llm", address, "--task", "de", "--out", tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.*"):
        assert b"hush" not in path.read_bytes(), path


# -- before and after -------------------------------------------------------------------------


def poor(asked):
    """Marks by the rule of `good`, wrong for every other gene: a model before it was tuned."""
    given = marks(asked)
    for row in given[::2]:
        (key,) = set(row) - {"name"}
        row[key] = -row[key] if key != "change" else 3 - row[key]
    return json.dumps({"marks": given})


def test_before_and_after_stand_in_one_table_paired_over_genes(labels, tmp_path):
    old, new = tmp_path / "before", tmp_path / "after"
    with ScriptedServer(poor) as server:
        ok(labels, "--llm", server.openai("plain"), "--out", old)
    with ScriptedServer(good) as server:
        call = (labels, "--llm", server.openai("tuned"), "--before", old, "--out", new)
        said = ok(*call)
        assert "asked tuned against asked plain before" in said
        found = pd.read_csv(new / "before_after.csv").set_index("task")
        for task in ("de", "dir"):
            row, genes = found.loc[task], []
            for folder, name in ((old, "asked plain"), (new, "asked tuned")):
                table = pd.read_csv(folder / "per_gene.csv")
                mine = table[(table["task"] == task) & (table["method"] == name)]
                genes.append(mine.set_index("gene")["auroc"])
            paired = (genes[1] - genes[0]).dropna()
            assert row["n_genes"] == len(paired)
            assert row["before"] == pytest.approx(genes[0].mean())
            assert row["after"] == pytest.approx(genes[1].mean())
            assert row["difference"] == pytest.approx(paired.mean())
            assert 0 < row["low"] <= row["difference"] <= row["high"]
            assert row["p_holm"] >= row["p"]
            assert row["coverage_before"] == row["coverage_after"] == 1
        paid = server.paid
        with pytest.raises(InputError, match="made with other seed"):
            raise run(*call[:-2], "--out", tmp_path / "o", "--seed", "1").exception
        assert server.paid == paid
        ok(labels, "--method", "training-mean", "--out", tmp_path / "none")
        with pytest.raises(InputError, match="that asked a model"):
            raise run(labels, "--llm", server.openai(), "--before", tmp_path / "none").exception
    (labels / "k562-dir.csv").write_bytes(
        (labels / "k562-dir.csv").read_bytes() + b"P1,G77,1,train\n"
    )
    with ScriptedServer(good) as server, pytest.raises(InputError, match="label files"):
        raise run(labels, "--llm", server.openai("tuned"), "--before", old).exception
