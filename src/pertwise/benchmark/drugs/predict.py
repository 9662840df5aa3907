"""One drug in one line, from everything that was measured."""

from __future__ import annotations

from dataclasses import replace

from pertwise.benchmark.drugs.methods import DrugKnowledge, build_method, method_names
from pertwise.benchmark.drugs.run import Bench
from pertwise.errors import unknown_name
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.models.base import Prediction
from pertwise.screen.core import canonical_perturbation

#: Tried in this order when no method is asked for.
PREFERRED = ("fused", "multi-kernel", "kernel ridge", "cell mean (shrunk)")


def predict_one(
    bench: Bench, drug: str, context: str, method: str = ""
) -> tuple[Prediction, dict[str, str]]:
    """Predict a name or SMILES in a line.

    The drug's own measurement in that line is hidden first: what comes back is a prediction, and
    a note says that a measurement exists. The same for other names of its compound.

    Raises
    ------
    pertwise.errors.UnknownNameError
        When the drug is no known name and no SMILES, or the line is neither measured nor described.
    """
    known, screen = bench.known, bench.screen
    card, how = known.table.identify(drug)
    notes = {"drug": f"{card.name} ({how})"}
    if card.name not in known.table:
        known = replace_table(known, known.table.with_card(card))
        notes["known about it"] = "structure only"
    if context not in screen.contexts:
        resolved = known.cells.resolve(context) if known.cells is not None else None
        if resolved is None:
            raise unknown_name(
                "cell line", context, screen.contexts, "(not measured, and no facts to borrow by)"
            )
        context = resolved
    compound = known.table.compounds([card.name])[card.name]
    names = known.table.compounds(screen.perturbations)
    same = [d for d, c in names.items() if c == compound]
    if same and card.name not in same:
        # The measured name is the one that lists and tables of this screen use.
        card = known.table.find(same[0]) or card
        notes["drug"] += f"; here it is called {card.name!r}"
    own = screen.obs["perturbation"].isin(same) & (screen.obs["context"] == context)
    if own.any():
        shown = ", ".join(sorted(set(screen.obs.loc[own, "perturbation"])))
        notes["measured"] = f"{shown} was measured in {context}; hidden for this prediction"
    elsewhere = screen.obs["perturbation"].isin(same) & ~own
    if elsewhere.any():
        n = screen.obs.loc[elsewhere, "context"].nunique()
        notes["measured elsewhere"] = f"in {n} other lines, which this prediction uses"
    train = screen.take((~own).to_numpy())
    name = method or next(m for m in PREFERRED if m in method_names(known))
    regime = "open world" if elsewhere.any() else "unseen drug"
    if context not in train.contexts:
        regime = "unseen line"
    model = build_method(name, known, regime, train.perturbations).fit(train)
    prediction = model.predict([canonical_perturbation(card.name)], context)
    notes["method"] = name
    fallback = str(prediction.support["fallback"].iloc[0])
    if fallback:
        notes["fallback"] = fallback
    return prediction, notes


def replace_table(known: DrugKnowledge, table: DrugTable) -> DrugKnowledge:
    """The same knowledge with another drug table; kernels are built anew."""
    return replace(known, table=table, _kernels={})
