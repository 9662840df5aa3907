"""What a perturbation is: a gene, a compound or a combination; under which names, with whom, facts.

One answer for genes and drugs: the approved symbol or the parent compound says what is the same
under another name; shared promoters or the scaffold say what may not be parted by a split; full
name and summary, or mechanism and targets, are what a prompt says about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from pertwise._names import COMBINATION, split_combination
from pertwise.knowledge.types import Pathway, Relation, RelationKind

if TYPE_CHECKING:
    from pertwise.knowledge.drugs.table import DrugCard
    from pertwise.knowledge.store import Knowledge

Kind = Literal["gene", "compound", "both", ""]
#: Genes that share a promoter are silenced together: what one guide does, the other does too.
PARTNERS = "shared_promoter"
#: Kinds of relations to a pathway, the closest first.
CLOSEST: tuple[str, ...] = get_args(RelationKind)


def kinds(knowledge: Knowledge, names: Sequence[str]) -> dict[str, Kind]:
    """name -> "compound" (in the drug table), "gene", "both" (a combination), "" (unknown)."""
    drugs = knowledge.drugs
    parts = {
        n: (n,) if drugs is not None and n in drugs else tuple(split_combination(n)) for n in names
    }
    approved = knowledge.resolve(sorted({p for ps in parts.values() for p in ps})).approved
    out: dict[str, Kind] = {}
    for name, group in parts.items():
        found = {_kind(knowledge, p, approved) for p in group} - {""}
        out[name] = "both" if len(found) > 1 else found.pop() if found else ""
    return out


def _kind(knowledge: Knowledge, name: str, approved: Mapping[str, str]) -> Kind:
    if knowledge.drugs is not None and name in knowledge.drugs:
        return "compound"
    return "gene" if name in approved else ""


def identity(knowledge: Knowledge, names: Sequence[str]) -> dict[str, str]:
    """name -> what it is under any of its names.

    The parent compound of a drug (salts, hydrates and stereoisomers are one; without a structure,
    the name without its salt); the approved symbols of genes; else the name itself.
    """
    drugs = knowledge.drugs
    rest = [n for n in names if drugs is None or n not in drugs]
    genes = sorted({p for n in rest for p in split_combination(n)})
    approved = knowledge.resolve(genes).approved
    out = {} if drugs is None else drugs.compounds([n for n in names if n in drugs])
    for name in rest:
        parts = split_combination(name)
        if drugs is not None and not any(p in approved for p in parts):
            out |= drugs.compounds([name])
        else:
            out[name] = COMBINATION.join(sorted(approved.get(p, p) for p in parts))
    return {n: out[n] for n in names}


def families(knowledge: Knowledge, names: Sequence[str]) -> dict[str, str]:
    """name -> group that may stand on one side of a split only.

    Drugs: the Murcko scaffold. Genes: those linked by shared promoters, when the folder has
    that graph. A combination belongs to the family of its first part.
    """
    drugs, same = knowledge.drugs, identity(knowledge, names)
    out = {}
    partner = _partners(knowledge)
    for name in names:
        card = drugs.find(name) if drugs is not None else None
        if card is not None:
            out[name] = card.scaffold
        elif drugs is not None and same[name].startswith("name:"):
            out[name] = f"name:{name}"
        else:
            first = split_combination(same[name])[0]
            out[name] = partner.get(first, same[name])
    return out


def _partners(knowledge: Knowledge) -> dict[str, str]:
    """gene -> first gene of its group of shared promoters."""
    if PARTNERS not in knowledge.graph_names():
        return {}
    from scipy.sparse.csgraph import connected_components

    graph = knowledge.graph(PARTNERS)
    _, label = connected_components(graph.adjacency, directed=False)
    first: dict[int, str] = {}
    for gene, group in sorted(zip(graph.nodes, label.tolist(), strict=True)):
        first.setdefault(group, gene)
    return {g: first[c] for g, c in zip(graph.nodes, label.tolist(), strict=True)}


def facts(knowledge: Knowledge, name: str, *, smiles: bool = False) -> str:
    """What a prompt says about a perturbation; "" where nothing is known.

    A drug: mechanism; targets; whether approved (and SMILES on request). A gene: full name.
    summary.
    """
    if knowledge.drugs is not None:
        table = knowledge.drugs
        card = table.find(name)
        if card is not None:
            return _drug_facts(card, smiles)
    gene = knowledge.cards([name])[name]
    return ". ".join(x for x in (gene.full_name, gene.summary) if x) if gene.known else ""


def _drug_facts(card: DrugCard, smiles: bool) -> str:
    parts = [card.mechanism] if card.mechanism else []
    if card.targets:
        parts.append("targets " + ", ".join(card.targets[:8]))
    if card.approved:
        parts.append("approved")
    if smiles and card.structure is not None:
        parts.append(f"SMILES {card.structure.parent}")
    return "; ".join(parts)


def drug_relations(
    knowledge: Knowledge, names: Sequence[str], pathway: Pathway, exclude_from_screen: bool
) -> dict[str, Relation]:
    """How drugs (and genes) stand to a pathway: a drug as the closest of its targets, named."""
    drugs = knowledge.drugs
    cards = {} if drugs is None else {n: drugs.cards[n] for n in names if n in drugs}
    targets = {n: cards[n].targets if n in cards else (n,) for n in names}
    genes = sorted({g for group in targets.values() for g in group})
    found = knowledge._relations(genes, pathway, exclude_from_screen)
    out = {}
    for name, group in targets.items():
        known = [found[g] for g in group if found[g].kind != "unknown"]
        if not known:
            out[name] = Relation(name, "unknown")
            continue
        # In the order of the kinds, members first, then by weight; ties by name.
        best = min(known, key=lambda r: (CLOSEST.index(r.kind), -r.weight, r.gene))
        said = f"target {best.gene}" + (f": {best.evidence}" if best.evidence else "")
        out[name] = best if name not in cards else replace(best, gene=name, evidence=said)
    return out
