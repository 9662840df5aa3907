"""Predict unmeasured perturbations of a screen, say how good that is, and keep the record."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.evaluate.explaining import Z90, Explanation, explain
from pertwise.evaluate.methods import FILE_SETTINGS, Method, file_checksums, make_method
from pertwise.evaluate.prediction.config import ORACLE
from pertwise.evaluate.prediction.prefilter import N_NEAREST, check_prefilter
from pertwise.evaluate.recorded_notes import recorded_notes
from pertwise.evaluate.standing import BuiltMethod, Standing, cross_validate
from pertwise.knowledge.species import species_note
from pertwise.predict.catalogue import CATALOGUE, make_predictor
from pertwise.predict.chat_recipes import PREFILTER
from pertwise.predict.neighbours import list_cuts
from pertwise.predict.selector_words import asks_a_model
from pertwise.predict.training import MEAN_FALLBACK
from pertwise.screen.core import COMBINATION, canonical_perturbation
from pertwise.select.base import Repair

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.predict import Prediction
    from pertwise.screen import Screen

#: The strongest method of the catalogue that needs no language model and no second screen.
DEFAULT_METHOD = "multi-kernel"
#: Methods that need a chat model.
LLM_METHODS = ("langpert", "graph+edit")
#: Explained without being asked for.
EXPLAINED = 5


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
    settings: Mapping[str, Any] | None = None,
) -> Method:
    """A method by name with its settings; those that ask a chat model get `chat`.

    Parameters
    ----------
    use
        Name in `CATALOGUE`, ``module:Class`` or ``path/to/file.py:Class``.
    chat
        Needed by `LLM_METHODS` (and by "neighbours" with a chat selector), refused by the others.

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
    if use not in CATALOGUE and ":" not in use:
        hint = "(or your own class as path/to/file.py:ClassName)"
        if not suggest(use, CATALOGUE):
            hint = f"(known: {', '.join(CATALOGUE)}) {hint}"
        raise unknown_name("method", use, CATALOGUE, hint)
    if not asks_chat(use, given):
        if chat is not None:
            hint = ""
            if "answers" in FILE_SETTINGS.get(use, ()):
                hint = "; `pertwise langpert` asks a model first and writes the file of answers"
            raise InputError(
                f"--llm is not used by the method {use!r} as it is set; it goes with "
                f"{' or '.join(LLM_METHODS)}, or with 'neighbours' and a chat selector{hint}"
            )
        return make_method(use, **given)
    if chat is None:
        raise InputError(f"the method {use!r} asks a language model: give --llm MODEL@URL")
    asking = {"llm": chat, "seed": seed, "context_text": context_text, **given}
    # Built once here, so that a wrong setting is told before anything is paid for.
    make_predictor(use, **asking)
    return BuiltMethod(
        use,
        use,
        {"seed": seed, **given},
        files=file_checksums(use, given),
        make=lambda: make_predictor(use, **asking),
    )


def asks_chat(use: str, settings: Mapping[str, Any]) -> bool:
    """Whether a method asks a chat model for every perturbation."""
    if use != "neighbours":
        return use in LLM_METHODS
    words = [str(settings.get("selector", "")), *map(str, settings.get("fallbacks", ()))]
    return any(w and asks_a_model(w) for w in words)


def predict_genes(
    screen: Screen | str | os.PathLike[str],
    genes: Sequence[str],
    *,
    knowledge: Knowledge | str | os.PathLike[str] | None = None,
    method: str = DEFAULT_METHOD,
    context: str | None = None,
    context_text: str = "",
    chat: Chat | None = None,
    settings: Mapping[str, Any] | None = None,
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
    method, settings
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
        screen = screen_of(screen, context)
    whole = one_context_of(screen, context)
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
    made = open_method(method, chat=chat, context_text=context_text, seed=seed, settings=settings)
    notes, own = _already_measured(asked, whole, knowledge)
    train = whole.hide(own)
    if not len(train):
        raise InputError(
            f"all {len(whole)} measured perturbations are asked for, so nothing is left to learn "
            "from; ask for fewer at a time"
        )
    notes += unknown_genes(asked, knowledge)
    if knowledge is not None and (foreign := species_note(train.perturbations)):
        notes.append(f"measured perturbations: {foreign}")
    notes += recorded_notes(method, settings or {}, asked, train)
    n_folds = folds if folds is not None else (0 if chat is not None else 5)
    prediction = made.build().fit(train, knowledge).predict(asked)
    repairs = _repairs(prediction)
    told, recall = _shown(prediction, settings or {}, train, knowledge)
    notes += told
    notes += [
        f"{name}: the method had nothing to go by; the {text} is given instead (fallback)"
        if text == MEAN_FALLBACK
        else f"{name}: answered by a fallback ({text})"
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
                "files_sha256": dict(made.files),
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
            "prefilter": recall,
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


def screen_of(path: str | os.PathLike[str], context: str | None) -> Screen:
    """The screen of a file; `context` names its cells where the file does not."""
    from pertwise.screen import read_screen

    screen = read_screen(path)
    if context is not None and screen.contexts == ("",):
        # The file does not name its one context; the caller does.
        screen = read_screen(path, context=context)
    return screen


def one_context_of(screen: Screen, context: str | None) -> Screen:
    """The measured rows of the chosen context; see `prediction.run.one_context`."""
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


def unknown_genes(asked: Sequence[str], knowledge: Knowledge | None) -> list[str]:
    """A note for each asked gene that the knowledge folder has not, with the nearest names."""
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
    foreign = species_note(genes)
    return [*notes, foreign] if foreign else notes


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
