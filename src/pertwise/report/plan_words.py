"""What the numbers of a plan mean, in words and with their units."""

from __future__ import annotations

from pertwise.acquire.panel import Plan
from pertwise.acquire.strategies.knowledge import RELATION_SCORE, Weights
from pertwise.report.style import RELATIONS


def glossary(plan: Plan) -> list[tuple[str, str, str]]:
    """(term, unit or range, meaning) of what this page shows, and of nothing else."""
    rows: list[tuple[str, str, str]] = []
    ranked = any(u is not None for u in plan.candidates["uncertainty"])
    if ranked:
        rows += [
            (
                "Uncertainty u",
                "squared units of the screen’s responses",
                "How much the members of the model disagree about the response: their variance, "
                "averaged over the features that count. It ranks; it is no calibrated error.",
            ),
            (
                "Uncertainty rank",
                "1, 2, 3 …",
                "1 = the candidate on whose response the members disagree most.",
            ),
        ]
    if plan.target.get("pathway"):
        scores = ", ".join(
            f"{RELATIONS[kind][0]} {score:g}" for kind, score in RELATION_SCORE.items()
        )
        rows.append(
            (
                "Relation",
                "0 to 1",
                "How the gene stands to the target, by pathway tables and directed edges: "
                f"{scores}. An unknown relation is no evidence that there is none.",
            )
        )
        rows.append(
            ("Module", "–", "Part of the target in which a gene is, or which it acts on or answers")
        )
    if any(". Score " in p.reason for p in plan.picks):
        shown = {"uncertainty": ranked, "relation": bool(plan.target.get("pathway"))}
        shown["module"] = shown["relation"]
        rows += [row for row in _score(plan) if shown.get(row[0].split(" (in")[0], True)]
    rows.append(
        (
            "Utility",
            "as the strategy defines it",
            "The number by which the strategy orders candidates; larger comes first. In plan.json.",
        )
    )
    return rows


def _score(plan: Plan) -> list[tuple[str, str, str]]:
    given = plan.provenance.get("weights")
    weights = {**vars(Weights()), **(given if isinstance(given, dict) else {})}

    def most(name: str) -> str:
        return f"0 to {weights[name]:g}" if isinstance(weights[name], int | float) else "–"

    return [
        (
            "Score",
            "no unit",
            "(uncertainty + relation + module) × new + information; the largest is picked, then "
            "all are computed again. The numbers are those at the moment of the pick.",
        ),
        (
            "uncertainty (in the score)",
            most("uncertainty"),
            "Place in the uncertainty ranking: the most uncertain candidate gets all, the least 0.",
        ),
        ("relation (in the score)", most("relation"), "The relation to the target, weighed."),
        (
            "module (in the score)",
            most("module"),
            "More for a module with few picks and little measured: 1 / (1 + picks + measured "
            "share), weighed.",
        ),
        (
            "new",
            "0 to 1",
            "1 minus the similarity to the most similar pick, or half that to a measured gene.",
        ),
        (
            "similarity",
            "0 to 1",
            "Cosine of what is known of two genes, or the weight of the edge between them.",
        ),
        (
            "information",
            most("information"),
            "How much measuring this gene is expected to tell about all candidates (Gaussian "
            "process on what is known of them), as a share of the largest at the start.",
        ),
        (
            "tells most about",
            "–",
            "The candidates whose uncertainty a measurement of this gene would reduce most.",
        ),
    ]
