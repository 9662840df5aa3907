"""Everything of a replay that stays the same over rounds and units, computed once a process."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.acquire.inputs import match_features, one_context, open_pathway
from pertwise.acquire.state import choose_embedding, gene_features, neighbour_weights
from pertwise.benchmark.acquisition.config import AcquisitionConfig, TargetSpec
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, Pathway, Relation
from pertwise.knowledge.genes.species import same_species
from pertwise.screen import Screen


@dataclass(frozen=True)
class ReplayTarget:
    """A target made concrete on one screen.

    Attributes
    ----------
    columns
        Positions of the target's features in the screen.
    weights
        (n_columns,) non-negative, mean 1.
    global_weight
        Share of the mean over all features in score and uncertainty.
    relations
        Perturbation -> relation to `pathway`; empty without a pathway.
    """

    name: str
    columns: NDArray[np.int64]
    weights: NDArray[np.float64]
    global_weight: float
    pathway: Pathway | None
    relations: dict[str, Relation]


@dataclass(frozen=True)
class World:
    """A finished screen, what is known about its perturbations, and the targets.

    Rows of `embedding` and `neighbours` are in the order of `names`.
    """

    screen: Screen
    knowledge: Knowledge | None
    names: tuple[str, ...]
    embedding: NDArray[np.float32] | None
    neighbours: csr_matrix | None
    targets: dict[str, ReplayTarget]
    unknown: tuple[str, ...]
    embedding_kind: str = "text"

    @property
    def context(self) -> str:
        """The one context of the screen ("" when unnamed)."""
        return self.screen.contexts[0]


def feature_weights(spec: TargetSpec, features: Sequence[str]) -> NDArray[np.float64]:
    """Relative weights of the target's features, scaled to mean 1.

    Raises
    ------
    pertwise.errors.InputError
        A pattern that matches no feature of the target, or a negative weight.
    """
    weights = np.ones(len(features))
    for pattern, weight in spec.weights.items():
        hits = [i for i, f in enumerate(features) if fnmatch.fnmatchcase(f, pattern)]
        if not hits:
            raise InputError(
                f"target {spec.name!r}: weight pattern {pattern!r} matches none of its "
                f"{len(features)} features"
            )
        if weight < 0:
            raise InputError(f"target {spec.name!r}: weight {weight} of {pattern!r} is negative")
        weights[hits] = weight
    if weights.sum() <= 0:
        raise InputError(f"target {spec.name!r}: all weights are zero")
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled


def make_target(
    spec: TargetSpec, screen: Screen, knowledge: Knowledge | None, names: Sequence[str]
) -> ReplayTarget:
    """Resolve feature patterns, pathway and relations of one target.

    Raises
    ------
    pertwise.errors.InputError
        Unknown feature or pathway (the nearest are suggested); a pathway without a knowledge
        folder; `pathway_outputs` on a screen whose features are not that pathway's genes.
    """
    pathway = None
    if spec.pathway:
        if knowledge is None:
            raise InputError(
                f"target {spec.name!r} names the pathway {spec.pathway!r}: give a knowledge folder"
            )
        pathway = open_pathway(knowledge, spec.pathway)
    if spec.pathway_outputs:
        if pathway is None:
            raise InputError(f"target {spec.name!r}: pathway_outputs needs a pathway")
        members = set(pathway.members)
        chosen = tuple(f for f in screen.features if f in members)
        if not chosen:
            raise InputError(
                f"target {spec.name!r}: none of the {len(members)} genes of {pathway.name!r} is a "
                f"feature of the screen (e.g. {list(screen.features[:3])}); name features instead"
            )
    else:
        chosen = match_features(screen, spec.features) or screen.features
    position = {f: i for i, f in enumerate(screen.features)}
    relations = {} if pathway is None or knowledge is None else knowledge.relations(names, pathway)
    return ReplayTarget(
        name=spec.name,
        columns=np.array([position[f] for f in chosen], dtype=np.int64),
        weights=feature_weights(spec, chosen),
        global_weight=spec.global_weight,
        pathway=pathway,
        relations=dict(relations),
    )


def make_world(
    config: AcquisitionConfig, screen: Screen | None = None, knowledge: Knowledge | None = None
) -> World:
    """Read the screen and the knowledge of a config (or take them as given)."""
    if screen is None:
        from pertwise.screen import read_screen

        screen = read_screen(config.screen)
    screen = one_context(screen, config.context).only_measured()
    if knowledge is None and (config.knowledge is not None or config.ratings):
        knowledge = Knowledge.open(config.knowledge, ratings=config.ratings)
    # Sorted, so that splits do not depend on the order of rows in a file.
    names = tuple(sorted(screen.perturbations))
    screen = screen.of_perturbations(names)
    if knowledge is not None:
        same_species("screen", names, knowledge)
    embedding, neighbours = None, None
    unknown: tuple[str, ...] = ()
    kind = "text"
    # Marks alone give no features of genes: strategies that need them say so.
    if knowledge is not None and (knowledge.path or not knowledge.ratings):
        kind = choose_embedding(knowledge, config.embedding)
        embedding, unknown = gene_features(knowledge, names, kind=kind)
        neighbours = neighbour_weights(knowledge, names)
    return World(
        screen=screen,
        knowledge=knowledge,
        names=names,
        embedding=embedding,
        neighbours=neighbours,
        targets={t.name: make_target(t, screen, knowledge, names) for t in config.targets},
        unknown=tuple(unknown),
        embedding_kind=kind,
    )
