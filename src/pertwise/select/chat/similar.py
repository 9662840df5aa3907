"""Chat selectors that name the measured items most like one query: knock-downs, drugs."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pertwise._io import why_not, write_text_atomic
from pertwise.errors import InputError
from pertwise.llm.base import Chat
from pertwise.llm.templates import load_prompt
from pertwise.select.base import Query, Selection, Selector
from pertwise.select.chat.selector import NO_REASON, ChatSelector, masker
from pertwise.select.closed_list import Resolver

#: One question and its closed list.
Question = tuple[Query, Sequence[str]]
#: What one line of a file of answers holds.
Record = Callable[[Query, Selection], dict[str, Any]]

#: What a prompt says about a cell line, in our words; facts as in Cellosaurus and DepMap.
CELL_LINES: Mapping[str, str] = {
    "K562": (
        "Human chronic myeloid leukaemia in blast crisis: BCR-ABL1 driven, erythroid-like "
        "(expresses globins, GATA1, KLF1), p53 and CDKN2A lost, near-triploid, grows fast in "
        "suspension."
    ),
    "RPE1": (
        "hTERT-immortalised human retinal pigment epithelium: not cancerous, near-diploid, "
        "adherent, p53 intact (damage, ribosomal and mitotic stress lead to p21 and arrest), "
        "expresses extracellular matrix and TGF-beta response genes."
    ),
    "HepG2": (
        "Human hepatoblastoma, hepatocyte-like: secretes albumin and apolipoproteins, active "
        "lipid and cholesterol synthesis, p53 intact, beta-catenin activated, NRAS mutated, "
        "adherent."
    ),
    "Jurkat": (
        "Human T-cell acute lymphoblastic leukaemia: CD4-like with T-cell receptor, PTEN lost so "
        "that PI3K-AKT is always on, NOTCH1 and TP53 mutated, mismatch repair deficient, grows in "
        "suspension."
    ),
}


def cell_line_text(name: str, given: str = "") -> str:
    """Text about a cell line for a prompt: the given one, else the built-in one, else ""."""
    if given:
        return given
    plain = name.replace("-", "").replace(" ", "").casefold()
    return {k.casefold(): v for k, v in CELL_LINES.items()}.get(plain, "")


def langpert_selector(
    chat: Chat,
    *,
    k: int | None = None,
    facts: Callable[[str], str] | None = None,
    fallback: Selector | None = None,
    resolve: Resolver | None = None,
    max_candidates: int | None = None,
    prefilter: Selector | None = None,
    prompt: str | os.PathLike[str] = "langpert",
    max_reasks: int = 2,
    anonymise: bool = False,
    seed: int = 0,
    replicate: int = 0,
    species: str = "human",
    name: str = "langpert",
) -> ChatSelector:
    """LangPert: the measured knock-downs whose response is most like the query's.

    Parameters
    ----------
    k
        Fixed number of neighbours; None leaves 5 to 10 to the model.
    facts
        Text about the query gene for the prompt ("" for none).
    fallback
        Used when no valid neighbour is left; None = empty selection (the predictor then states
        that it used the training mean).
    max_candidates, prefilter
        See `ChatSelector`; by default the whole list is shown.
    anonymise
        Show codes instead of names, each with its `facts`: what remains of an answer is not from
        memory of these names.
    species
        Whose cells the question says they are.
    """
    return ChatSelector(
        chat,
        load_prompt(prompt),
        _similar_values(facts, anonymise, species),
        name=name,
        n_min=(lambda n: n) if k is not None else (lambda n: min(5, n)),
        k_max=k if k is not None else 10,
        on_short="keep",
        fallback=fallback,
        max_reasks=max_reasks,
        max_candidates=max_candidates,
        prefilter=prefilter,
        resolve=resolve,
        anonymise=anonymise,
        seed=seed,
        replicate=replicate,
    )


def lgr_selector(
    chat: Chat,
    *,
    k: int = 10,
    facts: Callable[[str], str] | None = None,
    fallback: Selector | None = None,
    resolve: Resolver | None = None,
    max_candidates: int | None = None,
    prefilter: Selector | None = None,
    prompt: str | os.PathLike[str] = "lgr",
    max_reasks: int = 1,
    anonymise: bool = False,
    seed: int = 0,
    replicate: int = 0,
    species: str = "human",
    name: str = "lgr",
) -> ChatSelector:
    """LGR: the `k` profiled drugs most alike in one cell line, each with one sentence.

    Candidates are the drugs measured in that line; the query is excluded under every spelling
    that `resolve` knows. Invalid names are dropped and counted; with fewer than `k` left after
    the re-ask, those left are kept (`provenance["k_used"]`).
    """
    return ChatSelector(
        chat,
        load_prompt(prompt),
        _similar_values(facts, anonymise, species),
        name=name,
        k_max=k,
        on_short="keep",
        fallback=fallback,
        max_reasks=max_reasks,
        max_candidates=max_candidates,
        prefilter=prefilter,
        resolve=resolve,
        anonymise=anonymise,
        seed=seed,
        replicate=replicate,
    )


#: The subject of a question without names.
HIDDEN = "G0000"


def _similar_values(facts: Callable[[str], str] | None, anonymise: bool, species: str) -> Any:
    def values(
        query: Query,
        shown: tuple[str, ...],
        n_min: int,
        n_max: int,
        mask: Callable[[str], str],
    ) -> dict[str, Any]:
        subject = query.subject or ""
        about = facts(subject) if facts is not None else ""
        found: dict[str, Any] = {
            "context_text": cell_line_text(query.context or "", query.context_text),
            "species": species,
            "subject_facts": about,
            "candidate_facts": {},
        }
        if anonymise:
            itself = masker({subject: HIDDEN})
            found["subject"], found["subject_facts"] = HIDDEN, itself(mask(about))
            if facts is not None:
                found["candidate_facts"] = {mask(x): itself(mask(facts(x))) for x in shown}
        return found

    return values


def write_neighbours(
    path: str | os.PathLike[str],
    answered: Iterable[tuple[Query, Selection]],
    record: Record | None = None,
) -> None:
    """One JSON line a question (`neighbour_record` unless told otherwise), atomically."""
    made = record or neighbour_record
    lines = [json.dumps(made(q, s), ensure_ascii=False) for q, s in answered]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


def neighbour_record(query: Query, selection: Selection) -> dict[str, Any]:
    """Answer for a drug in one line: {cell, drug, neighbours, reasons, k_used, fallback, ...}."""
    return {"cell": query.context, "drug": query.subject, **_said(selection)}


def subject_record(query: Query, selection: Selection) -> dict[str, Any]:
    """Answer for a perturbation: {subject, context, neighbours, reasons, ..., problems, asked}.

    ``context`` says which cells were asked about; unlike ``cell`` it is no part of the key under
    which `pertwise.select.recorded` finds the answer. ``asked`` names prompt, seed and list.
    """
    said = selection.provenance
    return {
        "subject": query.subject,
        "context": query.context or "",
        **_said(selection),
        "problems": list(said.get("problems", ())),
        "asked": {key: said[key] for key in _ASKED if said.get(key, False) is not False},
    }


#: What is kept of a question; the last two only of one without names.
_ASKED = (
    "prompt",
    "prompt_hash",
    "shuffle_seed",
    "shown_order_hash",
    "n_candidates",
    "n_shown",
    "cut",
    "same_as_query",
    "n_min",
    "n_max",
    "ledger_keys",
    "anonymised",
    "codes",
)


def _said(selection: Selection) -> dict[str, Any]:
    return {
        "neighbours": list(selection.items),
        # A model that gave no reason said nothing: words of ours must not pass for its own.
        "reasons": ["" if p.reason == NO_REASON else p.reason for p in selection.picks],
        "k_used": len(selection.picks),
        "source": selection.source,
        "fallback": selection.fallback,
        "repairs": selection.repair_counts(),
    }


def total_repairs(answers: Iterable[Selection]) -> dict[str, int]:
    """Repairs of all answers by kind."""
    total: Counter[str] = Counter()
    for answer in answers:
        total.update(answer.repair_counts())
    return dict(total)


def partial_path(out: str | os.PathLike[str]) -> Path:
    """Where `ask_lists` keeps what is answered so far: answers.jsonl -> answers.partial.jsonl."""
    path = Path(out)
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def ask_lists(
    selector: ChatSelector,
    questions: Sequence[Question],
    n: int,
    out: str | os.PathLike[str],
    *,
    record: Record | None = None,
) -> list[Selection]:
    """Ask every question (or read it from the chat's ledger) and write one JSON line for each.

    `out` is written once all are answered, so it is never a part that passes for the whole. Until
    then the answers so far are in `partial_path(out)`, a line as soon as it is there, so that
    whatever ends the run leaves them; the same call goes on from the ledger.

    Raises
    ------
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        As `ChatSelector.aselect`.
    """
    partial = partial_path(out)
    partial.parent.mkdir(parents=True, exist_ok=True)
    made = record or neighbour_record
    held: BinaryIO | None = None

    def keep(position: int, selection: Selection) -> None:
        nonlocal held
        # The file of a run before this one stays until there is an answer to put in its place.
        if held is None:
            held = stack.enter_context(partial.open("wb", buffering=0))
        line = json.dumps(made(questions[position][0], selection), ensure_ascii=False)
        try:
            held.write(f"{line}\n".encode())
        except OSError as error:
            raise InputError(f"{partial} cannot be written: {why_not(error)}") from error

    with contextlib.ExitStack() as stack:
        answers = selector.select_many(list(questions), n, on_answer=keep)
    write_neighbours(out, zip([q for q, _ in questions], answers, strict=True), record)
    partial.unlink(missing_ok=True)
    return answers


def estimate_questions(selector: ChatSelector, questions: Sequence[Question], n: int) -> Any:
    """Dry run: cost of the first question of each item (re-asks not included), nothing sent."""
    requests = [selector.first_request(q, c, n) for q, c in questions]
    return selector.chat.estimate([r for r in requests if r is not None])  # type: ignore[attr-defined]
