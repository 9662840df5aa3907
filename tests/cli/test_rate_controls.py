"""Controls of `pertwise rate`, scripted server: codes, dealt annotations, asking anew."""

import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.knowledge.annotations import annotation_length, anonymous_facts
from pertwise.knowledge.programs import Program
from pertwise.knowledge.ratings import read_ratings
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical, listed

RUNNER = CliRunner()
PROGRAM = (Program("upr", "unfolded protein response", "ER stress", ("HSPA5",)),)


@pytest.fixture
def genes(simulated):
    simulation, knowledge = simulated
    return list(simulation.perturbations[:8]), knowledge


def lines(prompt):
    block = re.search(r"<candidates>\n(.*?)</candidates>", prompt, re.DOTALL).group(1)
    return dict(line.split(" | ", 1) for line in block.splitlines() if " | " in line)


def test_codes_hide_every_name_and_the_marks_come_back_under_the_names(genes, tmp_path):
    names, knowledge = genes
    out, ledger = tmp_path / "m.csv", tmp_path / "m.sqlite"

    def by_number(asked):
        marks = [{"name": n, "upr": int(n[1:]) / 4, "strength": 1} for n in listed(asked.first)]
        return json.dumps({"marks": marks})

    with ScriptedServer(by_number) as server:
        what = {"programs": PROGRAM, "knowledge": knowledge, "context": "K562", "batch_size": 3}
        found = pw.rate(names=names, llm=server.openai(), anonymise=True, ledger=ledger, **what)
        prompts = [a.first for a in server.asked]
        paid = server.paid
    assert len(prompts) == 3
    for prompt in prompts:
        shown = re.search(r"<candidates>.*", prompt, re.DOTALL).group(0)
        assert not any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", shown) for n in names)
        assert all(re.fullmatch(r"G\d{4}", code) for code in listed(prompt))
    codes = found.marked[0].provenance["codes"]
    assert sorted(codes.values()) == sorted(names)
    (ratings,) = found.ratings
    assert list(ratings.names) == sorted(names)
    for code, name in codes.items():
        assert ratings.take([name])[0, 0] == int(code[1:]) / 4
    # What stands beside a code is the annotation of the gene behind it.
    told = {k: v for p in prompts for k, v in lines(p).items()}
    assert told
    for code, text in told.items():
        assert text.split(",")[0] in anonymous_facts(knowledge, codes[code]).replace("|", "/")
    # The file says which code was whom; the ledger alone gives the same again.
    record = json.loads(found.write(out)["json"].read_text())
    assert record["contexts"][0]["codes"] == dict(codes)
    again = pw.rate(
        names=names, llm=server.openai(), anonymise=True, ledger=ledger, replay=True, **what
    )
    pd.testing.assert_frame_equal(again.table, found.table)
    assert server.paid == paid


def test_a_halved_answer_of_codes_is_mapped_back_too(genes):
    names, knowledge = genes

    def script(asked):
        shown = listed(asked.first)
        marks = [{"name": n, "upr": int(n[1:]) / 4, "strength": 1, "reason": n} for n in shown]
        text = json.dumps({"marks": marks})
        return text if len(shown) < 4 else Answer(text[:50], finish="length")

    with ScriptedServer(script) as server:
        found = pw.rate(
            names=names, llm=server.openai(), programs=PROGRAM, knowledge=knowledge,
            anonymise=True, max_reasks=0, reasons=True,
        )  # fmt: skip
    (ratings,) = found.ratings
    for code, name in found.marked[0].provenance["codes"].items():
        assert ratings.take([name])[0, 0] == int(code[1:]) / 4
        assert ratings.reasons[name] == code


def test_annotations_leave_out_what_names_the_gene(genes):
    names, knowledge = genes
    for name in names:
        card = knowledge.cards([name])[name]
        text = anonymous_facts(knowledge, name)
        assert card.symbol not in re.split(r"\W+", text)
        assert not card.full_name or card.full_name not in text
    assert anonymous_facts(knowledge, "NOSUCH1") == ""
    assert annotation_length(knowledge, "NOSUCH1") == 0
    assert max(annotation_length(knowledge, n) for n in names) > 0


def test_shuffled_annotations_are_another_genes_and_told(genes, tmp_path):
    names, knowledge = genes
    with ScriptedServer() as server:
        what = {"names": names, "llm": server.openai(), "programs": PROGRAM}
        what |= {"knowledge": knowledge, "shuffle_annotations": True}
        found = pw.rate(**what)
        shown = lines(server.asked[-1].first)
        pw.rate(**what, seed=4)
        other = lines(server.asked[-1].first)
    donors = found.marked[0].provenance["annotations_of"]
    assert sorted(donors) == sorted(donors.values()) == sorted(names)
    assert all(a != b for a, b in donors.items())
    for name, text in shown.items():
        assert text.rstrip(".") in knowledge.facts(donors[name]).replace("|", "/")
    assert other != shown


def test_controls_without_knowledge_are_refused():
    with ScriptedServer() as server:
        for control in ("anonymise", "shuffle_annotations"):
            with pytest.raises(InputError, match="no annotations to show"):
                pw.rate(names=["MYC", "B"], llm=server.openai(), **{control: True})
        with pytest.raises(InputError, match="no setting 'anonymize'; there are"):
            pw.rate(names=["MYC"], llm=server.openai(), anonymize=True)
        assert server.count == 0


# -- replicates that disagree ------------------------------------------------------------------


def contrary(asked):
    """One program has the other sign in every second replicate, until it is asked anew."""
    said = json.loads(first_alphabetical(asked))
    if "did not agree with each other" not in asked.first and asked.number % 2 == 0:
        said["marks"] = [{**row, "ribosome": -row["ribosome"]} for row in said["marks"]]
    return json.dumps(said)


def stubborn(asked):
    said = json.loads(first_alphabetical(asked))
    if asked.number % 2 == 0:
        said["marks"] = [{**row, "ribosome": -row["ribosome"]} for row in said["marks"]]
    return json.dumps(said)


RIBOSOME = "cytosolic ribosome and translation"
NAMES = [f"GENE{i}" for i in range(9)]


@pytest.mark.parametrize(("script", "kept"), [(contrary, True), (stubborn, False)])
def test_a_program_of_low_agreement_is_asked_anew_and_kept_if_it_agrees(script, kept, tmp_path):
    out = tmp_path / "m.csv"
    with ScriptedServer(script) as server:
        call = ["rate", "--names", ",".join(NAMES), "--context", "K562", "--llm", server.openai()]
        call += ["--out", str(out), "--replicates", "2", "--ask-anew", "--concurrency", "1"]
        done = RUNNER.invoke(app, call)
        assert done.exit_code == 0, done.output
        assert server.count == 4
        assert RUNNER.invoke(app, call).output == done.output
        assert server.count == 4, "the ledger answers the second time"
        anew = server.asked[2].first
    # Only that program is asked, and what + means is said again.
    assert listed(anew, "programs") == ["ribosome"]
    assert re.search(
        r"- ribosome \(.*\): a mark above 0 says that, against control cells, RPL", anew
    )
    now = "1.00" if kept else "-1.00"
    assert f"asked anew in K562, agreement: {RIBOSOME} (-1.00, now {now})" in done.output
    (ratings,) = read_ratings(out)
    assert (RIBOSOME in ratings.programs) == kept
    assert ("left out in K562, agreement below 0.5" in done.output) != kept
    assert len(ratings.programs) == 16 - (not kept)
    record = json.loads((tmp_path / "m.json").read_text())["contexts"][0]["asked_anew"]
    assert record["programs"][RIBOSOME] == pytest.approx([-1, 1 if kept else -1])
    if kept:
        one = json.loads(first_alphabetical(server.asked[2]))["marks"]
        wanted = {row["name"]: row["ribosome"] for row in one}
        column = ratings.programs.index(RIBOSOME)
        assert {n: ratings.take([n])[0, column] for n in NAMES} == wanted


def test_asking_anew_means_nothing_with_one_replicate(tmp_path):
    call = ["rate", "--names", "MYC", "--llm", "m@http://127.0.0.1:1/v1", "--ask-anew"]
    done = RUNNER.invoke(app, [*call, "--out", str(tmp_path / "m.csv")])
    assert "--ask-anew: not used here, since there is one replicate" in str(done.exception)
