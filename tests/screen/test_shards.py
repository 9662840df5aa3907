import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.screen import PseudobulkSettings, simulate_screen
from pertwise.screen.layouts import Keys
from pertwise.screen.pseudobulk import pseudobulk
from pertwise.screen.shards import expand_sources, fingerprint, pseudobulk_shards, run_key

SETTINGS = PseudobulkSettings(n_hvg=15)


@pytest.fixture(scope="module")
def cells():
    made = simulate_screen(
        0, n_perturbations=12, n_features=30, n_pathways=2, contexts=("A", "B"), mean_cells=15,
        control_cells=80,
    )  # fmt: skip
    return made.cells(1, n_batches=2)


@pytest.fixture
def shards(cells, tmp_path):
    """Four files; cells of every condition lie in several, one file has no control at all."""
    folder = tmp_path / "shards"
    folder.mkdir()
    control = (cells.obs["perturbation"] == "control").to_numpy()
    part = np.random.default_rng(0).integers(0, 4, len(cells))
    part[control & (part == 3)] = 0
    for i in range(4):
        piece = cells[part == i].copy()
        if i == 1:
            piece.write_zarr(folder / "1.zarr")
        elif i == 2:
            table = pd.DataFrame(piece.X.toarray(), columns=list(piece.var_names))
            pd.concat([piece.obs.reset_index(drop=True), table], axis=1).to_parquet(
                folder / "2.parquet"
            )
        else:
            piece.write_h5ad(folder / f"{i}.h5ad")
    return folder


def same(a, b):
    np.testing.assert_array_equal(a.responses, b.responses)
    np.testing.assert_array_equal(a.sampling_variance, b.sampling_variance)
    np.testing.assert_array_equal(a.control_mean, b.control_mean)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    assert a.features == b.features


def test_shards_of_three_formats_equal_the_result_in_memory(cells, shards, tmp_path):
    work = tmp_path / "work"
    screen = pseudobulk_shards([shards], SETTINGS, workdir=work, rows_per_task=50)
    same(screen, pseudobulk(cells, SETTINGS))
    assert not work.exists()
    assert screen.simulated


def test_two_workers_equal_one(cells, shards, tmp_path):
    screen = pseudobulk_shards(
        [shards], SETTINGS, workdir=tmp_path / "w", workers=2, rows_per_task=100
    )
    same(screen, pseudobulk(cells, SETTINGS))


def test_a_scheduler_by_address(cells, shards, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        protocol="tcp",
    ) as cluster:
        address = cluster.scheduler_address
        assert address.startswith("tcp://")
        screen = pseudobulk_shards([shards], SETTINGS, workdir=tmp_path / "w", dask=address)
    same(screen, pseudobulk(cells, SETTINGS))


def test_killed_run_continues_where_it_stopped(cells, shards, tmp_path):
    """A real kill -9 in the middle; parts that were done are not done again."""
    work = tmp_path / "work"
    # Each task waits a little, so that the kill falls between two of them.
    script = f"""
import time
import pertwise.screen.shards as s
from pertwise.screen import PseudobulkSettings
inner = s.second_pass
def slow(*args):
    time.sleep(0.3)
    return inner(*args)
s.second_pass = slow
s.pseudobulk_shards([{str(shards)!r}], PseudobulkSettings(n_hvg=15), workdir={str(work)!r},
                    rows_per_task=50)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while len(list(work.glob("*/second-*.h5"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {p: p.stat().st_mtime_ns for p in work.glob("*/*.h5") if not p.name.startswith(".")}
    assert sum(p.name.startswith("second") for p in done) >= 2
    screen = pseudobulk_shards([shards], SETTINGS, workdir=work, rows_per_task=50, keep_parts=True)
    same(screen, pseudobulk(cells, SETTINGS))
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert len(list(work.glob("*/second-*.h5"))) > sum(p.name.startswith("second") for p in done), (
        "the kill came too late to test resuming"
    )


def test_parts_of_other_inputs_or_settings_are_not_used(shards):
    paths = expand_sources([shards])
    key = run_key(paths, SETTINGS, 50)
    assert run_key(paths, SETTINGS, 50) == key
    assert run_key(paths, PseudobulkSettings(n_hvg=16), 50) != key
    assert run_key(paths[:-1], SETTINGS, 50) != key
    os.utime(paths[0], ns=(1, 1))
    assert run_key(paths, SETTINGS, 50) != key


def test_fingerprint_of_a_folder_sees_its_files(shards):
    store = shards / "1.zarr"
    before = fingerprint(store)
    (store / "new").write_text("x")
    assert fingerprint(store) != before


def test_expand_sources(shards, tmp_path):
    assert [p.name for p in expand_sources([shards])] == [
        "0.h5ad", "1.zarr", "2.parquet", "3.h5ad",
    ]  # fmt: skip
    assert expand_sources([shards / "1.zarr"]) == [shards / "1.zarr"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no .h5ad, .zarr, .parquet file"):
        expand_sources([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"workers": 0}, "workers must be at least 1"), ({"rows_per_task": 0}, "rows_per_task")],
)
def test_bad_options(shards, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        pseudobulk_shards([shards], SETTINGS, workdir=tmp_path / "w", **options)


def test_no_scheduler_at_the_address(shards, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("pertwise._process.CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match=r"no dask scheduler answers at tcp://127.0.0.1:9"):
        pseudobulk_shards([shards], SETTINGS, workdir=tmp_path / "w", dask="tcp://127.0.0.1:9")


def test_missing_dask_names_the_install_line(shards, tmp_path, monkeypatch):
    from pertwise.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pertwise\[dask\]'"):
        pseudobulk_shards([shards], SETTINGS, workdir=tmp_path / "w", dask="tcp://x:1")


def test_every_control_label_asked_for_must_occur_in_some_file(shards, tmp_path):
    settings = PseudobulkSettings(keys=Keys(control=("control", "contrl")))
    with pytest.raises(UnknownNameError, match=r"'contrl'; did you mean 'control'.*any of the"):
        pseudobulk_shards([shards], settings, workdir=tmp_path / "w")
