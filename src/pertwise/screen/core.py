"""`Screen`: what was measured, validated once and then never changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import (
    COMBINATION,
    canonical_perturbation,
    genes_of,
    is_combination,
    split_combination,
    with_parts_of,
)
from pertwise._shown import Shown
from pertwise.errors import InputError, unknown_name

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "COMBINATION",
    "OBS_COLUMNS",
    "Screen",
    "canonical_perturbation",
    "genes_of",
    "is_combination",
    "make_obs",
    "make_screen",
    "split_combination",
]
#: Columns every `Screen.obs` has, in this order.
OBS_COLUMNS = ("perturbation", "context", "dose", "n_cells", "sampling_variance")


@dataclass(frozen=True)
class Screen(Shown):
    """Responses of perturbations, one row per (perturbation, context, dose).

    Attributes
    ----------
    responses
        (n_rows, n_features) float32: mean of the perturbed cells minus mean of the matched
        controls (delta), in the unit named by ``meta["unit"]`` (log-normalised expression unless
        stated). NaN = not measured.
    obs
        One row per response row, unique string index, columns `OBS_COLUMNS` (perturbation: str,
        combinations as "A+B" with sorted parts; context: str, "" when there is only one unnamed;
        dose: float, NaN when none; n_cells: float, NaN when unknown; sampling_variance: float,
        sampling variance of the mean summed over features, NaN when unknown) and any others.
    features
        Unique feature names (genes, components, programs).
    control_mean
        (n_contexts, n_features) float32 in the order of `contexts`; NaN where unknown.
    feature_table
        Indexed by feature; any columns (may have none).
    sampling_variance
        (n_rows, n_features) float32 or None: sampling variance of every mean.
    meta
        JSON-able provenance: ``source`` (file or accession), ``simulated`` (bool), ``unit``,
        ``control`` label, normalisation settings ...
    """

    responses: NDArray[np.float32]
    obs: pd.DataFrame
    features: tuple[str, ...]
    control_mean: NDArray[np.float32]
    feature_table: pd.DataFrame = field(default_factory=pd.DataFrame)
    sampling_variance: NDArray[np.float32] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, d = len(self.obs), len(self.features)
        if self.responses.shape != (n, d):
            raise InputError(
                f"responses have shape {self.responses.shape}, but obs has {n} rows and there are "
                f"{d} features"
            )
        if self.responses.dtype != np.float32:
            raise InputError(f"responses must be float32, got {self.responses.dtype}")
        if np.isinf(self.responses).any():
            row = int(np.argwhere(np.isinf(self.responses))[0][0])
            raise InputError(f"row {self.obs.index[row]!r} holds an infinite response")
        missing = [c for c in OBS_COLUMNS if c not in self.obs.columns]
        if missing:
            raise InputError(f"obs lacks the columns {missing}")
        if not self.obs.index.is_unique:
            raise InputError(f"row name {_first_duplicate(self.obs.index)!r} occurs twice in obs")
        if len(set(self.features)) != d:
            raise InputError(f"feature {_first_duplicate(pd.Index(self.features))!r} occurs twice")
        keys = self.obs[["perturbation", "context", "dose"]]
        duplicated = keys.duplicated()
        if duplicated.any():
            p, c, dose = keys[duplicated].iloc[0]
            raise InputError(
                f"perturbation {p!r} (context {c!r}, dose {dose}) has more than one row; average "
                "replicates first or keep one of them"
            )
        for name in self.obs["perturbation"]:
            if not isinstance(name, str) or canonical_perturbation(name) != name or not name:
                raise InputError(
                    f"perturbation {name!r} is not in canonical form (non-empty text; parts of a "
                    "combination sorted, as in 'A+B')"
                )
        if self.control_mean.shape != (len(self.contexts), d):
            raise InputError(
                f"control_mean has shape {self.control_mean.shape}; expected one row for each of "
                f"the {len(self.contexts)} contexts and {d} features"
            )
        if self.sampling_variance is not None and self.sampling_variance.shape != (n, d):
            raise InputError(
                f"sampling_variance has shape {self.sampling_variance.shape}, expected {(n, d)}"
            )
        self.responses.setflags(write=False)
        self.control_mean.setflags(write=False)

    # -- what is in it ---------------------------------------------------------------------

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts (cell lines, cell types) in order of first appearance."""
        return tuple(dict.fromkeys(self.obs["context"]))

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Distinct perturbation names in order of first appearance."""
        return tuple(dict.fromkeys(self.obs["perturbation"]))

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(n_rows,) True where at least one feature was measured."""
        return np.asarray(np.isfinite(self.responses).any(axis=1))

    @property
    def simulated(self) -> bool:
        """True when the data come from the simulator; shown wherever they are shown."""
        return bool(self.meta.get("simulated", False))

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.features)

    def digest(self) -> str:
        """SHA-256 of what was measured (names, contexts, doses, features, responses), in any row
        order."""
        obs = self.obs
        columns = (obs["perturbation"], obs["context"], obs["dose"])
        keys = [f"{p}\t{c}\t{d}" for p, c, d in zip(*columns, strict=True)]
        order = np.argsort(np.asarray(keys, dtype=object))
        named = "\n".join([*self.features, "", *(keys[i] for i in order)])
        found = hashlib.sha256(named.encode())
        found.update(np.ascontiguousarray(self.responses[order]).tobytes())
        return found.hexdigest()

    def __len__(self) -> int:
        return len(self.obs)

    def __repr__(self) -> str:
        tag = " SIMULATED" if self.simulated else ""
        return (
            f"<Screen{tag}: {len(self)} rows ({int(self.measured.sum())} measured), "
            f"{len(self.perturbations)} perturbations x {self.n_features} features, contexts "
            f"{list(self.contexts)[:4]}>"
        )

    # -- making smaller screens ------------------------------------------------------------

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Screen:
        """The screen with only these rows: positions or a boolean mask, in the given order."""
        index = np.asarray(rows)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(int)
        obs = self.obs.iloc[index]
        kept = tuple(dict.fromkeys(obs["context"]))
        position = {c: i for i, c in enumerate(self.contexts)}
        return Screen(
            responses=self.responses[index].copy(),
            obs=obs.copy(),
            features=self.features,
            control_mean=self.control_mean[[position[c] for c in kept]].reshape(
                len(kept), self.n_features
            ),
            feature_table=self.feature_table,
            sampling_variance=None
            if self.sampling_variance is None
            else self.sampling_variance[index].copy(),
            meta=self.meta,
        )

    def only_measured(self) -> Screen:
        """Rows with at least one measured feature."""
        return self.take(self.measured)

    def in_context(self, context: str) -> Screen:
        """Rows of one context.

        Raises
        ------
        pertwise.errors.UnknownNameError
            When no row has that context; the nearest names are suggested.
        """
        if context not in self.contexts:
            there = ", ".join(map(repr, self.contexts[:8]))
            raise unknown_name("context", context, self.contexts, f"(there are {there})")
        return self.take((self.obs["context"] == context).to_numpy())

    def of_perturbations(self, names: Sequence[str]) -> Screen:
        """Rows whose perturbation is in `names`, in the order of `names` (then row order)."""
        order = {canonical_perturbation(n): i for i, n in enumerate(names)}
        rows = [i for i, p in enumerate(self.obs["perturbation"]) if p in order]
        rows.sort(key=lambda i: (order[self.obs["perturbation"].iloc[i]], i))
        return self.take(np.array(rows, dtype=int))

    def of_features(self, names: Sequence[str]) -> Screen:
        """The screen restricted to these features, in the given order."""
        position = {f: i for i, f in enumerate(self.features)}
        for name in names:
            if name not in position:
                raise unknown_name("feature", name, self.features)
        columns = [position[n] for n in names]
        table = self.feature_table
        return Screen(
            responses=np.ascontiguousarray(self.responses[:, columns]),
            obs=self.obs,
            features=tuple(names),
            control_mean=np.ascontiguousarray(self.control_mean[:, columns]),
            feature_table=table.loc[list(names)] if len(table) else table,
            sampling_variance=None
            if self.sampling_variance is None
            else np.ascontiguousarray(self.sampling_variance[:, columns]),
            meta=self.meta,
        )

    def hide(self, names: Sequence[str]) -> Screen:
        """The screen as it was before `names` were measured: their rows are dropped, and those of
        combinations that contain one of them."""
        gone = {canonical_perturbation(n) for n in names}
        gone |= with_parts_of(self.obs["perturbation"], gone)
        return self.take((~self.obs["perturbation"].isin(gone)).to_numpy())

    # -- files -----------------------------------------------------------------------------

    def to_anndata(self) -> AnnData:
        """AnnData with X = responses; `from_anndata` restores the same screen exactly."""
        from pertwise.screen.files import to_anndata

        return to_anndata(self)

    @classmethod
    def from_anndata(cls, data: AnnData) -> Screen:
        """Read what `to_anndata` made; other layouts go through `pertwise.screen.read`."""
        from pertwise.screen.files import from_anndata

        screen: Screen = from_anndata(data)
        return screen

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as h5ad, atomically."""
        from pertwise.screen.files import save

        save(self, path)


def make_obs(
    perturbations: Sequence[str],
    *,
    context: str | Sequence[str] = "",
    dose: float | Sequence[float] = float("nan"),
    n_cells: float | Sequence[float] = float("nan"),
    sampling_variance: float | Sequence[float] = float("nan"),
) -> pd.DataFrame:
    """A valid `Screen.obs`: canonical names and a unique index ("KLF1", else "KLF1|K562|0.5")."""
    obs = pd.DataFrame({"perturbation": [canonical_perturbation(p) for p in perturbations]})
    obs["context"] = context if isinstance(context, str) else list(context)
    obs["dose"] = np.asarray(dose, dtype=float)
    obs["n_cells"] = np.asarray(n_cells, dtype=float)
    obs["sampling_variance"] = np.asarray(sampling_variance, dtype=float)
    index = obs["perturbation"]
    if not index.is_unique:
        index = index + "|" + obs["context"]
    if not index.is_unique:
        index = index + "|" + obs["dose"].map(lambda v: "" if np.isnan(v) else f"{v:g}")
    obs.index = pd.Index(index, name=None)
    return obs


def make_screen(
    responses: NDArray[Any],
    perturbations: Sequence[str],
    features: Sequence[str],
    *,
    context: str | Sequence[str] = "",
    control_mean: NDArray[Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Screen:
    """Shortest way from arrays to a `Screen`.

    Parameters
    ----------
    responses
        (n_rows, n_features), control-subtracted; NaN = not measured.
    control_mean
        (n_contexts, n_features); NaN (unknown) when not given.
    """
    obs = make_obs(perturbations, context=context)
    n_contexts = obs["context"].nunique()
    control = (
        np.full((n_contexts, len(features)), np.nan, dtype=np.float32)
        if control_mean is None
        else np.asarray(control_mean, dtype=np.float32)
    )
    return Screen(
        responses=np.array(responses, dtype=np.float32),
        obs=obs,
        features=tuple(map(str, features)),
        control_mean=control,
        meta=dict(meta or {}),
    )


def _first_duplicate(index: pd.Index) -> Any:
    return index[index.duplicated()][0]
