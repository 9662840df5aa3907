"""Chat selectors: what is shown, how it is cut, and what is recorded."""

import json

import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.knowledge.types import GeneCard, GoTerm, Pathway, Relation
from pertwise.llm import open_chat
from pertwise.select import Pick, Query, RandomSelector, Selection
from pertwise.select.chat.acquire import Show, acquisition_selector, candidate_facts
from pertwise.select.chat.edit import EditSelector
from pertwise.select.chat.selector import knowledge_resolver, masker
from pertwise.select.chat.similar import (
    CELL_LINES,
    estimate_questions,
    langpert_selector,
    lgr_selector,
    neighbour_record,
    write_neighbours,
)
from pertwise.testing.server import (
    Answer,
    Fault,
    ScriptedServer,
    first_alphabetical,
    listed,
    picks_json,
    wanted,
)

GENES = [f"GENE{i:02d}" for i in range(20)]


class Graph:
    """A stand-in graph selector: the given neighbours."""

    name = "graph"

    def __init__(self, *neighbours):
        self.neighbours = neighbours

    def select(self, query, candidates, n):
        chosen = [g for g in self.neighbours if g in candidates][:n]
        picks = tuple(Pick(g, "edge", score=1.0, evidence=(f"STRING {g}",)) for g in chosen)
        return Selection(picks, "graph")


# -- LangPert --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", CELL_LINES)
def test_cell_line_context_is_in_the_prompt(line, scripted_llm):
    langpert_selector(open_chat(scripted_llm.openai())).select(Query("X", line), GENES, 5)
    assert CELL_LINES[line] in scripted_llm.asked[0].first


def test_free_text_for_any_other_line(scripted_llm):
    query = Query("X", "MyLine", "A line of mine.")
    selector = langpert_selector(
        open_chat(scripted_llm.openai()), facts=lambda gene: f"{gene} does things"
    )
    selector.select(query, GENES, 5)
    prompt = scripted_llm.asked[0].first
    assert "MyLine. A line of mine." in prompt
    assert "X does things" in prompt


@pytest.mark.parametrize(
    ("k", "n", "n_genes", "phrase"),
    [
        (None, 20, 20, "Choose between 5 and 10"),
        (None, 7, 20, "Choose between 5 and 7"),
        (None, 20, 3, "Choose exactly 3"),
        (4, 20, 20, "Choose exactly 4"),
        (4, 2, 20, "Choose exactly 2"),
    ],
)
def test_how_many_are_asked_for(k, n, n_genes, phrase, scripted_llm):
    selector = langpert_selector(open_chat(scripted_llm.openai()), k=k)
    selector.select(Query("X"), GENES[:n_genes], n)
    assert phrase in scripted_llm.asked[0].first


def test_no_neighbour_and_no_fallback_is_an_empty_selection_that_says_so():
    with ScriptedServer(lambda a: picks_json(["NOPE"])) as server:
        selector = langpert_selector(open_chat(server.openai()), max_reasks=0)
        chosen = selector.select(Query("X"), GENES, 5)
    assert chosen.picks == ()
    assert chosen.fallback
    assert chosen.repair_counts() == {"out_of_list": 1, "too_few": 1, "fallback": 1}
    assert chosen.provenance["k_used"] == 0


def test_two_thousand_candidates_whole_list(scripted_llm):
    genes = [f"GENE{i:04d}" for i in range(2000)]
    chosen = langpert_selector(open_chat(scripted_llm.openai())).select(Query("X"), genes, 5)
    assert sorted(listed(scripted_llm.asked[0].first)) == genes
    # Too long for an enum, so the schema asks for any string; the answer is checked all the same.
    assert "enum" not in json.dumps(scripted_llm.asked[0].schema)
    assert chosen.provenance["list_in_schema"] is False
    assert chosen.provenance["n_shown"] == 2000


def test_two_thousand_candidates_prefiltered(scripted_llm):
    genes = [f"GENE{i:04d}" for i in range(2000)]
    best = genes[1500:1530]
    selector = langpert_selector(
        open_chat(scripted_llm.openai()), max_candidates=50, prefilter=Graph(*best)
    )
    chosen = selector.select(Query("X"), genes, 5)
    shown = listed(scripted_llm.asked[0].first)
    assert len(shown) == 50
    assert set(best) <= set(shown)
    cut = "50 of 2000: 30 preselected by graph, 20 drawn at random"
    assert chosen.provenance["cut"] == cut
    assert cut in scripted_llm.asked[0].first
    enum = scripted_llm.asked[0].schema["properties"]["picks"]["items"]["properties"]["name"]
    assert enum["enum"] == sorted(shown)
    with pytest.raises(InputError, match="give a prefilter"):
        langpert_selector(selector.chat, max_candidates=50).select(Query("X"), genes, 5)


def test_order_is_shuffled_by_the_recorded_seed(scripted_llm):
    chat = open_chat(scripted_llm.openai())
    orders = {}
    for seed in (0, 1):
        for _ in range(2):
            chosen = langpert_selector(chat, seed=seed).select(Query("X"), GENES, 5)
            key = chosen.provenance["shuffle_seed"]
            orders.setdefault(key, []).append(listed(scripted_llm.asked[-1].first))
    assert len(orders) == 2
    (a, again), (b, _) = orders.values()
    assert a == again != b
    assert sorted(a) == sorted(b) == GENES


def test_select_many_equals_select_one_by_one(scripted_llm):
    scripted_llm.script = lambda a: Answer(first_alphabetical(a), delay=0.02)
    selector = langpert_selector(open_chat(scripted_llm.openai(), concurrency=3))
    questions = [(Query(g, "K562"), GENES[:12]) for g in GENES]
    together = selector.select_many(questions, 5)
    assert [c.items for c in together] == [selector.select(q, c, 5).items for q, c in questions]
    assert scripted_llm.most_at_once == 3


def test_dry_run_asks_nothing(scripted_llm):
    selector = langpert_selector(open_chat(scripted_llm.openai()))
    estimate = estimate_questions(selector, [(Query(g), GENES) for g in GENES], 5)
    assert (scripted_llm.count, estimate.n_requests) == (0, 20)
    assert estimate.prompt_tokens > 20 * 100


def test_provenance_is_complete(scripted_llm, tmp_path):
    chat = open_chat(scripted_llm.openai("mymodel"), ledger=tmp_path / "l")
    p = langpert_selector(chat).select(Query("X"), GENES, 5).provenance
    assert p["prompt"] == "langpert"
    assert len(p["prompt_hash"]) == 16
    assert p["models"] == ["mymodel"]
    assert len(p["ledger_keys"][0]) == 64
    assert (p["n_candidates"], p["n_shown"], p["k_used"], p["re_asks"]) == (20, 20, 5, 0)
    json.dumps(p)


# -- LGR -------------------------------------------------------------------------------------

DRUGS = ["ABT-199 (GDC-0199)", "ABT737", "Tofacitinib", "Tofacitinib (citrate)", "FK 866"]


def drug_resolver(names):
    same = {"Tofacitinib (citrate)": "tofacitinib", "Tofacitinib": "tofacitinib"}
    known = {**same, "Venetoclax": "venetoclax", "ABT-199 (GDC-0199)": "venetoclax"}
    return {n: known[n] for n in names if n in known}


def test_lgr_alias_out_of_pool_and_few_left(tmp_path):
    answer = picks_json(["Venetoclax", "Aspirin", "fk-866", "Tofacitinib (citrate)"])
    with ScriptedServer(lambda a: answer) as server:
        selector = lgr_selector(open_chat(server.openai()), resolve=drug_resolver)
        query = Query("Tofacitinib", "A549")
        chosen = selector.select(query, DRUGS, 10)
        # The citrate is the query itself: neither shown nor accepted.
        shown = listed(server.asked[0].first)
        assert sorted(shown) == ["ABT-199 (GDC-0199)", "ABT737", "FK 866"]
        assert wanted(server.asked[0].first) == 3
        assert server.count == 2
    assert chosen.items == ("ABT-199 (GDC-0199)", "FK 866")
    assert chosen.repair_counts() == {
        "alias": 2,  # the same answer twice: asked again once
        "out_of_list": 2,
        "case": 2,
        "query_itself": 2,
        "too_few": 2,
    }
    assert (chosen.provenance["k_used"], chosen.fallback) == (2, False)
    write_neighbours(tmp_path / "n.jsonl", [(query, chosen)])
    (line,) = (tmp_path / "n.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record == neighbour_record(query, chosen)
    assert (record["cell"], record["drug"]) == ("A549", "Tofacitinib")
    assert record["neighbours"] == ["ABT-199 (GDC-0199)", "FK 866"]


# -- edit ------------------------------------------------------------------------------------


def edits(add=(), remove=()):
    named = lambda names: [{"name": n, "reason": f"because {n}"} for n in names]  # noqa: E731
    return json.dumps({"add": named(add), "remove": named(remove)})


def edit(answer, n=5, neighbours=("GENE01", "GENE02", "GENE03"), **settings):
    with ScriptedServer(lambda a: answer) as server:
        settings = {"max_reasks": 0, **settings}
        selector = EditSelector(
            Graph(*neighbours), open_chat(server.openai(), attempts=1), **settings
        )
        chosen = selector.select(Query("GENE00", "K562"), GENES, n)
        return chosen, server.asked[0]


def test_edit_adds_and_removes():
    chosen, asked = edit(edits(["GENE09"], ["GENE02"]))
    assert chosen.items == ("GENE01", "GENE03", "GENE09")
    assert chosen.picks[2].reason == "because GENE09"
    assert chosen.picks[0].evidence == ("STRING GENE01",)
    assert chosen.repairs == ()
    assert chosen.provenance["added"] == ["GENE09"]
    assert chosen.provenance["removed"] == ["GENE02"]
    assert listed(asked.first, "neighbours") == ["GENE01", "GENE02", "GENE03"]
    assert set(listed(asked.first)) == set(GENES) - {"GENE00", "GENE01", "GENE02", "GENE03"}
    assert CELL_LINES["K562"] in asked.first


def test_impossible_edits_are_ignored_and_counted():
    chosen, _ = edit(edits(["GENE01", "TP53", "GENE00", "GENE09", "GENE09"], ["GENE07", "NOPE"]))
    assert chosen.items == ("GENE01", "GENE02", "GENE03", "GENE09")
    assert chosen.repair_counts() == {"impossible_edit": 6}
    assert not chosen.fallback


def test_everything_removed_is_stated():
    chosen, _ = edit(edits([], ["GENE01", "GENE02", "GENE03"]))
    assert chosen.items == ()
    assert chosen.repair_counts() == {"empty_set": 1}
    assert "training mean" in chosen.repairs[0].action


def test_no_usable_edit_leaves_the_graph():
    chosen, _ = edit("no idea")
    assert chosen.items == ("GENE01", "GENE02", "GENE03")
    assert chosen.fallback
    assert chosen.repair_counts() == {"unparsable": 1, "fallback": 1}
    chosen, _ = edit(Fault(500))
    assert chosen.repair_counts() == {"call_failed": 1, "fallback": 1}


def test_at_most_max_edits_and_at_most_n():
    chosen, _ = edit(edits(["GENE05", "GENE06", "GENE07"], []), n=4, max_edits=2)
    assert chosen.items == ("GENE01", "GENE02", "GENE05", "GENE06")
    assert chosen.repair_counts() == {"too_many": 2}


def test_a_gene_without_neighbours_can_be_given_some():
    chosen, _ = edit(edits(["GENE05"], []), neighbours=())
    assert chosen.items == ("GENE05",)


def test_chat_selectors_inside_chat_selectors():
    def script(asked):
        return edits(["GENE05"]) if "<neighbours>" in asked.first else first_alphabetical(asked)

    with ScriptedServer(script) as server:
        chat = open_chat(server.openai())
        selector = EditSelector(
            langpert_selector(chat), chat, max_candidates=3, prefilter=langpert_selector(chat)
        )
        assert "GENE05" in selector.select(Query("X"), GENES, 20).items
        never = open_chat("m@http://127.0.0.1:9/v1", attempts=1)
        backed = langpert_selector(never, fallback=langpert_selector(chat))
        assert backed.select(Query("X"), GENES, 5).items == tuple(GENES[:5])


def test_a_blocking_chat_call_inside_an_asynchronous_one_is_an_error_not_a_hang():
    class Wrapper:
        name = "wrapper"

        def select(self, query, candidates, n):
            return langpert_selector(chat).select(query, candidates, n)

    with ScriptedServer() as server:
        chat = open_chat(server.openai())
        selector = EditSelector(Wrapper(), chat)
        with pytest.raises(RuntimeError, match="aselect"):
            selector.select(Query("X"), GENES, 5)


# -- acquisition -----------------------------------------------------------------------------

PATHWAY = Pathway(
    "HEME METABOLISM",
    ("GENE00", "GENE01", "ALAS2"),
    "Makes heme, with GENE00.",
    {"synthesis": ("ALAS2", "GENE01"), "transport": ("GENE00",)},
)
UNCERTAINTY = pd.Series([0.5 - 0.01 * i for i in range(20)], index=GENES)


def facts(uncertainty=True):
    cards = {
        g: GeneCard(g, f"full {g}", f"{g} binds {GENES[0]}.", (GoTerm("GO:1", f"term {g}", "P"),))
        for g in GENES
    }
    relations = {g: Relation(g, "direct_member", f"{g}-ALAS2", 1.0, "synthesis") for g in GENES}
    return candidate_facts(
        GENES, cards=cards, relations=relations, uncertainty=UNCERTAINTY if uncertainty else None
    )


def acquisition_prompt(server, uncertainty=True, **settings):
    selector = acquisition_selector(
        open_chat(server.openai()),
        facts(uncertainty),
        objective="Learn how heme is made.",
        pathway=PATHWAY,
        **{"prompt": "acquire-paper", **settings},
    )
    chosen = selector.select(Query(None, "K562", "Cells."), GENES, 4)
    return server.asked[-1], chosen


def test_acquisition_prompt_holds_the_fields(scripted_llm):
    asked, chosen = acquisition_prompt(scripted_llm, round=3, acquired=["ZZZ1", "ZZZ2"])
    for part in (
        "Learn how heme is made.",
        "round 3",
        "Already measured (2): ZZZ1, ZZZ2",
        "HEME METABOLISM",
        "Makes heme",
        "- synthesis: ALAS2, GENE01",
        "GENE07 | uncertainty rank 8, score 0.43 | direct_member (synthesis) [GENE07-ALAS2] | GO: "
        "term GENE07 | GENE07 binds GENE00.",
        "Choose exactly 4",
        "at least 2 of its modules",
        "both uncertain and related",
    ):
        assert part in asked.first, part
    assert "module" in asked.schema["properties"]["picks"]["items"]["properties"]
    assert len({p.reason for p in chosen.picks}) == 4


def test_cold_start_mentions_no_uncertainty_rank(scripted_llm):
    asked, _ = acquisition_prompt(scripted_llm, uncertainty=False)
    assert "uncertainty rank" not in asked.first
    assert "No uncertainty is given" in asked.first
    assert "cold start" in asked.first


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("go", "GO:"),
        ("relation", "direct_member"),
        ("summary", "binds"),
        ("uncertainty", "uncertainty rank"),
    ],
)
def test_ablation_switches(switch, gone, scripted_llm):
    full, _ = acquisition_prompt(scripted_llm)
    without, _ = acquisition_prompt(scripted_llm, show=Show(**{switch: False}))
    assert gone in full.first
    assert gone not in without.first


def test_anonymised_symbols(scripted_llm):
    asked, chosen = acquisition_prompt(
        scripted_llm, show=Show(anonymise=True), acquired=["ALAS2", "ZZZ1"]
    )
    for name in (*GENES, "ALAS2", "ZZZ1"):
        assert name not in asked.first
        assert name not in json.dumps(asked.schema)
    assert "M0001, M0002" in asked.first
    # Codes are turned back into names; annotations were kept.
    assert set(chosen.items) <= set(GENES)
    assert "direct_member" in asked.first
    codes = sorted(listed(asked.first))
    assert codes == [f"G{i:04d}" for i in range(1, 21)]
    # The code tells nothing of the alphabet: numbers follow the shuffled order.
    assert listed(asked.first) == codes
    assert chosen.items != tuple(GENES[:4])


def test_knowledge_resolver_looks_each_name_up_once():
    class Known:
        def __init__(self):
            self.asked = []

        def canonical(self, names):
            self.asked += names
            return {n: "AARS1" for n in names if n.startswith("AARS")}

    known = Known()
    resolve = knowledge_resolver(known)
    for _ in range(2):
        assert resolve(["AARS", "NOPE", "AARS1"]) == {"AARS": "AARS1", "AARS1": "AARS1"}
    assert known.asked == ["AARS", "NOPE", "AARS1"]


def test_masker_replaces_whole_names_only():
    mask = masker({"MYC": "G1", "MYCN": "G2", "HLA-A": "G3"})
    assert mask("MYC, MYCN and MYCL bind HLA-A; c-MYC.") == "G1, G2 and MYCL bind G3; c-G1."


def test_exactly_n_even_when_the_model_gives_two():
    with ScriptedServer(lambda a: picks_json(GENES[:2])) as server:
        _, chosen = acquisition_prompt(server, fallback=RandomSelector(4), max_reasks=1)
        assert server.count == 2
    assert len(chosen.picks) == 4
    assert chosen.items[:2] == ("GENE00", "GENE01")
    assert [bool(p.extra.get("fallback")) for p in chosen.picks] == [False, False, True, True]
    assert chosen.picks[2].reason.startswith("fallback random: ")


def test_answers_of_earlier_turns_fill_up():
    def script(asked):
        return picks_json(GENES[:3] if asked.turn == 1 else ["GENE05", "GENE01"])

    with ScriptedServer(script) as server:
        _, chosen = acquisition_prompt(server, max_reasks=1)
    assert chosen.items == ("GENE05", "GENE01", "GENE00", "GENE02")
    assert not chosen.fallback


def test_shared_reasons_are_asked_again_and_counted():
    with ScriptedServer(lambda a: picks_json(GENES[:4], reason="important")) as server:
        _, chosen = acquisition_prompt(server, max_reasks=1)
        assert "no reason of their own: GENE00" in server.asked[-1].last
    assert chosen.repair_counts() == {"no_reason": 2 + 4}  # two answers, then four picks kept


def test_reasoning_text_is_not_sent_back():
    def script(asked):
        if asked.turn == 1:
            return Answer(f"<think>{'long ' * 50}</think>{picks_json(['NOPE'])}")
        return picks_json(GENES[:4])

    with ScriptedServer(script) as server:
        acquisition_prompt(server)
        assert "long" not in server.asked[-1].messages[-2]["content"]


def test_a_users_own_template(tmp_path, scripted_llm):
    path = tmp_path / "mine.j2"
    path.write_text(
        "{% block user %}For {{ subject }} Choose exactly {{ n_max }}\n<candidates>\n"
        "{{ candidates | join('\n') }}\n</candidates>{% endblock %}"
    )
    selector = langpert_selector(open_chat(scripted_llm.openai()), prompt=path)
    chosen = selector.select(Query("X"), GENES, 3)
    assert scripted_llm.asked[0].first.startswith("For X Choose exactly 3")
    assert chosen.provenance["prompt"] == "mine.j2"
    assert chosen.items == tuple(GENES[:3])
