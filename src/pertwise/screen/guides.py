"""Guide by guide: does it lower its target, and does it act like the other guides of its gene?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise.screen.cells import CellFile
from pertwise.screen.detected import DETECTED_PER_MILLION
from pertwise.screen.flags import texts
from pertwise.screen.scan import Codes, PseudobulkSettings, Scan, Task, codes_of, open_with

Floats = NDArray[np.float64]
Blocks = Callable[
    [CellFile, Scan, PseudobulkSettings, Task, Codes, NDArray[np.bool_]],
    Iterator[tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64]]],
]
#: A guide that leaves more of its target than this share does not do its work.
LEAST_KNOCKDOWN = 0.3
#: Fewest cells of a guide that is judged.
JUDGED_CELLS = 10
#: Features over which guides are compared: the first of the chosen ones.
COMPARED = 500
COLUMNS = ("perturbation", "context", "guide", "n_cells", "knockdown", "agreement", "flag")


def guide_column(found: Scan) -> str:
    """The column that names the guide of a cell; "" when there is none.

    A column of guides, or that of the perturbations where its labels were folded to genes.
    """
    layout = found.layout
    if layout.guide:
        return layout.guide
    genes = list(layout.rename.values())
    return layout.perturbation if len(set(genes)) < len(genes) else ""


def guide_table(
    found: Scan,
    settings: PseudobulkSettings,
    columns: NDArray[np.int64],
    centres: Floats,
    blocks: Blocks,
) -> pd.DataFrame:
    """One row for each guide of each perturbation and context, columns `COLUMNS`.

    - knockdown: 1 - mean normalised expression of the target in the guide's cells / in the controls
      of the context; NaN for combinations, targets that are no feature or not detected in controls
      (`DETECTED_PER_MILLION`), and values that are no expression;
    - agreement: correlation of the guide's response with the mean response of the gene's other
      guides (weighted by cells) over `COMPARED` features; NaN without another guide;
    - flag: "weak" for a knockdown below `LEAST_KNOCKDOWN`, "disagrees" for a negative agreement;
      both from `JUDGED_CELLS` cells on. With fewer "few cells".

    Parameters
    ----------
    columns, centres
        Positions of the chosen features, and (n_blocks, d) means of the matched controls.
    blocks
        Reads normalised cells (`pseudobulk`).
    """
    column = guide_column(found)
    used = columns[:COMPARED]
    groups = found.groups
    control = groups["is_control"].to_numpy(dtype=bool)
    place = {f: i for i, f in enumerate(found.features)}
    target = np.array([-1 if c else place.get(p, -1)
                       for p, c in zip(groups["perturbation"], control, strict=True)])  # fmt: skip
    context = pd.Index(found.contexts).get_indexer(groups["context"])
    wanted_targets = np.unique(target[target >= 0])
    linear = found.verdict.scale != "as-is"
    at_controls = np.zeros((len(found.contexts), len(found.features) if linear else 0))
    n_controls = np.zeros(len(found.contexts))
    keys: dict[tuple[int, str], int] = {}
    total: list[Floats] = []
    left: list[float] = []
    n: list[int] = []
    for i, source in enumerate(found.sources):
        with open_with(source, settings) as file:
            task = Task(i, 0, len(file))
            codes = codes_of(file, found, settings, task)
            names = texts(file.table.read([column])[column])
            every = codes.group >= 0
            for x, rows, _ in blocks(file, found, settings, task, codes, every):
                group, block = codes.group[rows], codes.block[rows]
                is_control = control[group]
                if linear and len(wanted_targets):
                    for c in np.unique(context[group[is_control]]):
                        own = x[np.flatnonzero(is_control & (context[group] == c))]
                        at_controls[c] += np.asarray(own.expm1().sum(axis=0)).ravel()
                        n_controls[c] += own.shape[0]
                here = np.flatnonzero(~is_control)
                part = x[here][:, used].toarray() - centres[block[here]][:, : len(used)]
                code = np.empty(len(here), dtype=np.int64)
                for j, r in enumerate(here):
                    key = (int(group[r]), str(names[rows[r]]))
                    if key not in keys:
                        keys[key] = len(keys)
                        total.append(np.zeros(len(used)))
                        left.append(0.0)
                        n.append(0)
                    code[j] = keys[key]
                for k in np.unique(code):
                    mine = code == k
                    total[k] += part[mine].sum(axis=0)
                    n[k] += int(mine.sum())
                    t = target[group[here[mine.argmax()]]]
                    if linear and t >= 0:
                        left[k] += float(x[here[mine]][:, [t]].expm1().sum())
    return _judged(keys, total, left, n, groups, context, target, at_controls, n_controls, settings)


def _judged(
    keys: dict[tuple[int, str], int],
    total: list[Floats],
    left: list[float],
    n: list[int],
    groups: pd.DataFrame,
    context: NDArray[np.int64],
    target: NDArray[np.int64],
    at_controls: Floats,
    n_controls: Floats,
    settings: PseudobulkSettings,
) -> pd.DataFrame:
    by_group: dict[int, list[tuple[str, int]]] = {}
    for (group, name), k in sorted(keys.items()):
        by_group.setdefault(group, []).append((name, k))
    limit = DETECTED_PER_MILLION * settings.target_sum / 1e6
    rows = []
    for group, guides in by_group.items():
        sums = np.array([total[k] for _, k in guides])
        cells = np.array([n[k] for _, k in guides], dtype=float)
        t, c = int(target[group]), int(context[group])
        base = at_controls[c, t] / n_controls[c] if t >= 0 and n_controls[c] > 0 else 0.0
        for j, (name, k) in enumerate(guides):
            fall = 1.0 - left[k] / n[k] / base if base > limit else np.nan
            alike = _correlation(sums[j], np.delete(sums, j, axis=0).sum(axis=0))
            judged = n[k] >= JUDGED_CELLS
            flags = [] if judged else ["few cells"]
            if judged and fall < LEAST_KNOCKDOWN:
                flags.append("weak")
            if judged and alike < 0 and cells.sum() - cells[j] >= JUDGED_CELLS:
                flags.append("disagrees")
            entry = groups.iloc[group]
            numbers = (n[k], round(float(fall), 4), round(float(alike), 4))
            rows.append((entry["perturbation"], entry["context"], name, *numbers, ", ".join(flags)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's; NaN where one of them does not vary. Of sums, since it knows no scale."""
    if len(a) < 3 or not (a.std() > 0 and b.std() > 0):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def guide_notes(table: pd.DataFrame) -> list[str]:
    """What a person must know of the guides."""
    bad = table[table["flag"].str.contains("weak|disagrees", regex=True)]
    several = table.groupby(["perturbation", "context"])["guide"].nunique()
    known = table["knockdown"].dropna()
    text = f"{len(table)} guides of {len(several)} perturbations"
    if len(known):
        text += f"; the median guide takes {known.median():.0%} off its target"
    if table["agreement"].notna().any():
        text += f"; median agreement of guides {table['agreement'].median():.2f}"
    notes = [text]
    if len(bad):
        some = ", ".join(f"{g} ({f})" for g, f in zip(bad["guide"][:5], bad["flag"], strict=False))
        notes.append(f"{len(bad)} guides are doubtful: {some}{' ...' if len(bad) > 5 else ''}")
    return notes


def add_guide_columns(obs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The rows with n_guides, knockdown (mean over cells) and bad_guides."""
    known = table.assign(fall=table["knockdown"] * table["n_cells"])
    grouped = known.groupby(["perturbation", "context"])
    seen = known["n_cells"].where(known["knockdown"].notna(), 0)
    per = pd.DataFrame(
        {
            "n_guides": grouped["guide"].nunique().astype(float),
            "knockdown": grouped["fall"].sum()
            / seen.groupby([known["perturbation"], known["context"]]).sum().replace(0, np.nan),
            "bad_guides": grouped[["guide", "flag"]].apply(
                lambda g: ", ".join(g["guide"][g["flag"].str.contains("weak|disagrees")])
            ),
        }
    )
    at: Any = pd.MultiIndex.from_frame(obs[["perturbation", "context"]])
    found = per.reindex(at).set_axis(obs.index)
    return obs.assign(
        n_guides=found["n_guides"],
        knockdown=found["knockdown"],
        bad_guides=found["bad_guides"].fillna("").astype(str),
    )
