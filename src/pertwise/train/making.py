"""`make_tasks`: questions about measured perturbations, as the live selectors ask them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pertwise.errors import InputError, unknown_name
from pertwise.llm.templates import load_prompt
from pertwise.screen.training import one_context
from pertwise.train.context_tasks import Making, Place
from pertwise.train.held_out import NEAR, Held, hold_out
from pertwise.train.tasks import KINDS, Task

__all__ = ["Making", "make_tasks", "training_tasks"]

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

_PROMPTS = {"edit": ("edit",), "pick": ("langpert", "lgr"), "rate": ("rate",)}


def make_tasks(
    screens: Screen | Sequence[Screen],
    knowledge: Knowledge | None,
    kinds: Sequence[str] = ("edit",),
    *,
    split: str = "gene",
    fold: int = 0,
    n_folds: int = 5,
    seed: int = 0,
    folds_from: str | os.PathLike[str] | None = None,
    near: float | None = NEAR,
    how: Making | None = None,
) -> list[Task]:
    """Tasks of some kinds on one or several screens (one a line, say), training ones shuffled.

    Training tasks are about training perturbations and offer only these, each never itself; no
    word of their prompts names what `held_out.hold_out` keeps quiet. Test tasks are about held-out
    perturbations and offer everything that is not held out (split "line": a whole context, each
    perturbation from the others of it).

    Raises
    ------
    pertwise.errors.InputError
        For an unknown kind or split, kinds that the screens cannot have, or a training prompt that
        names what is held out.
    """
    listed = [screens] if not isinstance(screens, Sequence) else list(screens)
    how = how or Making()
    for kind in kinds:
        if kind not in KINDS:
            raise unknown_name("kind of task", kind, KINDS)
    plain = "\n".join(load_prompt(p).text for k in kinds for p in _PROMPTS.get(k, (k,)))
    held = hold_out(
        listed, knowledge, split=split, fold=fold, n_folds=n_folds, seed=seed,
        folds_from=folds_from, near=near, plain=plain,
    )  # fmt: skip
    train: list[Task] = []
    test: list[Task] = []
    for screen in listed:
        digest = screen.digest()
        for context in screen.contexts:
            place = Place(one_context(screen, context, "the screen"), knowledge, held, how, seed)
            for kind in kinds:
                for task in getattr(place, kind)():
                    done = task.model_copy(update={"screen": digest})
                    (train if done.split == "train" else test).append(done)
    for task in train:
        if leaked := held.named(task.messages):
            raise InputError(
                f"the training prompt {task.id!r} names {leaked[0]!r}, which is held out; take it "
                "out of the prompt template or of the facts"
            )
    order = np.random.default_rng([seed, fold]).permutation(len(train))
    return [train[i] for i in order] + test


def training_tasks(
    screen: Screen,
    knowledge: Knowledge | None,
    kind: str = "edit",
    *,
    how: Making | None = None,
    seed: int = 0,
) -> list[Task]:
    """Training tasks about everything that a screen measured, nothing held out of it."""
    held = Held("none", 0, frozenset(), frozenset(), ())
    found: list[Task] = []
    for context in screen.contexts:
        part = one_context(screen, context, "the screen")
        found += getattr(Place(part, knowledge, held, how or Making(), seed), kind)()
    return [t.model_copy(update={"screen": screen.digest()}) for t in found]
