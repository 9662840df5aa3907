"""`Knowledge`: a folder of typed parquet tables, opened lazily."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise._io import atomic_path
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge import features as feature_kernels
from pertwise.knowledge import graphs as graph_kernels
from pertwise.knowledge import ontology, pathways
from pertwise.knowledge.curated import assign_modules, curated_pathways
from pertwise.knowledge.extras import read_embedding
from pertwise.knowledge.layout import (
    DIRECTED,
    FORMAT,
    FORMAT_VERSION,
    HOW,
    MANIFEST,
    TABLES,
    UNDIRECTED,
)
from pertwise.knowledge.modules import TermTable, compute_modules
from pertwise.knowledge.relations import relate
from pertwise.knowledge.symbols import SymbolIndex
from pertwise.knowledge.text import one_sentence
from pertwise.knowledge.types import (
    Embedding,
    GeneCard,
    GoTerm,
    Graph,
    Pathway,
    Relation,
    Resolution,
)

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

#: Terms with more genes than this say too little to link two genes or to name a module.
SPECIFIC_TERM = 100
SMALL_PATHWAY = 100
LARGEST_COMPLEX = 60
#: Strongest links kept per gene in the graphs made from shared terms.
GO_NEIGHBOURS = 50
_DERIVED = {
    "go": ("go_terms", "gene_go"),
    "complexes": ("go_terms", "gene_go"),
    "reactome": ("gene_sets",),
    "shared_promoter": ("positions",),
}
_ALIASES = {"string_functional": "string"}


class Knowledge:
    """What is already known about genes, read from a folder made by `build_knowledge`.

    Tables are read when first asked for and kept; computed graphs too. Embeddings that take long
    are stored in the folder's `cache/` when it can be written.
    """

    path: str

    def __init__(self, path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
        self.path = os.fspath(path)
        self._manifest = MappingProxyType(dict(manifest))
        self._kept: dict[Any, Any] = {}

    # --- the folder ----------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Knowledge:
        """Open a knowledge folder (reads only its manifest).

        Raises
        ------
        InputError
            When it is not a knowledge folder, of another format version, or a table is missing.
        """
        folder = Path(path)
        how = "build one with: pertwise knowledge build SOURCES --out DIR"
        if not folder.exists():
            raise InputError(f"{folder}: no such knowledge folder; {how}")
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is not a knowledge folder (no {MANIFEST} in it); {how}"
            ) from None
        except json.JSONDecodeError as error:
            raise InputError(f"{folder / MANIFEST} is damaged ({error}); build it anew") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(
                f"{folder / MANIFEST} is not the manifest of a knowledge folder; {how}"
            )
        found = manifest.get("format_version")
        if found != FORMAT_VERSION:
            raise InputError(
                f"{folder} has knowledge format version {found}, this pertwise reads version "
                f"{FORMAT_VERSION}; build it anew: pertwise knowledge build SOURCES --out {folder} "
                "--overwrite"
            )
        for name, entry in manifest["tables"].items():
            if not (folder / entry["file"]).is_file():
                raise InputError(f"{folder}: the file {entry['file']} of table {name!r} is missing")
        return cls(folder, manifest)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Manifest: format, tables with source, version, date, licence, sha256, from_screen."""
        return self._manifest

    def fingerprint(self) -> str:
        """Short hash over all tables: goes into plans and reports."""
        entries = {**self._manifest["tables"], **self._manifest["embeddings"]}
        lines = sorted(f"{name} {entry['sha256']}" for name, entry in entries.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def table_names(self) -> tuple[str, ...]:
        """Names of the tables of this folder."""
        return tuple(self._manifest["tables"])

    def table(self, name: str) -> pd.DataFrame:
        """A raw table by name (cached: do not change it in place).

        Raises
        ------
        InputError
            When this folder was built without it; says which file brings it.
        """
        entry = self._manifest["tables"].get(name)
        if entry is None:
            known = {*TABLES, *HOW, *self._manifest["tables"]}
            if name not in known:
                raise unknown_name("knowledge table", name, known)
            raise InputError(
                f"{self.path} has no table {name!r}; rebuild it with {HOW.get(name, 'its source')}"
            )

        def read() -> pd.DataFrame:
            frame = pd.read_parquet(Path(self.path) / entry["file"])
            return frame.astype({"source": str})

        return self._keep(("table", name), read)

    def has(self, name: str) -> bool:
        """Whether the folder holds a table."""
        return name in self._manifest["tables"]

    def _keep(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    # --- symbols and cards ---------------------------------------------------------------------

    def _symbols(self) -> SymbolIndex:
        return self._keep("symbols", lambda: SymbolIndex.from_table(self.table("symbols")))

    def genes(self) -> tuple[str, ...]:
        """All genes with any text, annotation, set or edge, as approved symbols, sorted."""

        def make() -> tuple[str, ...]:
            found: set[str] = set()
            for name in self.table_names():
                if name in ("symbols", "positions", "summaries_llm"):
                    continue
                table = self.table(name)
                for column in ("symbol", "a", "b"):
                    if column in table:
                        found.update(table[column].unique())
            return tuple(sorted(found or self._symbols().approved))

        return self._keep("genes", make)

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Names, previous symbols, aliases and Ensembl ids -> approved symbols, in any case."""
        return self._symbols().resolve(names)

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        """A card for every input name (keyed by the input name); unknown ones have known=False."""
        approved = self.resolve(genes).approved
        return {
            name: self._keep(
                ("card", approved[name]), functools.partial(self._card, approved[name])
            )
            if name in approved
            else GeneCard(name, known=False)
            for name in genes
        }

    def _card(self, symbol: str) -> GeneCard:
        row = self._gene_rows().get(symbol, {})
        written = self._written().get(symbol, "")
        summary = written or one_sentence(
            row.get("refseq_summary", ""),
            row.get("string_annotation", ""),
            row.get("full_name", ""),
        )
        return GeneCard(
            symbol=symbol,
            full_name=row.get("full_name", ""),
            summary=summary,
            go=self.go_terms(symbol),
            aliases=self._aliases().get(symbol, ()),
        )

    def _gene_rows(self) -> dict[str, dict[str, str]]:
        def make() -> dict[str, dict[str, str]]:
            if not self.has("genes"):
                return {}
            table = self.table("genes").set_index("symbol")
            return dict(zip(table.index, table.to_dict("records"), strict=True))

        return self._keep("gene_rows", make)

    def _written(self) -> dict[str, str]:
        def make() -> dict[str, str]:
            if not self.has("summaries_llm"):
                return {}
            table = self.table("summaries_llm")
            return dict(zip(table["symbol"], table["summary"], strict=True))

        return self._keep("written", make)

    def _aliases(self) -> dict[str, tuple[str, ...]]:
        def make() -> dict[str, tuple[str, ...]]:
            table = self.table("symbols")
            rest = table[table["kind"].isin(["alias", "previous"])]
            return {s: tuple(n) for s, n in rest.groupby("approved")["name"]}

        return self._keep("aliases", make)

    # --- GO ------------------------------------------------------------------------------------

    def _ontology(self) -> _Ontology:
        return self._keep("ontology", lambda: _Ontology(self.table("go_terms")))

    def go_terms(self, symbol: str) -> tuple[GoTerm, ...]:
        """GO terms of an approved symbol, most specific first.

        Terms implied by a more specific one of the same gene, the three roots and "protein
        binding" are left out. Empty when the folder has no GO.
        """
        if not self.has("gene_go"):
            return ()

        def group() -> dict[str, list[str]]:
            table = self.table("gene_go")
            return {s: list(g) for s, g in table.groupby("symbol")["go"]}

        ids = [
            t for t in self._keep("go_of", group).get(symbol, []) if t not in ontology.UNINFORMATIVE
        ]
        if not self.has("go_terms"):
            return tuple(GoTerm(t, t, "") for t in ids)
        go = self._ontology()
        at = np.array([go.position[t] for t in ids if t in go.position], dtype=np.int64)
        order = ontology.most_specific(at, go.closure, go.n_genes, go.depth)
        return tuple(
            GoTerm(go.ids[i], go.names[i], go.namespaces[i], int(go.depth[i]), int(go.n_genes[i]))
            for i in order
        )

    def _propagated(self, exclude_from_screen: bool) -> tuple[tuple[str, ...], csr_matrix]:
        """Genes and their (n_genes, n_terms) annotation with all ancestors."""

        def make() -> tuple[tuple[str, ...], csr_matrix]:
            table = self.table("gene_go")
            if exclude_from_screen:
                table = table[~table["from_screen"]]
            genes = tuple(sorted(set(table["symbol"])))
            go = self._ontology()
            direct = ontology.annotation_matrix(
                genes, table["symbol"].tolist(), go.ids, table["go"].tolist()
            )
            return genes, ontology.propagate(direct, go.closure)

        return self._keep(("propagated", exclude_from_screen), make)

    # --- pathways ------------------------------------------------------------------------------

    def pathway_names(self) -> tuple[str, ...]:
        """Names of all gene sets."""
        return tuple(self.table("gene_sets")["name"]) if self.has("gene_sets") else ()

    def pathway(self, name: str) -> Pathway:
        """A gene set by name (case-insensitive; the misspelt get a suggestion), with modules.

        "heme metabolism", "HALLMARK_HEME_METABOLISM", a Reactome id or title, or a GO id (its
        genes with those of all narrower terms).

        Raises
        ------
        UnknownNameError
            With the nearest names.
        """
        if name.strip().upper().startswith("GO:") and self.has("gene_go") and self.has("go_terms"):
            return self._keep(("pathway", name.strip().upper()), lambda: self._go_pathway(name))
        sets = self.table("gene_sets")
        index = self._keep("pathway_index", lambda: pathways.name_index(sets))
        titles = self._keep("titles", lambda: dict(zip(sets["name"], sets["title"], strict=True)))
        found = pathways.find(name, index, titles)
        return self._keep(("pathway", found), lambda: self._set_pathway(found))

    def _set_pathway(self, name: str) -> Pathway:
        row = self.table("gene_sets").set_index("name").loc[name]
        rows = self.table("gene_set_members")
        by_name = self._keep(
            "members", lambda: {n: tuple(sorted(g)) for n, g in rows.groupby("name")["symbol"]}
        )
        members = by_name.get(name, ())
        description = str(row["description"]) or str(row["title"])
        curated = curated_pathways().get("RIBOSOME" if name == "KEGG_RIBOSOME" else name)
        if curated is not None:
            modules = assign_modules(curated, members)
            if modules is not None:
                return Pathway(
                    name, members, curated.description, modules, str(row["source"]), "curated"
                )
        return self._with_computed(name, members, description, str(row["source"]))

    def _go_pathway(self, name: str) -> Pathway:
        term = name.strip().upper()
        go = self._ontology()
        if term not in go.position:
            raise unknown_name("GO term", term, go.ids)
        genes, full = self._propagated(False)
        members = [genes[i] for i in full[:, go.position[term]].nonzero()[0]]
        title = go.names[go.position[term]]
        return self._with_computed(term, tuple(sorted(members)), title, "Gene Ontology")

    def pathway_from_genes(self, name: str, genes: Sequence[str]) -> Pathway:
        """A user's own gene list as a pathway with computed modules.

        Names that cannot be resolved are listed in `unknown`; none at all is an error.
        """
        resolution = self.resolve(genes)
        members = tuple(sorted(set(resolution.approved.values())))
        if not members:
            shown = ", ".join(list(dict.fromkeys(genes))[:5])
            raise InputError(f"pathway {name!r}: none of its genes is known ({shown} ...)")
        unknown = tuple(g for g in dict.fromkeys(genes) if g not in resolution.approved)
        return self._with_computed(
            name, members, f"{len(members)} genes given by the user", "user", unknown
        )

    def _with_computed(
        self,
        name: str,
        members: tuple[str, ...],
        description: str,
        source: str,
        unknown: tuple[str, ...] = (),
    ) -> Pathway:
        similarities: list[NDArray[np.float64]] = []
        for graph_name in ("string", "string_ge800", "go", "reactome"):
            if graph_name == "string_ge800" and similarities:
                continue
            if self._missing_for(graph_name) is None:
                graph = self.graph(graph_name)
                rows = feature_kernels.take_rows(graph.adjacency, graph.nodes, members)
                columns = feature_kernels.take_rows(rows.T.tocsr(), graph.nodes, members)
                similarities.append(columns.toarray().astype(np.float64))
        modules = compute_modules(members, similarities, self._term_table(members))
        how = "computed" if modules else "none"
        return Pathway(name, members, description, modules, source, how, unknown)

    def _term_table(self, members: Sequence[str]) -> TermTable | None:
        names: list[str] = []
        blocks: list[csr_matrix] = []
        counts: list[NDArray[np.int64]] = []
        total = 1
        if self.has("go_terms") and self.has("gene_go"):
            genes, full = self._propagated(False)
            go = self._ontology()
            use = np.flatnonzero((go.n_genes >= 3) & (go.n_genes <= 5 * SPECIFIC_TERM))
            blocks.append(feature_kernels.take_rows(full[:, use], genes, members))
            names.extend(go.names[i] for i in use)
            counts.append(go.n_genes[use])
            total = max(total, len(genes))
        if self.has("gene_sets"):
            genes, matrix, ids = self._set_matrix(("reactome",))
            size = np.asarray(matrix.sum(axis=0)).ravel().astype(np.int64)
            use = np.flatnonzero((size >= 3) & (size <= 5 * SPECIFIC_TERM))
            titles = dict(
                zip(self.table("gene_sets")["name"], self.table("gene_sets")["title"], strict=True)
            )
            blocks.append(feature_kernels.take_rows(matrix[:, use], genes, members))
            names.extend(titles[ids[i]] for i in use)
            counts.append(size[use])
            total = max(total, len(genes))
        if not blocks:
            return None
        from scipy.sparse import hstack

        return TermTable(names, hstack(blocks).tocsr(), np.concatenate(counts), total)

    # --- relations -----------------------------------------------------------------------------

    def relations(
        self, genes: Sequence[str], pathway: Pathway, exclude_from_screen: bool = False
    ) -> dict[str, Relation]:
        """How each gene stands to the pathway (keyed by the input name).

        Members first, then directed edges (gene -> member before member -> gene), then STRING;
        see `relations.relate`. A name that is not known has kind "unknown".
        """
        approved = self.resolve(genes).approved

        def available(names: Mapping[str, str]) -> dict[str, Graph]:
            return {n: self.graph(n, exclude_from_screen) for n in names if self.has(f"edges_{n}")}

        symbols = sorted(set(approved.values()))
        found = dict(
            zip(
                symbols,
                relate(symbols, pathway, available(DIRECTED), available(UNDIRECTED)),
                strict=True,
            )
        )
        return {g: found[approved[g]] if g in approved else Relation(g, "unknown") for g in genes}

    # --- graphs --------------------------------------------------------------------------------

    def graph_names(self) -> tuple[str, ...]:
        """Names of the graphs that can be asked for; "a+b" merges."""
        stored = [n.removeprefix("edges_") for n in self.table_names() if n.startswith("edges_")]
        derived = [n for n in _DERIVED if self._missing_for(n) is None]
        return (*stored, *derived)

    def _missing_for(self, name: str) -> str | None:
        needed = _DERIVED.get(name, (f"edges_{name}",))
        missing = next((t for t in needed if not self.has(t)), None)
        if missing is None and name == "reactome":
            sets = self.table("gene_sets")
            if not (sets["collection"] == "reactome").any():
                return "gene_sets"
        return missing

    def graph(self, name: str, exclude_from_screen: bool = False) -> Graph:
        """A graph by name; "a+b" is the union (see `graphs.merge`).

        string (weight = combined score / 1000), string_ge800, omnipath, collectri, dorothea,
        regulation (directed, signed), go (shared specific terms), reactome (shared small
        pathways), complexes (smallest shared GO complex), shared_promoter (transcription starts
        within 1 kb on opposite strands), and graphs registered by `add_graph`.

        Parameters
        ----------
        exclude_from_screen
            Leave out edges and annotations whose source is a perturbation screen.
        """
        parts = [p.strip() for p in name.split("+")]
        if len(parts) > 1:
            return graph_kernels.merge(
                "+".join(parts), [self.graph(p, exclude_from_screen) for p in parts]
            )
        name = _ALIASES.get(parts[0], parts[0])
        missing = self._missing_for(name)
        if missing is not None:
            if name not in _DERIVED and f"edges_{name}" not in HOW:
                raise unknown_name("graph", name, (*self.graph_names(), *_ALIASES))
            raise InputError(
                f"graph {name!r} is not available: {self.path} was built without {missing!r}; "
                f"rebuild it with {HOW.get(missing, 'its source')}"
            )
        return self._keep(
            ("graph", name, exclude_from_screen), lambda: self._graph(name, exclude_from_screen)
        )

    def _graph(self, name: str, exclude_from_screen: bool) -> Graph:
        if name == "go":
            genes, full = self._propagated(exclude_from_screen)
            adjacency = graph_kernels.shared_sets(full, SPECIFIC_TERM, len(genes))
            adjacency = graph_kernels.keep_strongest(adjacency, GO_NEIGHBOURS)
            return Graph(
                "go",
                genes,
                adjacency,
                from_screen=self._from_screen("gene_go", exclude_from_screen),
            )
        if name == "complexes":
            genes, full = self._propagated(exclude_from_screen)
            use = self._ontology().complexes(LARGEST_COMPLEX)
            adjacency = graph_kernels.shared_complexes(full[:, use], len(genes))
            return Graph(
                name,
                genes,
                adjacency,
                from_screen=self._from_screen("gene_go", exclude_from_screen),
            )
        if name == "reactome":
            genes, matrix, _ = self._set_matrix(("reactome",))
            adjacency = graph_kernels.shared_sets(matrix, SMALL_PATHWAY, len(genes))
            return Graph(name, genes, adjacency)
        if name == "shared_promoter":
            edges = graph_kernels.shared_promoters(self.table("positions"))
            return graph_kernels.from_edges(name, edges, False, False)
        entry = self._manifest["tables"][f"edges_{name}"]
        edges = self.table(f"edges_{name}")
        screens = [s for s, e in self._manifest["sources"].items() if e["from_screen"]]
        from_screen = edges["source"].isin(screens)
        if exclude_from_screen:
            edges, from_screen = edges[~from_screen], from_screen[~from_screen]
        directed = bool(entry.get("directed", name in DIRECTED))
        return graph_kernels.from_edges(
            name, edges, directed, bool(from_screen.any()), signed=bool((edges["sign"] != 0).any())
        )

    def _from_screen(self, table: str, excluded: bool) -> bool:
        return not excluded and bool(self._manifest["tables"][table]["from_screen"])

    def _set_matrix(
        self, collections: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], csr_matrix, list[str]]:
        """Genes, 0/1 membership and set names of some collections (all when None)."""

        def make() -> tuple[tuple[str, ...], csr_matrix, list[str]]:
            sets, members = self.table("gene_sets"), self.table("gene_set_members")
            if collections is not None:
                sets = sets[sets["collection"].isin(collections)]
                members = members[members["name"].isin(set(sets["name"]))]
            names = sorted(sets["name"])
            genes = tuple(sorted(set(members["symbol"])))
            matrix = feature_kernels.membership(
                genes, members["symbol"].tolist(), names, members["name"].tolist()
            )
            return genes, matrix, names

        return self._keep(("set_matrix", collections), make)

    # --- features and embeddings ---------------------------------------------------------------

    def feature_kinds(self) -> tuple[str, ...]:
        """Kinds that `features` can give from this folder."""
        kinds = [k for k in ("go", "reactome", "string") if self._missing_for(k) is None]
        if self.has("gene_sets"):
            kinds.append("sets")
        if self.has("genes"):
            kinds.append("text")
        return tuple(kinds)

    def features(
        self, kind: str, genes: Sequence[str], exclude_from_screen: bool = False
    ) -> csr_matrix:
        """Sparse gene features for kernels: (n_genes, k) float32 csr in the order asked for.

        Parameters
        ----------
        kind
            "go" (0/1, terms with all ancestors), "reactome", "sets" (0/1, pathways), any graph
            name (adjacency rows with 1 for the gene itself), "text" (TF-IDF, unit rows).

        Unknown genes and genes without any feature get zero rows.
        """
        nodes, matrix, _ = self._features(kind, exclude_from_screen)
        approved = self.resolve(genes).approved
        return feature_kernels.take_rows(matrix, nodes, [approved.get(g, "") for g in genes])

    def feature_names(self, kind: str, exclude_from_screen: bool = False) -> list[str]:
        """Column names of `features`: GO ids, pathway names, genes or words."""
        return self._features(kind, exclude_from_screen)[2]

    def _features(
        self, kind: str, exclude_from_screen: bool
    ) -> tuple[tuple[str, ...], csr_matrix, list[str]]:
        if kind == "go":
            self._require("go")
            genes, full = self._propagated(exclude_from_screen)

            def informative() -> tuple[tuple[str, ...], csr_matrix, list[str]]:
                ids = self._ontology().ids
                count = np.asarray(full.sum(axis=0)).ravel()
                roots = np.isin(ids, sorted(ontology.UNINFORMATIVE))
                use = np.flatnonzero((count > 0) & ~roots)
                return genes, full[:, use].tocsr(), [ids[i] for i in use]

            return self._keep(("features", kind, exclude_from_screen), informative)
        if kind == "reactome":
            self._require("reactome")
            return self._set_matrix(("reactome",))
        if kind == "sets":
            self.table("gene_sets")
            return self._set_matrix(None)
        if kind == "text":
            return self._keep("text_features", self._text_features)
        graph = self.graph(kind, exclude_from_screen)
        matrix = self._keep(
            ("features", kind, exclude_from_screen), lambda: feature_kernels.with_self(graph)
        )
        return graph.nodes, matrix, list(graph.nodes)

    def _require(self, name: str) -> None:
        missing = self._missing_for(name)
        if missing is not None:
            raise InputError(
                f"{name!r} features are not available: {self.path} was built without {missing!r}; "
                f"rebuild it with {HOW.get(missing, 'its source')}"
            )

    def documents(self) -> dict[str, str]:
        """Text of every gene: full name, STRING annotation, RefSeq summary and GO term names."""

        def make() -> dict[str, str]:
            texts: dict[str, list[str]] = {}
            for symbol, row in self._gene_rows().items():
                texts[symbol] = [
                    row["full_name"], row["string_annotation"], row["refseq_summary"]
                ]  # fmt: skip
            if self.has("gene_go") and self.has("go_terms"):
                terms = self.table("go_terms").set_index("id")["name"]
                table = self.table("gene_go")
                for symbol, name in zip(table["symbol"], table["go"].map(terms), strict=True):
                    texts.setdefault(symbol, []).append(str(name))
            return {s: " . ".join(t for t in texts[s] if t) for s in sorted(texts)}

        return self._keep("documents", make)

    def _text_features(self) -> tuple[tuple[str, ...], csr_matrix, list[str]]:
        documents = self.documents()
        if not documents:
            raise InputError(
                f"text features are not available: {self.path} was built without 'genes'; "
                f"rebuild it with {HOW['genes']}"
            )
        matrix, words = feature_kernels.tf_idf(list(documents.values()))
        return tuple(documents), matrix, words

    def embedding_kinds(self) -> tuple[str, ...]:
        """Kinds that `embedding` can give, the registered matrices included."""
        kinds = [k for k in ("go", "reactome") if self._missing_for(k) is None]
        if self._missing_for("string") is None:
            kinds.append("graph")
        if self.has("genes") or self.has("gene_go"):
            kinds.insert(0, "text")
        return (*kinds, *self._manifest["embeddings"])

    def embedding(self, genes: Sequence[str], kind: str = "text", dim: int = 256) -> Embedding:
        """Gene features: "text", "graph", "go", "reactome", a registered name, or "a+b".

        "text" is TF-IDF of `documents` reduced by a truncated SVD; "go" and "reactome" the same
        of IDF-weighted terms; "graph" of diffused STRING rows ("graph:NAME" for another graph).
        They are computed over all genes of the folder, so a gene's numbers do not depend on what
        else is asked for. "sentence-transformers:MODEL" embeds the documents by that model
        (optional dependency). Blocks joined by "+" are scaled to unit rows first.

        Parameters
        ----------
        dim
            Columns of each computed block (fewer in small folders); registered matrices keep
            their own width.

        Returns
        -------
        Embedding
            (n_genes, k) float32; `missing` lists genes with a zero row in every block.
        """
        approved = self.resolve(genes).approved
        symbols = [approved.get(g, "") for g in genes]
        parts = [p.strip() for p in kind.split("+")]
        blocks: list[NDArray[np.float32]] = []
        for part in parts:
            nodes, matrix = self._block(part, dim)
            place = pd.Index(nodes).get_indexer(pd.Index(symbols))
            block = np.zeros((len(symbols), matrix.shape[1]), dtype=np.float32)
            block[place >= 0] = matrix[place[place >= 0]]
            blocks.append(feature_kernels.l2_rows(block) if len(parts) > 1 else block)
        joined = np.concatenate(blocks, axis=1)
        empty = ~np.asarray(joined.any(axis=1))
        missing = tuple(g for g, e in zip(genes, empty.tolist(), strict=True) if e)
        return Embedding("+".join(parts), tuple(genes), joined, missing)

    def _block(self, kind: str, dim: int) -> tuple[Sequence[str], NDArray[np.float32]]:
        if kind in self._manifest["embeddings"]:
            entry = self._manifest["embeddings"][kind]
            return self._keep(("registered", kind), lambda: read_embedding(Path(self.path), entry))
        if kind.startswith("sentence-transformers:"):
            from pertwise.knowledge.transformers import encode

            return self._cached(kind, 0, lambda: encode(kind.split(":", 1)[1], self.documents()))
        base = kind.split(":", 1)[0]
        if base not in ("text", "go", "reactome", "graph"):
            raise unknown_name("embedding", kind, self.embedding_kinds())
        return self._cached(kind, dim, lambda: self._compute(kind, dim))

    def _compute(self, kind: str, dim: int) -> tuple[Sequence[str], NDArray[np.float32]]:
        if kind.startswith("graph"):
            graph = self.graph(kind.split(":", 1)[1] if ":" in kind else "string")
            return graph.nodes, feature_kernels.truncated_svd(
                feature_kernels.diffusion_rows(graph), dim
            )
        nodes, matrix, _ = self._features(kind, False)
        if kind != "text":
            matrix = feature_kernels.idf_unit_rows(matrix)
        return nodes, feature_kernels.truncated_svd(matrix, dim)

    def _cached(
        self, kind: str, dim: int, make: Callable[[], tuple[Sequence[str], NDArray[np.float32]]]
    ) -> tuple[Sequence[str], NDArray[np.float32]]:
        """Computed blocks are kept in the folder; a folder that cannot be written keeps none."""

        def load() -> tuple[Sequence[str], NDArray[np.float32]]:
            safe = "".join(c if c.isalnum() else "-" for c in kind)
            path = Path(self.path) / "cache" / f"{safe}-{dim}-{self.fingerprint()}.npz"
            if path.is_file():
                with np.load(path, allow_pickle=False) as archive:
                    return archive["genes"].tolist(), archive["matrix"]
            nodes, matrix = make()
            try:
                with atomic_path(path) as temporary:
                    np.savez(temporary, genes=np.array(nodes, dtype=str), matrix=matrix)
            except OSError as error:
                _LOG.warning("embedding %r is not kept on disk: %s", kind, error)
            return nodes, matrix

        return self._keep(("block", kind, dim), load)


class _Ontology:
    """GO terms as arrays in the order of the table."""

    def __init__(self, terms: pd.DataFrame) -> None:
        self.ids: list[str] = terms["id"].tolist()
        self.names: list[str] = terms["name"].tolist()
        self.namespaces: list[str] = terms["namespace"].tolist()
        self.depth: NDArray[np.int32] = terms["depth"].to_numpy(np.int32)
        self.n_genes: NDArray[np.int64] = terms["n_genes"].to_numpy(np.int64)
        self.position = {t: i for i, t in enumerate(self.ids)}
        parents = ontology.parent_matrix(self.ids, terms["parents"].tolist())
        self.closure = ontology.ancestor_closure(parents)

    def complexes(self, max_genes: int) -> NDArray[np.int64]:
        """Terms below "protein-containing complex" with 2..max_genes genes.

        An ontology without that term falls back on cellular components named "... complex".
        """
        small = (self.n_genes >= 2) & (self.n_genes <= max_genes)
        root = self.position.get(ontology.COMPLEX_ROOT)
        if root is not None:
            below = np.asarray(self.closure[:, [root]].toarray()).ravel() > 0
            below[root] = False
        else:
            below = np.array(
                [
                    s == "C" and "complex" in n
                    for s, n in zip(self.namespaces, self.names, strict=True)
                ]
            )
        return np.flatnonzero(small & below)
