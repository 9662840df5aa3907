"""The prefilter task: is what should be chosen still on a list that was cut before it is shown?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import Field

from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.config import FileName, Settings
from pertwise.evaluate.given import split_given
from pertwise.evaluate.prefilter import PREFILTERS, mean_recall, split_recall
from pertwise.evaluate.splits import Split, split_folds
from pertwise.knowledge import Knowledge
from pertwise.knowledge.genes.species import same_species
from pertwise.knowledge.recorded import read_recorded
from pertwise.provenance import contents, identity, input_facts
from pertwise.screen.read import read_screen
from pertwise.screen.training import one_context

if TYPE_CHECKING:
    from pertwise.screen import Screen


class PrefilterConfig(Settings):
    """Which selectors in words, on which screen, with lists of which lengths."""

    screen: FileName
    knowledge: FileName
    context: str | None = None
    prefilters: tuple[str, ...] = PREFILTERS
    #: None: a tenth, a fifth and half of the training set.
    sizes: tuple[int, ...] | None = None
    #: Recorded answers, whose folds are then used: are the named ones still on the list?
    answers: FileName | None = None
    folds: int = Field(default=5, ge=2)
    seed: int = 0


class PrefilterTask(Task):
    """Recall of every prefilter at every list length, on held-out perturbations.

    Parameters
    ----------
    opened
        Screen of one context and knowledge, when they are open already.
    """

    name, mark, settings_of = "prefilter", "prefilters", PrefilterConfig
    settings: PrefilterConfig

    def __init__(
        self,
        settings: PrefilterConfig,
        opened: tuple[Screen, Knowledge] | None = None,
        *,
        replay: bool = False,
    ) -> None:
        super().__init__(settings, replay=replay)
        if opened is not None:
            self.given, self.opened = True, opened

    @cached_property
    def opened(self) -> tuple[Screen, Knowledge]:
        """Measured rows of one context, and the folder."""
        given = self.settings
        screen = one_context(read_screen(given.screen), given.context, given.screen)
        knowledge = Knowledge.open(given.knowledge)
        same_species("screen", screen.perturbations, knowledge)
        return screen, knowledge

    @cached_property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Screen, knowledge, recorded answers."""
        found = {"screen": input_facts(self.settings.screen)}
        found["knowledge"] = input_facts(self.opened[1])
        if self.settings.answers is not None:
            found["answers"] = input_facts(self.settings.answers)
        return found

    @cached_property
    def splits(self) -> list[Split]:
        """Folds over the measured perturbations, or those of the recorded answers."""
        names, given = list(self.opened[0].obs["perturbation"]), self.settings
        if given.answers is not None:
            return split_given(names, given.answers)
        return split_folds(names, given.folds, 1, given.seed)

    @property
    def sizes(self) -> list[int]:
        """List lengths compared."""
        n = len(self.splits[0].train)
        return list(self.settings.sizes or sorted({max(1, n // k) for k in (10, 5, 2)}))

    def units(self) -> list[Unit]:
        """Folds x prefilters."""
        data = contents(self.inputs)
        return [
            Unit(
                identity(words, split.key(), data, self.sizes),
                {"prefilter": words, "fold": split.fold},
                split,
            )
            for split in self.splits
            for words in self.settings.prefilters
        ]

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """One prefilter on one fold."""
        screen, knowledge = self.opened
        answers = self.settings.answers
        said = None if answers is None else read_recorded(answers)[0]
        table = split_recall(
            unit.labels["prefilter"],
            screen.of_perturbations(unit.what.train),
            screen.of_perturbations(unit.what.test),
            knowledge,
            self.sizes,
            said,
        )
        return {"scores": table.assign(fold=unit.labels["fold"])}

    def gather(self, played: Sequence[Played]) -> Tables:
        """scores (one row per held-out perturbation) and summary (`mean_recall`)."""
        table = pd.concat([p.tables["scores"] for p in played], ignore_index=True)
        return {self.scores: table, self.summary: mean_recall(table)}
