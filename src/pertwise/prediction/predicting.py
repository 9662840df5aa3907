"""Predict unmeasured perturbations of a screen, say how good that is, and keep the record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pertwise import parts
from pertwise._names import canonical_perturbation
from pertwise._shown import Shown
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate.prefilter import N_NEAREST, check_prefilter
from pertwise.evaluate.specs import ORACLE
from pertwise.evaluate.splits import INNER
from pertwise.knowledge.genes.species import same_species
from pertwise.models.base import MEAN_FALLBACK, predict_in
from pertwise.models.methods import (
    Method,
    asks_chat,
    check_reads,
    file_checksums,
    make_method,
)
from pertwise.models.neighbours import list_cuts
from pertwise.models.per_context import has_contexts, learns_contexts, local_screen
from pertwise.prediction.asked import context_of, hidden_rows, read_asked, unknown_genes
from pertwise.prediction.explaining import Explanation, explain
from pertwise.prediction.recorded_notes import recorded_notes
from pertwise.prediction.seen import seen_elsewhere, standings
from pertwise.prediction.standing import BuiltMethod, Standing
from pertwise.provenance import checksum, input_facts, versions
from pertwise.screen.core import Screen
from pertwise.select.base import Repair
from pertwise.select.chat.recipes import PREFILTER

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.models import Prediction

#: The strongest method that needs no language model and no second screen.
DEFAULT_METHOD = "multi-kernel"
#: Explained without being asked for.
EXPLAINED = 5


@dataclass(frozen=True, repr=False)
class Predicted(Shown):
    """Everything one run of `predict` found.

    Attributes
    ----------
    prediction
        One row per asked perturbation, in the order asked.
    standing
        Cross-validation on the measured perturbations, or None when skipped.
    further
        Cross-validations of the other settings (`splits.SETTINGS`) that were asked for.
    measured
        Rows of asked perturbations that were measured and hidden for the prediction.
    notes
        What a reader must know: measured genes, fallbacks, unknown names, skipped checks.
    repairs
        (perturbation, repair) of a chat selector.
    record
        JSON-able provenance.
    """

    prediction: Prediction
    method: str
    context: str
    unit: str
    n_train: int
    standing: Standing | None
    explanations: tuple[Explanation, ...]
    measured: Screen | None
    notes: tuple[str, ...]
    repairs: tuple[tuple[str, Repair], ...]
    simulated: bool
    record: dict[str, Any]
    further: tuple[Standing, ...] = ()
    #: Label of the screen's control, and the (n_features,) mean of its controls where known.
    control: str = ""
    control_mean: NDArray[np.float32] | None = None

    def why(self, name: str) -> Explanation:
        """What one prediction rests on.

        Raises
        ------
        pertwise.errors.UnknownNameError
            For a perturbation that was not explained (name it in ``explain_names``).
        """
        found = {e.perturbation: e for e in self.explanations}
        wanted = canonical_perturbation(name)
        if wanted not in found:
            raise unknown_name("explained perturbation", name, found, "(explain_names=[...])")
        return found[wanted]

    @property
    def table(self) -> pd.DataFrame:
        """One row a perturbation and feature: mean, spread, the 90 % interval, fallback."""
        from pertwise.prediction.writing import long_table

        return long_table(self.prediction)

    def to_anndata(
        self, into: AnnData | None = None, key: str | None = None, **layout: Any
    ) -> AnnData:
        """Means as X, spread as a layer, support in obs, a control row, the record in uns.

        Parameters
        ----------
        into
            An object whose rows are perturbations (or their cells), which is written to and
            returned: means into ``obsm["pertwise_predicted"]`` (a table with a column a feature,
            NaN where nothing was asked), their mean spread into ``obs["pertwise_spread"]``, the
            record into ``uns["pertwise_prediction"]``.
        key
            Column of `into` that names the perturbation; None = recognised.
        layout
            Without `into`: column, control and values (`writing.to_anndata`).

        Raises
        ------
        pertwise.errors.InputError
            No row of `into` is one of the asked perturbations.
        """
        from pertwise.prediction.writing import into_anndata, to_anndata

        if into is None:
            return to_anndata(self, **layout)
        if layout:
            raise InputError(f"{', '.join(layout)}: of a new AnnData, not of one written into")
        return into_anndata(self, into, key)

    def to_cells(
        self, controls: str | os.PathLike[str] | AnnData, n: int = 100, seed: int = 0, **how: Any
    ) -> AnnData:
        """`n` predicted cells a perturbation, made of control cells (`cells.to_cells`)."""
        from pertwise.prediction.cells import to_cells

        return to_cells(self.prediction, controls, n, seed, context=self.context, **how)

    def write(self, folder: str | os.PathLike[str], **layout: Any) -> dict[str, Path]:
        """prediction.h5ad, .csv, .json and the other tables into `folder`; name -> path."""
        from pertwise.prediction.writing import write_prediction

        return write_prediction(self, folder, **layout)

    @property
    def standing_sentence(self) -> str:
        """How good the method is here, or that nobody looked."""
        if self.standing is None:
            return (
                "How good this method is on this screen was NOT checked (cross-validation skipped)."
            )
        return " ".join(s.sentence for s in (self.standing, *self.further))


def open_method(
    use: str,
    *,
    chat: Chat | None = None,
    context_text: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Method:
    """A method by name with its settings; those that ask a chat model get `chat`.

    Parameters
    ----------
    use
        Name of a predictor in any form of `pertwise.parts`.
    chat
        Needed by methods that ask a chat model, themselves or by a selector in words; refused by
        the others.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of these; the nearest are suggested.
    pertwise.errors.InputError
        If the chat is missing or not used, or a setting is not taken.
    """
    given = dict(settings or {})
    if use == ORACLE:
        raise InputError(
            "the oracle sees the answers, so it cannot predict anything; name it as a method of "
            "`pertwise bench prediction` to see the bound it gives"
        )
    part = parts.describe("predictor", use)
    given = {**part.settings, **given}
    if not asks_chat(use, given):
        if chat is not None:
            raise _chat_unused(part)
        return make_method(use, **given)
    if chat is None:
        raise InputError(f"the method {use!r} asks a language model: give --llm MODEL@URL")
    asking = {"llm": chat, "seed": seed, "context_text": context_text, **given}
    # Built once here, so that a wrong setting is told before anything is paid for.
    part.load(**asking)
    return BuiltMethod(
        part.label,
        part.name,
        {"seed": seed, **given},
        sha256=checksum(part.file) if part.file else "",
        files=file_checksums(part.name, given),
        make=lambda: part.load(**asking),
    )


def _chat_unused(part: parts.Part) -> InputError:
    asking = [
        name
        for name in parts.names("predictor", offered=False)
        if "chat" in parts.describe("predictor", name).facts.needs
    ]
    hint = ""
    if "answers" in part.facts.reads:
        hint = "; `pertwise ask` asks a model first and writes the file of answers"
    return InputError(
        f"--llm is not used by the method {part.use!r} as it is set; it goes with "
        f"{' or '.join(asking)}, or with 'neighbours' and a chat selector{hint}"
    )


def predict(
    screen: Screen | str | os.PathLike[str] | AnnData,
    names: Sequence[str],
    *,
    knowledge: Knowledge | str | os.PathLike[str] | None = None,
    drugs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    lines: str | os.PathLike[str] | None = None,
    ratings: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    method: str = DEFAULT_METHOD,
    context: str | None = None,
    context_text: str = "",
    chat: Chat | None = None,
    settings: Mapping[str, Any] | None = None,
    explain_names: Sequence[str] = (),
    folds: int | None = None,
    seed: int = 0,
    reading: Mapping[str, Any] | None = None,
) -> Predicted:
    """Predict perturbations, genes or drugs, from everything measured, and say how far to trust it.

    An asked perturbation that was measured in the context is hidden there first (under any name
    the knowledge knows for it: alias, salt): what comes back is a prediction from the others, with
    a note, and the measurement is kept beside it. Methods of several contexts learn from all of
    them. A name that no part of the method knows gets the training (context) mean, declared as its
    fallback.

    Parameters
    ----------
    names
        Genes (combinations as "A+B") or drugs in any spelling, or as SMILES.
    knowledge, drugs, lines, ratings
        A knowledge folder (or an opened `Knowledge`), tables of drug facts, a table of cell lines,
        tables of marks (`read_ratings`).
    context
        Where to predict; may be left out where the screen holds one. One that was not measured is
        borrowed from related ones (`lines`).
    method, settings
        See `open_method`.
    explain_names
        Explained perturbations (predicted too when not in `names`); none = the first `EXPLAINED`.
    folds
        Of the cross-validation; 0 skips it. None = 5, or 0 for a method that asks a chat model
        (it would be asked about every measured perturbation).
    reading
        Settings of `read_screen` for a screen given as a file.

    Raises
    ------
    pertwise.errors.InputError
        If nothing is named, nothing is left to learn from, or an input cannot be used.
    """
    inputs: dict[str, Any] = {}
    if isinstance(screen, str | os.PathLike):
        inputs["screen"] = input_facts(screen)
    if not isinstance(screen, Screen):
        screen = screen_of(screen, context, **dict(reading or {}))
    if ratings:
        check_reads(method, "ratings", "use marks")
    if "other" in (settings or {}):
        check_reads(method, "other", "learn from other screens")
    known = _open_knowledge(knowledge, drugs, lines, ratings, inputs)
    if known is None and "knowledge" in parts.describe("predictor", method).facts.needs:
        raise InputError(
            f"the method {method!r} needs a knowledge folder: give --knowledge DIR (made by "
            "`pertwise knowledge build`), --drugs TABLE for compounds, or choose another --method"
        )
    made = open_method(method, chat=chat, context_text=context_text, seed=seed, settings=settings)
    several = learns_contexts(made.build()) and has_contexts(screen, known)
    known = None if known is None else known.spelt(screen.perturbations)
    whole = screen.only_measured() if several else one_context_of(screen, context)
    asked = read_asked(names, explain_names, whole, known)
    known = asked.knowledge
    here = context_of(whole, context, known) if several else whole.contexts[0]
    hidden, beside, told = hidden_rows(asked.names, whole, here, known)
    notes = asked.notes + told
    train = whole.take(~(hidden | beside))
    if not len(train):
        raise InputError(
            f"all {len(whole)} measured perturbations are asked for, so nothing is left to learn "
            "from; ask for fewer at a time"
        )
    regime = _regime(asked.names, train, here) if several else ""
    notes += unknown_genes(asked.names, known) + mixed_note(whole, known)
    if known is not None:
        notes += same_species("measured", whole.perturbations, known)
    notes += recorded_notes(method, settings or {}, asked.names, train)
    seen = seen_elsewhere(made, asked.names, train, here, known)
    notes += seen.notes
    n_folds = folds if folds is not None else (0 if chat is not None else 5)
    model = made.build(INNER.get(regime, "perturbation") if regime else "").fit(train, known)
    prediction = predict_in(model, asked.names, here if several else None)
    prediction.support["setting"] = [seen.settings[n] for n in asked.names]
    repairs = _repairs(prediction)
    local = local_screen(train, here, known) if several else train
    said, recall = _shown(prediction, settings or {}, local, known)
    notes += said
    notes += [
        f"{name}: the method had nothing to go by; the {text} is given instead (fallback)"
        if text == MEAN_FALLBACK
        else f"{name}: answered by a fallback ({text})"
        for name, text in zip(asked.names, prediction.support["fallback"], strict=True)
        if text
    ]
    found: list[Standing] = []
    if n_folds:
        try:
            found, said = standings(
                made, train, known, seen, n_folds=n_folds, seed=seed, regime=regime, context=here
            )
            notes += said
            notes += [f"cross-validation, {text}" for one in found for text in one.errors]
        except InputError as error:
            if not regime or folds is not None:
                raise
            notes.append(f"cross-validation skipped: {error}")
    elif folds is None:
        notes.append(
            "cross-validation skipped: it would ask the chat model about every measured "
            f"perturbation ({len(train)} questions); say --folds 5 to do it"
        )
    standing = found[0] if found else None
    own = list(dict.fromkeys(whole.obs.loc[hidden, "perturbation"]))
    measured = whole.take(hidden) if own else None
    wanted = asked.explain or asked.names[:EXPLAINED]
    explained = tuple(explain(g, prediction, local, standing, measured) for g in wanted)
    simulated = whole.simulated or "simulated" in _label(known).casefold()
    return Predicted(
        prediction=prediction,
        method=made.label,
        context=here,
        unit=str(train.meta.get("unit", "")),
        n_train=len(train),
        standing=standing,
        explanations=explained,
        measured=measured,
        notes=tuple(notes),
        repairs=repairs,
        simulated=simulated,
        record={
            "inputs": inputs,
            "source": str(whole.meta.get("source", "")),
            "simulated": simulated,
            "method": made.facts() | {"llm": getattr(chat, "name", None)},
            "settings": {
                "names": asked.names,
                "hidden": own,
                "context": here,
                "contexts_learned": list(train.contexts),
                "context_text": context_text,
                "folds": n_folds,
                "seed": seed,
            },
            "trained_on": len(train),
            "fallbacks": int((prediction.support["fallback"] != "").sum()),
            "notes": list(notes),
            "repairs": [
                {"perturbation": name, "kind": r.kind, "item": r.item, "action": r.action}
                for name, r in repairs
            ],
            "prediction": prediction.provenance,
            "prefilter": recall,
            "other_screens": seen.overlap,
            "standing": None if standing is None else standing.as_json(),
            "further_standings": [one.as_json() for one in found[1:]],
            "versions": versions(),
        },
        further=tuple(found[1:]),
        control=_control_label(train),
        control_mean=(
            train.control_mean[train.contexts.index(here)] if here in train.contexts else None
        ),
    )


def _control_label(screen: Screen) -> str:
    label = screen.meta.get("control") or ""
    return label if isinstance(label, str) else str(next(iter(label), ""))


def _open_knowledge(
    given: Any, drugs: Any, lines: Any, ratings: Any, inputs: dict[str, Any]
) -> Knowledge | None:
    from pertwise.knowledge import Knowledge

    known: Knowledge | None = given if isinstance(given, Knowledge) else None
    if known is not None and (drugs or lines or ratings):
        raise InputError("give drugs, lines and ratings to Knowledge.open, or paths to predict")
    if known is None and (given is not None or drugs or lines or ratings):
        known = Knowledge.open(given, drugs=drugs, lines=lines, ratings=ratings)
    if known is not None:
        inputs["knowledge"] = input_facts(known)
        if known.drugs is not None and known.drugs.sources:
            inputs["drugs"] = {"path": ", ".join(known.drugs.sources)}
        for number, marks in enumerate(known.ratings, start=1):
            place = "ratings" if number == 1 else f"ratings {number}"
            inputs[place] = {"path": marks.source, "fingerprint": marks.fingerprint()}
    return known


def _regime(asked: Sequence[str], train: Screen, context: str) -> str:
    """What cross-validation holds out, as this question does."""
    if context not in train.contexts:
        return "context"
    elsewhere = set(train.perturbations)
    return "pair" if all(n in elsewhere for n in asked) else "compound"


def mixed_note(screen: Screen, knowledge: Knowledge | None) -> list[str]:
    """A note when a screen holds genes and compounds: both are read, and learned from together."""
    if knowledge is None or knowledge.drugs is None:
        return []
    kinds = list(knowledge.kinds(screen.perturbations).values())
    genes, compounds = kinds.count("gene"), kinds.count("compound")
    if not genes or not compounds:
        return []
    return [
        f"mixed screen: {genes} genes and {compounds} compounds; kernels of one kind say nothing "
        "about the other, so that they share the context means only"
    ]


def screen_of(
    path: str | os.PathLike[str] | AnnData, context: str | None, **reading: Any
) -> Screen:
    """The screen of a file; `context` names its cells where the file does not."""
    from pertwise.screen import read_screen

    screen = read_screen(path, **reading)
    if context is not None and screen.contexts == ("",):
        # The file does not name its one context; the caller does.
        screen = read_screen(path, **{**reading, "context": context})
    return screen


def one_context_of(screen: Screen, context: str | None) -> Screen:
    """The measured rows of the chosen context; see `screen.training.one_context`."""
    from pertwise.screen.training import one_context

    if context is None and len(screen.contexts) > 1:
        shown = ", ".join(map(repr, screen.contexts[:8]))
        raise InputError(f"the screen holds {len(screen.contexts)} contexts ({shown}); choose one "
                         "with --context")  # fmt: skip
    return one_context(screen, context, "the screen")


def _repairs(prediction: Prediction) -> tuple[tuple[str, Repair], ...]:
    return tuple(
        (str(answer["perturbation"]), Repair(r["kind"], r["item"], r["action"]))
        for answer in prediction.provenance.get("answers", ())
        for r in answer["repairs"]
    )


def _shown(
    prediction: Prediction,
    settings: Mapping[str, Any],
    train: Screen,
    knowledge: Knowledge | None,
) -> tuple[list[str], dict[str, Any] | None]:
    """A note when a chat model saw only a part of the measured list, and what that costs."""
    answers = prediction.provenance.get("answers", ())
    cuts = sorted({c for answer in answers for c in list_cuts(answer["provenance"])})
    if not cuts or knowledge is None:
        return [], None
    words = str(settings.get("prefilter", PREFILTER))
    found = check_prefilter(words, int(settings["max_candidates"]), train, knowledge)
    return [
        f"the model was shown a part of the measured list: {cuts[0]}; such a list holds "
        f"{100 * found['recall']:.0f} % of the {N_NEAREST} nearest measured responses "
        f"({100 * found['chance']:.0f} % by chance), over {found['n']} measured perturbations left "
        "out in turn"
    ], dict(found)


def _label(knowledge: Knowledge | None) -> str:
    return "" if knowledge is None else str(knowledge.manifest.get("label", ""))
