"""A SIMULATED mouse screen from sources to answers: no symbol is respelt, no prompt says human."""

import re

import numpy as np
import pandas as pd
import pytest
from knowledge.mouse import write_sources
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.screen import read_screen, simulate_screen
from pertwise.testing.server import ScriptedServer, listed

RUNNER = CliRunner()
STEMS = ["Trp", "Gata", "Klf", "Hba", "Rpl", "Cdk", "Sox", "Nd", "Psmb", "Eif"]


def call(*words):
    done = RUNNER.invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """screen.h5ad of mouse genes and sources/ in mouse formats, both simulated."""
    folder = tmp_path_factory.mktemp("mouse")
    made = simulate_screen(5, n_perturbations=60, n_features=40, n_pathways=4)
    simulated = sorted(made.truth.genes.index)
    spelt = {g: f"{STEMS[i % 10]}{i // 10 + 1}" for i, g in enumerate(simulated)}
    spelt = {g: f"mt-{s}" if s.startswith("Nd") else s for g, s in spelt.items()}
    screen = made.screen
    table = pd.DataFrame(screen.responses, columns=[spelt.get(f, f) for f in screen.features])
    names = [spelt[p] for p in screen.obs["perturbation"][screen.measured]]
    table.insert(0, "perturbation", names)
    table = table.iloc[:45]
    control = pd.DataFrame(
        [["non-targeting", *np.zeros(table.shape[1] - 1)]], columns=table.columns
    )
    pd.concat([control, table]).to_csv(folder / "screen.csv", index=False)
    source = made.sources
    terms: dict[str, list[str]] = {}
    for gene, term in zip(
        source["gene_go.tsv.gz"]["symbol"], source["gene_go.tsv.gz"]["go"], strict=True
    ):
        terms.setdefault(term, []).append(spelt[gene])
    string = source["string_v12_notext_weighted.tsv.gz"]
    links = [(spelt[a], spelt[b]) for a, b in zip(string["a"], string["b"], strict=True)]
    sets = {
        f"HALLMARK_{n.upper().replace(' ', '_')}": [spelt[g] for g in m]
        for n, m in made.truth.pathways.items()
    }
    write_sources(folder / "sources", list(spelt.values()), terms, sets, links)
    (folder / "sources" / "SIMULATED.txt").write_text("SIMULATED\n")
    said = call(
        "knowledge", "build", folder / "sources", "--out", folder / "kb", "--taxon", "mouse"
    )
    assert "mouse genes" in said
    return folder


def test_plan_and_predict_keep_the_symbols(place, tmp_path):
    screen = read_screen(place / "screen.csv")
    assert len(screen.perturbations) == 45, "the control is found"
    assert any(p.startswith("mt-Nd") for p in screen.perturbations)
    common = ["--knowledge", place / "kb"]
    out = call("plan", place / "screen.csv", *common, "--strategy", "typiclust", "--batch", 4,
               "--out", tmp_path / "plan")  # fmt: skip
    assert "look like" not in out
    panel = pd.read_csv(tmp_path / "plan" / "plan.csv")
    chosen = list(panel["gene"])
    assert len(chosen) == 4
    assert all(re.fullmatch(r"(?:[A-Z]|mt-[A-Z])[a-z]+\d+", g) for g in chosen)
    assert not set(chosen) & set(screen.perturbations)
    call("predict", place / "screen.csv", *common, "--genes", ",".join(chosen), "--method",
         "kernel ridge", "--out", tmp_path / "predicted")  # fmt: skip
    predicted = pd.read_csv(tmp_path / "predicted" / "prediction.csv", index_col=0, comment="#")
    assert set(chosen) <= set(predicted.index)


def test_questions_say_mouse(place, tmp_path):
    common = ["--knowledge", place / "kb", "--context", "ES"]
    with ScriptedServer() as server:
        call("ask", place / "screen.csv", *common, "--genes", "Trp1", "--no-measured",
             "--llm", server.openai(), "--out", tmp_path / "a.jsonl")  # fmt: skip
        call("rate", place / "screen.csv", *common, "--names", "Gata1", "--llm", server.openai(),
             "--out", tmp_path / "rated.csv")  # fmt: skip
        asked = [f"{m['content']}" for a in server.asked for m in a.messages]
        shown = listed(server.asked[0].first)
    said = "\n".join(asked)
    assert "mouse cell" in said
    assert "human" not in said.casefold()
    assert set(shown) == set(read_screen(place / "screen.csv").perturbations) - {"Trp1"}


def test_a_question_without_knowledge_is_told_by_its_names(place, tmp_path):
    with ScriptedServer() as server:
        call("ask", place / "screen.csv", "--genes", "Trp1", "--no-measured", "--context", "ES",
             "--llm", server.openai(), "--out", tmp_path / "a.jsonl")  # fmt: skip
        assert "mouse cell lines" in server.asked[0].messages[0]["content"]


def test_a_human_folder_refuses_the_mouse_screen(place, tmp_path):
    (tmp_path / "gene_alias.tsv").write_text("symbol\tapproved\nTP53\tTP53\nGATA1\tGATA1\n")
    call("knowledge", "build", tmp_path / "gene_alias.tsv", "--out", tmp_path / "kb")
    for words in (
        ["plan", "--batch", "3"],
        ["predict", "--genes", "Trp6", "--method", "kernel ridge"],
    ):
        done = RUNNER.invoke(
            app, [words[0], str(place / "screen.csv"), *words[1:], "--knowledge",
                  str(tmp_path / "kb"), "--out", str(tmp_path / words[0])],
        )  # fmt: skip
        told = f"{done.output} {done.exception}"
        assert done.exit_code != 0
        assert re.search(r"mouse genes.*human\s+genes.*--taxon\s+mouse", told, re.DOTALL), told


def test_a_human_guide_library_is_refused_for_mouse_genes(place, tmp_path):
    call("plan", place / "screen.csv", "--knowledge", place / "kb", "--strategy", "random",
         "--batch", 5, "--out", tmp_path / "plan")  # fmt: skip
    genes = list(pd.read_csv(tmp_path / "plan" / "plan.csv")["gene"])
    spacers = ["".join(np.random.default_rng(i).choice(list("ACGT"), 20)) for i in range(5)]
    for name, spell in (("human", str.upper), ("mouse", str)):
        rows = {"gene": [spell(g) for g in genes], "sequence": spacers}
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    words = ["guides", str(tmp_path / "plan"), "--knowledge", str(place / "kb"), "--controls", "0",
             "--guides-per-gene", "1", "--out", str(tmp_path / "order"), "--library"]  # fmt: skip
    done = RUNNER.invoke(app, [*words, str(tmp_path / "human.csv")])
    assert isinstance(done.exception, InputError) or done.exit_code
    assert "human genes" in f"{done.output} {done.exception}"
    call(*words, tmp_path / "mouse.csv")


def test_benches_refuse_a_folder_of_the_other_species(place, tmp_path):
    (tmp_path / "gene_alias.tsv").write_text("symbol\tapproved\nTP53\tTP53\nGATA1\tGATA1\n")
    call("knowledge", "build", tmp_path / "gene_alias.tsv", "--out", tmp_path / "kb")
    read_screen(place / "screen.csv").save(tmp_path / "screen.h5ad")
    screen, common = str(tmp_path / "screen.h5ad"), ["--knowledge", str(tmp_path / "kb"), "--out"]
    for words in (["prediction", "--screen", screen, "--method", "training-mean"],
                  ["acquisition", screen, "--strategy", "random"]):  # fmt: skip
        done = RUNNER.invoke(app, ["bench", *words, *common, str(tmp_path / words[0])])
        assert "mouse genes" in f"{done.output} {done.exception}", done.output
    for task in ("de", "dir"):
        rows = "".join(f"{s}1,G{i},{i % 2},{s}\n" for i in range(4) for s in ("train", "test"))
        (tmp_path / f"k562-{task}.csv").write_text("pert,gene,label,split\n" + rows)
    done = RUNNER.invoke(
        app, ["bench", "perturbqa", str(tmp_path), "--knowledge", str(place / "kb"),
              "--out", str(tmp_path / "qa")],
    )  # fmt: skip
    assert "lines are human" in f"{done.output} {done.exception}", done.output
