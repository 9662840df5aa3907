"""From inputs to a plan: the closed list, a person's decisions, coverage, cold start, rounds."""

import json

import numpy as np
import pandas as pd
import pytest
from fake_knowledge import FakeEnsemble, FakeKnowledge

import pertwise
from pertwise.acquire import Plan, amend, plan
from pertwise.acquire.candidates import list_candidates, make_pool
from pertwise.acquire.coverage import plane
from pertwise.acquire.inputs import match_features, open_pathway
from pertwise.acquire.state import Disagreement
from pertwise.acquire.stored import StoredUncertainty
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import read_gene_list
from pertwise.report.plan_page import render_plan
from pertwise.screen import make_screen

KNOWLEDGE = FakeKnowledge()
HEME = "hallmark_heme_metabolism"


def half_screen(n=40, n_features=3, hidden=20, simulated=True):
    """Genes G000 ...; every other one of the first 2 x `hidden` rows is not measured."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, n_features)).astype(np.float32)
    y[np.arange(0, 2 * hidden, 2)] = np.nan
    return make_screen(
        y,
        [f"G{i:03d}" for i in range(n)],
        [f"{k}-erythroid" if k < 2 else f"{k}-other" for k in range(n_features)],
        context="K562",
        meta={"simulated": simulated, "source": "test"},
    )


def make_plan(screen=None, **kwargs):
    given = {"pathway": HEME, "batch": 6, "predictor": FakeEnsemble()} | kwargs
    return plan(half_screen() if screen is None else screen, KNOWLEDGE, **given)


def test_plan_has_everything_a_reader_asks_for():
    made = make_plan(features=["*ERYTHROID*"], by="Ada")
    assert isinstance(made, Plan)
    assert pertwise.plan is plan
    assert len(made.table) == 6
    assert list(made.table["rank"]) == [1, 2, 3, 4, 5, 6]
    assert set(made.genes) <= {f"G{i:03d}" for i in range(0, 40, 2)}
    assert made.target["features"] == ["0-erythroid", "1-erythroid"]
    assert made.simulated
    assert made.context == "K562"
    assert made.inputs["knowledge"]["fingerprint"] == "fake0123"
    assert made.decisions[0].by == "Ada"
    assert made.candidate_table["utility"].notna().all()
    assert set(made.candidate_table.index) == {f"G{i:03d}" for i in range(0, 40, 2)}
    assert made.candidate_table.loc[list(made.genes), "status"].eq("picked").all()
    # FakeEnsemble disagrees more about later genes: the last candidate is the most uncertain.
    assert made.candidate_table["uncertainty_rank"].idxmin() in ("G036", "G038")
    assert "SIMULATED" in repr(made)


def test_saved_plan_is_read_back_equal_and_lists_are_plain_json(tmp_path):
    made = make_plan()
    made.save_json(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made
    assert Plan.load(tmp_path) == made
    json.loads((tmp_path / "plan.json").read_text())
    made.save_csv(tmp_path / "plan.csv")
    table = pd.read_csv(tmp_path / "plan.csv")
    assert list(table["gene"]) == list(made.genes)
    assert set(table["data"]) == {"simulated"}


def test_half_a_surrogate_pair_in_a_plan_file_is_no_text(tmp_path):
    make_plan().save_json(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    gene = make_plan().genes[0]
    bad = text.replace(f'"{gene}"', f'"{gene}\\ud800"')
    assert bad != text
    (tmp_path / "plan.json").write_text(bad)
    read = Plan.load(tmp_path)
    assert read.genes[0] == f"{gene}\ufffd"
    for table in (read.table.reset_index(), read.candidate_table.reset_index()):
        assert f"{gene}\ufffd" in set(table["gene"])


def test_same_inputs_same_plan_and_candidate_order_does_not_matter():
    names = [f"G{i:03d}" for i in range(0, 40, 2)]
    a = make_plan(candidates=names)
    b = make_plan(candidates=names[::-1])
    assert a.picks == b.picks
    assert a.candidates == b.candidates
    for strategy in ("random", "typiclust", "badge"):
        one = make_plan(candidates=names, strategy=strategy, seed=3).genes
        assert one == make_plan(candidates=names[::-1], strategy=strategy, seed=3).genes


def test_coverage_counts_by_hand():
    made = make_plan()
    by_module = {r.module: r for r in made.coverage}
    # module 0 holds G000 ... G004: G001 and G003 are measured, the even ones are candidates.
    row = by_module["module 0"]
    assert row.size == 5
    assert row.measured == ["G001", "G003"]
    assert sorted(row.picked + row.open) == ["G000", "G002", "G004"]
    assert row.unavailable == []
    few = make_plan(candidates=["G000", "G030"], batch=1)
    row = {r.module: r for r in few.coverage}["module 0"]
    assert row.picked == ["G000"]
    assert row.unavailable == ["G002", "G004"]
    assert "only" not in " ".join(few.warnings)


def test_near_misses_say_what_stood_against_them():
    made = make_plan()
    kinds = {m.kind for m in made.near_misses}
    assert "next" in kinds
    assert not {m.gene for m in made.near_misses} & set(made.genes)
    first = next(m for m in made.near_misses if m.kind == "next")
    assert first.position == 7
    assert "position 7 for 6 places" in first.why
    short = make_plan(strategy_settings={"k": 7, "shortlist": "uncertainty"}, batch=2)
    outside = [m for m in short.near_misses if "not on the shortlist of 7" in m.why]
    assert outside
    assert all(m.uncertainty_rank > 7 for m in outside)


def test_a_loop_of_rounds_needs_only_the_screen():
    screen = half_screen()
    first = make_plan(screen)
    y = np.array(screen.responses)
    for g in first.genes:
        y[int(g[1:])] = 1.0
    measured = make_screen(y, screen.perturbations, screen.features, context="K562")
    second = make_plan(measured)
    assert not set(first.genes) & set(second.genes)
    assert set(first.genes) <= set(second.measured["gene"])
    assert second.settings["round"] == 2


def test_cold_start_with_and_without_a_screen():
    nothing = half_screen()
    empty = make_screen(
        np.full((10, 3), np.nan), nothing.perturbations[:10], nothing.features, context="K562"
    )
    with_rows = plan(empty, KNOWLEDGE, pathway=HEME, batch=4)
    without = plan(None, KNOWLEDGE, pathway=HEME, batch=4, candidates=list(empty.perturbations))
    assert with_rows.genes == without.genes
    assert any("cold start" in w for w in with_rows.warnings)
    assert with_rows.settings["round"] == 1
    assert all(u is None for u in with_rows.candidates["uncertainty"])
    everything = plan(None, KNOWLEDGE, batch=4)
    assert len(everything.candidates["gene"]) == len(KNOWLEDGE.genes())


def test_an_unknown_ensemble_is_named():
    with pytest.raises(UnknownNameError, match=r"ensemble 'quik'.*quick"):
        make_plan(ensemble="quik")
    assert make_plan().settings["ensemble"] == "given"


def test_candidates_all_means_unmeasured_rows_else_knowledge():
    screen = half_screen()
    names, origin = list_candidates("all", screen, KNOWLEDGE)
    assert names == [f"G{i:03d}" for i in range(0, 40, 2)]
    assert "nothing measured" in origin
    full = screen.only_measured()
    names, origin = list_candidates("all", full, KNOWLEDGE)
    assert len(names) == 120
    assert "knowledge" in origin
    with pytest.raises(InputError, match="every row of the screen is measured"):
        list_candidates("screen", full, KNOWLEDGE)


def test_aliases_are_the_same_gene():
    screen = half_screen()
    pool = make_pool(["OLD001", "G002", "OLD002", "G002"], "", screen, KNOWLEDGE)
    assert pool.candidates == ("G002",)
    left = {r.gene: r for r in pool.left_out}
    assert left["OLD001"].kind == "measured"
    assert "as G001" in left["OLD001"].why
    assert left["OLD002"].kind == "duplicate"
    assert {r.kind for r in pool.repairs} == {"alias", "duplicate"}


def test_include_exclude_pin():
    made = make_plan(
        candidates=["G000", "G002", "G004", "G006", "G008"],
        include=["G030"],
        exclude=["OLD002"],
        pin=["G038"],
        batch=3,
    )
    assert made.genes[0] == "G038"
    assert made.picks[0].chosen_by == "pin"
    assert "G002" not in made.candidates["gene"]
    assert "G030" in made.candidates["gene"]
    assert {r.gene: r.kind for r in made.left_out}["G002"] == "excluded"
    assert len(made.picks) == 3


def test_all_places_pinned_needs_no_strategy():
    made = make_plan(pin=["G000", "G010"], batch=2)
    assert made.genes == ("G000", "G010")
    assert all(p.chosen_by == "pin" for p in made.picks)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pin": ["G001"]}, "--pin G001: already measured"),
        ({"pin": ["OLD001"]}, "--pin OLD001: already measured in this screen as G001"),
        ({"pin": ["G000"], "exclude": ["OLD000"]}, "--pin G000 and --exclude OLD000 contradict"),
        ({"include": ["NOPE"]}, "--include NOPE: the knowledge folder does not know"),
        ({"exclude": ["G0O2"]}, "--exclude G0O2: not on the candidate list; did you mean G0"),
        ({"pin": ["G000", "OLD000"]}, "are the same gene"),
        (
            {"pin": ["G000", "G002", "G004"], "batch": 2},
            "3 pinned genes do not fit on a panel of 2",
        ),
        ({"batch": 0}, "got batch 0"),
        ({"candidates": ["X1", "X2"]}, "none of the 2 candidates .* is known"),
        ({"candidates": []}, "candidate list is empty"),
        ({"candidates": ["G001", "G003"]}, "no candidate is left .*2 measured"),
        ({"candidates": "no/such/file.txt"}, "no such candidate file"),
        ({"pathway": "HALLMARK_HEM_METABOLISM"}, "did you mean 'HALLMARK_HEME_METABOLISM'"),
        (
            {"features": ["*erythrod*"]},
            "unknown target feature .*did you mean '1-erythroid', '0-ery",
        ),
        ({"context": "K56"}, "unknown context 'K56'; did you mean 'K562'"),
        ({"strategy": "knowlege"}, "did you mean 'knowledge'"),
        ({"strategy_settings": {"k": 0}}, "k >= 1, got 0"),
    ],
)
def test_bad_input_is_named(kwargs, message):
    with pytest.raises(InputError, match=message):
        make_plan(**kwargs)


def test_several_contexts_need_a_choice():
    screen = make_screen(
        np.ones((4, 2)), ["G000", "G001", "G000", "G001"], ["a", "b"], context=["A", "A", "B", "B"]
    )
    with pytest.raises(InputError, match=r"2 contexts \('A', 'B'\): choose one with --context"):
        plan(screen, KNOWLEDGE)


def test_features_without_a_screen():
    with pytest.raises(InputError, match="no screen was given"):
        plan(None, KNOWLEDGE, features=["x"])


def test_unknown_candidates_are_left_out_and_said_or_kept():
    made = make_plan(candidates=["G000", "G002", "XYZ1"], batch=1)
    assert {r.gene: r.kind for r in made.left_out} == {"XYZ1": "unknown"}
    assert any("1 candidates are not known" in w for w in made.warnings)
    kept = make_plan(candidates=["G000", "G002", "X001"], batch=3, keep_unknown=True)
    assert "X001" in kept.genes
    assert any("without any knowledge were kept: X001" in w for w in kept.warnings)


def test_combinations_are_candidates_of_their_own():
    made = make_plan(candidates=["G004+G002", "G002", "OLD004 + G002"], batch=3)
    assert set(made.genes) == {"G002", "G002+G004"}
    assert [r.kind for r in made.left_out] == ["duplicate"]


# -- reading what a person gives ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "# my list\nKLF1\n\nGATA1  # the best\n"),
        ("a.txt", "KLF1,GATA1"),
        ("a.csv", "n,Gene\n1,KLF1\n2,GATA1\n"),
        ("a.tsv", 'symbol\tscore\n"KLF1"\t1\nGATA1\t2\n'),
        ("a.csv", "gene\nKLF1\nGATA1\n"),
    ],
)
def test_gene_lists(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_gene_list(tmp_path / name) == ["KLF1", "GATA1"]


def test_gene_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such gene list"):
        read_gene_list(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no gene"):
        read_gene_list(tmp_path / "empty.txt")
    (tmp_path / "b.txt").write_bytes(b"\x89HDF\r\n\xff\xfe")
    with pytest.raises(InputError, match=r"b\.txt cannot .* a gene list .*it is an HDF5 file"):
        read_gene_list(tmp_path / "b.txt")
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"no gene column: found \['a', 'b'\]"):
        read_gene_list(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("gene,b\nKLF1,2,3\n")
    with pytest.raises(InputError, match="header has 2 columns, a row has 3"):
        read_gene_list(tmp_path / "d.csv")


def test_pathways_in_every_form(tmp_path):
    assert open_pathway(KNOWLEDGE, None) is None
    assert open_pathway(KNOWLEDGE, "none") is None
    assert open_pathway(KNOWLEDGE, HEME).name == "HALLMARK_HEME_METABOLISM"
    assert open_pathway(KNOWLEDGE, "G000, G005").members == ("G000", "G005")
    assert open_pathway(KNOWLEDGE, ["G001"]).members == ("G001",)
    (tmp_path / "list.txt").write_text("G003\nG004\n")
    assert open_pathway(KNOWLEDGE, str(tmp_path / "list.txt")).name == "list"
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("ONE\td\tG000\tG001\nTWO\td\tG002\n")
    assert open_pathway(KNOWLEDGE, f"{gmt}:TWO").members == ("G002",)
    with pytest.raises(InputError, match=r"holds 2 sets \(ONE, TWO\): choose one"):
        open_pathway(KNOWLEDGE, str(gmt))
    with pytest.raises(UnknownNameError, match="did you mean 'TWO'"):
        open_pathway(KNOWLEDGE, f"{gmt}:TW")
    with pytest.raises(InputError, match="none of its genes is known"):
        open_pathway(KNOWLEDGE, "A,B")
    gmt.write_text("ONE d G000\n")
    with pytest.raises(InputError, match="line 1: a gmt line"):
        open_pathway(KNOWLEDGE, str(gmt))


def test_feature_patterns_keep_the_order_of_the_screen():
    screen = half_screen()
    assert match_features(screen, []) is None
    assert match_features(screen, ["2-other", "0-erythroid"]) == ("0-erythroid", "2-other")
    assert match_features(screen, ["*Ery*"]) == ("0-erythroid", "1-erythroid")


# -- amendments --------------------------------------------------------------------------------


def test_amend_replaces_in_place_and_records_who_and_why():
    made = make_plan()
    out = made.genes[2]
    new = next(g for g in made.candidates["gene"] if g not in made.genes)
    changed = amend(made, replace={out: new}, by="Ada", why="no guides")
    assert changed.genes[2] == new
    assert changed.genes[:2] == made.genes[:2]
    assert changed.revision == 2
    last = changed.decisions[-1]
    assert (last.by, last.why, last.added, last.dropped) == ("Ada", "no guides", [new], [out])
    assert [p.gene for p in last.panel_before] == list(made.genes)
    assert changed.picks[2].chosen_by == "Ada"
    assert made.revision == 1, "the old plan is untouched"
    status = dict(zip(changed.candidates["gene"], changed.candidates["status"], strict=True))
    assert status[new] == "picked"
    assert status[out] == "not picked"


def test_amend_back_restores_panel_genes_and_coverage():
    made = make_plan()
    out = made.genes[0]
    new = next(g for g in made.candidates["gene"] if g not in made.genes)
    back = amend(
        amend(made, replace={out: new}, by="A", why="x"), replace={new: out}, by="B", why="y"
    )
    assert back.genes == made.genes
    assert back.coverage == made.coverage
    assert back.picks[0].full_name == made.picks[0].full_name
    assert back.revision == 3


def test_amend_drop_add_and_aliases():
    made = make_plan(candidates=["G000", "G002", "G004", "G006", "G030"], batch=3)
    new = next(g for g in made.candidates["gene"] if g not in made.genes)
    changed = amend(made, drop=[made.genes[0].replace("G", "g")], add=[new], by="A", why="w")
    assert changed.genes == (*made.genes[1:], new)
    assert [p.rank for p in changed.picks] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "nothing to amend"),
        ({"replace": {"NOPE": "G000"}}, "unknown gene on the panel 'NOPE'"),
        ({"add": ["G001"]}, "G001 is measured already"),
        ({"add": ["OLDX"]}, "is on no list of this plan"),
        ({"add": ["ON_PANEL"]}, "is on the panel already"),
        ({"drop": ["ALL"]}, "empty panel"),
        ({"drop": ["ON_PANEL"], "by": " "}, "say who decides"),
        ({"drop": ["ON_PANEL"], "why": ""}, "say why"),
    ],
)
def test_amend_refuses(kwargs, message):
    made = make_plan(batch=2)
    names = {"ON_PANEL": [made.genes[0]], "ALL": list(made.genes)}
    given = {"by": "A", "why": "w"}
    for key, value in kwargs.items():
        given[key] = (
            [n for v in value for n in names.get(v, [v])] if isinstance(value, list) else value
        )
    with pytest.raises(InputError, match=message):
        amend(made, **given)


def test_amend_may_overrule_an_exclusion_and_says_so():
    made = make_plan(exclude=["G002"])
    changed = amend(made, add=["G002"], by="Ada", why="guides came")
    assert "it was left out: excluded by --exclude" in changed.picks[-1].reason


# -- files that are no plan ----------------------------------------------------------------------


def test_plan_files_that_cannot_be_read(tmp_path):
    file = tmp_path / "plan.json"
    with pytest.raises(InputError, match="no such plan file"):
        Plan.load(file)
    file.write_text("{")
    with pytest.raises(InputError, match=r"plan\.json cannot be read as a plan: JSONDecodeError"):
        Plan.load(file)
    file.write_text("[1]")
    with pytest.raises(InputError, match="is not a plan"):
        Plan.load(file)
    made = make_plan()
    made.save_json(file)
    value = json.loads(file.read_text())
    file.write_text(json.dumps(value | {"format": 99}))
    with pytest.raises(InputError, match="plan format 99, newer than this pertwise reads"):
        Plan.load(file)
    value["picks"][1].pop("reason")
    file.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"damaged at picks\.1\.reason"):
        Plan.load(file)


def test_spreadsheet_formulas_are_defused(tmp_path):
    made = make_plan()
    made.picks[0].reason = '=HYPERLINK("http://x")'
    made.save_csv(tmp_path / "plan.csv")
    assert "'=HYPERLINK" in (tmp_path / "plan.csv").read_text()


# -- what survives a kill ------------------------------------------------------------------------


def test_stored_uncertainty_is_bit_equal_and_keyed_by_the_question(tmp_path):
    from pertwise.acquire import Target

    inputs = {"screen": {"sha256": "s"}, "knowledge": {"fingerprint": "k"}}
    names = ["A", "B", "C"]
    u = pd.Series(np.random.default_rng(0).random(3), index=names, name="uncertainty")
    StoredUncertainty(tmp_path, inputs, Target(), names, 0).save(Disagreement(u))
    again = StoredUncertainty(tmp_path, inputs, Target(), names, 0).load()
    pd.testing.assert_series_equal(again.uncertainty, u, check_exact=True, check_index_type=False)
    assert StoredUncertainty(tmp_path, inputs, Target(), names, 1).load() is None
    assert StoredUncertainty(tmp_path, inputs, Target(), names[:2], 0).load() is None
    assert StoredUncertainty(tmp_path, inputs, Target(None, ("f",)), names, 0).load() is None
    other = inputs | {"screen": {"sha256": "t"}}
    assert StoredUncertainty(tmp_path, other, Target(), names, 0).load() is None
    assert StoredUncertainty(None, inputs, Target(), names, 0).load() is None
    # Who needs predictions too is not served by a file without them.
    stored = StoredUncertainty(tmp_path, inputs, Target(), names, 0)
    assert stored.load(2) is None
    mean = np.random.default_rng(1).random((3, 2)).astype(np.float32)
    stored.save(Disagreement(u, mean=mean))
    np.testing.assert_array_equal(stored.load(2).mean, mean)
    assert stored.load().mean is None


# -- facts ---------------------------------------------------------------------------------------


def test_facts_are_columns_and_conditions_say_whom_they_leave_out(tmp_path):
    names = [f"G{i:03d}" for i in range(0, 40, 2)]
    table = pd.DataFrame({"gene": names[:-2], "tpm": np.arange(len(names) - 2) / 2.0,
                          "status": "checked"})  # fmt: skip
    table.to_csv(tmp_path / "facts.csv", index=False)
    made = make_plan(facts=tmp_path / "facts.csv", require="tpm > 2", pin=["G038"])
    assert set(made.genes) - {"G038"} <= set(names[5:-2])
    left = {r.gene: r.why for r in made.left_out if r.kind == "requirement"}
    assert set(left) == {*names[:5], "G036"}
    assert left["G008"] == "tpm 2, and tpm > 2 is asked"
    assert "tpm is not known" in left["G036"]
    assert any("tpm > 2: 1 candidates have no such fact" in w for w in made.warnings)
    assert any("G038 is pinned although tpm > 2 does not hold" in w for w in made.warnings)
    # A fact that is called like a column of the plan keeps its values beside it.
    assert made.candidate_table.loc["G012", ["tpm", "status (facts)"]].tolist() == [3.0, "checked"]
    assert made.table.set_index("gene").loc[made.genes[1], "tpm"] > 2
    assert np.isnan(made.table.set_index("gene").loc["G038", "tpm"])
    assert made.settings["require"] == ["tpm > 2"]
    assert len(made.inputs["facts"]["sha256"]) == 64
    page = render_plan(made)
    assert "<th>tpm</th>" in page
    assert "6 do not meet --require" in page
    made.save_json(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").facts == made.facts


def test_conditions_without_facts_or_without_anyone_are_errors(tmp_path):
    with pytest.raises(InputError, match="--require compares facts, and there are none"):
        make_plan(require="tpm > 1")
    pd.DataFrame({"gene": ["G000"], "tpm": [1.0]}).to_csv(tmp_path / "f.csv", index=False)
    with pytest.raises(InputError, match=r"no candidate is left: none of 20 meets tpm > 5"):
        make_plan(facts=[tmp_path / "f.csv"], require=["tpm > 5"])


def test_a_plan_says_when_a_pool_is_exhausted():
    assert not any("exhausted" in w for w in make_plan(batch=4).warnings)
    all_of_them = make_plan(batch=20)
    assert any("every candidate that is left is on this panel" in w for w in all_of_them.warnings)
    # Whatever is left is as good as any other.
    assert any("hardly matters" in w for w in make_plan(batch=19).warnings)
    handed = make_plan(strategy="variance-reduction", hand_over="random")
    assert handed.settings["hand_over"] == "random"


def test_map_does_not_flip_and_keeps_distances_of_a_plane():
    rng = np.random.default_rng(0)
    flat = np.zeros((30, 5), dtype=np.float32)
    flat[:, :2] = rng.normal(size=(30, 2))
    mapped = plane(flat)
    assert np.allclose(
        np.linalg.norm(mapped[:, None] - mapped[None], axis=2),
        np.linalg.norm(flat[:, None] - flat[None], axis=2),
        atol=1e-5,
    )
    assert np.allclose(plane(flat), mapped)
    assert plane(np.ones((3, 2), dtype=np.float32)).tolist() == [[0, 0]] * 3


def test_measured_names_unknown_to_the_knowledge_are_told_and_never_proposed():
    names = ["G001_sg1", "sgG003_2", "G005", "NOBODY"]
    screen = make_screen(np.ones((4, 2)), names, ["a", "b"])
    pool = make_pool(["G001", "G002", "G003", "G004"], "", screen, KNOWLEDGE)
    assert pool.candidates == ("G002", "G004")
    assert [row.why for row in pool.left_out] == [
        "already measured as G001_sg1",
        "already measured as sgG003_2",
    ]
    (note,) = pool.notes
    assert "G001_sg1, NOBODY, sgG003_2 (3)" in note
    assert "1 of the 4 measured names is known" in note
