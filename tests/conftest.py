"""Fixtures for the whole suite."""

from pathlib import Path

import pytest
from hypothesis import settings

from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.screen import simulate_screen
from pertwise.testing import ScriptedServer

# A busy machine is no failure.
settings.register_profile("calm", deadline=None)
settings.load_profile("calm")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_defaults_of_the_user(monkeypatch, tmp_path_factory):
    """Whoever runs the tests may have defaults of their own, and results of earlier runs."""
    monkeypatch.setenv("PERTWISE_CACHE", "off")
    monkeypatch.setenv("PERTWISE_CONFIG", str(tmp_path_factory.getbasetemp() / "no such file"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it skip, saying so, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the real data folder ../shared/data is not here")
    return SHARED


@pytest.fixture
def scripted_llm():
    """A running scripted server; set `.script` to change how it answers."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A simulated screen with the matching knowledge folder, built once."""
    folder = tmp_path_factory.mktemp("simulated")
    simulation = simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=4)
    simulation.write_sources(folder / "sources")
    knowledge = Knowledge.open(build_knowledge(folder / "sources", folder / "knowledge"))
    return simulation.screen, knowledge
