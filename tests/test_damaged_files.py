"""One test feeds every reader: whatever a file holds, the answer is a result or one clear line."""

import gzip
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from drug_example import cell_table, drug_frame, drug_screen
from knowledge import raw
from knowledge.test_ids_and_species import SOURCES as ID_SOURCES

from pertwise._files import LINE, UNPACKED, open_text
from pertwise._hdf5 import check_room
from pertwise.acquire import Plan, plan
from pertwise.cli import main as entry
from pertwise.config import read_toml
from pertwise.errors import InputError, PertwiseError
from pertwise.evaluate.given import read_recorded_folds
from pertwise.knowledge import Knowledge, add_embedding, build_knowledge, load_pathway
from pertwise.knowledge.build.sources import gather
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.extras import read_gene_matrix, store_summaries
from pertwise.knowledge.genes.pathways import read_gene_list
from pertwise.knowledge.lines import CellTable
from pertwise.knowledge.recorded import read_recording
from pertwise.llm.budget import read_prices
from pertwise.llm.templates import load_prompt
from pertwise.models.external import read_external
from pertwise.report import write_plan

# --- what can be wrong with a file ----------------------------------------------------------------


def flipped(data, share):
    place = min(int(len(data) * share), len(data) - 1)
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def packed(data):
    """An encrypted zip: the flag of its one entry says so."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("inside.tsv", data)
    whole = bytearray(out.getvalue())
    whole[6] |= 1
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


DAMAGES = {
    "cut in half": lambda d: d[: len(d) // 2],
    "cut near the end": lambda d: d[:-3],
    "only the start": lambda d: d[:20],
    "empty": lambda d: b"",
    "bit near the start": lambda d: flipped(d, 0.02),
    "bit in the middle": lambda d: flipped(d, 0.5),
    "bit near the end": lambda d: flipped(d, 0.98),
    "noise": lambda d: np.random.default_rng(0).bytes(4000),
    "encrypted": lambda d: b"Salted__" + np.random.default_rng(1).bytes(4000),
    "encrypted zip": packed,
    "two in a zip": lambda d: b"PK\x03\x04",
    "a page": lambda d: b"<!DOCTYPE html><html><body>Sign in</body></html>\n",
    "a picture": lambda d: b"\x89PNG\r\n\x1a\n" + bytes(200),
    "zeros": lambda d: bytes(5000),
    "UTF-16": lambda d: "symbol\tname\nA\tB\n".encode("utf-16"),
    "latin-1": lambda d: "symbol\tname\nA\t\xe9\n".encode("latin-1"),
    "cut gzip": lambda d: gzip.compress(d)[:-9],
    "broken gzip": lambda d: flipped(gzip.compress(d * 3), 0.6),
    "deep": lambda d: b"[" * 200_000,
    "a list": lambda d: b"[1, 2, null, {}]",
    "an object": lambda d: b'{"tables": 3, "format": [], "files": {"x": 1}, "folds": 1}',
    "a number": lambda d: b"17\n",
    "blank lines": lambda d: b"\n" * 50,
    "tabs": lambda d: b"\t\t\t\n" * 20,
    "quotes": lambda d: b'"\n' * 21,
    "huge numbers": lambda d: d.replace(b"1", b"9" * 400),
}


# --- every reader ---------------------------------------------------------------------------------

RAW = {
    "hgnc_complete_set.txt": raw.HGNC,
    "goa_human.gaf": raw.GAF,
    "go-basic.obo": raw.OBO,
    "Homo_sapiens.gene_info": raw.GENE_INFO,
    "gene_summary": raw.GENE_SUMMARY,
    "9606.protein.info.txt": raw.STRING_INFO,
    "9606.protein.links.detailed.txt": raw.STRING_LINKS,
    "h.all.symbols.gmt": raw.HALLMARK,
    "omnipath.tsv": raw.OMNIPATH,
    "CollecTRI.csv": raw.COLLECTRI,
    "dorothea.csv": raw.DOROTHEA,
    "gencode.gtf": raw.GTF,
    "gene_go.tsv": "symbol\tgo\nHMBS\tGO:0006783\n",
    "go_ontology.tsv": "id\tname\tns\tparents\nGO:1\tx\tP\t\n",
    "string.tsv": "a\tb\tcombined_score\nHMBS\tUROD\t900\n",
    "string_ge800.tsv": "a\tb\nHMBS\tUROD\n",
    **{name: text for name, (text, _) in ID_SOURCES.items()},
}


def through_build(path):
    build_knowledge([path], path.parent / "kb")


def through_folder(path):
    build_knowledge(path.parent, path.parent.parent / "kb2")


def answers():
    rows = [{"subject": f"G{i}", "neighbours": ["G1", "G9"], "reason": "x"} for i in range(8)]
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


def folds():
    fold = {"available_genes": ["A", "B"], "answers": {"C": {"kNN": ["A"], "reason": "r"}}}
    return json.dumps({"folds": [fold, fold]}).encode()


def parquet(table):
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


def matrix():
    out = io.BytesIO()
    np.savez(out, genes=np.array(["A", "B"]), matrix=np.eye(2))
    return out.getvalue()


def predictions():
    screen = drug_screen()
    table = pd.DataFrame(np.nan_to_num(screen.responses), columns=list(screen.features))
    table.insert(0, "drug", list(screen.obs["perturbation"]))
    table.insert(1, "cell_line", list(screen.obs["context"]))
    return table


def external(path):
    read_external(path, drug_screen())


def cells():
    rows = [
        {"cell_name": line.name, "Organ": line.organ, "Driver_Gene_Symbol": "KRAS"}
        for line in cell_table().lines.values()
    ]
    return pd.DataFrame(rows)


TOML = b"screen = 'x.h5ad'\nmethods = ['training mean']\n[split]\nfolds = 3\n"
#: name of the file -> (its content, what reads it).
READERS = {
    **{name: (text.encode(), through_build) for name, text in RAW.items()},
    **{
        f"{name}.gz": (gzip.compress(text.encode()), through_build)
        for name, text in RAW.items()
        if name in ("goa_human.gaf", "go-basic.obo", "gencode.gtf", "omnipath.tsv")
    },
    "sources.json": (b'{"files": {"x": {"title": "y"}}}', lambda p: gather(p.parent, {})),
    "panel.gmt": (raw.HALLMARK.encode(), lambda p: load_pathway(_known(), str(p))),
    "genes.txt": (b"HMBS\nUROD\n", read_gene_list),
    "genes.csv": (b"gene,note\nHMBS,x\nUROD,y\n", read_gene_list),
    "genes.parquet": (parquet(pd.DataFrame({"gene": ["A", "B"]})), read_gene_list),
    "matrix.npz": (matrix(), read_gene_matrix),
    "matrix.csv": (b"gene,a,b\nA,1,2\nB,3,4\n", read_gene_matrix),
    "matrix.parquet": (parquet(pd.DataFrame({"gene": ["A"], "x": [1.0]})), read_gene_matrix),
    "config.toml": (TOML, read_toml),
    "answers.jsonl": (answers(), read_recording),
    "answers.json": (folds(), read_recording),
    "answers.json.gz": (gzip.compress(folds()), read_recording),
    "folds.json": (folds(), read_recorded_folds),
    "drugs.csv": (drug_frame().to_csv(index=False).encode(), DrugTable.read),
    "drugs.parquet": (parquet(drug_frame()), DrugTable.read),
    "cells.tsv": (cells().to_csv(index=False, sep="\t").encode(), CellTable.read),
    "cells.parquet": (parquet(cells()), CellTable.read),
    "predictions.parquet": (parquet(predictions()), external),
    "predictions.csv": (predictions().to_csv(index=False).encode(), external),
    "prompt.j2": (b"{% block user %}hello {{ x }}{% endblock %}", load_prompt),
    "prices.json": (b'{"m": {"input": 1.0, "output": 2.0, "as_of": "x"}}', read_prices),
}
_FOLDER = {}


def _known():
    return Knowledge.open(_FOLDER["kb"])


@pytest.fixture(scope="module", autouse=True)
def known(tmp_path_factory):
    place = tmp_path_factory.mktemp("known")
    (place / "hgnc.txt").write_text(raw.HGNC)
    (place / "gene_summary.tsv").write_text("symbol\tfull_name\nHMBS\tsynthase\nUROD\tlyase\n")
    (place / "h.gmt").write_text(raw.HALLMARK)
    _FOLDER["kb"] = build_knowledge(place, place / "kb")
    return _FOLDER["kb"]


def check(call, path):
    """A result, or one line that names the file."""
    try:
        call(path)
    except PertwiseError as error:
        said = str(error)
        assert "\n" not in said, said
        assert path.name in said or str(path.parent) in said, said
        assert len(said) < 1500, said
        assert said.isprintable(), ascii(said)


@pytest.mark.parametrize("name", READERS)
def test_whatever_a_file_holds(name, tmp_path):
    data, call = READERS[name]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    for what, damage in DAMAGES.items():
        path.write_bytes(damage(data))
        try:
            check(call, path)
        except Exception as error:
            raise AssertionError(f"{name}, {what}: {type(error).__name__}: {error}") from error
        for left in tmp_path.glob("*/kb"):
            shutil.rmtree(left)


@pytest.mark.parametrize("name", READERS)
def test_whatever_stands_in_the_place_of_a_file(name, tmp_path):
    _, call = READERS[name]
    path = tmp_path / name
    with pytest.raises(PertwiseError):
        call(tmp_path / "absent" / name)
    path.symlink_to(path)  # a loop
    if name != "sources.json":
        with pytest.raises(PertwiseError):
            call(path)
    path.unlink()
    path.mkdir()
    if name != "sources.json":
        with pytest.raises(PertwiseError):
            call(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_may_not_be_read(name, tmp_path):
    data, call = READERS[name]
    path = tmp_path / name
    path.write_bytes(data)
    path.chmod(0)
    with pytest.raises(PertwiseError, match=r"may not be read|[Pp]ermission"):
        call(path)


# --- bombs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gzip", "zip"])
@pytest.mark.parametrize("line", [True, False])
def test_a_bomb_is_refused_before_it_fills_the_memory(kind, line, tmp_path):
    block = b"0" * (1 << 20) if line else b"a\tb\n" * (1 << 18)
    path = tmp_path / "links.tsv"
    if kind == "gzip":
        with gzip.open(path, "wb", compresslevel=1) as out:
            for _ in range(150):
                out.write(block)
    else:
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("x.tsv", "w") as out,
        ):
            for _ in range(150):
                out.write(block)
    assert path.stat().st_size < 2 << 20
    read = 0

    def unpack():
        nonlocal read
        with open_text(path) as text:
            while part := text.read(1 << 16):
                read += len(part)

    with pytest.raises(InputError, match=r"has a line of|unpacks to more"):
        unpack()
    assert read <= (LINE if line else UNPACKED + 60 * path.stat().st_size)


# --- the folder of knowledge ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    for name in ("hgnc_complete_set.txt", "go-basic.obo", "goa_human.gaf", "h.all.symbols.gmt"):
        (src / name).write_text(RAW[name])
    (src / "hgnc_complete_set.txt").write_text(raw.HGNC)
    (src / "text.tsv").write_text("symbol\tfull_name\nHMBS\tsynthase\nUROD\tlyase\n")
    (src / "string.tsv").write_text(RAW["string.tsv"])
    kb = build_knowledge(src, tmp_path / "kb")
    np.savez(tmp_path / "m.npz", genes=np.array(["HMBS", "UROD"]), matrix=np.eye(2))
    add_embedding(kb, "mine", tmp_path / "m.npz")
    store_summaries(kb, {"HMBS": "Makes one thing."}, "m")
    return kb


def run_main(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["pertwise", "-q", *map(str, args)])
    try:
        entry.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, capsys.readouterr()


def look_at_all(kb):
    knowledge = Knowledge.open(kb)
    for name in knowledge.table_names():
        knowledge.table(name)
    knowledge.cards(["HMBS"])
    knowledge.embedding(["HMBS"], "mine+text", dim=2)
    knowledge.graph("string")


def test_a_damaged_part_of_the_folder_is_never_used(folder, monkeypatch, capsys):
    look_at_all(folder)
    parts = [p for p in folder.rglob("*") if p.is_file() and "cache" not in p.parts]
    assert len(parts) > 8
    for path in parts:
        data = path.read_bytes()
        for what in ("cut in half", "bit in the middle", "noise", "empty", "a list", "an object"):
            path.write_bytes(DAMAGES[what](data))
            if path.name == "manifest.json" and what == "bit in the middle":
                check(lambda _: look_at_all(folder), path)
                continue
            with pytest.raises(InputError, match=path.name) as told:
                look_at_all(folder)
            assert "\n" not in str(told.value)
            code, said = run_main(monkeypatch, capsys, "knowledge", "info", folder)
            assert code in (0, 2)
            assert "Traceback" not in said.err
        path.unlink()
        with pytest.raises(InputError):
            look_at_all(folder)
        path.write_bytes(data)
    look_at_all(folder)


def test_a_damaged_cache_is_made_again(folder):
    right = Knowledge.open(folder).embedding(["HMBS", "UROD"], "text", dim=2).matrix
    kept = sorted((folder / "cache").iterdir())
    assert kept
    for file in kept:
        for damage in DAMAGES.values():
            for other in kept:
                # The others are made again from the damaged one, not read.
                if other != file:
                    other.unlink(missing_ok=True)
            file.write_bytes(damage(file.read_bytes() or b"x"))
            found = Knowledge.open(folder).embedding(["HMBS", "UROD"], "text", dim=2).matrix
            np.testing.assert_array_equal(found, right)


# --- through the program --------------------------------------------------------------------------


def write_means(path):
    rows = [f"{g},{i},{-i},{i % 3}" for i, g in enumerate(("HMBS", "UROD", "FOS", "JUN", "TAL1"))]
    path.write_text("\n".join(["perturbation,F1,F2,F3", "control,0,0,0", *rows]) + "\n")
    return path


def commands(path, kb, means, out):
    """Every command with the file in each place where it takes one."""
    yield "knowledge build", ["knowledge", "build", path, "--out", out / "kb"]
    yield "knowledge info", ["knowledge", "info", path]
    yield "knowledge gene", ["knowledge", "gene", "HMBS", "-k", path]
    yield "pathway gmt", ["knowledge", "pathway", f"{path}", "-k", kb]
    yield "add-embedding", ["knowledge", "add-embedding", "x", path, "-k", kb]
    yield (
        "fetch",
        ["knowledge", "fetch", "--out", path, "--only", "hgnc", "--mirror", "http://x.invalid"],
    )
    yield "plan show", ["plan", "show", path]
    yield "plan amend", ["plan", "amend", path, "--drop", "A", "--by", "x", "--why", "y"]
    common = ["plan", means, "--knowledge", kb, "--strategy", "random", "--dry-run"]
    yield "plan candidates", [*common, "--candidates", path]
    yield "plan pathway", [*common, "--pathway", path]
    yield "predict genes", ["predict", means, "--genes", f"@{path}", "--method", "training mean"]
    asked = ["predict", means, "--genes", "GATA1", "--out", out / "p"]
    yield "predict answers", [*asked, "--method", "langpert (recorded)", "--set", f"answers={path}"]
    yield "predict own", [*asked, "--method", f"{path}:Class"]
    yield "bench prediction", ["bench", "prediction", path, "--out", out / "b1"]
    yield "bench acquisition", ["bench", "acquisition", path, "--out", out / "b2"]
    yield "bench drugs", ["bench", "drugs", path, "--out", out / "b3"]
    yield "bench report", ["bench", "report", path, "--out", out / "r.html"]
    yield "llm prompt", ["llm", "export", path, out / "x.jsonl"]


FILES = {
    "noise.bin": DAMAGES["noise"](b""),
    "page.gmt": DAMAGES["a page"](b""),
    "cut.toml": b'screen = "x',
    "deep.json": DAMAGES["deep"](b""),
    "list.json": b"[1]",
    "broken.py": b"def x(:\n",
    "cut.tsv.gz": gzip.compress(raw.HGNC.encode())[:-20],
    "zeros.npz": DAMAGES["zeros"](b""),
    "empty.txt": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_every_command_tells_in_one_line(name, known, tmp_path, monkeypatch, capsys):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    means = write_means(tmp_path / "means.csv")
    for what, given in commands(path, known, means, tmp_path / "out"):
        code, said = run_main(monkeypatch, capsys, *given)
        assert code == 2, (what, code, said)
        assert "Traceback" not in said.err, (what, said.err)
        errors = [line for line in said.err.splitlines() if line.startswith("error:")]
        usage = "Usage:" in said.err
        assert len(errors) == 1 or usage, (what, said.err)
        assert path.read_bytes() == FILES[name], what


@pytest.mark.parametrize("kind", ["a file in the way", "no space"])
def test_every_command_that_cannot_write_says_where(kind, known, tmp_path):
    means = write_means(tmp_path / "means.csv")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "hgnc_complete_set.txt").write_text(raw.HGNC)
    blocked = tmp_path / "blocked"
    if kind == "a file in the way":
        blocked.write_text("x")
    out = blocked / "inside"
    base = ["--knowledge", known]
    given = {
        "build": ["knowledge", "build", tmp_path / "src", "--out", out],
        "plan": ["plan", means, *base, "--strategy", "random", "--batch", "2", "--out", out],
        "predict": ["predict", means, *base, "--genes", "GATA1", "--method", "training mean",
                    "--out", out],
        "convert": ["screen", "convert", means, out / "x.h5ad"],
        "simulate": ["screen", "simulate", out, "--perturbations", "40", "--features", "20"],
    }  # fmt: skip

    def small_files():
        # The system refuses longer files as it refuses any on a full disk.
        if kind == "no space":
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

    for what, args in given.items():
        done = subprocess.run(
            [sys.executable, "-c", "from pertwise.cli.main import main; main()", "-q",
             *map(str, args)],
            capture_output=True, text=True, check=False, preexec_fn=small_files,
        )  # fmt: skip
        assert done.returncode == 2, (what, done)
        assert "Traceback" not in done.stderr, (what, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1, (what, done.stderr)
        assert "blocked" in errors[0], (what, errors)
        assert ";" in errors[0], "it says what to do"
        if kind == "no space":
            left = [p for p in out.rglob("*") if ".tmp" in p.name or ".building-" in str(p)]
            assert not left, what


def test_a_disk_too_full_for_partial_sums_is_told_before(tmp_path):
    with pytest.raises(InputError, match=r"sums\.h5 cannot be written: it needs"):
        check_room(tmp_path / "sums.h5", 1 << 60)


def test_a_plan_whose_content_is_of_another_form(known, tmp_path):
    means = write_means(tmp_path / "means.csv")
    made = plan(means, known, strategy="random", batch=2)
    path = write_plan(made, tmp_path / "p")["json"]
    whole = json.loads(path.read_text())
    wrong = [
        {**whole, "format": "x"}, {**whole, "format": 99}, {**whole, "picks": 3},
        {**whole, "picks": [{"gene": "A"}]}, {**whole, "candidates": {"gene": "A"}},
        {**whole, "extra": 1}, {"kind": "pertwise plan"}, {**whole, "measured": []},
    ]  # fmt: skip
    for value in wrong:
        path.write_text(json.dumps(value))
        with pytest.raises(InputError, match=r"plan\.json"):
            Plan.load(path)
