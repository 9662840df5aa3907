"""Output of Cell Ranger (h5, mtx) with its guide calls, and MuData files of cells."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from pertwise._tables import read_frame
from pertwise.errors import InputError
from pertwise.screen.anndata_file import SparseRows, make_csr
from pertwise.screen.cells import CellFile
from pertwise.screen.celltable import FrameTable, GroupTable, as_text, length_of
from pertwise.screen.flags import texts
from pertwise.screen.layouts import PERTURBATION_KEYS

#: Guide calls of Cell Ranger, beside the matrix or in the folders it makes for them.
CALLS = "protospacer_calls_per_cell.csv"
_FOLDERS = (".", "..", "crispr_analysis", "../crispr_analysis", "../../crispr_analysis")
_GENES = "Gene Expression"
_RANGER_2 = (
    "{} is a 10x h5 of Cell Ranger 2: read it with scanpy.read_10x_h5, write the guide of each "
    "cell into obs['perturbation'] and save it with write_h5ad"
)
#: Modalities of MuData: of expression, and of anything else; columns of guides, best known first.
_EXPRESSION = ("rna", "gex", "gene", "genes", "expression", "mrna", "gene expression")
_OTHER_MODALITY = re.compile(r"guide|grna|gdo|crispr|hto|hash|adt|prot|atac|peak|antibod|multiplex")
_CALLED = ("feature_call", "guide_identity", "guide_id", "assigned_guide", "sgRNA")


def is_mtx_folder(path: Path) -> bool:
    """Whether a folder holds a matrix of 10x as mtx."""
    return any((path / f"matrix.mtx{end}").is_file() for end in ("", ".gz"))


def _one(folder: Path, *names: str) -> Path:
    found = [folder / (n + end) for n in names for end in ("", ".gz")]
    there = next((f for f in found if f.is_file()), None)
    if there is None:
        raise InputError(f"{folder} holds a matrix.mtx but no {' or '.join(names)}")
    return there


def open_mtx(path: Path) -> CellFile:
    """Cells of a folder with matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv).

    Raises
    ------
    pertwise.errors.InputError
        If a part is missing, or there are no guide calls.
    """
    from scipy.io import mmread

    barcodes = pd.read_csv(_one(path, "barcodes.tsv"), sep="\t", header=None)[0].astype(str)
    features = pd.read_csv(
        _one(path, "features.tsv", "genes.tsv"), sep="\t", header=None, dtype=str, na_filter=False
    )
    matrix = sparse.csc_matrix(mmread(_one(path, "matrix.mtx")))
    if matrix.shape != (len(features), len(barcodes)):
        raise InputError(
            f"{path}: matrix.mtx is {matrix.shape}, but there are {len(features)} features and "
            f"{len(barcodes)} barcodes"
        )
    kinds = features[2] if features.shape[1] > 2 else pd.Series(_GENES, index=features.index)
    names = features[1] if features.shape[1] > 1 else features[0]
    return _cells(path, matrix.T.tocsr(), barcodes, features[0], names, kinds)


def _cells(
    path: Path,
    matrix: sparse.csr_matrix,
    barcodes: pd.Series,
    ids: pd.Series,
    names: pd.Series,
    kinds: pd.Series,
) -> CellFile:
    genes = (kinds == _GENES).to_numpy()
    if not genes.any():
        raise InputError(f"{path} holds no feature of type {_GENES!r}")
    calls, where = _calls(path)
    twice = names.duplicated(keep=False)
    # One symbol for two Ensembl genes: the id says which is meant.
    unique = pd.Index(names.where(~twice, ids))[genes]
    if not unique.is_unique:
        raise InputError(f"{path}: feature {unique[unique.duplicated()][0]!r} occurs twice")
    obs = pd.DataFrame({"perturbation": barcodes.map(calls).to_numpy(dtype=object)})
    obs.index = pd.Index(barcodes.to_numpy(dtype=object))
    none = obs["perturbation"].isna()
    if none.all():
        raise InputError(
            f"{path}: none of its barcodes ({barcodes.iloc[0]!r} ...) is in {where} "
            f"({next(iter(calls), '')!r} ...); write both alike"
        )
    obs["perturbation"] = obs["perturbation"].where(~none, "unassigned")
    return CellFile(
        path=path,
        table=FrameTable(obs),
        features=tuple(map(str, unique)),
        notes=(f"guide calls of {int((~none).sum())} of {len(obs)} cells from {where}",),
        matrix=sparse.csr_matrix(matrix[:, np.flatnonzero(genes)]),
    )


def _calls(path: Path) -> tuple[dict[str, str], Path]:
    """Barcode -> guide, and the file that says so; several guides of a cell joined by "|"."""
    folder = path if path.is_dir() else path.parent
    file = next((f for d in _FOLDERS if (f := folder / d / CALLS).is_file()), None)
    if file is None:
        raise InputError(
            f"{path} holds counts but does not say which cell got which guide: put Cell Ranger's "
            f"{CALLS} beside it, or write the guide of each cell into obs['perturbation'] of an "
            "h5ad (scanpy.read_10x_h5 or read_10x_mtx, then data.obs, data.write_h5ad)"
        )
    table = read_frame(file)
    lacking = [c for c in ("cell_barcode", "feature_call") if c not in table.columns]
    if lacking:
        raise InputError(f"{file} has no column {lacking[0]!r}; it is not {CALLS} of Cell Ranger")
    return dict(zip(texts(table["cell_barcode"]), texts(table["feature_call"]), strict=True)), file


def open_other(handle: Any, path: Path) -> Any:
    """HDF5 that is no h5ad: the cells of a 10x h5, or of a h5mu the modality of expression (to be
    read as h5ad) with the labels of its cells, None where they are its own.

    Raises
    ------
    pertwise.errors.InputError
        If it is neither; says what it is and how to get to an h5ad.
    """
    if "mod" in handle and hasattr(handle["mod"], "keys"):
        return _modality(handle, path)
    node = handle.get("matrix")
    if hasattr(node, "keys") and "barcodes" in node and "indptr" in node:
        return _open_h5(node, path)
    if any("gene_names" in n and "barcodes" in n for n in handle.values() if hasattr(n, "keys")):
        raise InputError(_RANGER_2.format(path))
    if "row_attrs" in handle or "col_attrs" in handle:
        how = "a loom file: convert it with scanpy.read_loom(FILE).write_h5ad(OUT)"
        raise InputError(f"{path} is {how}")
    if "assays" in handle:
        raise InputError(f"{path} is an h5Seurat file: convert it with SeuratDisk::Convert to h5ad")
    missing = [k for k in ("X", "obs", "var") if k not in handle]
    raise InputError(f"{path} is not an h5ad file: it has no {' and no '.join(missing)}")


def _texts(values: Any) -> pd.Series:
    return pd.Series([as_text(v) for v in values])


def _open_h5(node: Any, path: Path) -> CellFile:
    barcodes = _texts(node["barcodes"][:])
    features = node.get("features")
    if features is None or "id" not in features or "name" not in features:
        raise InputError(_RANGER_2.format(path))
    ids, names = _texts(features["id"][:]), _texts(features["name"][:])
    kinds = (
        _texts(features["feature_type"][:])
        if "feature_type" in features
        else pd.Series(_GENES, index=ids.index)
    )
    # Columns are cells there, so that it reads as one row a cell.
    rows = SparseRows(node, len(barcodes), str(path))
    matrix = make_csr(rows.data[:], rows.indices[:], rows.indptr, len(ids), str(path))
    return _cells(path, matrix, barcodes, ids, names, kinds)


def _modality(handle: Any, path: Path) -> tuple[Any, pd.Series | None]:
    """The modality of expression, and the labels of its cells where another table holds them.

    A modality of guides may name the perturbation, too, but its values are no expression.
    """
    parts = handle["mod"]
    tables = {
        name: GroupTable(part["obs"], length_of(part["obs"]), f"{path}: {name}")
        for name, part in parts.items()
        if hasattr(part, "keys") and hasattr(part.get("obs"), "keys")
    }
    usual = [n for n in tables if n.casefold() in _EXPRESSION]
    expression = usual or [n for n in tables if not _OTHER_MODALITY.search(n.casefold())]
    if len(expression) == 1:
        own = tables.pop(expression[0])
        if any(key in own.columns for key in PERTURBATION_KEYS):
            return parts[expression[0]], None
        if hasattr(handle.get("obs"), "keys"):
            tables[""] = GroupTable(handle["obs"], length_of(handle["obs"]), f"{path}: obs")
        for name, table in tables.items():
            column = next(
                (key for key in (*PERTURBATION_KEYS, *_CALLED) if key in table.columns), ""
            )
            labels = table.whole()[column] if column else pd.Series(dtype=object)
            if len(labels) and labels.index.is_unique:
                labels.name = f"{name or 'obs'}: {column}"
                return parts[expression[0]], labels
    raise InputError(
        f"{path} is a MuData file (modalities {', '.join(parts)}) in which no modality of "
        "expression names the perturbation of its cells: copy the call into it once, e.g. m = "
        "mudata.read_h5mu(FILE); rna = m['rna']; rna.obs['perturbation'] = m[GUIDES].obs[CALL]; "
        "rna.write_h5ad(OUT)"
    )


def with_labels(cells: CellFile, labels: pd.Series) -> CellFile:
    """Cells with the perturbation that another table of the same file gives them.

    Raises
    ------
    pertwise.errors.InputError
        If that table knows none of the cells.
    """
    obs = cells.obs.copy()
    found = labels.astype(object).reindex(obs.index)
    known = found.notna()
    if not known.any():
        raise InputError(f"{cells.path}: none of the cells of its expression is in {labels.name!r}")
    obs["perturbation"] = found.where(known, "unassigned")
    note = f"perturbation of {int(known.sum())} of {len(obs)} cells from {labels.name!r}"
    return replace(cells, table=FrameTable(obs), notes=(*cells.notes, note))
