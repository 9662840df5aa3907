"""Single cells behind a screen: energy distances and split-half ceilings.

Predictors give mean responses, not cells. The predicted cells of a perturbation are therefore the
control cells moved by the predicted response: the energy distance to the measured cells then
scores the shift, and what it cannot reach is the change in spread and shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import reading
from pertwise._names import COMBINATION, canonical_perturbation
from pertwise._progress import track
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate.ceiling import Similarity, spearman_brown, split_half
from pertwise.evaluate.distribution import energy_distance
from pertwise.evaluate.specs import CellsSpec
from pertwise.screen.labels import without_controls

if TYPE_CHECKING:
    from pertwise.screen import Screen

SIMILARITIES: tuple[Similarity, ...] = ("pearson", "cosine")
#: Fewer cells than this give neither a distance nor halves.
MIN_CELLS = 4


@dataclass(frozen=True)
class CellBank:
    """Cells of a file, read perturbation by perturbation.

    Attributes
    ----------
    matrix
        (n_cells, n_file_features) X of the file, on disk or in memory.
    rows
        perturbation -> rows drawn (sorted, at most `CellsSpec.max_cells`).
    totals
        perturbation -> cells in the file.
    columns
        Columns of the file that are the screen's features, in their order.
    controls
        (n_controls, n_features) control cells drawn.
    n_controls
        Control cells in the file.
    """

    matrix: Any
    rows: Mapping[str, NDArray[np.int64]]
    totals: Mapping[str, int]
    columns: NDArray[np.int64]
    controls: NDArray[np.float32]
    n_controls: int

    def cells(self, perturbation: str) -> NDArray[np.float32] | None:
        """(n_cells, n_features), or None when there are fewer than `MIN_CELLS`."""
        rows = self.rows.get(perturbation)
        return None if rows is None else _take(self.matrix, rows, self.columns)

    def sampling_variance(self, perturbations: Sequence[str]) -> NDArray[np.float64]:
        """(n, n_features) s1^2 / n1 + s0^2 / n0, so that delta / sqrt of it is Welch's t.

        Variances are those of the drawn cells, n1 and n0 the cells in the file (the means are of
        all of them); NaN where there are fewer than `MIN_CELLS`.
        """
        out = np.full((len(perturbations), len(self.columns)), np.nan)
        control = self.controls.astype(np.float64).var(axis=0, ddof=1) / self.n_controls
        for i, name in enumerate(perturbations):
            cells = self.cells(name)
            if cells is not None:
                out[i] = cells.astype(np.float64).var(axis=0, ddof=1) / self.totals[name] + control
        return out


def _label(value: str, control: str) -> str:
    if value == control:
        return control
    return canonical_perturbation(COMBINATION.join(without_controls(value, (control,))))


def _take(matrix: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    block = matrix[rows]
    if hasattr(block, "toarray"):
        block = block.toarray()
    return np.asarray(block, dtype=np.float32)[:, columns]


def open_cell_bank(spec: CellsSpec, screen: Screen, seed: int) -> CellBank:
    """Open the cells of a benchmark.

    The file must hold the values that the screen's means were made of (log-normalised, or
    components): responses are compared with cells as they stand.

    Raises
    ------
    pertwise.errors.InputError
        If the file, the column, the control label or a feature is missing; if the values are
        counts or not logged; or if the cells' own mean responses contradict the screen's.
    """
    import anndata

    from pertwise.screen.scale import judge_values

    with reading(spec.file, "h5ad"):
        data = anndata.read_h5ad(spec.file, backed="r")
    if spec.perturbation_column not in data.obs:
        raise unknown_name("column of obs", spec.perturbation_column, data.obs.columns)
    columns = data.var_names.get_indexer(list(screen.features))
    if (columns < 0).any():
        missing = screen.features[int(np.flatnonzero(columns < 0)[0])]
        raise InputError(f"{spec.file} lacks the screen's feature {missing!r}")
    raw = data.obs[spec.perturbation_column].astype(str)
    if spec.control not in set(raw):
        raise unknown_name("control label", spec.control, sorted(set(raw)))
    # GEARS writes "GENE+ctrl": the control is no part of the combination.
    named = {v: _label(v, spec.control) for v in set(raw)}
    labels = np.array([named[v] for v in raw])
    order = np.argsort(labels, kind="stable")
    names, starts = np.unique(labels[order], return_index=True)
    groups = dict(zip(map(str, names), np.split(order, starts[1:]), strict=True))
    # One generator over sorted names: the draw depends on names and seed only.
    rng = np.random.default_rng([seed, 1])
    drawn, totals = {}, {}
    wanted = {*screen.obs["perturbation"], spec.control}
    for name in sorted(wanted & set(groups)):
        group = groups[name]
        if len(group) < MIN_CELLS:
            continue
        chosen = rng.permutation(len(group))[: spec.max_cells]
        drawn[name], totals[name] = np.sort(group[chosen]).astype(np.int64), len(group)
    if spec.control not in drawn:
        raise InputError(f"{spec.file} has fewer than {MIN_CELLS} control cells")
    controls = _take(data.X, drawn.pop(spec.control), np.asarray(columns))
    n_controls = totals.pop(spec.control)
    scale, evidence = judge_values(controls[:50])
    if scale in ("counts", "normalised"):
        raise InputError(f"{spec.file} holds {scale}, not logged values ({evidence}); log1p first")
    bank = CellBank(data.X, drawn, totals, np.asarray(columns), controls, n_controls)
    _check_agreement(bank, screen, spec.file)
    return bank


def _check_agreement(bank: CellBank, screen: Screen, file: str, most: int = 5) -> None:
    """The strongest responses, computed from the drawn cells, must be those of the screen."""
    x = np.nan_to_num(screen.responses)
    strongest = np.argsort(-(x**2).sum(axis=1), kind="stable")
    checked = [i for i in strongest if screen.obs["perturbation"].iloc[i] in bank.rows][:most]
    if not checked:
        raise InputError(f"{file} has cells of none of the screen's perturbations")
    centre = bank.controls.mean(axis=0)
    ours, theirs = [], []
    for i in checked:
        found = bank.cells(screen.obs["perturbation"].iloc[i])
        if found is not None:
            ours.append(found.mean(axis=0) - centre)
            theirs.append(x[i])
    a, b = np.concatenate(ours), np.concatenate(theirs)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    similarity = float(a @ b) / norm if norm > 0 else 0.0
    size = float(np.linalg.norm(a)) / max(float(np.linalg.norm(b)), 1e-12)
    if similarity < 0.5 or not 1 / 3 < size < 3:
        raise InputError(
            f"{file}: the mean responses of its cells do not match the screen's (cosine "
            f"{similarity:.2f}, {size:.2f} times as long for the {len(checked)} strongest); are "
            "they on the same scale?"
        )


def energy_distances(
    bank: CellBank, perturbations: Sequence[str], mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n,) energy distance of the control cells moved by the predicted response to the cells.

    NaN where the file has too few cells of the perturbation.
    """
    out = np.full(len(perturbations), np.nan)
    for i, name in enumerate(perturbations):
        cells = bank.cells(name)
        if cells is not None:
            out[i] = energy_distance(bank.controls + mean[i], cells)
    return out


def split_half_table(
    bank: CellBank, perturbations: Sequence[str], n_splits: int, seed: int
) -> pd.DataFrame:
    """Split-half reliabilities, corrected to all cells of the file (Spearman-Brown).

    Halves are drawn among the cells drawn; when these are a sample of m out of n cells, the
    correction goes from m / 2 to n cells (the controls are treated as the perturbed cells are).

    Returns
    -------
    Index perturbation; replicate_pearson, replicate_cosine; NaN where there are too few cells.
    """
    rows = {}
    for i, name in enumerate(track(perturbations, "Splitting cells", total=len(perturbations))):
        cells = bank.cells(name)
        if cells is None:
            rows[name] = {"replicate_pearson": np.nan, "replicate_cosine": np.nan}
            continue
        factor = 2.0 * bank.totals[name] / len(cells)
        row = {}
        for similarity in SIMILARITIES:
            half, _ = split_half(
                cells,
                bank.controls,
                np.random.default_rng([seed, i]),
                n_splits=n_splits,
                similarity=similarity,
            )
            row[f"replicate_{similarity}"] = float(spearman_brown(half, factor))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")
