"""Killed at every rename, a command leaves the old or the new; what was added by hand is kept."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise._io import atomic_path, write_text_atomic
from pertwise._together import together
from pertwise.acquire import Plan
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, add_embedding, build_knowledge
from pertwise.knowledge.extras import add_graph, store_summaries
from pertwise.knowledge.ratings import read_ratings
from pertwise.prediction.rated import check_out
from pertwise.testing import ScriptedServer


def killed_at(n, call):
    """Exit status of a process that does `call` and dies at its Nth rename: before it (n) or after
    it (-n). 0 = it never came that far. What is renamed within a folder that nobody reads yet is
    not counted."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seen, real = 0, os.replace

    def replace(source, target):
        nonlocal seen
        inner = ".building-" in str(target) or ".stage-" in str(target)
        seen += not inner
        if seen == n and not inner:
            os._exit(9)
        real(source, target)
        if seen == -n and not inner:
            os._exit(9)

    os.replace = replace
    try:
        call()
    except BaseException:
        os._exit(1)
    os._exit(0)


def command(*args):
    return lambda: app([str(a) for a in ("-q", *args)], standalone_mode=False)


SOURCES = {
    "gene_summary.tsv": "symbol\tfull_name\n"
    + "".join(f"G{i}\tfactor of process {'abc'[i % 3]}\n" for i in range(9)),
    "alias.tsv": "symbol\tapproved\n" + "".join(f"G{i}\tG{i}\n" for i in range(9)),
    "hallmark.gmt": "HALLMARK_X\tna\tG1\tG2\tG3\n",
}


@pytest.fixture
def folder(tmp_path):
    """A built folder with a matrix, a graph and a sentence of the user's own."""
    sources = tmp_path / "src"
    sources.mkdir()
    for name, text in SOURCES.items():
        (sources / name).write_text(text)
    kb = build_knowledge(sources, tmp_path / "kb [1]")
    np.savez(tmp_path / "m.npz", genes=np.array(["G1", "G2"]), matrix=np.eye(2))
    (tmp_path / "g.tsv").write_text("a\tb\nG1\tG2\n")
    add_embedding(kb, "mine", tmp_path / "m.npz")
    add_graph(kb, "own", tmp_path / "g.tsv")
    store_summaries(kb, {"G1": "Does one thing."}, "a-model")
    return kb


def check_additions(kb):
    knowledge = Knowledge.open(kb)
    found = knowledge.embedding(["G1", "G2"], "mine").matrix
    assert np.array_equal(found, np.eye(2)), "the registered matrix is kept"
    assert knowledge.cards(["G1"])["G1"].summary == "Does one thing."
    assert knowledge.graph("own").nodes == ("G1", "G2")
    return knowledge


def test_build_overwrite_survives_a_kill_at_every_rename(folder, tmp_path):
    build = command("knowledge", "build", tmp_path / "src", "--out", folder, "--overwrite")
    (tmp_path / "src" / "more.gmt").write_text("HALLMARK_Y\tna\tG4\tG5\n")
    n, sign = 1, 1
    while killed_at(sign * n, build) == 9:
        # Whatever is there, old or new, opens and holds what the user added.
        check_additions(folder)
        n, sign = (n, -1) if sign == 1 else (n + 1, 1)
    assert n > 2
    assert check_additions(folder).pathway_names() == ("HALLMARK_X", "HALLMARK_Y")
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert not left, "the next build removes what killed ones left"


def test_a_build_that_fails_between_its_renames_puts_the_old_folder_back(
    folder, tmp_path, monkeypatch
):
    real, seen = os.replace, []

    def replace(source, target):
        if os.fspath(target) == os.fspath(folder) and not seen:
            seen.append(1)
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((InputError, OSError)):
        build_knowledge(tmp_path / "src", folder, overwrite=True)
    assert seen
    check_additions(folder)


def test_a_folder_whose_manifest_is_damaged_is_not_thrown_away(folder, tmp_path):
    (folder / "manifest.json").write_text('{"format": "pertw')
    with pytest.raises(InputError, match="would be lost; move it away"):
        build_knowledge(tmp_path / "src", folder, overwrite=True)
    assert (folder / "embeddings" / "mine.npz").is_file()


@pytest.mark.parametrize("what", ["embedding", "graph", "summaries"])
def test_additions_replaced_and_killed_at_every_rename(what, folder, tmp_path):
    np.savez(tmp_path / "m.npz", genes=np.array(["G1", "G2"]), matrix=2 * np.eye(2))
    (tmp_path / "g.tsv").write_text("a\tb\nG1\tG2\nG2\tG3\n")
    call = {
        "embedding": lambda: add_embedding(folder, "mine", tmp_path / "m.npz"),
        "graph": lambda: add_graph(folder, "own", tmp_path / "g.tsv"),
        "summaries": lambda: store_summaries(folder, {"G1": "Does two things."}, "a-model"),
    }[what]
    ends = []
    for n in (1, -1, 2, -2, 3):
        ends.append(killed_at(n, call))
        knowledge = Knowledge.open(folder)  # checksums are compared when a part is read
        assert knowledge.embedding(["G1"], "mine").matrix[0, 0] in (1, 2)
        assert len(knowledge.graph("own").nodes) in (2, 3)
        assert knowledge.cards(["G1"])["G1"].summary.startswith("Does")
    assert ends == [9, 9, 9, 9, 0]
    assert {
        "embedding": knowledge.embedding(["G1"], "mine").matrix[0, 0] == 2,
        "graph": len(knowledge.graph("own").nodes) == 3,
        "summaries": knowledge.cards(["G1"])["G1"].summary == "Does two things.",
    }[what]


# --- plan amend ---------------------------------------------------------------------------------


@pytest.fixture
def plan_folder(tmp_path):
    sources = tmp_path / "src"
    sources.mkdir()
    for name, text in SOURCES.items():
        (sources / name).write_text(text)
    build_knowledge(sources, tmp_path / "kb")
    rows = [f"G{i},{i},{-i},{i % 3}" for i in range(3)]
    head = ["perturbation,F1,F2,F3", "control,0,0,0"]
    (tmp_path / "means.csv").write_text("\n".join([*head, *rows]) + "\n")
    done = CliRunner().invoke(
        app,
        ["-q", "plan", str(tmp_path / "means.csv"), "--knowledge", str(tmp_path / "kb"), "--batch",
         "2", "--strategy", "random", "--out", str(tmp_path / "plan")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return tmp_path / "plan"


def states(folder):
    """Revision of each of the three files; every one must be whole."""
    plan = json.loads((folder / "plan.json").read_text())
    genes = [p["gene"] for p in plan["picks"]]
    table = (folder / "plan.csv").read_text()
    page = (folder / "plan.html").read_text()
    assert page.rstrip().endswith("</html>")
    return (
        plan["revision"],
        all(f",{g}," in table for g in genes),
        f"evision {plan['revision']}" in page or plan["revision"] == 1,
    )


def test_amend_killed_at_every_rename_is_all_or_nothing(plan_folder):
    before = states(plan_folder)
    start = {p.name: p.read_bytes() for p in plan_folder.iterdir() if p.is_file()}
    plan = Plan.load(plan_folder)
    old = plan.genes[0]
    new = next(g for g in plan.candidates["gene"] if g not in plan.genes)
    swap = ("--replace", f"{old}={new}", "--by", "me", "--why", "x")
    amend = command("plan", "amend", plan_folder, *swap)
    n, sign, changed = 1, 1, 0
    while killed_at(sign * n, amend) == 9:
        # The next command that looks at the plan finds all of it changed, or nothing.
        assert CliRunner().invoke(app, ["plan", "show", str(plan_folder)]).exit_code == 0
        now = states(plan_folder)
        assert now == before or now == (before[0] + 1, True, True)
        changed += now != before
        for name, content in start.items():
            (plan_folder / name).write_bytes(content)
        n, sign = (n, -1) if sign == 1 else (n + 1, 1)
    assert n > 4
    assert changed > 2
    assert states(plan_folder)[0] == before[0] + 1
    left = {p.name for p in plan_folder.iterdir() if p.name.startswith(".")}
    assert left <= {".lock"}


@pytest.mark.parametrize("blocked", ["plan.csv", "plan.html"])
def test_amend_that_cannot_write_one_file_changes_none(blocked, plan_folder):
    plan = Plan.load(plan_folder)
    new = next(g for g in plan.candidates["gene"] if g not in plan.genes)
    (plan_folder / blocked).unlink()
    (plan_folder / blocked / "inside").mkdir(parents=True)
    before = (plan_folder / "plan.json").read_bytes()
    done = CliRunner().invoke(
        app, ["plan", "amend", str(plan_folder), "--add", new, "--by", "me", "--why", "x"]
    )
    assert isinstance(done.exception, InputError)
    assert blocked in str(done.exception)
    assert (plan_folder / "plan.json").read_bytes() == before
    left = {p.name for p in plan_folder.iterdir() if p.name.startswith(".")}
    assert left <= {".lock"}


def test_together_changes_nothing_when_the_block_fails(tmp_path):
    write_text_atomic(tmp_path / "a", "old")
    with pytest.raises(InputError), together(tmp_path, "x") as stage:
        (stage / "a").write_text((tmp_path / "absent").read_text() + "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


# --- on the disk before it has its name -----------------------------------------------------------


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    steps = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(fd):
        steps.append(("flush", os.readlink(f"/proc/self/fd/{fd}")))
        real_sync(fd)

    def replace(source, target):
        steps.append(("rename", os.fspath(source), os.fspath(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_path(tmp_path / "x.csv") as temporary:
        temporary.write_text("a\n")
        held = str(temporary)
    assert steps == [
        ("flush", held),
        ("rename", held, str(tmp_path / "x.csv")),
        ("flush", str(tmp_path)),
    ]


# --- a benchmark of one strategy ------------------------------------------------------------------


@pytest.mark.parametrize("strategies", [["random"], ["coreset"], ["random", "coreset"]])
def test_bench_acquisition_ends_with_its_table(strategies, tmp_path):
    sources = tmp_path / "src"
    sources.mkdir()
    for name, text in SOURCES.items():
        (sources / name).write_text(text)
    build_knowledge(sources, tmp_path / "kb")
    rng = np.random.default_rng(0)
    rows = [f"G{i}," + ",".join(f"{x:.2f}" for x in rng.normal(size=4)) for i in range(9)]
    head = ["perturbation,A,B,C,D", "control,0,0,0,0"]
    (tmp_path / "means.csv").write_text("\n".join([*head, *rows]) + "\n")
    given = ["-q", "bench", "acquisition", str(tmp_path / "means.csv"), "--out"]
    given += [str(tmp_path / "run"), "--knowledge", str(tmp_path / "kb"), "--predictor"]
    given += ["training mean", "--seeds", "2", "--batch", "2", "--rounds", "2", "--executor"]
    given += ["serial", *(x for s in strategies for x in ("--strategy", s))]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "area under the held-out MSE" in done.output
    assert all(s in done.output for s in strategies)
    assert "page:" in done.output
    report = ["bench", "report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]
    done = CliRunner().invoke(app, [*report, "--markdown", str(tmp_path / "r.md")])
    assert done.exit_code == 0, (done.output, done.exception)
    said = (tmp_path / "r.md").read_text()
    assert ("Nothing to compare" in said) == (len(strategies) == 1)


def test_a_table_of_marks_killed_at_every_rename_is_the_old_or_the_new(tmp_path):
    out = tmp_path / "marks.csv"
    with ScriptedServer() as server:
        old, new = (
            pw.rate(names=names, llm=server.openai(), context="K562") for names in ("AB", "ABC")
        )
    old.write(out)
    n, sign = 1, 1
    while killed_at(sign * n, lambda: new.write(out)) == 9:
        # The next run finishes what was begun, and does not take it for a person's work.
        check_out(out)
        (found,) = read_ratings(out)
        record = json.loads((tmp_path / "marks.json").read_text())
        assert record["marks"]["given"] == found.marks.size
        assert found.names in (("A", "B"), ("A", "B", "C"))
        n, sign = (n, -1) if sign == 1 else (n + 1, 1)
    assert n > 3
    assert read_ratings(out)[0].names == ("A", "B", "C")
