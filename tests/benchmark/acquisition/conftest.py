"""A small simulated screen with the knowledge folder that matches it."""

import numpy as np
import pytest

from pertwise.knowledge import build_knowledge
from pertwise.screen.simulate import simulate_screen


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """(screen file, knowledge folder, name of one pathway)."""
    folder = tmp_path_factory.mktemp("simulated")
    made = simulate_screen(
        np.random.default_rng(7), n_perturbations=70, n_features=40, n_pathways=4
    )
    made.screen.save(folder / "screen.h5ad")
    made.write_sources(folder / "sources")
    build_knowledge(folder / "sources", folder / "kb")
    from pertwise.knowledge import Knowledge

    pathway = next(n for n in Knowledge.open(folder / "kb").pathway_names())
    return folder / "screen.h5ad", folder / "kb", pathway


@pytest.fixture
def settings(simulated):
    """Settings of a quick run as a plain dictionary."""
    screen, knowledge, _ = simulated
    return {
        "screen": str(screen),
        "knowledge": str(knowledge),
        "strategies": ["random", "typiclust", "uncertainty"],
        "predictors": {"toy": {"use": "tests_toy_predictor:Toy"}},
        "protocol": {"seeds": 2, "batch": 8, "rounds": 3},
        "embedding": "go",
    }
