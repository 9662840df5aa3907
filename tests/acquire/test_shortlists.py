"""Who stands in the question to a model, and for whom."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from pertwise.acquire.exhaustion import HandOver, advantage
from pertwise.acquire.hubs import without_hubs
from pertwise.acquire.shortlists import make_shortlist
from pertwise.acquire.strategies.random import Random
from pertwise.acquire.strategies.variance_reduction import VarianceReduction
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import Graph, Pathway, Relation
from pertwise.testing.knowledge import SmallKnowledge
from pertwise.testing.strategies import check_strategy, example_state


def grouped(sizes, **more):
    """A state of groups of the given sizes: copies of one direction each."""
    state = example_state(n_candidates=sum(sizes), n_measured=0, cold=True, pathway=False)
    rows = np.repeat(np.eye(len(sizes), dtype=np.float32), sizes, axis=0)
    return replace(state, embedding=rows, neighbours=csr_matrix((len(rows), len(rows))), **more)


def test_information_lists_a_representative_of_each_group_the_largest_first():
    state = grouped([2, 9, 4, 1])
    short = make_shortlist(state, "information", 1, 4, per_group=1)
    group = np.repeat(np.arange(4), [2, 9, 4, 1])
    assert [group[j] for j in short.listed] == [1, 2, 0, 3]
    assert [len(short.groups[j]) for j in short.listed] == [8, 3, 1, 0]
    assert all(group[m] == group[j] for j, members in short.groups.items() for m in members)
    assert sorted(short.order) == list(range(16))


@pytest.mark.parametrize("by", ["information", "uncertainty", "random"])
def test_no_cluster_crowds_the_list(by):
    sizes = [10, 10, 10]
    warm = example_state(n_candidates=30, n_measured=0, pathway=False)
    state = grouped(sizes, uncertainty=warm.uncertainty)
    listed = make_shortlist(state, by, 1, 6, per_group=2).listed
    assert np.bincount(np.array(listed) // 10, minlength=3).tolist() == [2, 2, 2]
    # Room for more than the cap allows is filled all the same.
    assert len(make_shortlist(state, by, 1, 20, per_group=2).listed) == 20


def test_nearest_measured_are_named_with_their_similarity():
    state = example_state(n_candidates=20, n_measured=4, pathway=False)
    rows = np.zeros((24, 5), dtype=np.float32)
    rows[:20, 4] = 1.0
    rows[0] = [0.6, 0.0, 0.0, 0.0, 0.8]
    rows[20:, :4] = np.eye(4)
    state = replace(state, embedding=rows, neighbours=csr_matrix((24, 24)))
    short = make_shortlist(state, "all", 3)
    assert short.nearest[0] == [(0, pytest.approx(0.6))]
    assert short.nearest[1] == []
    assert short.size == 20


def test_everyone_is_everyone_and_an_unknown_list_is_named():
    state = example_state(n_candidates=12)
    assert make_shortlist(state, "all", 3, 5).listed == list(range(12))
    with pytest.raises(UnknownNameError, match="uncertainty"):
        make_shortlist(state, "uncertanty", 3)


def test_what_a_list_lacks_is_replaced_and_told():
    state = replace(example_state(), embedding=None)
    assert "no features" in make_shortlist(state, "information", 3, 9).by
    assert make_shortlist(example_state(cold=True), "uncertainty", 3, 9).by == "cold start"


# -- relations ------------------------------------------------------------------------------------


class Star(SmallKnowledge):
    """G000 to G004 are the pathway; G050 is linked to half of all genes, G060 to two members."""

    def graph(self, name, exclude_from_screen=True):
        links = [(50, j) for j in range(0, 120, 2) if j != 50]
        links += [(60, 0), (60, 1), (61, 0)]
        links += [(61, j) for j in range(70, 90)]
        rows, columns = zip(*[*links, *[(b, a) for a, b in links]], strict=True)
        weights = np.ones(len(rows), dtype=np.float32)
        return Graph(name, self.genes_, csr_matrix((weights, (rows, columns)), shape=(120, 120)))


def test_links_that_chance_gives_make_no_module():
    pathway = Pathway("P", tuple(f"G{i:03d}" for i in range(5)))

    def partner(name, touched):
        return Relation(name, "interacting_partner", f"STRING {name}-G000", 0.9, "m", touched)

    given = {
        "G000": Relation("G000", "direct_member", "member of P", 1.0, "m", 1),
        "G050": partner("G050", 3),
        "G060": partner("G060", 2),
        "G061": partner("G061", 1),
        "G099": Relation("G099", "unknown"),
    }
    found = without_hubs(given, Star(), pathway)
    assert {n for n, r in found.items() if r.module} == {"G000", "G060"}
    assert found["G050"].kind == "interacting_partner"
    assert found["G061"].evidence == "STRING G061-G000; 1 of its 21 links, no more than chance"
    assert found["G060"] == given["G060"]
    assert without_hubs(given, None, pathway) == given
    assert without_hubs(given, Star(), None) == given


# -- what is left to gain -------------------------------------------------------------------------


def test_choosing_among_copies_gains_nothing():
    assert advantage(grouped([8]), 2) == pytest.approx(1.0)
    assert advantage(grouped([8]), 8) == 1.0
    assert advantage(replace(grouped([8]), embedding=None), 2) is None
    # One group of twelve among twelve loners: a random pick is in it half the time.
    assert advantage(grouped([12, *[1] * 12]), 1) > 1.5
    # Half of two equal groups is measured: only the other one teaches.
    state = grouped([6, 6])
    measured = tuple(f"M{i}" for i in range(6))
    rows = np.concatenate([state.embedding, np.repeat(state.embedding[:1], 6, axis=0)])
    later = replace(state, measured=measured, embedding=rows, neighbours=csr_matrix((18, 18)))
    assert advantage(later, 1) > advantage(state, 1) == pytest.approx(1.0)


def test_a_strategy_hands_over_when_nothing_is_left():
    check_strategy(lambda: HandOver(VarianceReduction(), "random", 1.3))
    state = example_state()
    ratio = advantage(state, 5)
    keeps = HandOver(VarianceReduction(), "random", ratio * 0.99).choose(state, 5)
    assert keeps.items == VarianceReduction().choose(state, 5).items
    gives = HandOver(VarianceReduction(), "random", ratio * 1.01).choose(example_state(), 5)
    assert gives.items == Random().choose(example_state(), 5).items
    assert gives.picks[0].reason.startswith("handed over to random: ")
    assert gives.provenance["handed_over_to"] == "random"


@pytest.mark.parametrize(("to", "at"), [("bald", 1.2), ("random", 0.9), ("random", float("nan"))])
def test_handing_over_is_checked(to, at):
    with pytest.raises(InputError, match="hand over"):
        HandOver(VarianceReduction(), to, at)


def test_a_module_of_a_hub_is_nobodys_word():
    """Only what a model said is told as its word; a module behind chance links is told as that."""
    from pertwise.acquire.assemble import _module
    from pertwise.knowledge.types import Relation
    from pertwise.select.base import Pick

    stored = Relation("HUB", "interacting_partner", "linked to HBA", 0.9, "globins", 1)
    shown = replace(stored, module="")

    def pick(module):
        return Pick(item="HUB", reason="r", extra={"module": module})

    assert _module(stored, stored, pick("globins")) == "globins"
    assert _module(shown, stored, pick("globins")) == "globins (links by chance)"
    assert _module(shown, stored, pick("iron")) == "iron (says the model)"
    assert _module(shown, stored, pick("")) == ""
    assert _module(None, None, None) == ""
