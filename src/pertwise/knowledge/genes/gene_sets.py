"""The gene sets of a folder as `Pathway` objects, with curated or computed modules."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from pertwise.errors import unknown_name
from pertwise.knowledge.genes import features as kernels
from pertwise.knowledge.genes import pathways
from pertwise.knowledge.genes.curated import assign_modules, curated_pathways
from pertwise.knowledge.genes.embeddings import sparse_features
from pertwise.knowledge.genes.go import load_ontology, propagated
from pertwise.knowledge.genes.modules import TermTable, compute_modules
from pertwise.knowledge.genes.networks import load_graph, missing_for, set_matrix
from pertwise.knowledge.genes.ontology import UNINFORMATIVE
from pertwise.knowledge.layout import UNDIRECTED
from pertwise.knowledge.tables import Tables, lists_of
from pertwise.knowledge.types import Pathway

#: Broader terms are not used to find modules; the name of one may be somewhat broader.
BROAD_TERM = 1_000
BROAD_NAME = 2_000
_DISEASE = re.compile(
    r"defective|disease|infection|vir(?:al|us)|SARS|HIV|influenza|cancer|mutant|_\d+$",
    re.IGNORECASE,
)


def find_pathway(tables: Tables, name: str) -> Pathway:
    """A gene set by name or GO id; see `Knowledge.pathway`."""
    wanted = name.strip()
    if wanted.upper().startswith("GO:") and tables.has("gene_go", "go_terms"):
        return tables.keep(("pathway", wanted.upper()), lambda: _go(tables, wanted.upper()))
    sets = tables.table("gene_sets")
    index = tables.keep("pathway_index", lambda: pathways.name_index(sets))
    titles = tables.keep("titles", lambda: dict(zip(sets["name"], sets["title"], strict=True)))
    found = pathways.find(wanted, index, titles)
    return tables.keep(("pathway", found), lambda: _stored(tables, found))


def _stored(tables: Tables, name: str) -> Pathway:
    sets, rows = tables.table("gene_sets"), tables.table("gene_set_members")
    row = tables.keep("set_rows", lambda: sets.set_index("name")).loc[name]
    by_name = tables.keep("members", lambda: lists_of(rows["name"], rows["symbol"]))
    members, source = tuple(sorted(by_name[name])), str(row["source"])
    curated = curated_pathways().get("RIBOSOME" if name == "KEGG_RIBOSOME" else name)
    if curated is not None:
        # Symbols change: both sides are brought to those of this folder.
        listed = [g for genes in curated.modules.values() for g in genes]
        current = tables.symbols().resolve(listed).approved
        modules = assign_modules(curated, members, current)
        if modules is not None:
            return Pathway(name, members, curated.description, modules, source, "curated")
    return with_modules(tables, name, members, str(row["title"]), source)


def _go(tables: Tables, term: str) -> Pathway:
    go = load_ontology(tables)
    if term not in go.position:
        raise unknown_name("GO term", term, go.ids)
    genes, full = propagated(tables)
    members = tuple(sorted(genes[i] for i in full[:, go.position[term]].nonzero()[0]))
    return with_modules(tables, term, members, go.names[go.position[term]], "Gene Ontology")


def with_modules(
    tables: Tables,
    name: str,
    members: tuple[str, ...],
    description: str,
    source: str,
    unknown: tuple[str, ...] = (),
) -> Pathway:
    """A pathway whose modules are computed from what the folder holds."""
    gram: list[NDArray[np.float64]] = []
    for nodes, matrix in _module_features(tables):
        rows = kernels.take_rows(matrix, nodes, members)
        gram.append((rows @ rows.T).toarray().astype(np.float64))
    modules = compute_modules(members, gram, _term_table(tables, members))
    how = "computed" if modules else "none"
    return Pathway(name, members, description, modules, source, how, unknown)


def _module_features(tables: Tables) -> list[tuple[Sequence[str], csr_matrix]]:
    """Unit rows of genes in GO, Reactome, STRING and text, as far as the folder has them."""

    def make() -> list[tuple[Sequence[str], csr_matrix]]:
        blocks: list[tuple[Sequence[str], csr_matrix]] = []
        for kind in ("go", "reactome"):
            if missing_for(tables, kind) is None:
                nodes, matrix, _ = sparse_features(tables, kind)
                size = np.asarray(matrix.sum(axis=0)).ravel()
                narrow = matrix[:, np.flatnonzero((size >= 2) & (size <= BROAD_TERM))].tocsr()
                blocks.append((nodes, kernels.idf_unit_rows(narrow)))
        graph = next((g for g in UNDIRECTED if missing_for(tables, g) is None), None)
        if graph is not None:
            links = load_graph(tables, graph)
            blocks.append((links.nodes, kernels.diffusion_rows(links)))
        if tables.has("genes"):
            nodes, matrix, _ = sparse_features(tables, "text")
            blocks.append((nodes, matrix))
        return blocks

    return tables.keep("module_features", make)


def _term_table(tables: Tables, members: Sequence[str]) -> TermTable | None:
    names: list[str] = []
    blocks: list[csr_matrix] = []
    counts: list[NDArray[np.int64]] = []
    total = 1
    if tables.has("go_terms", "gene_go"):
        genes, full = propagated(tables)
        go = load_ontology(tables)
        # A term that half of all genes carry (the roots, in a small folder) names nothing.
        broad = min(BROAD_NAME, len(genes) // 2)
        roots = np.isin(go.ids, sorted(UNINFORMATIVE))
        use = np.flatnonzero((go.n_genes >= 3) & (go.n_genes <= broad) & ~roots)
        blocks.append(kernels.take_rows(full[:, use], genes, members))
        names.extend(go.names[i] for i in use)
        counts.append(go.n_genes[use])
        total = max(total, len(genes))
    if missing_for(tables, "reactome") is None:
        genes, matrix, ids = set_matrix(tables, "reactome")
        size = np.asarray(matrix.sum(axis=0)).ravel().astype(np.int64)
        sets = tables.table("gene_sets")
        titles = dict(zip(sets["name"], sets["title"], strict=True))
        # Reactome tells diseases by the normal machinery they use: misleading as a module's name.
        plain = np.array([not _DISEASE.search(titles[i]) for i in ids], dtype=bool)
        use = np.flatnonzero((size >= 3) & (size <= BROAD_NAME) & plain)
        blocks.append(kernels.take_rows(matrix[:, use], genes, members))
        names.extend(titles[ids[i]] for i in use)
        counts.append(size[use])
        total = max(total, len(genes))
    if not blocks:
        return None
    return TermTable(names, hstack(blocks).tocsr(), np.concatenate(counts), total)
