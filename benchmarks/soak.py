"""Kill pertwise at random moments: identical results, nothing paid twice, no orphan.

    python benchmarks/soak.py [--kills 60] [--seed 0] [--only plan --only ask]

Each job is first run unbroken. Then it is started, killed (SIGKILL, or SIGTERM every third time)
at a random moment and started again in the same folder until its share of kills is used up, and
run to its end. Asked is a scripted server on the loopback interface, which is NOT a language model
and counts what it would charge. All data are SIMULATED. Ends with status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise.cli.demo import blank
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.build.fetch import REMOTES
from pertwise.screen import simulate_screen
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical

CODE = "import sys; from pertwise.cli.main import main; sys.argv[0] = 'pertwise'; main()"
ORPHANS_AFTER_S = 5.0


@dataclass
class Job:
    """A command, how it goes on after a kill, and what its result is."""

    name: str
    command: Callable[[Path], list[str]]
    result: Callable[[Path], str]
    again: tuple[str, ...] = ()
    #: Calls that may be under way at a kill.
    places: int = 0
    seconds: float = 0.0
    kills: int = 0
    #: Paid beyond one payment a question.
    twice: int = 0
    problems: list[str] = field(default_factory=list)


class Served:
    """A scripted server that knows how often each question was answered."""

    def __init__(self) -> None:
        self.server = ScriptedServer(lambda a: Answer(first_alphabetical(a), delay=0.05)).start()

    def forget(self) -> None:
        """Start counting anew."""
        self.server.answered.clear()

    def twice(self) -> int:
        """Answers beyond the first to each question."""
        asked = [str(a.messages) + str(a.schema) for a in self.server.answered]
        return len(asked) - len(set(asked))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(path: Path, drop: tuple[str, ...] = ()) -> str:
    found = pd.read_parquet(path).drop(columns=list(drop))
    found = found.astype(dict.fromkeys(found.select_dtypes("category").columns, str))
    found = found.sort_values(list(found.columns[:8]), ignore_index=True)
    return hashlib.sha256(found.to_csv().encode()).hexdigest()


def screen_result(path: Path) -> str:
    import anndata

    data = anndata.read_h5ad(path)
    values = data.to_df().to_csv() + data.obs.to_csv()
    return hashlib.sha256(values.encode()).hexdigest()


def write_cells(path: Path, genes: list[str]) -> None:
    """20,000 cells with counts of 400 genes."""
    import anndata
    import numpy as np
    from scipy import sparse

    rng = np.random.default_rng(0)
    labels = rng.choice([*genes, "control"], 20_000)
    counts = sparse.random(len(labels), 400, 0.2, "csr", np.float32, rng)
    counts.data = np.ceil(9 * counts.data)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"F{i}" for i in range(400)])
    anndata.AnnData(counts, obs=obs, var=var).write_h5ad(path)


#: Public files that are small enough to make up: short names of `REMOTES`.
FETCHED = ("hgnc", "obo", "hallmark")


def write_public(folder: Path) -> Path:
    """Files in the formats of `FETCHED`, about 2 MB each."""
    folder.mkdir()
    files = {r.name: folder / r.file for r in REMOTES}
    rows = [f"HGNC:{i}\tGENE{i}\tgene number {i}\tApproved\t\t\t" for i in range(40_000)]
    head = "hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id"
    files["hgnc"].write_text("\n".join([head, *rows]) + "\n")
    term = "\n[Term]\nid: GO:{0:07d}\nname: process {0}\nnamespace: biological_process\n"
    terms = "".join(term.format(i) for i in range(1, 25_000))
    files["obo"].write_text("format-version: 1.2\nontology: go\n" + terms)
    sets = [
        "\t".join([f"HALLMARK_{i}", "made up", *(f"GENE{j}" for j in range(i, i + 4000))])
        for i in range(50)
    ]
    files["hallmark"].write_text("\n".join(sets) + "\n")
    return folder


def serve(folder: Path) -> str:
    """Address of a slow loopback server of the files of a folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, out: Any) -> None:
            while block := source.read(100_000):
                out.write(block)
                time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    found = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    found.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=found.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{found.server_address[1]}"


def make_jobs(folder: Path, address: str, mirror: str, sources: Path) -> list[Job]:
    """The jobs, on a small simulated screen."""
    kb, measured = str(folder / "knowledge"), str(folder / "screen.h5ad")
    llm = ["--knowledge", kb, "--llm", address]
    (folder / "acquisition.toml").write_text(
        f"""
screen = "{folder / "whole.h5ad"}"
knowledge = "{kb}"
predictors = ["kernel ridge"]
targets = [{{name = "all"}}]
[strategies.random]
[strategies.chat]
use = "llm"
model = "{address}"
[protocol]
seeds = 4
batch = 5
rounds = 3
"""
    )
    (folder / "prediction.toml").write_text(
        f"""
screen = "{folder / "whole.h5ad"}"
knowledge = "{kb}"
methods = ["training mean", {{use = "langpert", settings = {{llm = "{address}"}}}}]
[split]
folds = 5
shuffles = 2
[metrics]
tops = []
"""
    )
    only = [part for name in FETCHED for part in ("--only", name)]

    def fetched(out: Path) -> str:
        files = sorted(p for p in out.iterdir() if p.suffix != ".json" and p.name[0] != ".")
        return " ".join(f"{p.name} {digest(p)}" for p in files)

    toml = {name: str(folder / f"{name}.toml") for name in ("acquisition", "prediction")}
    bulk = ["screen", "pseudobulk", str(folder / "cells.h5ad")]
    return [
        Job(
            "plan",
            lambda out: ["plan", measured, *llm, "--batch", "5", "--out", str(out)],
            lambda out: digest(out / "plan.csv"),
            places=2,
        ),
        Job(
            "ask",
            lambda out: ["ask", measured, *llm, "--out", str(out / "answers.jsonl")],
            lambda out: digest(out / "answers.jsonl"),
            places=2,
        ),
        Job(
            "bench acquisition",
            lambda out: ["bench", "acquisition", toml["acquisition"], "--resume", "-o", str(out)],
            lambda out: table(out / "picks.parquet") + table(out / "rounds.parquet"),
            places=4,
        ),
        Job(
            "bench prediction",
            lambda out: ["bench", "prediction", toml["prediction"], "--jobs=2", "--out", str(out)],
            lambda out: table(out / "results.parquet", ("seconds",)),
            places=4,
        ),
        Job(
            "pseudobulk",
            lambda out: [*bulk, str(out / "bulk.h5ad")],
            lambda out: screen_result(out / "bulk.h5ad"),
        ),
        Job(
            "build",
            lambda out: ["knowledge", "build", str(sources), "--out", str(out / "kb")],
            lambda out: Knowledge.open(out / "kb").fingerprint(),
            again=("--overwrite",),
        ),
        Job(
            "fetch",
            lambda out: ["knowledge", "fetch", "--out", str(out), *only, "--mirror", mirror],
            fetched,
        ),
    ]


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", CODE, "-q", *command],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )


def of_session(session: int) -> list[int]:
    """Living processes that a command left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, sid = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except (OSError, IndexError, ValueError):
            continue
        if int(sid) == session and state != "Z":
            found.append(int(entry.name))
    return found


def kill_once(job: Job, command: list[str], log: Path, served: Served, rng: random.Random) -> bool:
    """Start, kill, look; False when the command was through before its time."""
    process = start(command, log)
    try:
        process.wait(rng.uniform(0.2, 1.0) * job.seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    number = signal.SIGTERM if job.kills % 3 == 2 else signal.SIGKILL
    process.send_signal(number)
    job.kills += 1
    deadline = time.monotonic() + ORPHANS_AFTER_S
    while (process.poll() is None or of_session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = of_session(process.pid)
    if left:
        job.problems.append(
            f"{len(left)} processes left {ORPHANS_AFTER_S:g} s after kill {job.kills}"
        )
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    # What was under way at the kill is answered by now; nobody asks any more.
    time.sleep(0.3)
    before = served.server.count
    time.sleep(0.3)
    if served.server.count > before:
        job.problems.append(f"questions still came after kill {job.kills}")
    return True


def soak(job: Job, kills: int, work: Path, served: Served, rng: random.Random) -> None:
    """Reference, kills, the end; what differs goes to `job.problems`."""
    log = work / f"{job.name.replace(' ', '-')}.log"

    def through(out: Path, extra: tuple[str, ...] = ()) -> int:
        out.mkdir(parents=True, exist_ok=True)
        return start([*job.command(out), *extra], log).wait()

    reference, broken = work / job.name / "reference", work / job.name / "broken"
    started = time.monotonic()
    if through(reference):
        job.problems.append(f"the unbroken run failed, see {log}")
        return
    job.seconds = time.monotonic() - started
    served.forget()
    broken.mkdir(parents=True)
    tries = 0
    while job.kills < kills and tries < 5 * kills:
        tries += 1
        extra = job.again if any(broken.iterdir()) else ()
        if not kill_once(job, [*job.command(broken), *extra], log, served, rng):
            # Through already: from the start again, in a new folder, where all is to be paid.
            job.twice += served.twice()
            served.forget()
            broken = broken.with_name(f"broken-{tries}")
            broken.mkdir()
    if through(broken, job.again if any(broken.iterdir()) else ()):
        job.problems.append(f"the run after the kills failed, see {log}")
        return
    job.twice += served.twice()
    if job.result(broken) != job.result(reference):
        job.problems.append("the result differs from the unbroken one")
    if job.twice > job.places * job.kills:
        job.problems.append(f"{job.twice} questions were paid again after {job.kills} kills")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="Job; repeat.")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        work = Path(name)
        simulation = simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=3)
        genes = sorted(simulation.screen.perturbations)
        simulation.screen.save(work / "whole.h5ad")
        blank(simulation.screen, genes[::3]).save(work / "screen.h5ad")
        sources = simulation.write_sources(work / "sources")
        build_knowledge(sources, work / "knowledge", label="simulated")
        write_cells(work / "cells.h5ad", genes)
        served, mirror = Served(), serve(write_public(work / "public"))
        jobs = make_jobs(work, served.server.openai(), mirror, sources)
        jobs = [j for j in jobs if not options.only or j.name in options.only]
        for i, job in enumerate(jobs):
            share = options.kills // len(jobs) + (i < options.kills % len(jobs))
            soak(job, share, work, served, rng)
            said = "; ".join(job.problems) or "identical, no orphan"
            print(f"{job.name}: {job.kills} kills, {job.twice} paid again: {said}", flush=True)
            if job.problems:
                log = work / f"{job.name.replace(' ', '-')}.log"
                print(log.read_text()[-2000:] if log.exists() else "", flush=True)
    wrong = [j.name for j in jobs if j.problems]
    print(f"{sum(j.kills for j in jobs)} kills; wrong: {', '.join(wrong) or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
