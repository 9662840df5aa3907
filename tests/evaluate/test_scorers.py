"""What the field's scorers say of the files that pertwise writes, and of the same arrays.

Runs where PERTWISE_SCORERS_PYTHON names the interpreter of an environment with them: ``pip install
cell-eval2 scperteval vcc-cli``. docs/metrics.md explains the differences.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import pertwise as pw
from pertwise.evaluate import genes, metrics, retrieval, vcc2026
from pertwise.evaluate.auroc import de_auprc, de_auroc
from pertwise.evaluate.distribution import energy_distance, mmd
from pertwise.evaluate.genes import benjamini_hochberg
from pertwise.evaluate.metric_calibration import (
    bound_discrimination,
    dynamic_range_fraction,
    scaled_score,
)
from pertwise.screen.simulate_cells import simulate_cells

PYTHON = os.environ.get("PERTWISE_SCORERS_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON,
    reason="the field's scorers live in an environment of their own: pip install cell-eval2 "
    "scperteval vcc-cli there and name its interpreter in PERTWISE_SCORERS_PYTHON",
)


def run(*command, cwd=None, **more):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=600,
        check=False, env=environment | {"NUMBA_NUM_THREADS": "1"}, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def tool(name):
    return Path(PYTHON).parent / name


def theirs(code, **arrays):
    """Values of a snippet run over there, which fills `out`."""
    given = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
    script = (
        "import json, sys, numpy as np\n"
        "a = {k: np.array(v) for k, v in json.load(sys.stdin).items()}\n"
        "out = {}\n" + code + "\nprint('\\n' + json.dumps(out))"
    )
    said = run(PYTHON, "-c", script, input=json.dumps(given))
    return {k: np.array(v, dtype=float) for k, v in json.loads(said.splitlines()[-1]).items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Real cells of a simulated screen, and cells predicted for eight of its perturbations."""
    folder = tmp_path_factory.mktemp("scorers")
    simulation = pw.simulate(0, n_perturbations=32, n_features=60, n_pathways=4, mean_cells=200)
    real = simulate_cells(simulation, 0, max_cells=40)
    screen = pw.pseudobulk(real, pw.PseudobulkSettings(n_hvg=None))
    names = sorted(screen.perturbations)[:8]
    found = pw.predict(screen, names, method="training-mean", folds=0)
    kept = real[real.obs["perturbation"].isin([*names, "control"]).to_numpy()].copy()
    label = kept.obs["perturbation"].astype(str)
    kept.obs["target_gene"] = label.replace("control", "non-targeting").to_numpy()
    kept.write_h5ad(folder / "real_counts.h5ad")
    logged = kept.copy()
    size = np.asarray(kept.X.sum(axis=1))
    logged.X = sparse.csr_matrix(np.log1p(kept.X.toarray() / size * 1e4).astype(np.float32))
    logged.write_h5ad(folder / "real_log.h5ad")
    ways = {
        "pred_counts": {"column": "target_gene", "values": "counts"},
        "pred_vcc": {"column": "target_gene", "values": "counts", "with_controls": False},
        "pred_log": {"column": "perturbation"},
    }
    for name, how in ways.items():
        found.to_cells(real, 40, 0, **how).write_h5ad(folder / f"{name}.h5ad")
    (folder / "genes.csv").write_text("\n".join(real.var_names) + "\n")
    (folder / "perts.csv").write_text("\n".join(["target_gene", *names]) + "\n")
    return folder, names


def test_cell_eval2_scores_the_cells_by_the_rules_of_vcc2026(world):
    folder, names = world
    run(
        tool("cell-eval2"), "run", "-ap", "pred_counts.h5ad", "-ar", "real_counts.h5ad",
        "--preset", "vcc2026", "--pert-col", "target_gene", "--set", "control=non-targeting",
        "--set", "de.backend=scanpy", "-o", "out", cwd=folder,
    )  # fmt: skip
    table = pd.read_csv(folder / "out" / "results.csv")
    found = table.pivot(index="perturbation", columns="metric", values="value")
    assert set(found.index) == set(names)
    assert np.isfinite(found["pds_cosine"]).all()
    assert {"expr_mse_unbiased", "de_wilcoxon_sig_jaccard"} <= set(found)


def test_vcc_prep_packs_the_cells(world):
    folder, _ = world
    run(
        tool("vcc"), "prep", "pred_vcc.h5ad", "-g", "genes.csv", "--perts", "perts.csv",
        "--contexts", "SimLine1", "--cells-per-pert", "40", "--expected-gene-dim", "60",
        "-o", "out.vcc", cwd=folder,
    )  # fmt: skip
    assert (folder / "out.vcc").stat().st_size > 0


def test_scperteval_scores_the_cells_as_we_do(world):
    """Its pearson_ctrl, mse and nir of the cells are ours of their means."""
    folder, names = world
    run(
        tool("scperteval"), "score", "real_log.h5ad", "pred_log.h5ad", "-p", "pearson_ctrl,mse,nir",
        "--workers", "1", "--min-cells", "10", "--out-dir", "score", cwd=folder,
    )  # fmt: skip
    (file,) = (folder / "score").glob("*score.csv")
    table = pd.read_csv(file).pivot(index="perturbation", columns="protocol", values="score")
    screens = {
        side: pw.read_screen(
            folder / f"{side}_log.h5ad", perturbation_key="perturbation",
            pseudobulk=pw.PseudobulkSettings(
                scale="as-is", n_hvg=None, layer="X", keys=pw_keys("perturbation")
            ),
        ).of_perturbations(names)
        for side in ("real", "pred")
    }  # fmt: skip
    truth, answer = (screens[s].responses.astype(float) for s in ("real", "pred"))
    base = screens["real"].control_mean[0] - screens["pred"].control_mean[0]
    assert np.abs(base).max() < 1e-4
    own = table.loc[names]
    np.testing.assert_allclose(metrics.pearson_delta(truth, answer), own["pearson_ctrl"], atol=1e-3)
    np.testing.assert_allclose(metrics.mse(truth, answer), own["mse"], atol=1e-3)
    score = retrieval(answer, truth, kind="l2").score
    np.testing.assert_allclose(score, own["nir"], atol=1e-9)


def pw_keys(column):
    from pertwise.screen.layouts import Keys

    return Keys(perturbation=column, context="", batch="")


def test_scperteval_calibrates_real_cells(world):
    folder, _ = world
    run(
        tool("scperteval"), "calibrate", "real_log.h5ad", "-p", "pearson_ctrl", "--workers", "1",
        "--min-cells", "10", "--out-dir", "calibrated", cwd=folder,
    )  # fmt: skip
    assert list((folder / "calibrated").glob("*drf.csv"))


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 40))
    return truth, 0.5 * truth + rng.normal(size=truth.shape)


def test_fractions_and_discrimination_are_equal():
    rng = np.random.default_rng(1)
    good, bad = rng.uniform(-0.5, 1.2, (2, 50))
    bad[3], bad[4], good[5] = np.nan, 1.1, bad[5]
    found = theirs(
        "from types import SimpleNamespace as N\n"
        "from scperteval.calibrators import CALIBRATORS as C\n"
        "for better, perfect in (('higher', 1.0), ('lower', 0.0)):\n"
        "    p = N(better=better, perfect=perfect)\n"
        "    for name in ('drf', 'bds'):\n"
        "        f = C[name].per_pert\n"
        "        out[name + better] = [f({'positive': x, 'negative': y}, p) for x, y in\n"
        "                              zip(a['good'], a['bad'])]",
        good=good, bad=bad,
    )  # fmt: skip
    for word, better, perfect in (("higher", "high", 1.0), ("lower", "low", 0.0)):
        ours = dynamic_range_fraction(good, bad, perfect=perfect, better=better)
        np.testing.assert_allclose(ours, found["drf" + word], atol=1e-6)
        np.testing.assert_array_equal(
            bound_discrimination(good, bad, better=better), found["bds" + word]
        )


def test_metrics_of_arrays_are_equal(arrays):
    truth, answer = arrays
    rng = np.random.default_rng(2)
    p_values = rng.uniform(size=truth.shape) ** 6
    cells = rng.normal(size=(2, 30, 5)) + np.array([0.0, 0.5])[:, None, None]
    found = theirs(
        "from types import SimpleNamespace as N\n"
        "from scperteval.protocols import metrics as m\n"
        "from scperteval.blocks.de import bh\n"
        "t, p = a['truth'], a['answer']\n"
        "out['mse'] = [m.mse(x, y, None) for x, y in zip(t, p)]\n"
        "out['r2'] = [m.r2(x, y, None) for x, y in zip(t, p)]\n"
        "out['pearson'] = [m.pearson(x, y, None) for x, y in zip(t, p)]\n"
        "out['nir'] = list(m.nir(list(t), list(p), None))\n"
        "out['rank'] = list(m.rank_retrieval(list(t), list(p), None))\n"
        "gt = [N(pvalue_adj=bh(q), statistic=x) for q, x in zip(a['p_values'], t)]\n"
        "out['auprc'] = [m.de_auprc(g, abs(y), None) for g, y in zip(gt, p)]\n"
        "out['auroc'] = [m.de_auroc(g, abs(y), None) for g, y in zip(gt, p)]\n"
        "out['overlap'] = [m.de_overlap(g, abs(y), None, k=7) for g, y in zip(gt, p)]\n"
        "out['energy'] = m.energy_distance(*a['cells'], None)\n"
        "out['mmd'] = m.unbiased_mmd_median(*a['cells'], None)",
        truth=truth, answer=answer, p_values=p_values, cells=cells,
    )  # fmt: skip
    called = benjamini_hochberg(p_values) < 0.05
    assert called.any(axis=1).all()
    ours = {
        "mse": metrics.mse(truth, answer),
        "r2": metrics.r_squared(truth, answer),
        "pearson": metrics.pearson_delta(truth, answer),
        "nir": retrieval(answer, truth, kind="l2").score,
        # Predictions around the measured response: the other way round.
        "rank": 1 - retrieval(truth, answer, kind="l2").score,
        "auprc": de_auprc(answer, called),
        "auroc": de_auroc(answer, called),
        "overlap": genes.de_overlap(truth, answer, 7),
        "energy": energy_distance(*cells, unbiased=True),
        "mmd": mmd(*cells),
    }
    for name, value in ours.items():
        np.testing.assert_allclose(value, found[name], atol=1e-6, err_msg=name)


def test_scaled_scores_are_those_of_vcc2026():
    """Every scored member, by its own policy, between a baseline and a replicate."""
    values = [-0.2, 0.05, 0.3, 0.31, 0.6, 0.9, 1.4, 30.0]
    found = theirs(
        "from dataclasses import replace\n"
        "from cell_eval2.catalog import CATALOG\n"
        "from cell_eval2.competition import competition_members\n"
        "from cell_eval2.scoring import score_one\n"
        "for name in competition_members():\n"
        "    s = CATALOG[name].scoring\n"
        "    low = s.direction == 'lower'\n"
        "    b, r = (0.9, 0.2) if low else (0.2, 0.9)\n"
        "    s = replace(s, anchor=r)\n"
        "    floor = s.effective_clamp_low()\n"
        "    cap = s.clamp_high\n"
        "    facts = [b, r, s.penalty == 'boxcox', floor, float('inf') if cap is None else cap]\n"
        "    out[name] = [*facts, *(score_one(v, b, s) for v in a['values'])]",
        values=np.array(values),
    )  # fmt: skip
    assert len(found) == 6
    for name, (base, replicate, tail, low, high, *want) in found.items():
        got = [
            scaled_score(v, base, replicate, tail="boxcox" if tail else "none", low=low, high=high)
            for v in values
        ]
        np.testing.assert_allclose(got, want, atol=1e-6, err_msg=name)


def test_members_of_vcc2026_on_the_same_tables_are_equal():
    """Their scored members on given tables, and the discrimination score by our retrieval."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(5, 60))
    truth[:, 7] = 0.0
    answer = 0.6 * truth + rng.normal(0, 0.7, size=truth.shape)
    p_truth, p_answer = rng.uniform(size=(2, *truth.shape)) ** 5
    p_truth[4] = 1.0
    q_truth, q_answer = benjamini_hochberg(p_truth), benjamini_hochberg(p_answer)
    found = theirs(
        "import polars as pl\n"
        "from functools import partial\n"
        "from cell_eval2.de import prepare_de\n"
        "from cell_eval2.catalog import CATALOG\n"
        "from cell_eval2.metrics.discrimination import discrimination_score\n"
        "n, d = a['truth'].shape\n"
        "perts, genes = [f'p{i}' for i in range(n)], [f'g{j:03d}' for j in range(d)]\n"
        "def table(x, p, q):\n"
        "    return pl.DataFrame({'target': np.repeat(perts, d), 'feature': genes * n,\n"
        "        'log2_fold_change': x.ravel(), 'p_value': p.ravel(), 'p_adj': q.ravel()})\n"
        "ready = prepare_de(table(a['answer'], a['pa'], a['qa']), table(a['truth'], a['pt'],\n"
        "    a['qt']), control='non-targeting', sort_by='abs_log2_fold_change',\n"
        "    p_adj_threshold=0.05, nan_lfc_policy='mask')\n"
        "from cell_eval2.de import TargetResolution\n"
        "own = {p: genes[i] for i, p in enumerate(perts)}\n"
        "ready.target_resolution = TargetResolution(own, n)\n"
        "for m in ('sig_jaccard', 'lfc_nmae', 'direction_fidelity_yield_raw',\n"
        "          'direction_reach_raw'):\n"
        "    got = CATALOG['de_wilcoxon_' + m].func(ready)\n"
        "    out[m] = [got.get(p, float('nan')) for p in perts]\n"
        "labels = np.array([*perts, 'non-targeting'])\n"
        "bulk = lambda x: (labels, np.vstack([x, np.zeros(d)]))\n"
        "got = discrimination_score(pred_bulk=bulk(a['answer']), real_bulk=bulk(a['truth']),\n"
        "    distance='cosine', exclude_target_gene=False)\n"
        "out['pds'] = [got[p] for p in perts]",
        truth=truth, answer=answer, pt=p_truth, pa=p_answer, qt=q_truth, qa=q_answer,
    )  # fmt: skip
    real, called = q_truth < 0.05, q_answer < 0.05
    keep = np.ones(truth.shape, bool)
    keep[np.arange(5), np.arange(5)] = False
    assert (real & keep)[:4].sum(axis=1).min() >= 10
    ours = {
        "sig_jaccard": vcc2026.sig_jaccard(real, called, keep),
        "lfc_nmae": vcc2026.lfc_error(truth, answer, real, keep),
        "direction_fidelity_yield_raw": vcc2026.direction_yield(truth, answer, real, called, keep),
        "direction_reach_raw": vcc2026.direction_reach(
            truth, answer, real, q_answer, p_answer, keep
        ),
        "pds": 1 - (1 - retrieval(answer, truth, kind="cosine").score) * 4 / 5,
    }
    for name, values in ours.items():
        np.testing.assert_allclose(values, found[name], atol=1e-6, err_msg=name)
