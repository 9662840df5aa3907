"""The graphs of a folder: which there are, and making each from its tables."""

from __future__ import annotations

from scipy.sparse import csr_matrix

from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.genes import graphs
from pertwise.knowledge.genes.features import membership
from pertwise.knowledge.genes.go import load_ontology, propagated
from pertwise.knowledge.layout import DIRECTED, HOW
from pertwise.knowledge.tables import Tables
from pertwise.knowledge.types import Graph

#: Terms and pathways with more genes than this say too little to link two genes.
SPECIFIC_TERM = 100
SMALL_PATHWAY = 100
LARGEST_COMPLEX = 60
#: Strongest links kept per gene in the graph of shared GO terms.
GO_NEIGHBOURS = 50
#: Graphs made from tables other than an edge table.
DERIVED = {
    "go": ("go_terms", "gene_go"),
    "complexes": ("go_terms", "gene_go"),
    "reactome": ("gene_sets", "gene_set_members"),
    "shared_promoter": ("positions",),
}
ALIASES = {"string_functional": "string"}


def missing_for(tables: Tables, name: str) -> str | None:
    """The first table that a graph needs and the folder lacks; None when it can be made."""
    missing = next((t for t in DERIVED.get(name, (f"edges_{name}",)) if not tables.has(t)), None)
    if missing is None and name == "reactome":
        collections = tables.table("gene_sets")["collection"]
        if not (collections == "reactome").any():
            return "gene_sets"
    return missing


def require(tables: Tables, name: str, what: str) -> None:
    """Raise `InputError` when what a graph or its features need is not in the folder."""
    missing = missing_for(tables, name)
    if missing is None:
        return
    if missing == "gene_sets" and tables.has("gene_sets"):
        raise InputError(
            f"{what} is not available: {tables.path} was built without a Reactome gmt; rebuild "
            "it with ReactomePathways.gmt.zip"
        )
    raise InputError(tables.lack(what, missing))


def graph_names(tables: Tables) -> tuple[str, ...]:
    """Graphs that the folder can give."""
    stored = [n.removeprefix("edges_") for n in tables.names() if n.startswith("edges_")]
    return (*stored, *(n for n in DERIVED if missing_for(tables, n) is None))


def load_graph(tables: Tables, name: str, exclude_from_screen: bool = False) -> Graph:
    """A graph by name, or the union of several joined by "+"; see `Knowledge.graph`."""
    parts = [p.strip() for p in name.split("+")]
    if len(parts) > 1:
        return graphs.merge(
            "+".join(parts), [load_graph(tables, p, exclude_from_screen) for p in parts]
        )
    name = ALIASES.get(parts[0], parts[0])
    if name not in DERIVED and f"edges_{name}" not in HOW and not tables.has(f"edges_{name}"):
        raise unknown_name("graph", name, (*graph_names(tables), *ALIASES))
    require(tables, name, f"graph {name!r}")
    return tables.keep(
        ("graph", name, exclude_from_screen), lambda: _make(tables, name, exclude_from_screen)
    )


def _make(tables: Tables, name: str, exclude: bool) -> Graph:
    if name in ("go", "complexes"):
        genes, full = propagated(tables, exclude)
        if name == "go":
            adjacency = graphs.shared_sets(full, SPECIFIC_TERM, len(genes))
            adjacency = graphs.keep_strongest(adjacency, GO_NEIGHBOURS)
        else:
            use = load_ontology(tables).complexes(LARGEST_COMPLEX)
            adjacency = graphs.shared_complexes(full[:, use], len(genes))
        from_screen = not exclude and bool(tables.manifest["tables"]["gene_go"]["from_screen"])
        return Graph(name, genes, adjacency, from_screen=from_screen)
    if name == "reactome":
        genes, matrix, _ = set_matrix(tables, "reactome", exclude)
        adjacency = graphs.shared_sets(matrix, SMALL_PATHWAY, len(genes))
        from_screen = not exclude and bool(
            tables.manifest["tables"]["gene_set_members"]["from_screen"]
        )
        return Graph(name, genes, adjacency, from_screen=from_screen)
    if name == "shared_promoter":
        edges = graphs.shared_promoters(tables.table("positions"))
        return graphs.from_edges(name, edges, False, False)
    entry = tables.manifest["tables"][f"edges_{name}"]
    edges = tables.table(f"edges_{name}")
    screen = edges["source"].isin(tables.screen_sources())
    if exclude:
        edges, screen = edges[~screen], screen[~screen]
    directed = bool(entry.get("directed", name in DIRECTED))
    signed = bool((edges["sign"] != 0).any())
    return graphs.from_edges(name, edges, directed, bool(screen.any()), signed)


def set_matrix(
    tables: Tables, collection: str | None, exclude_from_screen: bool = False
) -> tuple[tuple[str, ...], csr_matrix, list[str]]:
    """Genes, 0/1 membership (n_genes, n_sets) and set names of a collection (None = all)."""

    def make() -> tuple[tuple[str, ...], csr_matrix, list[str]]:
        sets, members = tables.table("gene_sets"), tables.table("gene_set_members")
        if collection is not None:
            sets = sets[sets["collection"] == collection]
        if exclude_from_screen:
            sets = sets[~sets["source"].isin(tables.screen_sources())]
        members = members[members["name"].isin(set(sets["name"]))]
        names = sorted(sets["name"])
        genes = tuple(sorted(set(members["symbol"])))
        matrix = membership(genes, members["symbol"].tolist(), names, members["name"].tolist())
        return genes, matrix, names

    return tables.keep(("set_matrix", collection, exclude_from_screen), make)
