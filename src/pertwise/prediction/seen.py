"""What of a question was seen elsewhere: in other screens, in other contexts; how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError
from pertwise.evaluate.splits import SETTINGS, things
from pertwise.kernels.transfer import measured_in, of_line
from pertwise.prediction.standing import REGIME_SETTING, Standing, cross_validate

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models.methods import Method
    from pertwise.screen import Screen

#: Said wherever several lines are learned from.
LIBRARIES = (
    "lines that were screened with one guide library share its failures: a guide that does not "
    "work is without effect in every line, which looks like agreement"
)


@dataclass(frozen=True)
class Seen:
    """What other screens, or other contexts of the same one, measured.

    Attributes
    ----------
    settings
        Asked perturbation -> what is unseen about it (`splits.SETTINGS`).
    elsewhere
        Measured perturbations of the screen that the other screens hold too; none if one of them is
        of the same line.
    overlap
        Other screen -> how many of the asked and of the learned ones it measured.
    notes
        The same in words.
    """

    settings: Mapping[str, str]
    elsewhere: frozenset[str]
    overlap: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...]


def seen_elsewhere(
    method: Method, asked: Sequence[str], train: Screen, here: str, knowledge: Knowledge | None
) -> Seen:
    """Look up the asked perturbations and the measured ones in other screens and contexts."""
    same = things([*asked, *train.perturbations], knowledge)
    contexts = {same[n] for n in train.perturbations}
    there = measured_in(method.other, asked, knowledge)
    learned = measured_in(method.other, train.perturbations, knowledge)
    settings = {}
    for name in asked:
        known = same[name] in contexts or any(name in names for names in there.values())
        words = ("elsewhere", "anywhere") if here in train.contexts else ("line", "both")
        settings[name] = SETTINGS[words[0] if known else words[1]]
    overlap = {
        label: {"asked": len(there[label]), "learned": len(learned[label])} for label in there
    }
    notes = [
        f"other screen {label}: measured {n['asked']} of the {len(asked)} asked perturbations and "
        f"{n['learned']} of the {len(train.perturbations)} that are learned from"
        for label, n in overlap.items()
    ]
    notes += [
        f"other screen {label} is of {here} itself: what it measured of a perturbation is a "
        "measurement in this line"
        for label in overlap
        if of_line(label, here)
    ]
    if overlap or len(train.contexts) > 1:
        for word in dict.fromkeys(settings.values()):
            own = [n for n in asked if settings[n] == word]
            more = f" and {len(own) - 5} more" if len(own) > 5 else ""
            notes.append(f"{word}: {', '.join(own[:5])}{more}")
    notes += [LIBRARIES] if overlap else []
    # A screen of the line itself would show the answers of a cross-validation.
    own_line = any(of_line(label, here) for label in learned)
    elsewhere = frozenset[str]().union(*(() if own_line else learned.values()))
    return Seen(settings, elsewhere, overlap, tuple(notes))


def standings(
    method: Method,
    train: Screen,
    knowledge: Knowledge | None,
    seen: Seen,
    *,
    n_folds: int,
    seed: int,
    regime: str,
    context: str,
) -> tuple[list[Standing], list[str]]:
    """A cross-validation for each setting that the asked perturbations are in, and notes.

    The first one is of `regime` (several contexts) or of the setting that most of the asked
    perturbations are in.

    Raises
    ------
    pertwise.errors.InputError
        As `cross_validate`, for the first one.
    """
    wanted = list(dict.fromkeys(seen.settings.values()))
    wanted.sort(key=lambda word: -list(seen.settings.values()).count(word))
    found, notes = list[Standing](), list[str]()

    def add(**given: Any) -> None:
        try:
            made = cross_validate(
                method, train, knowledge, n_folds=n_folds, seed=seed, context=context, **given
            )
        except InputError as error:
            if not found and len(wanted) == 1:
                raise
            notes.append(f"cross-validation skipped: {error}")
            return
        if made.setting not in [s.setting for s in found]:
            found.append(made)

    if regime:
        named = {SETTINGS[setting]: kind for kind, setting in REGIME_SETTING.items()}
        kinds = [regime, *(named[w] for w in wanted if w in named)]
        wanted = [regime] if len(set(kinds)) == 1 else kinds
        for kind in dict.fromkeys(kinds):
            add(regime=kind)
    else:
        for word in wanted:
            add(elsewhere=seen.elsewhere if word == SETTINGS["elsewhere"] else None)
    return found, notes
