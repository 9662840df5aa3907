"""Chat selectors that name the measured items most like one query: knock-downs, drugs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pertwise._io import write_text_atomic
from pertwise.llm.base import Chat
from pertwise.llm.templates import load_prompt
from pertwise.select.base import Query, Selection, Selector
from pertwise.select.chat import ChatSelector
from pertwise.select.closed_list import Resolver

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
    seed: int = 0,
    replicate: int = 0,
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
    """
    return ChatSelector(
        chat,
        load_prompt(prompt),
        _similar_values(facts),
        name=name,
        n_min=(lambda n: n) if k is not None else (lambda n: min(5, n)),
        k_max=k if k is not None else 10,
        on_short="keep",
        fallback=fallback,
        max_reasks=max_reasks,
        max_candidates=max_candidates,
        prefilter=prefilter,
        resolve=resolve,
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
    seed: int = 0,
    replicate: int = 0,
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
        _similar_values(facts),
        name=name,
        k_max=k,
        on_short="keep",
        fallback=fallback,
        max_reasks=max_reasks,
        max_candidates=max_candidates,
        prefilter=prefilter,
        resolve=resolve,
        seed=seed,
        replicate=replicate,
    )


def _similar_values(facts: Callable[[str], str] | None) -> Any:
    def values(
        query: Query,
        shown: tuple[str, ...],
        n_min: int,
        n_max: int,
        mask: Callable[[str], str],
    ) -> dict[str, Any]:
        subject = query.subject or ""
        return {
            "context_text": cell_line_text(query.context or "", query.context_text),
            "subject_facts": facts(subject) if facts is not None else "",
        }

    return values


def write_neighbours(
    path: str | os.PathLike[str], answered: Iterable[tuple[Query, Selection]]
) -> None:
    """JSON lines {cell, drug, neighbours, reasons, k_used, fallback, repairs}, atomically."""
    lines = [json.dumps(neighbour_record(q, s), ensure_ascii=False) for q, s in answered]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


def neighbour_record(query: Query, selection: Selection) -> dict[str, Any]:
    """One line of `write_neighbours`."""
    return {
        "cell": query.context,
        "drug": query.subject,
        "neighbours": list(selection.items),
        "reasons": [p.reason for p in selection.picks],
        "k_used": len(selection.picks),
        "source": selection.source,
        "fallback": selection.fallback,
        "repairs": selection.repair_counts(),
    }


def estimate_questions(
    selector: ChatSelector, questions: Sequence[tuple[Query, Sequence[str]]], n: int
) -> Any:
    """Dry run: cost of the first question of each item (re-asks not included), nothing sent."""
    requests = [selector.first_request(q, c, n) for q, c in questions]
    return selector.chat.estimate([r for r in requests if r is not None])  # type: ignore[attr-defined]
