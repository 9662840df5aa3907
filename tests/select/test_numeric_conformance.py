"""Every selector that needs no language model through the common suite."""

import numpy as np
import pytest
from fake_knowledge import FakeKnowledge
from scipy.sparse import csr_matrix

from pertwise.knowledge import Graph
from pertwise.screen.core import make_screen
from pertwise.select import (
    EmbeddingSelector,
    GraphSelector,
    OracleSelector,
    Query,
    RecordedSelector,
    SetSelector,
)
from pertwise.select.recorded import LinkedSelector
from pertwise.testing.selectors import CHECKS

NAMES = [f"G{i:03d}" for i in range(12)]


class Dense(FakeKnowledge):
    """Everybody is linked to everybody, with different weights."""

    def graph(self, name, exclude_from_screen=False):
        n = len(self.genes_)
        weights = np.random.default_rng(1).uniform(0.1, 1, size=(n, n)).astype(np.float32)
        return Graph(name, self.genes_, csr_matrix((weights + weights.T) / 2))


def graph():
    return GraphSelector(Dense(), "string")


def embedding():
    return EmbeddingSelector(FakeKnowledge())


def recorded():
    answers = {g: (tuple(reversed(NAMES)), "because") for g in NAMES}
    return RecordedSelector(answers, source="recorded answers: test")


def linked():
    answers = {g: (tuple(n for n in NAMES if n != g), "because") for g in NAMES}
    return LinkedSelector(answers, source="recorded answers: test")


def oracle():
    x = np.random.default_rng(2).normal(size=(len(NAMES), 5))
    screen = make_screen(x, NAMES, [f"f{i}" for i in range(5)], meta={"simulated": True})
    return OracleSelector(screen, ceiling_only=True)


FACTORIES = {
    "graph": graph,
    "rewired": lambda: GraphSelector(Dense(), "string", rewire_seed=3),
    "unweighted": lambda: GraphSelector(Dense(), "string", weighted=False),
    "embedding": embedding,
    "recorded": recorded,
    "linked lists": linked,
    "oracle": oracle,
    "intersection": lambda: SetSelector(graph(), recorded(), "intersection"),
    "union": lambda: SetSelector(graph(), embedding(), "union"),
    "difference": lambda: SetSelector(recorded(), embedding(), "difference"),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", FACTORIES)
def test_conformance(name, check):
    check(FACTORIES[name], NAMES, Query("G003", "K562"))
