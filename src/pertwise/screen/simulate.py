"""A simulated screen with known truth: genes -> complexes -> pathways -> response of the cell.

The model, for one context with gain ``s_k`` of pathway ``k`` and knock-down strengths
``d_g`` in [0, 1] (0 for every gene that is not perturbed):

* loss of a functional unit ``u`` (a complex, or a gene that acts alone), with essentiality
  ``e_gu`` of subunit ``g``:  ``l_u = 1 - prod_g (1 - e_gu d_g)``. Subunits of one complex
  therefore give nearly the same response, and two hits in one complex are less than additive.
* input of pathway ``k`` with signed weights ``W``:  ``x_k = tanh(1.5 sum_u W_uk l_u)``
* activity, along an acyclic signed graph ``B`` between pathways:
  ``a_k = s_k (x_k + sum_j B_jk a_j)``
* response (natural-log expression): pathway-specific output genes, a little of everything, output
  of each unit, a general stress programme that grows with the total loss, an idiosyncratic part,
  and the fall of the target gene itself.

A mean over ``n`` cells is the truth plus Gaussian noise of variance ``v_d (1/n + 1/n_control)``;
the noise of the control mean is shared by all perturbations of a context, as in a real screen.

Everything is drawn from one seed; the structure, the noise and the knowledge come from separate
streams, so changing the number of cells or the completeness leaves the truth as it is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import COMBINATION
from pertwise._shown import Shown
from pertwise.errors import InputError
from pertwise.screen.core import Screen, make_obs

if TYPE_CHECKING:
    from anndata import AnnData

FloatArray = NDArray[np.float64]
#: Name of the unperturbed cells in everything simulated.
CONTROL = "control"
#: Text put beside every simulated thing.
NOTICE = (
    "SIMULATED. Everything here was made by the pertwise simulator: the genes (SIM....), the "
    "pathways, the knowledge and the responses do not exist. Nothing here says anything about "
    "any real gene.\n"
)


@dataclass(frozen=True, repr=False)
class Truth(Shown):
    """What the simulator knows and a screen does not show.

    Attributes
    ----------
    genes
        Indexed by gene (all of the simulated genome): ``perturbed`` (bool), ``strength`` (the
        knock-down d_g), ``weak`` (bool), ``complex`` and ``pathway`` ("" when none; "|" joins
        several).
    complexes, pathways
        Name -> members (perturbable genes). Pathway names end in "(simulated)".
    outputs
        Pathway -> its specific output genes (features).
    pathway_graph
        (n_pathways, n_pathways) signed effect of pathway j (row) on k (column).
    regulators
        Pathway -> the member that acts as its transcription factor.
    features
        Output genes, in the order of the screen's columns.
    output_sign
        (n_pathways, n_features) in {-1, 0, 1}: sign of the specific output when the pathway is
        active.
    effect
        (n_rows, n_features) float32: noise-free responses, rows and columns of the screen.
    cell_variance
        (n_features,) variance of log-normalised expression between unperturbed cells.
    baseline
        (n_contexts, n_features) natural log of the relative expression of unperturbed cells.
    """

    genes: pd.DataFrame
    complexes: Mapping[str, tuple[str, ...]]
    pathways: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    pathway_graph: FloatArray
    regulators: Mapping[str, str]
    features: tuple[str, ...]
    output_sign: NDArray[np.int8]
    effect: NDArray[np.float32]
    cell_variance: FloatArray
    baseline: FloatArray


@dataclass(frozen=True, repr=False)
class Simulation(Shown):
    """A simulated screen, its truth, and the knowledge tables that go with it.

    `sources` maps a file name of `write_sources` to its table; gene sets (gmt) are tables with
    the columns set, description, genes (joined by a tab).
    """

    screen: Screen
    truth: Truth
    sources: Mapping[str, pd.DataFrame]

    def write_sources(self, folder: str | os.PathLike[str]) -> Path:
        """Write the knowledge source tables and SIMULATED.txt; returns the folder."""
        from pertwise.screen.simulate_sources import write_sources

        return write_sources(self.sources, folder)

    def cells(
        self, rng: np.random.Generator | int, *, n_batches: int = 1, max_cells: int | None = None
    ) -> AnnData:
        """Single cells (raw counts) of the same experiment; see `simulate_cells`."""
        from pertwise.screen.simulate_cells import simulate_cells

        return simulate_cells(self, rng, n_batches=n_batches, max_cells=max_cells)


@dataclass(frozen=True)
class _Structure:
    """Arrays of the causal model (G perturbable genes, U units, K pathways, D features)."""

    essentiality: FloatArray  # (G, U)
    unit_pathway: FloatArray  # (U, K) signed
    pathway_graph: FloatArray  # (K, K)
    order: NDArray[np.int64]  # (K,) topological
    specific: FloatArray  # (K, D)
    diffuse: FloatArray  # (K, D)
    unit_output: FloatArray  # (U, D)
    stress: FloatArray  # (D,)
    own: FloatArray  # (G, D)
    strength: FloatArray  # (G,)


def responses(model: _Structure, knocked: FloatArray, gain: FloatArray) -> FloatArray:
    """Noise-free responses of the causal model in the module's docstring.

    Parameters
    ----------
    knocked
        (n, G) knock-down strengths d_g of each perturbation.
    gain
        (K,) gain s_k of every pathway in this context.

    Returns
    -------
    (n, D) change of natural-log expression.
    """
    n_units = model.essentiality.shape[1]
    loss = np.empty((len(knocked), n_units))
    for u in range(n_units):
        subunits = np.flatnonzero(model.essentiality[:, u])
        kept = 1.0 - knocked[:, subunits] * model.essentiality[subunits, u]
        loss[:, u] = 1.0 - kept.prod(axis=1)
    drive = np.tanh(1.5 * loss @ model.unit_pathway)
    activity = np.zeros_like(drive)
    for k in model.order:
        activity[:, k] = gain[k] * (drive[:, k] + activity @ model.pathway_graph[:, k])
    total = np.tanh(np.abs(activity).sum(axis=1, keepdims=True))
    change = -activity @ (model.specific + model.diffuse) - loss @ model.unit_output
    return np.asarray(change + total * model.stress + knocked @ model.own)


def _structure(
    rng: np.random.Generator,
    n_genes: int,
    n_features: int,
    n_pathways: int,
    weak_fraction: float,
    target_column: NDArray[np.int64],
) -> tuple[_Structure, list[NDArray[np.int64]]]:
    """Draw the causal model; also the members of each complex (the first units, in order)."""
    free = list(rng.permutation(n_genes))
    complexes: list[NDArray[np.int64]] = []
    while len(free) > 0.25 * n_genes and len(free) >= 2:
        size = min(len(free), int(rng.integers(3, 9)))
        complexes.append(np.array(free[:size]))
        free = free[size:]
    # One gene in ten moonlights in a second complex: membership is not a partition in life.
    for gene in np.flatnonzero(rng.random(n_genes) < 0.1):
        other = int(rng.integers(len(complexes)))
        if gene not in complexes[other]:
            complexes[other] = np.append(complexes[other], gene)
    n_units = len(complexes) + len(free)
    essentiality = np.zeros((n_genes, n_units))
    for u, members in enumerate(complexes):
        essentiality[members, u] = rng.uniform(0.6, 1.0, len(members))
    for u, gene in enumerate(free, start=len(complexes)):
        essentiality[gene, u] = 1.0
    unit_pathway = np.zeros((n_units, n_pathways))
    for u in range(n_units):
        alone = u >= len(complexes)
        # Every pathway gets at least one complex; some units act in none.
        if u < min(n_pathways, len(complexes)) or rng.random() < (0.6 if alone else 0.85):
            k = u if u < n_pathways else int(rng.integers(n_pathways))
            direction = -1.0 if rng.random() < 0.15 else 1.0
            unit_pathway[u, k] = direction * rng.uniform(0.5, 1.0)
    order = rng.permutation(n_pathways)
    graph = np.zeros((n_pathways, n_pathways))
    for i, k in enumerate(order[1:], start=1):
        for j in rng.choice(order[:i], size=min(i, int(rng.integers(0, 3))), replace=False):
            graph[j, k] = rng.choice([-1.0, 1.0], p=[0.3, 0.7]) * rng.uniform(0.25, 0.6)
    specific = np.zeros((n_pathways, n_features))
    shuffled = rng.permutation(n_features)[: int(0.7 * n_features)]
    for k, columns in enumerate(np.array_split(shuffled, n_pathways)):
        sign = rng.choice([-1.0, 1.0], p=[0.25, 0.75], size=len(columns))
        specific[k, columns] = sign * rng.gamma(3.0, 0.13, len(columns))
    unit_output = rng.normal(0, 0.3, (n_units, n_features))
    unit_output[rng.random(unit_output.shape) > 0.04] = 0.0
    own = rng.normal(0, 0.25, (n_genes, n_features))
    own[rng.random(own.shape) > 0.01] = 0.0
    seen = target_column >= 0
    own[np.flatnonzero(seen), target_column[seen]] = -1.0
    stress = rng.normal(0, 0.3, n_features) * (rng.random(n_features) < 0.08)
    strength = rng.uniform(0.6, 0.95, n_genes)
    weak = rng.random(n_genes) < weak_fraction
    strength[weak] = rng.uniform(0.01, 0.12, int(weak.sum()))
    model = _Structure(
        essentiality=essentiality,
        unit_pathway=unit_pathway,
        pathway_graph=graph,
        order=order,
        specific=specific,
        diffuse=rng.normal(0, 0.02, (n_pathways, n_features)),
        unit_output=unit_output,
        stress=stress,
        own=own,
        strength=strength,
    )
    return model, complexes


def _check(n_perturbations: int, n_features: int, n_pathways: int, **fractions: float) -> None:
    if n_perturbations < 8 or n_features < 10:
        raise InputError(
            f"a simulation needs at least 8 perturbations and 10 features, got {n_perturbations} "
            f"and {n_features}"
        )
    if not 1 <= n_pathways <= n_perturbations // 4:
        raise InputError(
            f"n_pathways = {n_pathways} must lie between 1 and a quarter of the "
            f"{n_perturbations} perturbations"
        )
    for name, value in fractions.items():
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name} must lie in [0, 1], got {value}")


def simulate_screen(
    rng: np.random.Generator | int,
    *,
    n_perturbations: int = 200,
    n_features: int = 400,
    n_pathways: int = 8,
    contexts: Sequence[str] = ("SimLine1",),
    n_combinations: int = 0,
    mean_cells: float = 100.0,
    control_cells: int = 3000,
    noise: float = 1.0,
    weak_fraction: float = 0.35,
    knowledge_completeness: float = 0.8,
    knowledge_errors: float = 0.05,
) -> Simulation:
    """Simulate a screen with the matching knowledge tables.

    Parameters
    ----------
    rng
        Generator or seed. The same seed and settings give the same result.
    n_perturbations, n_features, n_pathways
        Single-gene perturbations, output genes and pathways.
    contexts
        Names of the cell lines; the first has all pathways fully active, each other one has some
        attenuated, and a baseline of its own.
    n_combinations
        Pairs of perturbed genes added as "A+B" rows.
    mean_cells, control_cells
        Mean cells per perturbation (log-normal over perturbations, at least 5) and unperturbed
        cells per context.
    noise
        Multiplies the standard deviation between cells; 0 gives noise-free means.
    weak_fraction
        Share of perturbations with hardly any knock-down.
    knowledge_completeness
        Share of true facts (memberships, edges, annotations, summaries) that the knowledge holds.
    knowledge_errors
        Wrong facts added, as a share of the true ones.

    Raises
    ------
    pertwise.errors.InputError
        If a number is out of range or a context name repeats.
    """
    _check(
        n_perturbations,
        n_features,
        n_pathways,
        weak_fraction=weak_fraction,
        knowledge_completeness=knowledge_completeness,
        knowledge_errors=knowledge_errors,
    )
    if not contexts or len(set(contexts)) != len(contexts):
        raise InputError(f"context names must be given and differ, got {list(contexts)}")
    generator = np.random.default_rng(rng)
    settings: dict[str, Any] = {
        "n_perturbations": n_perturbations,
        "n_features": n_features,
        "n_pathways": n_pathways,
        "contexts": list(contexts),
        "n_combinations": n_combinations,
        "mean_cells": mean_cells,
        "control_cells": control_cells,
        "noise": noise,
        "weak_fraction": weak_fraction,
        "knowledge_completeness": knowledge_completeness,
        "knowledge_errors": knowledge_errors,
    }
    if not isinstance(rng, np.random.Generator):
        settings["seed"] = int(rng)
    r_names, r_model, r_context, r_cells, r_noise, r_known = generator.spawn(6)

    # Half of the perturbed genes are also read out; numbering is shuffled so that a name carries
    # no information about what the gene does.
    overlap = min(n_perturbations // 2, n_features // 2)
    n_total = n_perturbations + n_features - overlap
    width = max(4, len(str(n_total)))
    names = np.array([f"SIM{i:0{width}d}" for i in r_names.permutation(n_total) + 1])
    perturbed = names[:n_perturbations]
    features = np.sort(names[n_perturbations - overlap :])
    column = {f: i for i, f in enumerate(features)}
    targets = np.array([column.get(g, -1) for g in perturbed])
    model, members = _structure(
        r_model, n_perturbations, n_features, n_pathways, weak_fraction, targets
    )

    pairs = _pairs(r_cells, n_perturbations, n_combinations)
    knocked = np.zeros((n_perturbations + len(pairs), n_perturbations))
    knocked[np.arange(n_perturbations), np.arange(n_perturbations)] = model.strength
    for row, (a, b) in enumerate(pairs, start=n_perturbations):
        knocked[row, [a, b]] = model.strength[[a, b]]
    labels = [str(g) for g in perturbed]
    labels += [COMBINATION.join(sorted(map(str, perturbed[list(pair)]))) for pair in pairs]

    baseline0 = r_context.normal(0.0, 1.0, n_features)
    cell_variance = (noise * r_context.uniform(0.2, 0.6, n_features)) ** 2
    blocks, counts, noisy, control, baselines = [], [], [], [], []
    for i, _ in enumerate(contexts):
        gain = np.ones(n_pathways)
        baseline = baseline0.copy()
        if i:
            gain = np.exp(r_context.normal(0, 0.3, n_pathways))
            gain[r_context.random(n_pathways) < 0.25] = 0.1
            baseline = baseline + r_context.normal(0, 0.5, n_features)
        effect = responses(model, knocked, gain)
        n_cells = np.maximum(
            5, np.rint(r_cells.lognormal(np.log(mean_cells) - 0.125, 0.5, len(knocked)))
        )
        own = r_noise.normal(size=effect.shape) * np.sqrt(cell_variance / n_cells[:, None])
        shared = r_noise.normal(size=n_features) * np.sqrt(cell_variance / control_cells)
        blocks.append(effect)
        counts.append(n_cells)
        noisy.append(effect + own - shared)
        control.append(np.log1p(np.exp(baseline)) + shared)
        baselines.append(baseline)

    n_cells = np.concatenate(counts)
    variance = cell_variance * (1.0 / n_cells[:, None] + 1.0 / control_cells)
    obs = make_obs(
        labels * len(contexts),
        context=list(itertools.chain.from_iterable([c] * len(labels) for c in contexts)),
        n_cells=n_cells.tolist(),
        sampling_variance=variance.sum(axis=1).tolist(),
    )
    screen = Screen(
        responses=np.concatenate(noisy).astype(np.float32),
        obs=obs,
        features=tuple(map(str, features)),
        control_mean=np.array(control, dtype=np.float32),
        sampling_variance=variance.astype(np.float32),
        meta={
            "source": "pertwise simulator",
            "simulated": True,
            "unit": "log-normalised expression (simulated)",
            "control": CONTROL,
            "control_cells": control_cells,
            "simulation": settings,
        },
    )
    truth = Truth(
        **_named_truth(model, members, names, perturbed, features),
        effect=np.concatenate(blocks).astype(np.float32),
        cell_variance=cell_variance,
        baseline=np.array(baselines),
    )
    from pertwise.screen.simulate_sources import make_sources

    sources = make_sources(truth, r_known, knowledge_completeness, knowledge_errors)
    return Simulation(screen=screen, truth=truth, sources=sources)


def _pairs(rng: np.random.Generator, n: int, wanted: int) -> list[tuple[int, int]]:
    """`wanted` distinct unordered pairs of 0..n-1."""
    if wanted > n * (n - 1) // 2:
        raise InputError(f"{wanted} combinations wanted, but {n} genes have fewer pairs")
    found: dict[tuple[int, int], None] = {}
    while len(found) < wanted:
        a, b = (int(v) for v in rng.choice(n, 2, replace=False))
        found[(min(a, b), max(a, b))] = None
    return list(found)


def _named_truth(
    model: _Structure,
    members: Sequence[NDArray[np.int64]],
    names: NDArray[Any],
    perturbed: NDArray[Any],
    features: NDArray[Any],
) -> dict[str, Any]:
    """The named part of `Truth`."""
    n_pathways = model.unit_pathway.shape[1]
    pathway_names = [f"SIM_PATHWAY_{k + 1:02d} (simulated)" for k in range(n_pathways)]
    complexes = {
        f"SIM complex {u + 1:02d} (simulated)": tuple(sorted(map(str, perturbed[m])))
        for u, m in enumerate(members)
    }
    in_pathway = (model.essentiality > 0) @ (model.unit_pathway != 0)
    pathways = {
        name: tuple(sorted(map(str, perturbed[in_pathway[:, k] > 0])))
        for k, name in enumerate(pathway_names)
    }
    outputs = {
        name: tuple(map(str, features[model.specific[k] != 0]))
        for k, name in enumerate(pathway_names)
    }
    # The strongest member acts as the transcription factor of the pathway's output genes.
    regulators = {}
    for k, name in enumerate(pathway_names):
        score = np.where(in_pathway[:, k] > 0, model.strength, -1.0)
        regulators[name] = str(perturbed[int(score.argmax())])
    genes = pd.DataFrame(index=pd.Index(np.sort(names), name="gene"))
    genes["perturbed"] = genes.index.isin(perturbed)
    genes["strength"] = pd.Series(model.strength, index=perturbed).reindex(genes.index)
    genes["weak"] = genes["strength"] < 0.2
    genes["complex"] = _joined(complexes, genes.index)
    genes["pathway"] = _joined(pathways, genes.index)
    return {
        "genes": genes,
        "complexes": complexes,
        "pathways": pathways,
        "outputs": outputs,
        "pathway_graph": model.pathway_graph,
        "regulators": regulators,
        "features": tuple(map(str, features)),
        "output_sign": np.sign(model.specific).astype(np.int8),
    }


def _joined(sets: Mapping[str, tuple[str, ...]], index: pd.Index) -> list[str]:
    found: dict[str, list[str]] = {}
    for name, genes in sets.items():
        for gene in genes:
            found.setdefault(gene, []).append(name)
    return ["|".join(found.get(g, [])) for g in index]
