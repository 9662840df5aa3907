"""Fixtures for the whole suite."""

from pathlib import Path

import pytest
from scripted_llm import scripted_llm as scripted_llm

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it skip, saying so, where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the real data folder ../shared/data is not here")
    return SHARED
