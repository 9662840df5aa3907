"""A simulated screen with the matching knowledge folder, built once."""

import pytest

from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.screen import simulate_screen


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    simulation = simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=4)
    simulation.write_sources(folder / "sources")
    knowledge = Knowledge.open(build_knowledge(folder / "sources", folder / "knowledge"))
    return simulation.screen, knowledge
