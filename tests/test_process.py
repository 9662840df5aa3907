"""Workers die with their parent, one process writes a folder, a signal is one line."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from pertwise._process import in_processes, only_writer
from pertwise.errors import InputError, PertwiseError


def test_in_processes_gives_all_results_and_the_first_error():
    assert sorted(in_processes(math.sqrt, [(i * i,) for i in range(5)], 2)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(in_processes(math.sqrt, [(1,), (-1,)], 1))
    with pytest.raises(PertwiseError, match="ended from outside"):
        list(in_processes(os.abort, [()], 1))
    assert not multiprocessing.active_children()


HOLD = """
import sys, time
from pertwise._process import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["run", "answers.jsonl"])
def test_the_second_writer_is_refused_and_a_dead_one_is_none(name, tmp_path):
    target = tmp_path / name
    call = [sys.executable, "-c", HOLD, str(target)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another pertwise process"), only_writer(target):
            pass
        os.kill(first.pid, signal.SIGKILL)
    with only_writer(target):
        pass


WORK = """
import os, sys, time
from pathlib import Path
from pertwise._process import ends_on_signals, in_processes, Interrupted

def work(folder):
    Path(folder, str(os.getpid())).touch()
    while True:
        sum(range(10**6))

if __name__ == "__main__":
    try:
        with ends_on_signals():
            list(in_processes(work, [(sys.argv[1],)] * 2, 2))
    except Interrupted as stop:
        print("interrupted", file=sys.stderr)
        sys.exit(stop.code)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_workers_die_with_their_parent(number, status, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    pids = tmp_path / "pids"
    pids.mkdir()
    call = [sys.executable, str(tmp_path / "work.py"), str(pids)]
    with subprocess.Popen(
        call, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while len(list(pids.iterdir())) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        # Ctrl-C reaches everything on the terminal, a kill only the process named.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        assert process.wait(10) == status
        said = process.stderr.read()
    if number != signal.SIGKILL:
        assert said == "interrupted\n"
    deadline = time.monotonic() + 5
    while any(alive(int(p.name)) for p in pids.iterdir()):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
