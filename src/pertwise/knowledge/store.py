"""`Knowledge`: a folder of typed parquet tables, opened lazily."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from scipy.sparse import csr_matrix

from pertwise.errors import InputError
from pertwise.knowledge import identity
from pertwise.knowledge.cards import GeneCards
from pertwise.knowledge.genes import embeddings, gene_sets, networks, walks
from pertwise.knowledge.genes.features import idf_unit_rows, take_rows, unit_rows
from pertwise.knowledge.genes.relations import relate
from pertwise.knowledge.layout import DIRECTED, UNDIRECTED
from pertwise.knowledge.tables import Tables
from pertwise.knowledge.types import (
    Embedding,
    GeneCard,
    Graph,
    Pathway,
    Relation,
)

if TYPE_CHECKING:
    from pertwise.knowledge.drugs.table import DrugCard, DrugTable
    from pertwise.knowledge.lines import CellTable
    from pertwise.knowledge.ratings import Ratings

T = TypeVar("T")
Path = str | os.PathLike[str]


class Knowledge(GeneCards):
    """What is already known about genes, drugs and cell lines.

    About genes it is read from a folder made by `build_knowledge`: tables when first asked for, and
    kept; computed graphs too. Embeddings that take long are stored in the folder's `cache/` when it
    can be written. About drugs and lines it is read from tables.

    Attributes
    ----------
    drugs
        Names, structures, targets, mechanisms; None when no table of drugs was given.
    lines
        Organs and driver alterations of cell lines; None when no table was given.
    ratings
        Marks of perturbations on programs, from a model or a person; one table a context.
    """

    path: str
    drugs: DrugTable | None = None
    lines: CellTable | None = None
    ratings: tuple[Ratings, ...] = ()

    def __init__(
        self,
        tables: Tables | None = None,
        drugs: DrugTable | None = None,
        lines: CellTable | None = None,
        ratings: Sequence[Ratings] = (),
    ) -> None:
        super().__init__(Tables.empty() if tables is None else tables)
        self.path = self._tables.path
        self.drugs, self.lines, self.ratings = drugs, lines, tuple(ratings)

    # --- the folder ----------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: Path | None = None,
        *,
        drugs: Path | Sequence[Path] = (),
        lines: Path | None = None,
        ratings: Path | Sequence[Path] = (),
    ) -> Knowledge:
        """Open a knowledge folder (reads only its manifest), tables of drugs and of cell lines.

        Parameters
        ----------
        path
            The folder about genes; None when only drugs (and lines) are known.
        drugs
            Tables of drug facts (`DrugTable.read`); earlier ones win.
        lines
            A table of cell-line facts (`CellTable.read`).
        ratings
            Tables of marks (`read_ratings`): of `pertwise rate`, or filled in by hand.

        Raises
        ------
        InputError
            When it is not a knowledge folder, of another format version, a file is missing or no
            table of its kind; when nothing is given at all.
        """
        given, marked = _several(drugs), _several(ratings)
        if path is None and not given and lines is None and not marked:
            raise InputError(
                "nothing to open: give a knowledge folder, drugs=[TABLE], lines= or ratings=[TABLE]"
            )
        tables = Tables.empty() if path is None else Tables.open(path)
        table = cells = None
        if given:
            from pertwise.knowledge.drugs.table import DrugTable

            table = DrugTable.read(*given)
        if lines is not None:
            from pertwise.knowledge.lines import CellTable

            cells = CellTable.read(lines)
        found: list[Ratings] = []
        if marked:
            from pertwise.knowledge.ratings import read_ratings

            found = [r for file in marked for r in read_ratings(file)]
        return cls(tables, table, cells, found)

    def spelt(self, names: Sequence[str]) -> Knowledge:
        """The same knowledge, its drugs also under these spellings of a screen."""
        table = None if self.drugs is None else self.drugs.spelt(names)
        if table is self.drugs:
            return self
        return Knowledge(self._tables.reopened(), table, self.lines, self.ratings)

    def with_drug(self, card: DrugCard) -> Knowledge:
        """The same knowledge with one more drug; kernels are built anew."""
        from pertwise.knowledge.drugs.table import DrugTable

        table = DrugTable.from_cards([card]) if self.drugs is None else self.drugs.with_card(card)
        return Knowledge(self._tables.reopened(), table, self.lines, self.ratings)

    def with_ratings(self, ratings: Sequence[Ratings]) -> Knowledge:
        """The same knowledge with these marks in the place of its own."""
        return Knowledge(self._tables, self.drugs, self.lines, ratings)

    def __repr__(self) -> str:
        """Where it is and what it holds, without reading a table."""
        held = [f"folder {self.path}"] if self.path else []
        held += [f"{len(self.drugs):,} drugs"] if self.drugs is not None else []
        held += [f"{len(self.lines.lines):,} lines"] if self.lines is not None else []
        held += [f"marks of {len(self.ratings)} contexts"] if self.ratings else []
        return f"<Knowledge: {', '.join(held) or 'nothing'}>"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Manifest: format, tables with source, version, date, licence, sha256, from_screen."""
        return self._tables.manifest

    @property
    def label(self) -> str:
        """What the folder must be labelled with wherever it is shown, e.g. "simulated"."""
        return str(self.manifest.get("label", ""))

    def fingerprint(self) -> str:
        """Short hash over all tables: goes into plans and reports."""
        if self.drugs is None and self.lines is None and not self.ratings:
            return self._tables.fingerprint()
        about = [dict(self.drugs.cards) if self.drugs else "", dict(self.lines.lines) if self.lines
                 else ""]  # fmt: skip
        marks = [r.fingerprint() for r in self.ratings]
        text = self._tables.fingerprint() + repr(about) + (repr(marks) if marks else "")
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` returns, made once for this knowledge (kernels, read files)."""
        return self._tables.keep(key, make)

    # --- what a perturbation is, gene or compound ----------------------------------------------

    def kinds(self, names: Sequence[str]) -> dict[str, identity.Kind]:
        """name -> "gene", "compound", "both" (a mixed combination) or "" (not known)."""
        return identity.kinds(self, names)

    def mostly_compounds(self, names: Sequence[str]) -> bool:
        """Whether more than half of the names are compounds of the table."""
        if self.drugs is None:
            return False
        kinds = list(self.kinds(names).values())
        return 2 * kinds.count("compound") > len(kinds)

    def identity(self, names: Sequence[str]) -> dict[str, str]:
        """name -> approved symbol or parent compound: equal for what is one thing."""
        return identity.identity(self, names)

    def families(self, names: Sequence[str]) -> dict[str, str]:
        """name -> scaffold or group of shared promoters: stands on one side of a split."""
        return identity.families(self, names)

    def canonical(self, names: Sequence[str]) -> dict[str, str]:
        """Any spelling -> name of the drug table, else approved symbol; unknown ones are left out.

        A checker of picks from a closed list (`select.closed_list.Resolver`).
        """
        found = {} if self.drugs is None else dict(self.drugs.resolve(names).approved)
        rest = [n for n in names if n not in found]
        return {**found, **self.resolve(rest).approved}

    def facts(self, name: str, *, smiles: bool = False) -> str:
        """What a prompt says about a perturbation; "" where nothing is known."""
        return identity.facts(self, name, smiles=smiles)

    def context_facts(self, context: str) -> str:
        """What a prompt says about a cell line; "" where nothing is known."""
        if self.lines is None or self.lines.resolve(context) is None:
            return ""
        return self.lines.line(context).text()

    # --- symbols and cards ---------------------------------------------------------------------

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        """A card for every input name (keyed by the input name); unknown ones have known=False.

        A drug has its mechanism, targets and approval as summary.
        """
        if self.drugs is not None:
            drugs, rest = self.drugs, [g for g in genes if g not in self.drugs]
            found = {g: GeneCard(g, "", self.facts(g)) for g in genes if g in drugs}
            return {**found, **super().cards(rest)}
        return super().cards(genes)

    # --- pathways and relations ----------------------------------------------------------------

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
        return gene_sets.find_pathway(self._tables, name)

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
        return gene_sets.with_modules(
            self._tables, name, members, f"{len(members)} genes given by the user", "user", unknown
        )

    def relations(
        self, genes: Sequence[str], pathway: Pathway, exclude_from_screen: bool = False
    ) -> dict[str, Relation]:
        """How each gene stands to the pathway (keyed by the input name).

        Members first, then directed edges (gene -> member before member -> gene), then STRING;
        see `relations.relate`. A name that is not known has kind "unknown". A drug stands as its
        closest target does.
        """
        if self.drugs is not None:
            return identity.drug_relations(self, genes, pathway, exclude_from_screen)
        return self._relations(genes, pathway, exclude_from_screen)

    def _relations(
        self, genes: Sequence[str], pathway: Pathway, exclude_from_screen: bool
    ) -> dict[str, Relation]:
        approved = self.resolve(genes).approved

        def available(names: Mapping[str, str]) -> dict[str, Graph]:
            there = [n for n in names if self.has(f"edges_{n}")]
            return {n: self.graph(n, exclude_from_screen) for n in there}

        symbols = sorted(set(approved.values()))
        answers = relate(symbols, pathway, available(DIRECTED), available(UNDIRECTED))
        found = dict(zip(symbols, answers, strict=True))
        return {g: found[approved[g]] if g in approved else Relation(g, "unknown") for g in genes}

    # --- graphs --------------------------------------------------------------------------------

    def graph_names(self) -> tuple[str, ...]:
        """Names of the graphs that can be asked for; "a+b" merges."""
        return networks.graph_names(self._tables)

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
        return networks.load_graph(self._tables, name, exclude_from_screen)

    # --- features and embeddings ---------------------------------------------------------------

    def feature_kinds(self) -> tuple[str, ...]:
        """Kinds that `features` can give from this folder (any graph name works too)."""
        return embeddings.feature_kinds(self._tables)

    def features(
        self,
        kind: str,
        genes: Sequence[str],
        exclude_from_screen: bool = False,
        weighted: bool = False,
    ) -> csr_matrix:
        """Sparse gene features for kernels: (n_genes, k) float32 csr in the order asked for.

        Unknown genes and genes without any feature get zero rows.

        Parameters
        ----------
        kind
            "go" (0/1, terms with all ancestors), "reactome", "sets" (0/1, pathways), any graph
            name (adjacency rows with 1 for the gene itself), "text" (TF-IDF, unit rows),
            "diffusion:GRAPH" (walks with restart from the gene, `diffusion.walk_rows`).
        exclude_from_screen
            Leave out what was derived from a perturbation screen.
        weighted
            Columns weighted by log(all genes / genes that have it), rows of unit length: the
            products of two rows are then cosine kernels. "text" is weighted already, and walks
            are only scaled to unit length.
        """
        name, _, walked = kind.partition(":")
        if name == "diffusion":
            rows = self._walks(walked, genes, exclude_from_screen)
            return unit_rows(rows) if weighted else rows
        nodes, matrix, _ = embeddings.sparse_features(self._tables, kind, exclude_from_screen)
        if weighted and kind != "text":
            plain = matrix
            matrix = self._tables.keep(
                ("weighted", kind, exclude_from_screen), lambda: idf_unit_rows(plain)
            )
        approved = self.resolve(genes).approved
        return take_rows(matrix, nodes, [approved.get(g, "") for g in genes])

    def _walks(self, graph_name: str, genes: Sequence[str], exclude: bool) -> csr_matrix:
        """Rows of `walk_rows`, each walked once for a folder: they cost more than a look-up."""
        graph = self.graph(graph_name, exclude)
        approved = self.resolve(genes).approved
        return walks.rows(self._tables, graph, exclude, [approved.get(g, "") for g in genes])

    def feature_names(self, kind: str, exclude_from_screen: bool = False) -> list[str]:
        """Column names of `features`: GO ids, pathway names, genes or words."""
        return embeddings.sparse_features(self._tables, kind, exclude_from_screen)[2]

    def documents(self) -> dict[str, str]:
        """Text of every gene: full name, STRING annotation, RefSeq summary and GO term names."""
        return embeddings.documents(self._tables)

    def embedding_kinds(self) -> tuple[str, ...]:
        """Kinds that `embedding` can give, the registered matrices included."""
        return embeddings.embedding_kinds(self._tables)

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
        return embeddings.embed(self._tables, genes, symbols, kind, dim)


def _several(paths: Path | Sequence[Path]) -> list[Path]:
    """One path or several, as a list."""
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
