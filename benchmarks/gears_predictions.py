"""GEARS (Roohani et al. 2024) on cells, in an environment of its own, for `bench external`.

cell-gears 0.1.2 fails with today's pandas, scipy and numpy, which pertwise uses, so it cannot be an
extra of the same environment. This file imports nothing of pertwise:

    python3.12 -m venv gears-env
    gears-env/bin/pip install cell-gears torch_geometric "pandas<2.3" "scipy<1.14" "numpy<2.1" \\
        "scanpy<1.12" "anndata<0.13"
    gears-env/bin/python benchmarks/gears_predictions.py cells.h5ad --gene2go gene_go.csv \\
        --hold-out names.txt --out gears.csv
    pertwise bench external gears.csv --screen screen.h5ad --values means --method training-mean

`cells.h5ad`: log-normalised cells in the GEARS layout (obs: condition = "ctrl", "A+ctrl", "A+B" and
cell_type; var: gene_name). `gene_go.csv`: columns symbol, go; GEARS' own download is not used, so
that no address need be reached. `gears.csv`: one row a held-out perturbation, its predicted mean.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


def condition(name: str) -> str:
    """ "A" -> "A+ctrl"; a combination as it stands."""
    return name if "+" in name else f"{name}+ctrl"


def main() -> None:
    """Train on all conditions that are not held out, and write the means of those that are."""
    about = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    about.add_argument("cells", type=Path)
    about.add_argument("--gene2go", type=Path, required=True)
    about.add_argument("--hold-out", type=Path, required=True, help="One perturbation a line.")
    about.add_argument("--out", type=Path, required=True)
    about.add_argument("--epochs", type=int, default=15)
    about.add_argument("--hidden", type=int, default=64)
    about.add_argument("--device", default="cpu")
    about.add_argument("--seed", type=int, default=0)
    given = about.parse_args()

    import torch
    from gears import GEARS, PertData

    np.random.seed(given.seed)  # noqa: NPY002 - GEARS draws controls from this one
    torch.manual_seed(given.seed)
    terms = pd.read_csv(given.gene2go).groupby("symbol")["go"].agg(set).to_dict()
    cells = ad.read_h5ad(given.cells)
    cells.X = sparse.csr_matrix(cells.X)
    names = [n.strip() for n in given.hold_out.read_text("utf-8").splitlines() if n.strip()]
    held = {condition(n): n for n in names if all(g in terms for g in n.split("+"))}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "gene2go_all.pkl").write_bytes(pickle.dumps(terms))
        data = PertData(folder, default_pert_graph=False)
        data.new_data_process("screen", adata=cells)
        known = [
            c
            for c in data.adata.obs["condition"].unique()
            if c not in ("ctrl", *held) and set(c.split("+")) <= {"ctrl", *data.pert_names}
        ]
        order = np.random.default_rng(given.seed).permutation(known)
        n_val = max(1, len(order) // 10)
        data.split, data.seed, data.subgroup, data.train_gene_set_size = "custom", 0, None, 0.75
        data.set2conditions = {
            "train": ["ctrl", *order[n_val:]],
            "val": list(order[:n_val]),
            "test": [c for c in held if c in data.dataset_processed] or list(order[:1]),
        }
        data.get_dataloader(batch_size=32, test_batch_size=128)
        model = GEARS(data, device=given.device)
        model.model_initialize(hidden_size=given.hidden)
        model.train(epochs=given.epochs, lr=1e-3)
        found = model.predict([n.split("+") for n in held.values()])
    table = pd.DataFrame(
        [found["_".join(n.split("+"))] for n in held.values()],
        index=pd.Index(held.values(), name="perturbation"),
        columns=list(cells.var["gene_name"]),
    )
    table.to_csv(given.out)
    left = sorted(set(names) - set(held.values()))
    print(f"{given.out}: {len(table)} perturbations; without GO terms, not predicted: {left}")


if __name__ == "__main__":
    main()
