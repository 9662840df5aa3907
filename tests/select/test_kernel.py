import json

import numpy as np
import pytest
from drug_example import DRUGS, drug_knowledge, drug_table

from pertwise.errors import InputError
from pertwise.kernels.drugs import (
    MeanKernel,
    chemistry_similarity,
    mechanism_similarity,
)
from pertwise.knowledge.recorded import context_key, read_recorded
from pertwise.llm import open_chat
from pertwise.select import Query
from pertwise.select.chat.similar import lgr_selector, write_neighbours
from pertwise.select.kernel import HybridSelector, KernelSelector
from pertwise.select.recorded import RecordedSelector
from pertwise.testing.selectors import CHECKS
from pertwise.testing.server import ScriptedServer, listed, picks_json

NAMES = [row[0] for row in DRUGS]
TABLE = drug_table()
KNOWN = drug_knowledge()
KERNEL = chemistry_similarity(TABLE)
RECORDED = {n: (tuple(m for m in NAMES if m != n)[:6], "recorded reason") for n in NAMES}


def make(kind):
    if kind == "chemistry":
        return KernelSelector(KERNEL)
    if kind == "mechanism":
        return KernelSelector(mechanism_similarity(TABLE), above=0.3)
    if kind == "combined":
        return KernelSelector(MeanKernel((KERNEL, mechanism_similarity(TABLE))))
    recorded = RecordedSelector(RECORDED, source="test", resolve=KNOWN.canonical)
    return HybridSelector(recorded, KernelSelector(KERNEL), min_coverage=0.9)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ["chemistry", "mechanism", "combined", "hybrid"])
def test_conformance(kind, check):
    check(lambda: make(kind), NAMES, Query("Aspirin", "A549"))


def test_chemistry_picks_by_tanimoto():
    picks = make("chemistry").select(Query("Gefitinib"), NAMES, 3)
    scores = KERNEL.between(["Gefitinib"], NAMES, NAMES)[0]
    order = [n for n in np.array(NAMES)[np.argsort(-scores, kind="stable")] if n != "Gefitinib"]
    assert list(picks.items) == order[:3]
    assert picks.items[0] == "Erlotinib (hydrochloride)"


def test_mechanism_gives_only_those_that_share_it():
    assert set(make("mechanism").select(Query("Vorinostat"), NAMES, 10).items) == {
        "Belinostat", "Panobinostat",
    }  # fmt: skip
    nothing = make("mechanism").select(Query("Caffeine"), NAMES, 10)
    assert nothing.items == ()
    assert nothing.repair_counts()["too_few"] == 1


def test_hybrid_keeps_good_coverage_and_tops_up_thin_one():
    thin = RecordedSelector({"Aspirin": (("Caffeine", "NoSuchDrug"), "why")}, source="test")
    hybrid = HybridSelector(thin, KernelSelector(KERNEL), min_coverage=0.5)
    chosen = hybrid.select(Query("Aspirin"), NAMES, 4)
    assert chosen.items[0] == "Caffeine"
    assert len(chosen.items) == 4
    assert chosen.fallback
    assert "coverage 25% is below 50%" in chosen.repairs[-1].action
    alone = HybridSelector(thin, KernelSelector(KERNEL), min_coverage=0.5, fill=False)
    assert "Caffeine" not in alone.select(Query("Aspirin"), NAMES, 4).items
    good = HybridSelector(thin, KernelSelector(KERNEL), min_coverage=0.2)
    assert good.select(Query("Aspirin"), NAMES, 4).items == ("Caffeine",)
    with pytest.raises(InputError, match="min_coverage"):
        HybridSelector(thin, thin, min_coverage=0.0)


# -- LGR against the scripted endpoint (not a language model) -----------------------------------


def ask(script, protocol="openai", drug="Aspirin", pool=NAMES, k=4, **settings):
    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol))
        selector = lgr_selector(chat, k=k, resolve=KNOWN.canonical, facts=KNOWN.facts, **settings)
        query = Query(drug, "CVCL_0023", KNOWN.context_facts("CVCL_0023"))
        return selector.select(query, pool, k), server


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_lgr_prompt_holds_closed_pool_and_facts(protocol):
    chosen, server = ask(lambda a: picks_json(sorted(listed(a.first))[:4]), protocol)
    prompt = server.asked[0].first
    assert set(listed(prompt)) == set(NAMES) - {"Aspirin"}
    assert "KRAS p.G12S" in prompt
    assert "Cyclooxygenase inhibitor; targets PTGS1, PTGS2" in prompt
    assert chosen.items == tuple(sorted(set(NAMES) - {"Aspirin"})[:4])


def test_lgr_aliasing_is_repaired_and_counted():
    """Names without the salt, in other spelling, or with the salt spelt out."""
    said = ["erlotinib", "GEFITINIB", "Vorinostat hydrochloride", "lapatinib"]
    chosen, _ = ask(lambda a: picks_json(said))
    assert chosen.items == ("Erlotinib (hydrochloride)", "Gefitinib", "Vorinostat", "Lapatinib")
    counts = chosen.repair_counts()
    assert counts["alias"] == 2
    assert counts["case"] == 2


def test_lgr_out_of_pool_names_are_dropped_and_counted():
    said = ["Gefitinib", "Imatinib", "Erlotinib (hydrochloride)", "Aspirin"]
    chosen, server = ask(lambda a: picks_json(said), max_reasks=0)
    assert chosen.items == ("Gefitinib", "Erlotinib (hydrochloride)")
    assert chosen.repair_counts()["out_of_list"] == 1
    assert chosen.repair_counts()["query_itself"] == 1
    assert server.count == 1


def test_lgr_few_left_are_kept_with_k_used_and_none_left_says_so(tmp_path):
    few, _ = ask(lambda a: picks_json(["Gefitinib", "Imatinib"]))
    assert few.items == ("Gefitinib",)
    assert few.provenance["k_used"] == 1
    none, _ = ask(lambda a: picks_json(["Imatinib"]))
    assert none.items == ()
    assert none.fallback
    query = Query("Aspirin", "A549")
    write_neighbours(tmp_path / "lgr.jsonl", [(query, few), (query, none)])
    first = json.loads((tmp_path / "lgr.jsonl").read_text().splitlines()[0])
    assert (first["cell"], first["drug"], first["neighbours"]) == ("A549", "Aspirin", ["Gefitinib"])


def test_lgr_falls_back_to_chemistry_when_nothing_valid_is_left():
    chosen, _ = ask(lambda a: picks_json(["Imatinib"]), fallback=KernelSelector(KERNEL))
    assert chosen.fallback
    assert chosen.items == KernelSelector(KERNEL).select(Query("Aspirin"), NAMES, 4).items


def test_exported_lists_come_back_per_cell(tmp_path):
    rows = [
        {"cell": "A549", "drug": "Aspirin", "neighbours": ["Ibuprofen"]},
        {"cell": "MCF7", "drug": "Aspirin", "neighbours": ["Caffeine"]},
    ]
    path = tmp_path / "lgr.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    answers, _ = read_recorded(path)
    assert set(answers) == {context_key("Aspirin", "A549"), context_key("Aspirin", "MCF7")}
    selector = RecordedSelector.from_file(path)
    assert selector.select(Query("Aspirin", "MCF7"), NAMES, 3).items == ("Caffeine",)
    assert selector.select(Query("Aspirin", "A549"), NAMES, 3).items == ("Ibuprofen",)
    assert selector.select(Query("Aspirin", "K562"), NAMES, 3).items == ()
