"""One small invented knowledge folder for the whole room."""

import pytest
from knowledge.small import write_small

from pertwise.knowledge import Knowledge, build_knowledge


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    sources = write_small(tmp_path_factory.mktemp("small_sources"))
    return build_knowledge(sources, tmp_path_factory.mktemp("small") / "knowledge")


@pytest.fixture
def small(small_folder):
    return Knowledge.open(small_folder)
