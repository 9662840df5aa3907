"""On a dask cluster of two workers, one of which is killed: the bits of a run without dask."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.run import PredictionTask
from pertwise.cli.main import app
from pertwise.config import check_settings
from pertwise.errors import InputError, PertwiseError
from pertwise.llm import FatalChatError, Ledger, open_chat
from pertwise.screen import PseudobulkSettings, simulate_screen
from pertwise.screen.pseudobulk import pseudobulk
from pertwise.screen.shards import pseudobulk_shards
from pertwise.testing.predictors import example_screen
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")

SLOW = """
import time
from pertwise.models import TrainingMeanPredictor

class Slow(TrainingMeanPredictor):
    name = "slow"
    def fit(self, screen, knowledge=None):
        time.sleep(0.1)
        return super().fit(screen, knowledge)
"""


def two_workers():
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    )


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as made:
        yield made


@pytest.fixture
def doomed():
    """One for each test: a worker that is killed while it starts again is given up."""
    with two_workers() as made:
        yield made


def at_work(cluster):
    return [w for w in list(cluster.scheduler.workers.values()) if w.processing]


@pytest.fixture
def killed(doomed):
    """Called with a question: once that is true, a worker is killed, a busy one if there is one."""
    threads, over = [], threading.Event()

    def when(begun):
        def wait():
            while not begun():
                if over.wait(0.01):
                    return
            names = {w.address for w in at_work(doomed)}
            busy = [w for w in doomed.workers.values() if w.worker_address in names]
            os.kill((busy or doomed.workers)[0].process.pid, signal.SIGKILL)
            when.done.set()

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()
        return doomed.scheduler_address

    when.done = threading.Event()
    yield when
    alive = [t.is_alive() for t in threads]
    over.set()
    assert not any(alive), "no worker was killed"


def test_pseudobulk(killed, tmp_path):
    cells = simulate_screen(
        0, n_perturbations=12, n_features=30, n_pathways=2, mean_cells=15, control_cells=80
    ).cells(1, n_batches=2)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    settings, work = PseudobulkSettings(n_hvg=15), tmp_path / "work"
    address = killed(lambda: any(work.glob("*/*.h5")))
    found = pseudobulk_shards(
        [tmp_path / "cells.h5ad"], settings, workdir=work, rows_per_task=20, dask=address
    )
    whole = pseudobulk(cells, settings)
    np.testing.assert_array_equal(found.responses, whole.responses)
    np.testing.assert_array_equal(found.sampling_variance, whole.sampling_variance)
    pd.testing.assert_frame_equal(found.obs, whole.obs)


def test_prediction_benchmark(killed, tmp_path):
    (tmp_path / "own.py").write_text(SLOW)
    example_screen(20, 8).save(tmp_path / "screen.h5ad")
    config = check_settings(
        {
            "screen": str(tmp_path / "screen.h5ad"),
            "methods": [{"use": f"{tmp_path / 'own.py'}:Slow"}, {"use": "training-mean"}],
            "metrics": {"tops": [3], "retrieval": ["l2"]},
        },
        PredictionConfig,
    )
    here = run_task(PredictionTask(config), tmp_path / "here").folder
    there = tmp_path / "there"
    address = killed(lambda: any(there.glob("units/*.json")))
    run_task(PredictionTask(config), there, executor="dask", address=address)
    tables = [pd.read_parquet(f / "results.parquet").drop(columns="seconds") for f in (here, there)]
    pd.testing.assert_frame_equal(*tables)


def test_acquisition_benchmark(killed, tmp_path):
    (tmp_path / "own.py").write_text(SLOW)
    simulate_screen(7, n_perturbations=40, n_features=10, n_pathways=2).screen.save(
        tmp_path / "screen.h5ad"
    )
    config = check_settings(
        {
            "screen": str(tmp_path / "screen.h5ad"),
            "strategies": ["random"],
            "predictors": {"slow": {"use": f"{tmp_path / 'own.py'}:Slow"}},
            "protocol": {"seeds": 3, "batch": 5, "rounds": 3},
        },
        AcquisitionConfig,
    )
    run_task(AcquisitionTask(config), tmp_path / "here")
    there = tmp_path / "there"
    address = killed(lambda: any(there.glob("units/*")))
    run_task(AcquisitionTask(config), there, executor="dask", address=address)
    for name in ("differences.csv", "labels_needed.csv"):
        assert (there / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    rounds = [pd.read_parquet(tmp_path / f / "rounds.parquet") for f in ("here", "there")]
    pd.testing.assert_frame_equal(*rounds)


# -- rate: the workers send, this process decides and writes ----------------------------------

QUESTIONS, ROWS = 8, 3
WHAT = {"names": [f"G{i:02d}" for i in range(QUESTIONS * ROWS)], "context": "K562"}
CLI = ["rate", "--names", ",".join(WHAT["names"]), "--context", "K562", "--batch-size", str(ROWS)]


def server(delay=0.15, key=""):
    return ScriptedServer(lambda asked: Answer(first_alphabetical(asked), delay=delay), key=key)


def written(out, asked):
    """The file, without the port."""
    return out.read_bytes().replace(asked.url.encode(), b"URL")


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """The file of one process."""
    out = tmp_path_factory.mktemp("here") / "marks.csv"
    with server(0) as asked:
        pw.rate(**WHAT, llm=asked.openai(), batch_size=ROWS, out=out)
        return written(out, asked)


def test_rate_with_a_worker_killed_in_its_call(killed, doomed, marks, tmp_path):
    out, path = tmp_path / "marks.csv", tmp_path / "l.sqlite"

    def held(asked):
        killed.done.wait(30)
        return Answer(first_alphabetical(asked))

    with ScriptedServer(held) as asked:
        # All at work wait for an answer, so that the one killed certainly does.
        address = killed(lambda: asked.at_once == len(at_work(doomed)) > 0)
        how = {"llm": asked.openai(), "ledger": path, "out": out, "batch_size": ROWS}
        pw.rate(**WHAT, **how, dask=address)
        assert asked.count == QUESTIONS + 1
    assert written(out, asked) == marks
    ledger = Ledger(path)
    assert len(ledger) == QUESTIONS
    # It may have been billed: it counts, and says why.
    calls, tokens, _ = ledger.doubtful("rate")
    assert (calls, tokens > 0) == (1, True)
    said = list(ledger.rows("SELECT kind, message, final FROM failures"))
    assert said == [("connection", "the dask worker that asked was lost", 0)]


@pytest.fixture
def client(cluster):
    """Its workers have no key of a test afterwards."""
    with distributed.Client(cluster) as made:
        made.wait_for_workers(2)
        yield made
        made.run(lambda: os.environ.pop("PERTWISE_API_KEY", None))


def test_rate_keeps_its_budget_and_takes_keys_from_the_workers(
    cluster, client, marks, tmp_path, monkeypatch
):
    own, theirs = "key-of-this-process", "key-of-the-workers"
    monkeypatch.setenv("PERTWISE_API_KEY", own)
    out, path = tmp_path / "marks.csv", tmp_path / "marks.ledger.sqlite"
    with server(key=theirs) as asked:
        wrong = "wrong-key-of-the-workers"
        client.run(lambda: os.environ.update(PERTWISE_API_KEY=wrong))
        # The server repeats what it was sent; whoever sent it takes it out.
        with pytest.raises(FatalChatError, match=r"Incorrect API key provided: \[redacted\]"):
            pw.rate(**WHAT, llm=asked.openai(), dask=cluster.scheduler_address)
        asked.asked.clear()
        client.run(lambda: os.environ.update(PERTWISE_API_KEY=theirs))
        words = [*CLI, "--llm", asked.openai(), "--dask", cluster.scheduler_address, "--out", out]
        chat = open_chat(asked.openai(), client=client)
        assert own.encode() not in pickle.dumps(chat._elsewhere._how)
        limit = 15_000
        short = CliRunner().invoke(app, [*map(str, words), "--budget-tokens", str(limit)])
        assert short.exit_code
        assert isinstance(short.exception, pw.errors.BudgetError)
        ledger, paid = Ledger(path), asked.count
        assert 2 < len(ledger) == paid < QUESTIONS
        assert asked.most_at_once == 2
        assert ledger.spent("rate")[0] + ledger.doubtful("rate")[1] <= limit
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
        assert asked.count == asked.paid == QUESTIONS
    assert written(out, asked) == marks


def test_rate_is_stopped_by_a_signal_and_goes_on(cluster, marks, tmp_path):
    out = tmp_path / "marks.csv"
    with server() as asked:
        words = [*CLI, "--llm", asked.openai(), "--dask", cluster.scheduler_address, "--out", out]
        code = "from pertwise.cli.main import main; main()"
        run = [sys.executable, "-c", code, *map(str, words)]
        with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as process:
            while asked.paid < 2 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=20)[1]
        assert process.returncode == 128 + signal.SIGTERM, said
        assert "The same command goes on from" in said
        assert "Traceback" not in said
        begun = asked.count
        time.sleep(0.4)
        assert asked.count == begun < QUESTIONS, "workers went on asking"
        stored = len(Ledger(tmp_path / "marks.ledger.sqlite"))
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.exit_code == 0, done.output
        assert asked.count == begun + QUESTIONS - stored
    assert written(out, asked) == marks


def test_rate_says_that_its_scheduler_is_gone(tmp_path, capfd):
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address=None, silence_logs=50
        ) as small,
        server() as asked,
    ):

        def end():
            while asked.paid < 2:
                time.sleep(0.01)
            small.close()

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        how = {"llm": asked.openai(), "batch_size": ROWS, "ledger": tmp_path / "l.sqlite"}
        with pytest.raises(PertwiseError, match=r"the dask scheduler at \S+ is gone; what is fin"):
            pw.rate(**WHAT, **how, dask=small.scheduler_address)
        thread.join(20)
    assert len(Ledger(tmp_path / "l.sqlite")) >= 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"llm": "m@http://h/v1"}, "a dask worker: no API key for h: set PERTWISE_API_KEY_H"),
        ({"llm": "m@http://h/v1?code=abc"}, "the query of m@http://h/v1 may hold a key"),
        ({"llm": "m@http://h/v1", "replay": True}, "a replay sends nothing to the dask workers"),
        ({"llm": object()}, "an open chat asks by itself"),
    ],
)
def test_rate_refuses_what_workers_cannot_do(cluster, how, said, monkeypatch):
    monkeypatch.setenv("PERTWISE_API_KEY", "of this process only")
    with pytest.raises(InputError, match=said) as caught:
        pw.rate(**WHAT, **how, dask=cluster.scheduler_address)
    assert "abc" not in str(caught.value)


def test_rate_refuses_a_cluster_that_would_not_be_asked():
    for words in (["--llm", "m@http://h", "--dry-run"], ["--template", "--out", "t.csv"]):
        done = CliRunner().invoke(app, [*CLI, "--dask", "tcp://h:1", *words])
        assert isinstance(done.exception, InputError)
        assert "--dask" in str(done.exception)
