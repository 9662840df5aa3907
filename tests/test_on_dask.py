"""On a dask cluster of two workers, one of which is killed: the bits of a run without dask."""

import os
import signal
import threading

import numpy as np
import pandas as pd
import pytest

from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.run import PredictionTask
from pertwise.config import check_settings
from pertwise.screen import PseudobulkSettings, simulate_screen
from pertwise.screen.pseudobulk import pseudobulk
from pertwise.screen.shards import pseudobulk_shards
from pertwise.testing.predictors import example_screen

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


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as made:
        yield made


@pytest.fixture
def killed(cluster):
    """Called with a question: once that is true, a worker that lives is killed, once."""
    threads, over = [], threading.Event()

    def when(begun):
        def wait():
            while not begun():
                if over.wait(0.01):
                    return
            os.kill(cluster.workers[0].process.pid, signal.SIGKILL)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()
        return cluster.scheduler_address

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
