"""Curated pathways: descriptions and functional modules in our own words, one JSON file each."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

import pandas as pd

from pertwise.knowledge.genes.symbols import SymbolIndex

OTHER = "other"
#: GO terms and Reactome pathway whose ribosomal proteins make up the set RIBOSOME.
_RIBOSOME_GO = ("GO:0022625", "GO:0022627", "GO:0022626")
_RIBOSOME_REACTOME = "R-HSA-156902"


@dataclass(frozen=True)
class CuratedPathway:
    """Description and modules (module name -> member symbols) of one well-known gene set."""

    name: str
    description: str
    reference: str
    modules: Mapping[str, tuple[str, ...]]


@functools.cache
def curated_pathways() -> Mapping[str, CuratedPathway]:
    """All curated pathways by the name of the gene set they describe."""
    found: dict[str, CuratedPathway] = {}
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".json"):
            content = json.loads(entry.read_text("utf-8"))
            modules = {m: tuple(genes.split()) for m, genes in content["modules"].items()}
            found[content["name"]] = CuratedPathway(
                content["name"],
                content["description"],
                content["reference"],
                MappingProxyType(modules),
            )
    return MappingProxyType(found)


def assign_modules(
    curated: CuratedPathway, members: Iterable[str], current: Mapping[str, str]
) -> dict[str, tuple[str, ...]] | None:
    """Curated modules cut down to `members`; members that none names go to "other".

    `current` gives the symbols by which a folder calls the curated genes.

    None when fewer than half of the members are known to the curation: then it is another gene
    set of the same name, and its modules must be computed.
    """
    module_of = {current.get(g, g): m for m, genes in curated.modules.items() for g in genes}
    wanted = sorted(set(members))
    hit = [g for g in wanted if g in module_of]
    if not wanted or 2 * len(hit) < len(wanted):
        return None
    modules = {m: tuple(g for g in wanted if module_of.get(g) == m) for m in curated.modules}
    rest = tuple(g for g in wanted if g not in module_of)
    if rest:
        modules[OTHER] = (*modules.get(OTHER, ()), *rest)
    ordered = {m: genes for m, genes in modules.items() if genes and m != OTHER}
    if modules.get(OTHER):
        ordered[OTHER] = tuple(sorted(modules[OTHER]))
    return ordered


def ribosome_members(
    set_members: pd.DataFrame | None,
    gene_go: pd.DataFrame | None,
    index: SymbolIndex,
    have_kegg: bool,
) -> list[str]:
    """Members of the set RIBOSOME: curated cytosolic ribosomal proteins that the data supports.

    Hallmark has no ribosome set. A protein is in when Reactome's "Peptide chain elongation" or a
    GO annotation to the cytosolic ribosome (or one of its subunits) holds it. Empty when the
    folder has neither, or has MSigDB's own KEGG_RIBOSOME.
    """
    curated = curated_pathways().get("RIBOSOME")
    if curated is None or have_kegg:
        return []
    support: set[str] = set()
    if set_members is not None:
        rows = set_members["name"] == _RIBOSOME_REACTOME
        support.update(set_members["symbol"][rows])
    if gene_go is not None:
        support.update(gene_go["symbol"][gene_go["go"].isin(_RIBOSOME_GO)])
    listed = [g for genes in curated.modules.values() for g in genes]
    return sorted(set(index.resolve(listed).approved.values()) & support)
