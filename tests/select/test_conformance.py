"""The selectors of the chat side (and the random one) through the common suite."""

import pytest

from pertwise.knowledge.types import Pathway
from pertwise.llm import open_chat
from pertwise.select import Query, RandomSelector
from pertwise.select.chat.acquire import Show, acquisition_selector, candidate_facts
from pertwise.select.chat.edit import EditSelector
from pertwise.select.chat.similar import langpert_selector, lgr_selector
from pertwise.testing.selectors import CHECKS
from pertwise.testing.server import ScriptedServer

NAMES = [f"GENE{i:02d}" for i in range(12)]
PATHWAY = Pathway("P", tuple(NAMES[:6]), "text", {"one": ("GENE00",), "two": ("GENE01",)})


def make(kind, chat):
    if kind == "random":
        return RandomSelector(3)
    if kind == "langpert":
        return langpert_selector(chat)
    if kind == "langpert_prefiltered":
        return langpert_selector(chat, max_candidates=8, prefilter=RandomSelector(1))
    if kind == "lgr":
        return lgr_selector(chat, k=4)
    if kind == "edit":
        return EditSelector(RandomSelector(2), chat)
    facts = candidate_facts(NAMES)
    show = Show(anonymise=kind == "acquisition_anonymised")
    return acquisition_selector(chat, facts, objective="learn", pathway=PATHWAY, show=show)


KINDS = [
    "random",
    "langpert",
    "langpert_prefiltered",
    "lgr",
    "edit",
    "acquisition",
    "acquisition_anonymised",
]


@pytest.fixture(scope="module")
def chat():
    with ScriptedServer() as server:
        yield open_chat(server.openai())


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_conformance(kind, check, chat):
    query = Query("GENE03", "K562") if "acquisition" not in kind else Query(None, "K562")
    check(lambda: make(kind, chat), NAMES, query)
