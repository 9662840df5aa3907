"""Predict unmeasured perturbations of a screen, say how good that is, and keep the record."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.evaluate.explaining import Z90, Explanation, explain
from pertwise.evaluate.methods import Method, make_method
from pertwise.evaluate.standing import BuiltMethod, Standing, cross_validate
from pertwise.predict.catalogue import CATALOGUE
from pertwise.screen.core import COMBINATION, canonical_perturbation
from pertwise.select.base import Query, Repair, Selection, Selector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.predict import Prediction
    from pertwise.screen import Screen

#: The strongest method of the catalogue that needs no language model and no second screen.
DEFAULT_METHOD = "multi-kernel"
#: Methods that need a chat model, named here because the catalogue builds without one.
LLM_METHODS = ("langpert", "graph+edit")
#: Neighbours a graph offers for editing.
EDITED = 20
#: Explained without being asked for.
EXPLAINED = 5


@dataclass
class Recording:
    """A selector that keeps every answer, so that repairs reach the report."""

    inner: Selector
    answers: dict[str, Selection] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the selector inside."""
        return self.inner.name

    @property
    def source(self) -> str:
        """Selector and model."""
        return str(getattr(self.inner, "source", self.inner.name))

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Ask and keep."""
        return self.select_many([(query, candidates)], n)[0]

    def select_many(
        self, questions: Sequence[tuple[Query, Sequence[str]]], n: int
    ) -> list[Selection]:
        """Ask all and keep."""
        many = getattr(self.inner, "select_many", None)
        found = (
            [self.inner.select(q, c, n) for q, c in questions]
            if many is None
            else list(many(questions, n))
        )
        for (query, _), selection in zip(questions, found, strict=True):
            self.answers[str(query.subject)] = selection
        return found


@dataclass(frozen=True)
class Predicted:
    """Everything one run of `predict_genes` found.

    Attributes
    ----------
    prediction
        One row per asked perturbation, in the order asked.
    standing
        Cross-validation on the measured perturbations, or None when skipped.
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

    @property
    def standing_sentence(self) -> str:
        """How good the method is here, or that nobody looked."""
        if self.standing is None:
            return (
                "How good this method is on this screen was NOT checked (cross-validation skipped)."
            )
        return self.standing.sentence


def open_method(
    use: str,
    *,
    chat: Chat | None = None,
    context_text: str = "",
    seed: int = 0,
) -> tuple[Method, Callable[[], list[Recording]]]:
    """A method by name, and the recordings of the chat selectors it builds later.

    Parameters
    ----------
    use
        Name in `CATALOGUE`, one of `LLM_METHODS`, ``module:Class`` or ``path/to/file.py:Class``.
    chat
        Needed by `LLM_METHODS` and refused by the others.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of these; the nearest of both lists are suggested.
    pertwise.errors.InputError
        If the chat is missing or not used.
    """
    recordings: list[Recording] = []
    if use not in LLM_METHODS:
        if chat is not None:
            raise InputError(
                f"--llm is not used by the method {use!r}; it goes with {' or '.join(LLM_METHODS)}"
            )
        if use not in CATALOGUE and ":" not in use:
            known = (*CATALOGUE, *LLM_METHODS)
            hint = "(or your own class as path/to/file.py:ClassName)"
            if not suggest(use, known):
                hint = f"; known: {', '.join(known)} {hint}"
            raise unknown_name("method", use, known, hint)
        return make_method(use), lambda: recordings
    if chat is None:
        raise InputError(f"the method {use!r} asks a language model: give --llm MODEL@URL")

    def selector(knowledge: Knowledge | None) -> Selector:
        recordings.append(Recording(_chat_selector(use, chat, knowledge, seed)))
        return recordings[-1]

    def make() -> Any:
        return _ChatNeighbours(use, selector, context_text)

    return BuiltMethod(use, use, {"seed": seed}, make=make), lambda: recordings


class _ChatNeighbours:
    """`NeighbourPredictor` on a chat selector, built when the knowledge folder is known."""

    def __init__(
        self, name: str, selector: Callable[[Knowledge | None], Selector], context_text: str
    ) -> None:
        self.name = name
        self._selector, self._context_text = selector, context_text

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> _ChatNeighbours:
        from pertwise.predict.neighbours import NeighbourPredictor

        self._model = NeighbourPredictor(
            self._selector(knowledge),
            k=EDITED if self.name == "graph+edit" else 10,
            context_text=self._context_text,
            name=self.name,
        ).fit(screen, knowledge)
        return self

    def predict(self, perturbations: Sequence[str]) -> Prediction:
        return self._model.predict(perturbations)


def _chat_selector(use: str, chat: Chat, knowledge: Knowledge | None, seed: int) -> Selector:
    from pertwise.select import knowledge_resolver
    from pertwise.select.edit import EditSelector
    from pertwise.select.graph import GraphSelector
    from pertwise.select.similar_chat import langpert_selector

    facts = None
    resolve = None
    if knowledge is not None:
        cards = knowledge.cards
        resolve = knowledge_resolver(knowledge)

        def facts(gene: str) -> str:
            return cards([gene])[gene].summary

    if use == "langpert":
        return langpert_selector(chat, facts=facts, resolve=resolve, seed=seed)
    if knowledge is None:
        raise InputError("'graph+edit' needs a knowledge folder: give --knowledge DIR")
    base = GraphSelector(knowledge, ("string",))
    return EditSelector(base, chat, facts=facts, resolve=resolve, seed=seed)


def predict_genes(
    screen: Screen | str | os.PathLike[str],
    genes: Sequence[str],
    *,
    knowledge: Knowledge | str | os.PathLike[str] | None = None,
    method: str = DEFAULT_METHOD,
    context: str | None = None,
    context_text: str = "",
    chat: Chat | None = None,
    explain_genes: Sequence[str] = (),
    folds: int | None = None,
    seed: int = 0,
) -> Predicted:
    """Predict perturbations from everything measured, and state how far to trust that.

    An asked perturbation that was measured is hidden first (under any name the knowledge folder
    knows for it): what comes back is a prediction from the others, with a note, and the
    measurement is kept beside it. A name that no part of the method knows gets the training mean,
    declared as its fallback.

    Parameters
    ----------
    genes
        Names; combinations as "A+B".
    method
        See `open_method`.
    explain_genes
        Explained perturbations (predicted too when not in `genes`); none = the first `EXPLAINED`.
    folds
        Of the cross-validation; 0 skips it. None = 5, or 0 for a method that asks a chat model
        (it would be asked about every measured perturbation).

    Raises
    ------
    pertwise.errors.InputError
        If no gene is named, nothing is left to learn from, or an input cannot be used.
    """
    from pertwise.knowledge import Knowledge

    asked = _asked(genes, explain_genes)
    inputs: dict[str, Any] = {}
    if isinstance(screen, str | os.PathLike):
        inputs["screen"] = _file(screen)
        screen = _read(screen, context)
    whole = _one_context(screen, context)
    if knowledge is not None and not isinstance(knowledge, Knowledge):
        knowledge = Knowledge.open(knowledge)
    if knowledge is not None:
        inputs["knowledge"] = {
            "path": str(knowledge.path),
            "fingerprint": knowledge.fingerprint(),
        }
    elif method == DEFAULT_METHOD:
        raise InputError(
            f"the method {method!r} needs a knowledge folder: give --knowledge DIR (made by "
            "`pertwise knowledge build`), or choose another --method"
        )
    made, recordings = open_method(method, chat=chat, context_text=context_text, seed=seed)
    notes, own = _already_measured(asked, whole, knowledge)
    train = whole.hide(own)
    if not len(train):
        raise InputError(
            f"all {len(whole)} measured perturbations are asked for, so nothing is left to learn "
            "from; ask for fewer at a time"
        )
    notes += _unknown(asked, knowledge)
    n_folds = folds if folds is not None else (0 if method in LLM_METHODS else 5)
    prediction = made.build().fit(train, knowledge).predict(asked)
    repairs = _repairs(recordings())
    notes += [
        f"{name}: the method had nothing to go by; the {text} is given instead (fallback)"
        for name, text in zip(asked, prediction.support["fallback"], strict=True)
        if text
    ]
    standing = None
    if n_folds:
        standing = cross_validate(made, train, knowledge, n_folds=n_folds, seed=seed)
        notes += [f"cross-validation, {text}" for text in standing.errors]
    elif folds is None:
        notes.append(
            "cross-validation skipped: it would ask the chat model about every measured "
            f"perturbation ({len(train)} questions); say --folds 5 to do it"
        )
    measured = whole.of_perturbations(own) if own else None
    wanted = [canonical_perturbation(g) for g in explain_genes] or asked[:EXPLAINED]
    explained = tuple(explain(g, prediction, train, standing, measured) for g in wanted)
    simulated = whole.simulated or "simulated" in _label(knowledge).casefold()
    return Predicted(
        prediction=prediction,
        method=made.label,
        context=train.contexts[0],
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
            "method": {
                "name": made.label,
                "use": made.use,
                "settings": dict(made.settings),
                "code_sha256": made.sha256 or None,
                "llm": getattr(chat, "name", None),
            },
            "settings": {
                "genes": asked,
                "hidden": own,
                "context": train.contexts[0],
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
            "standing": None if standing is None else standing.as_json(),
            "versions": _versions(),
        },
    )


def write_prediction(found: Predicted, out: str | os.PathLike[str]) -> dict[str, Path]:
    """Write prediction.h5ad, prediction.csv, neighbours.csv, cross_validation.csv and, last,
    prediction.json into the folder `out`, each atomically.

    prediction.h5ad: X = means, layers["spread"] (standard deviation; absent when the method gives
    none), obs = support columns and ``measured``. prediction.csv is long: one line per
    perturbation and feature with mean, spread and the 90 % interval mean -/+ 1.645 spread.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("prediction.h5ad", "prediction.csv", "neighbours.csv", "prediction.json")
    paths = {name: folder / name for name in kinds}
    record = json.loads(json.dumps(found.record, default=_plain))
    with atomic_path(paths["prediction.h5ad"]) as temporary:
        _anndata(found, record).write_h5ad(temporary, compression="gzip")
    with atomic_path(paths["prediction.csv"]) as temporary:
        long_table(found.prediction).to_csv(temporary, index=False)
    with atomic_path(paths["neighbours.csv"]) as temporary:
        columns = ["perturbation", "neighbour", "rank", "weight", "reason"]
        table = found.prediction.neighbours
        (pd.DataFrame(columns=columns) if table is None else table[columns]).to_csv(
            temporary, index=False
        )
    if found.standing is not None:
        paths["cross_validation.csv"] = folder / "cross_validation.csv"
        with atomic_path(paths["cross_validation.csv"]) as temporary:
            found.standing.per_perturbation.to_csv(temporary)
    else:
        # Scores of an earlier run in this folder would be taken for those of this one.
        (folder / "cross_validation.csv").unlink(missing_ok=True)
    write_json_atomic(paths["prediction.json"], _without_nan(record))
    return paths


def long_table(prediction: Prediction) -> pd.DataFrame:
    """perturbation, feature, mean, spread, low_90, high_90 (empty without a spread), fallback."""
    n, d = prediction.mean.shape
    mean = prediction.mean.ravel().astype(np.float64)
    spread = (
        np.full(n * d, np.nan)
        if prediction.spread is None
        else prediction.spread.ravel().astype(np.float64)
    )
    return pd.DataFrame(
        {
            "perturbation": np.repeat(np.array(prediction.perturbations, dtype=object), d),
            "feature": np.tile(np.array(prediction.features, dtype=object), n),
            "mean": mean,
            "spread": spread,
            "low_90": mean - Z90 * spread,
            "high_90": mean + Z90 * spread,
            "fallback": np.repeat(prediction.support["fallback"].to_numpy(dtype=object), d),
        }
    )


def _anndata(found: Predicted, record: dict[str, Any]) -> Any:
    from anndata import AnnData

    prediction = found.prediction
    obs = prediction.support.copy()
    obs.index = pd.Index(prediction.perturbations)
    hidden = set() if found.measured is None else set(found.record["settings"]["hidden"])
    obs["fallback"] = obs["fallback"].astype(str)
    obs["measured"] = [p in hidden for p in prediction.perturbations]
    data = AnnData(
        X=np.array(prediction.mean),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(prediction.features)),
        uns={"pertwise_prediction": json.dumps(_without_nan(record))},
    )
    if prediction.spread is not None:
        data.layers["spread"] = np.array(prediction.spread)
    return data


def _asked(genes: Sequence[str], more: Sequence[str]) -> list[str]:
    names = [canonical_perturbation(g) for g in (*genes, *more)]
    asked = list(dict.fromkeys(n for n in names if n))
    if not asked:
        raise InputError("no gene to predict: give --genes MYC,SMG5 (combinations as A+B)")
    return asked


def _read(path: str | os.PathLike[str], context: str | None) -> Screen:
    from pertwise.screen import read_screen

    screen = read_screen(path)
    if context is not None and screen.contexts == ("",):
        # The file does not name its one context; the caller does.
        screen = read_screen(path, context=context)
    return screen


def _one_context(screen: Screen, context: str | None) -> Screen:
    from pertwise.evaluate.prediction.run import one_context

    if context is None and len(screen.contexts) > 1:
        shown = ", ".join(map(repr, screen.contexts[:8]))
        raise InputError(f"the screen holds {len(screen.contexts)} contexts ({shown}); choose one "
                         "with --context")  # fmt: skip
    return one_context(screen, context, "the screen")


def _file(path: str | os.PathLike[str]) -> dict[str, str]:
    entry = {"path": str(path)}
    if Path(path).is_file():
        entry["sha256"] = sha256_file(path)
    return entry


def _already_measured(
    asked: Sequence[str], screen: Screen, knowledge: Knowledge | None
) -> tuple[list[str], list[str]]:
    """Notes, and the measured rows that are an asked perturbation, whatever its name there."""
    rows = list(screen.perturbations)
    genes = sorted({g for p in (*asked, *rows) for g in p.split(COMBINATION)})
    approved = {} if knowledge is None else dict(knowledge.resolve(genes).approved)

    def key(name: str) -> str:
        return COMBINATION.join(sorted(approved.get(g, g) for g in name.split(COMBINATION)))

    by_key: dict[str, list[str]] = {}
    for row in rows:
        by_key.setdefault(key(row), []).append(row)
    notes, own = [], []
    for name in asked:
        same = by_key.get(key(name), [])
        if same:
            called = "" if same == [name] else f" (as {', '.join(same)})"
            notes.append(
                f"{name} was measured in this screen{called}: its rows are hidden and it is "
                "predicted from the others"
            )
            own += [s for s in same if s not in own]
    return notes, own


def _unknown(asked: Sequence[str], knowledge: Knowledge | None) -> list[str]:
    if knowledge is None:
        return []
    genes = list(dict.fromkeys(g for p in asked for g in p.split(COMBINATION)))
    approved = knowledge.resolve(genes).approved
    known = knowledge.genes() if len(approved) < len(genes) else ()
    notes = []
    for gene in genes:
        if gene not in approved:
            near = suggest(gene, known)
            words = f"; did you mean {', '.join(near)}?" if near else ""
            notes.append(f"{gene} is not a gene of the knowledge folder{words}")
    return notes


def _repairs(recordings: Sequence[Recording]) -> tuple[tuple[str, Repair], ...]:
    return tuple(
        (name, repair)
        for recording in recordings
        for name, selection in recording.answers.items()
        for repair in selection.repairs
    )


def _label(knowledge: Knowledge | None) -> str:
    return "" if knowledge is None else str(knowledge.manifest.get("label", ""))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("pertwise", "numpy", "scipy", "pandas", "scikit-learn", "anndata"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None says "not known"."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


__all__ = [
    "DEFAULT_METHOD",
    "LLM_METHODS",
    "Predicted",
    "open_method",
    "predict_genes",
    "write_prediction",
]
