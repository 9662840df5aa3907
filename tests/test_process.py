"""Workers die with their parent, one process writes a folder, a signal is one line."""

import ctypes
import functools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types

import httpx
import pytest

from pertwise import _process
from pertwise._process import in_processes, limit_threads, on_dask, only_writer
from pertwise.errors import BusyError, PertwiseError


def test_in_processes_gives_all_results_and_the_first_error():
    assert sorted(in_processes(math.sqrt, [(i * i,) for i in range(5)], 2)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(in_processes(math.sqrt, [(1,), (-1,)], 1))
    assert not multiprocessing.active_children()


def of_nowhere():
    """A function of a module that only this process has."""
    module = types.ModuleType("a_module_that_workers_do_not_have")
    sys.modules[module.__name__] = module
    exec("def work(*payload): pass", module.__dict__)
    return module.work


ANSWER = httpx.Response(500, request=httpx.Request("GET", "http://x"))
NO_LIBRARY = functools.partial(ctypes.CDLL, "libnone.so")


@pytest.mark.parametrize(
    ("work", "payload", "start", "said"),
    [
        (signal.raise_signal, (signal.SIGKILL,), None, "ended from outside, .*use fewer workers"),
        (signal.raise_signal, (signal.SIGTERM,), None, "ended from outside"),
        (os.abort, (), None, "crashed in native code .signal 6."),
        (os._exit, (3,), None, "ended by itself with status 3: .*__name__"),
        # Errors that can be pickled, but not made again.
        (ANSWER.raise_for_status, (), None, "HTTPStatusError: Server error '500"),
        (of_nowhere(), (), None, "cannot read its task: ModuleNotFoundError: No module"),
        (math.sqrt, (1,), NO_LIBRARY, "cannot start: OSError: libnone.so"),
    ],
)
def test_whatever_ends_a_worker_is_one_line(work, payload, start, said, capfd):
    with pytest.raises(PertwiseError, match=said) as caught:
        list(in_processes(work, [payload] * 3, 2, start))
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    assert "Traceback" not in capfd.readouterr().err


def test_lost_dask_workers_are_one_line():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.run_on_scheduler(
            lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0)
        )
        done = on_dask(os._exit, [(3,)], cluster.scheduler_address, 1, limit_threads)
        with pytest.raises(PertwiseError, match=r"the dask workers at tcp://.* were lost"):
            list(done)


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
        with pytest.raises(BusyError, match="another pertwise process"), only_writer(target):
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


SLOW_END = """
import atexit, signal, time
from pertwise.cli import main
atexit.register(time.sleep, 60)
main.app = lambda: signal.raise_signal(signal.SIGTERM)
main.main()
"""


def test_an_interrupted_command_does_not_wait_for_the_interpreters_end():
    ended = subprocess.run(
        [sys.executable, "-c", SLOW_END], capture_output=True, text=True, timeout=50
    )
    assert (ended.returncode, ended.stderr) == (143, "interrupted\n")


def test_workers_start_beside_a_broken_torch(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise OSError('libtorch.so: cannot open shared object')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert list(in_processes(math.sqrt, [(4,)], 1, limit_threads)) == [2.0]


def test_few_rows_are_worked_on_by_one_thread():
    from threadpoolctl import threadpool_info, threadpool_limits

    def blas():
        return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = blas()
        with _process.threads_for(_process.FEW_ROWS - 1):
            assert set(blas()) == {1}
        assert blas() == before
        with _process.threads_for(_process.FEW_ROWS):
            assert blas() == before
