"""The picker that needs no language model: information, uncertainty, relation, coverage."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    best_first,
    check_n,
    order_utilities,
    selection,
    tie_order,
    uncertainty_ranks,
)
from pertwise.acquire.strategies.adaptive import expected_square, marked_strength
from pertwise.acquire.strategies.variance_reduction import Information
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.types import Relation
from pertwise.parts import part
from pertwise.select.base import Selection

#: A measured neighbour informs; a second pick of the same complex in one batch mostly repeats.
MEASURED_DISCOUNT = 0.5
#: Measured items whose similarities are computed at once; 20,000 candidates then take 40 MB.
BLOCK = 256
#: How much each relation to the target pathway counts, in [0, 1].
RELATION_SCORE = {
    "direct_member": 1.0,
    "upstream_regulator": 0.8,
    "downstream_target": 0.5,
    "interacting_partner": 0.4,
    "unknown": 0.0,
}
RELATION_WORDS = {
    "direct_member": "member of the pathway",
    "upstream_regulator": "regulates the pathway",
    "downstream_target": "is regulated by the pathway",
    "interacting_partner": "interacts with the pathway",
    "unknown": "no known relation to the pathway",
}


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of `greedy_panel`.

    `redundancy` in [0, 1] is the share that a perfect copy loses.

    What a measurement tells about all the others counts most: replays of finished screens (see
    docs/results/acquisition.md) lost to random without it. Relation and coverage are kept at
    weights that cost little there, because a panel for a pathway should be about the pathway.
    """

    uncertainty: float = 0.5
    relation: float = 0.5
    module: float = 0.5
    redundancy: float = 1.0
    information: float = 4.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise InputError(f"weight {name!r} must be >= 0, got {value}")
        if self.redundancy > 1:
            raise InputError(f"weight 'redundancy' must be <= 1, got {self.redundancy}")


@dataclass(frozen=True)
class PanelSteps:
    """What `greedy_panel` did.

    Attributes
    ----------
    order
        Picks, best first.
    gain
        (n_candidates,) when chosen, or after the last pick.
    terms
        (n_candidates, 5) behind `gain`: weighted uncertainty, relation and module, the
        redundancy D, and weighted information.
    nearest
        (n_candidates,) position of the most similar acquired or chosen item (candidates first,
        then acquired), -1 when none.
    informed
        Pick -> positions *in the population of `information`* that it tells most about.
    """

    order: list[int]
    gain: Floats
    terms: Floats
    nearest: NDArray[np.int64]
    informed: dict[int, NDArray[np.int64]] = field(default_factory=dict)


def greedy_panel(
    uncertainty: Floats | None,
    relation: Floats,
    module: NDArray[np.int64],
    module_measured: Floats,
    module_pinned: Floats,
    embedding: NDArray[Any] | None,
    neighbours: csr_matrix | None,
    others: Floats,
    n: int,
    weights: Weights,
    ties: NDArray[np.int64],
    information: Information | None = None,
    members: NDArray[np.int64] | None = None,
) -> PanelSteps:
    """Greedy choice, one candidate at a time, of the largest

        g(p | B) = (wu * U(p) + wr * R(p) + wm * M(p | B)) * (1 - wd * D(p | B)) + wi * I(p | B)

    - U: rank of u(p) scaled to [0, 1], 1 = most uncertain (0 for all at a cold start);
    - R: score of the relation to the pathway (`RELATION_SCORE`);
    - M: 1 / (1 + picks of B in the module of p + fraction of that module already measured);
      0 without a module;
    - D: largest of `others` x similarity over measured items and of similarity over B.
      Similarity = max(cosine of embeddings, weight of the graph edge), so members of one complex
      count as alike even where their texts differ. It multiplies, because a copy of what is there
      teaches little however uncertain or relevant it is;
    - I: expected error reduction over the whole population (`Information.gains`), as a share of
      the largest one before the first pick; 0 without `information`. It knows about copies itself.

    Parameters
    ----------
    uncertainty, relation, module
        (n_candidates,); module -1 = none.
    module_measured
        (n_modules,) fraction of the members of each module that is measured.
    module_pinned
        (n_modules,) picks already made in each module (they count as B).
    embedding, neighbours
        (n_candidates + n_measured, k) unit rows, and a square matrix of the same length with
        weights in [0, 1]; either may be None.
    others
        (n_measured,) weight of the similarity to each measured item: `MEASURED_DISCOUNT`, or 1
        for one that is pinned to this very panel.
    information, members
        Tracker over a population (used up), and the position of each candidate in it.
    """
    total = len(relation)
    base = np.zeros((total, 5))
    if uncertainty is not None and total > 1:
        rank = np.empty(total)
        rank[best_first(np.asarray(uncertainty, dtype=np.float64), ties)] = np.arange(total)
        base[:, 0] = weights.uncertainty * (1.0 - rank / (total - 1))
    base[:, 1] = weights.relation * relation
    in_module = module >= 0
    nearest = np.full(total, -1, dtype=np.int64)
    similar = np.zeros(total)
    # Products for many measured items at once: one by one, each reads all features again.
    for start in range(0, len(others), BLOCK):
        block = np.arange(total + start, total + min(start + BLOCK, len(others)))
        for q, row in zip(block, _similarities(block, total, embedding, neighbours), strict=True):
            row *= others[q - total]
            closer = row > similar
            similar[closer] = row[closer]
            nearest[closer] = q
    chosen_in = np.array(module_pinned, dtype=np.float64)
    allowed = np.ones(total, dtype=bool)
    terms = base.copy()
    order: list[int] = []
    informed: dict[int, NDArray[np.int64]] = {}
    place = np.arange(total) if members is None else members
    scale = 1.0
    if information is not None:
        scale = max(float(information.gains()[place].max()), np.finfo(float).tiny)
    for step in range(min(n, total) + 1):
        # Chosen candidates keep the terms they were chosen with.
        fresh = allowed & in_module
        terms[fresh, 2] = weights.module / (
            1.0 + chosen_in[module[fresh]] + module_measured[module[fresh]]
        )
        terms[allowed, 3] = similar[allowed]
        if information is not None:
            share = information.gains()[place] / scale
            terms[allowed, 4] = weights.information * share[allowed]
        gain = terms[:, :3].sum(axis=1) * (1.0 - weights.redundancy * terms[:, 3]) + terms[:, 4]
        if step == min(n, total):
            break
        j = arg_best(gain, ties, allowed)
        order.append(j)
        allowed[j] = False
        if in_module[j]:
            chosen_in[module[j]] += 1
        if information is not None:
            informed[j] = information.informed_by(int(place[j]))
            information.observe(int(place[j]))
        row = _similarities(np.array([j]), total, embedding, neighbours)[0]
        closer = allowed & (row > similar)
        similar[closer] = row[closer]
        nearest[closer] = j
    return PanelSteps(order, gain, terms, nearest, informed)


def _similarities(
    items: NDArray[np.int64],
    total: int,
    embedding: NDArray[Any] | None,
    neighbours: csr_matrix | None,
) -> Floats:
    """(n_items, n_candidates) similarity in [0, 1] to each of `items`; 0 to itself."""
    out = np.zeros((len(items), total))
    if embedding is not None:
        np.maximum(out, embedding[items] @ embedding[:total].T, out=out)
    if neighbours is not None:
        edges = csr_matrix(neighbours[items][:, :total]).tocoo()
        out[edges.row, edges.col] = np.maximum(out[edges.row, edges.col], edges.data)
    own = items < total
    out[own, items[own]] = 0.0
    return out


def relations_of(state: AcquisitionState) -> dict[str, Relation]:
    """Relation of every candidate and measured item to the target pathway; {} without one."""
    if state.target.pathway is None:
        return {}
    if state.relations is not None:
        return dict(state.relations)
    if state.knowledge is None:
        return {}
    return state.knowledge.relations([*state.candidates, *state.measured], state.target.pathway)


def module_counts(
    state: AcquisitionState, relations: dict[str, Relation]
) -> dict[str, tuple[float, int]]:
    """Module -> (share of its members that is measured, number of pinned genes that touch it)."""
    pathway = state.target.pathway
    if pathway is None:
        return {}
    measured = dict.fromkeys(pathway.modules, 0)
    pinned = dict.fromkeys(pathway.modules, 0)
    for name in state.measured:
        relation = relations.get(name)
        if relation is None or relation.module not in pathway.modules:
            continue
        if name in state.pinned:
            pinned[relation.module] += 1
        elif relation.kind == "direct_member":
            measured[relation.module] += 1
    return {
        m: (measured[m] / max(1, len(genes)), pinned[m]) for m, genes in pathway.modules.items()
    }


@part(needs="uncertainty", shortlists=True)
class KnowledgePicker:
    """A greedy panel by information, uncertainty, relation, module coverage and redundancy.

    Needs no language model and no random number: the offline default. Cold start: the uncertainty
    term is off. Utility = 1 - position / n_candidates in the order picks, rest of the shortlist by
    gain, other candidates by uncertainty.

    Parameters
    ----------
    k
        Length of the shortlist when `shortlist` is "uncertainty".
    use_uncertainty
        False ignores u(p): the ablation.
    shortlist
        "all" lets every candidate compete. "uncertainty" first cuts the list to the `k` most
        uncertain ones, the two-stage scheme that a chat selector needs because its prompt is
        finite. A greedy kernel has no such limit, and the cut costs: outliers are the most
        uncertain and tell least about the rest.
    noise
        See `Information`.
    adaptive
        Candidates count in `Information` as much as they are expected to respond in the target
        (`adaptive.expected_square`: from what is measured, and marks of strength).
    """

    name = "knowledge"

    def __init__(
        self,
        k: int = 200,
        weights: Weights | None = None,
        use_uncertainty: bool = True,
        shortlist: Literal["uncertainty", "all"] = "all",
        noise: float = 0.5,
        adaptive: bool = False,
    ) -> None:
        if k < 1:
            raise InputError(f"the shortlist needs k >= 1, got {k}")
        if shortlist not in ("uncertainty", "all"):
            raise unknown_name("shortlist", shortlist, ("uncertainty", "all"))
        self.k = k
        self.weights = weights or Weights()
        self.use_uncertainty = use_uncertainty
        self.shortlist = shortlist
        self.noise = noise
        self.adaptive = adaptive

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Greedy panel over the shortlist, each pick with the terms that decided."""
        check_n(n)
        total = len(state.candidates)
        ties = tie_order(state.candidates)
        u = None
        if state.uncertainty is not None and self.use_uncertainty:
            u = state.uncertainty.to_numpy(dtype=np.float64)
        listed = np.arange(total)
        outside = np.array([], dtype=np.int64)
        if u is not None and self.shortlist == "uncertainty":
            by_u = best_first(u, ties)
            listed, outside = np.sort(by_u[: max(self.k, n)]), by_u[max(self.k, n) :]
        relations = relations_of(state)
        counts = module_counts(state, relations)
        modules = list(counts)
        kinds: list[str] = []
        module = np.full(len(listed), -1, dtype=np.int64)
        for i, j in enumerate(listed):
            relation = relations.get(state.candidates[j])
            kinds.append(relation.kind if relation else "unknown")
            if relation and relation.module in counts:
                module[i] = modules.index(relation.module)
        rows = np.concatenate([listed, np.arange(total, total + len(state.measured))])
        neighbours = neighbour_matrix(state)
        information = self._information(state, relations)
        steps = greedy_panel(
            None if u is None else u[listed],
            np.array([RELATION_SCORE[k] for k in kinds]),
            module,
            np.array([counts[m][0] for m in modules], dtype=np.float64),
            np.array([counts[m][1] for m in modules], dtype=np.float64),
            None if state.embedding is None else state.embedding[rows],
            None if neighbours is None else neighbours[rows][:, rows],
            np.array([1.0 if m in state.pinned else MEASURED_DISCOUNT for m in state.measured]),
            n,
            self.weights,
            ties[listed],
            information,
            listed,
        )
        picked = set(steps.order)
        rest = [int(i) for i in best_first(steps.gain, ties[listed]) if int(i) not in picked]
        order = [*listed[steps.order], *listed[rest], *outside]
        return selection(
            state,
            order[: len(steps.order)],
            order_utilities(order, total),
            self._reasons(state, steps, listed, kinds, relations),
            self.name,
            extra={
                int(listed[i]): {
                    "module": modules[module[i]] if module[i] >= 0 else "",
                    "relation": kinds[i] if relations else "",
                    "gain": round(float(steps.gain[i]), 4),
                }
                for i in steps.order
            },
            evidence={
                int(listed[i]): (relations[state.candidates[listed[i]]].evidence,)
                for i in steps.order
                if state.candidates[listed[i]] in relations
                and relations[state.candidates[listed[i]]].evidence
            },
            provenance={
                "strategy": self.name,
                "k": self.k,
                "weights": asdict(self.weights),
                **({"adaptive": True} if self.adaptive else {}),
                "relation_scores": RELATION_SCORE,
                "cold_start": u is None,
                "shortlist": [state.candidates[j] for j in listed] if u is not None else "all",
            },
        )

    def _sum(self, steps: PanelSteps, i: int) -> str:
        """The gain as the sum it is, so that a reader can see which term decided."""
        u, r, m, d, told = (float(v) for v in steps.terms[i])
        named = [(u, "uncertainty"), (r, "relation"), (m, "module")]
        inside = " + ".join(f"{v:.2f} {word}" for v, word in named if v > 0) or "0"
        new = 1.0 - self.weights.redundancy * d
        end = f" + {told:.2f} information" if told > 0 else ""
        return f"Score {steps.gain[i]:.2f} = ({inside}) × {new:.2f} new{end}"

    def _information(
        self, state: AcquisitionState, relations: dict[str, Relation]
    ) -> Information | None:
        """Tracker over all candidates, each weighing 1 + its relation score to the target.

        Predicting well near the target matters more, and candidates elsewhere still count once.
        """
        if state.embedding is None or self.weights.information == 0:
            return None
        kinds = [relations[c].kind if c in relations else "unknown" for c in state.candidates]
        weights = 1.0 + np.array([RELATION_SCORE[k] for k in kinds])
        total = len(state.candidates)
        if self.adaptive:
            tables = () if state.knowledge is None else state.knowledge.ratings
            rows = np.asarray(state.embedding, dtype=np.float64)
            weights *= expected_square(state, rows, marked_strength(state, tables))[:total]
        return Information(state.embedding[:total], state.embedding[total:], self.noise, weights)

    def _reasons(
        self,
        state: AcquisitionState,
        steps: PanelSteps,
        listed: NDArray[np.int64],
        kinds: list[str],
        relations: dict[str, Relation],
    ) -> dict[int, str]:
        """What decided, in words, and the gain as a sum."""
        names = (*state.candidates, *state.measured)
        rows = [*listed, *range(len(state.candidates), len(names))]
        ranks = uncertainty_ranks(state) if self.use_uncertainty else {}
        in_module: dict[str, int] = {}
        reasons = {}
        for i in steps.order:
            name = state.candidates[listed[i]]
            parts = []
            if relations:
                text = RELATION_WORDS[kinds[i]]
                module = relations[name].module if name in relations else ""
                if module and steps.terms[i, 2] > 0:
                    in_module[module] = in_module.get(module, 0) + 1
                    text += f" (pick {in_module[module]} for its module)"
                parts.append(text)
            if ranks:
                parts.append(f"uncertainty rank {ranks[name]} of {len(ranks)}")
            told = steps.informed.get(i)
            if told is not None and len(told):
                genes = ", ".join(state.candidates[int(t)] for t in told)
                parts.append(f"tells most about {genes}")
            near = int(steps.nearest[i])
            if near >= 0 and steps.terms[i, 3] > 0:
                other = names[rows[near]]
                old = other in state.measured and other not in state.pinned
                where = "measured" if old else "also on this panel"
                alike = float(steps.terms[i, 3])
                if old:
                    alike /= MEASURED_DISCOUNT  # show the similarity itself
                parts.append(f"most alike: {other} ({where}, similarity {alike:.2f})")
            else:
                parts.append("unlike everything acquired or chosen")
            text = "; ".join(parts)
            reasons[int(listed[i])] = f"{text[0].upper()}{text[1:]}. {self._sum(steps, i)}"
        return reasons


def neighbour_matrix(state: AcquisitionState) -> csr_matrix | None:
    """Graph weights between candidates and measured, rows in that order; None without a graph."""
    if state.neighbours is not None or state.knowledge is None:
        return state.neighbours
    from pertwise.acquire.state import neighbour_weights

    return neighbour_weights(state.knowledge, [*state.candidates, *state.measured])
