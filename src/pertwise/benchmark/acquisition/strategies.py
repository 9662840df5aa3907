"""Strategies as a replay runs them: built-in ones, and hybrids that take one ingredient away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.acquire.exhaustion import EXHAUSTED, HandOver
from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.errors import InputError
from pertwise.knowledge import GeneCard, Knowledge
from pertwise.select.base import Selection


class WithoutUncertainty:
    """Any strategy with the model's uncertainty hidden: its share of the gain can be read off."""

    def __init__(self, inner: Strategy, name: str) -> None:
        self.inner, self.name = inner, name

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Choose as if no model had been fitted."""
        blind = replace(state, uncertainty=None, member_predictions=None, prediction=None)
        return self.inner.choose(blind, n)


class RandomShortlist:
    """Any strategy on `k` random candidates instead of the `k` most uncertain ones."""

    def __init__(self, inner: Strategy, name: str, k: int) -> None:
        self.inner, self.name, self.k = inner, name, k

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Draw max(k, n) candidates with the state's generator, then choose among them."""
        total = len(state.candidates)
        size = min(max(self.k, n), total)
        kept = np.sort(state.rng.choice(total, size=size, replace=False))
        rows = np.concatenate([kept, np.arange(total, total + len(state.measured))])
        small = replace(
            state,
            candidates=tuple(state.candidates[i] for i in kept),
            uncertainty=None if state.uncertainty is None else state.uncertainty.iloc[kept],
            member_predictions=None
            if state.member_predictions is None
            else state.member_predictions[:, kept],
            prediction=None if state.prediction is None else state.prediction[kept],
            embedding=None if state.embedding is None else state.embedding[rows],
            neighbours=None if state.neighbours is None else state.neighbours[rows][:, rows],
        )
        found = self.inner.choose(small, n)
        # Those not drawn were never considered: they rank below every one that was.
        utilities = pd.Series(-np.inf, index=list(state.candidates), name="utility")
        if found.utilities is not None:
            utilities.loc[list(small.candidates)] = found.utilities.to_numpy()
        return replace(found, utilities=utilities)


class _SwappedCards:
    """A knowledge folder that hands out the card of another gene; everything else is as it was."""

    def __init__(self, knowledge: Knowledge, swap: Mapping[str, str]) -> None:
        self._knowledge, self._swap = knowledge, swap

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        """Cards of the genes that `genes` were swapped with, under the names asked for."""
        others = [self._swap.get(g, g) for g in genes]
        found = self._knowledge.cards(others)
        return {g: found[o] for g, o in zip(genes, others, strict=True)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._knowledge, name)


class ShuffledAnnotations:
    """Any strategy with annotations dealt to the wrong genes: a control for memorisation.

    Names stay; cards (GO, summary) and relations of the candidates are permuted among them, the
    same way in every round of a seed. A picker that reads annotations should lose its advantage; a
    picker that remembers gene names should not notice.
    """

    def __init__(self, inner: Strategy, name: str, seed: int = 0) -> None:
        self.inner, self.name, self.seed = inner, name, seed

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Choose by annotations that belong to other genes."""
        everyone = sorted([*state.candidates, *state.measured])
        order = np.random.default_rng(self.seed).permutation(len(everyone))
        swap = {a: everyone[i] for a, i in zip(everyone, order, strict=True)}
        relations = state.relations
        if relations is not None:
            relations = {g: relations[swap[g]] for g in everyone if swap[g] in relations}
        knowledge: Any = state.knowledge
        if knowledge is not None:
            knowledge = _SwappedCards(knowledge, swap)
        return self.inner.choose(replace(state, relations=relations, knowledge=knowledge), n)


def open_replay_strategy(
    label: str,
    settings: Mapping[str, Any],
    config: AcquisitionConfig,
    folder: Path | None,
    *,
    seed: int = 0,
    replay: bool = False,
) -> Strategy:
    """The strategy of one label.

    Settings of its own: ``use`` (the strategy, default the label); ``hide_uncertainty``;
    ``random_shortlist`` (true = the protocol's size, or a number); ``shuffle_annotations``;
    ``hand_over`` (a strategy, for when there is nothing to choose) with ``hand_over_at``
    (see `exhaustion.HandOver`). For
    ``llm``: ``model`` (an address of `open_chat`), ``chat`` (table of chat settings), ``show``
    (table of `Show` switches: stripped or single annotations, anonymised symbols) and
    ``order_seed`` (another order of candidates in the prompt). Everything else goes to the
    strategy's constructor. A chat strategy keeps its ledger in the run folder.

    Raises
    ------
    pertwise.errors.InputError
        A chat strategy without a model, or settings that the strategy does not take.
    """
    values = dict(settings)
    use = str(values.pop("use", label))
    hide = bool(values.pop("hide_uncertainty", False))
    shortlist = values.pop("random_shortlist", False)
    shuffle = bool(values.pop("shuffle_annotations", False))
    other, ratio = values.pop("hand_over", None), values.pop("hand_over_at", EXHAUSTED)
    part = parts.describe("strategy", use)
    asked = "shortlist" in config.protocol.model_fields_set
    # A strategy that asks a model has a length of its own for each shortlist.
    if part.facts.more.get("shortlists") and (asked or "chat" not in part.facts.needs):
        values.setdefault("k", config.protocol.shortlist)
    if "chat" in part.facts.needs:
        values = _chat_settings(label, values, folder, seed, replay)
    strategy: Strategy = part.load(**values)
    if shuffle:
        strategy = ShuffledAnnotations(strategy, label, seed)
    if hide:
        strategy = WithoutUncertainty(strategy, label)
    if shortlist:
        k = config.protocol.shortlist if shortlist is True else int(shortlist)
        strategy = RandomShortlist(strategy, label, k)
    if other:
        strategy = HandOver(strategy, str(other), float(ratio))
    return strategy


def _chat_settings(
    label: str, values: dict[str, Any], folder: Path | None, seed: int, replay: bool
) -> dict[str, Any]:
    from pertwise.llm import open_chat
    from pertwise.select.chat.acquire import Show

    out = dict(values)
    model = out.pop("model", None)
    if not model:
        raise InputError(f"strategy {label!r} asks a language model: set model = 'MODEL@URL'")
    # One account for all units, whichever worker plays them.
    chat = {"run": label, **out.pop("chat", {})}
    show = out.pop("show", None)
    if show is not None:
        try:
            out["show"] = Show(**show)
        except TypeError as error:
            raise InputError(f"strategy {label!r}, show: {error}") from None
    # One order of candidates a seed; another order_seed shows how stable the answer is.
    out["seed"] = 1000 * seed + int(out.pop("order_seed", 0))
    ledger = None if folder is None else folder / "ledger.sqlite"
    out["chat"] = open_chat(str(model), ledger=ledger, replay=replay, **chat)
    return out
