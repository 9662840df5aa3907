"""What a knowledge folder is made of: format version, tables, kinds of source files."""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "pertwise-knowledge"
#: Raised whenever a table changes shape; a folder of another version is refused.
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SIDECAR = "sources.json"
#: A file that `screen.simulate` puts beside invented tables: the folder is labelled by it.
SIMULATED = "SIMULATED.txt"

#: Columns of the tables. Every row has `source`: a key of `manifest["sources"]`.
TABLES: dict[str, tuple[str, ...]] = {
    "symbols": ("name", "approved", "kind", "source"),
    "genes": (
        "symbol", "full_name", "entrez", "ensembl", "string_id", "string_annotation",
        "refseq_summary", "source",
    ),
    "go_terms": ("id", "name", "namespace", "parents", "depth", "n_genes", "source"),
    "gene_go": ("symbol", "go", "evidence", "from_screen", "source"),
    "gene_sets": ("name", "title", "collection", "description", "n_genes", "source"),
    "gene_set_members": ("name", "symbol", "source"),
    "positions": ("symbol", "ensembl", "chr", "start", "end", "strand", "biotype", "source"),
    "summaries_llm": ("symbol", "summary", "model", "date", "source"),
}  # fmt: skip
EDGE_COLUMNS = ("a", "b", "weight", "sign", "source")


@dataclass(frozen=True)
class SourceKind:
    """One kind of input file: what it is called, under which licence, what it feeds."""

    kind: str
    title: str
    licence: str
    feeds: tuple[str, ...]


_KINDS = (
    SourceKind("hgnc", "HGNC complete set", "CC0 1.0", ("symbols", "genes")),
    SourceKind("alias", "HGNC aliases (symbol, approved)", "CC0 1.0", ("symbols",)),
    SourceKind("gene_info", "NCBI gene_info", "public domain", ("symbols", "genes")),
    SourceKind("gene_summary", "NCBI gene_summary (RefSeq)", "public domain", ("genes",)),
    SourceKind(
        "gene_text",
        "gene names and texts (HGNC, STRING annotation, RefSeq summary)",
        "HGNC CC0 1.0; STRING CC BY 4.0; RefSeq public domain",
        ("genes",),
    ),
    SourceKind("gaf", "GO annotations (goa_human)", "CC BY 4.0", ("gene_go",)),
    SourceKind("gene_go", "GO annotations (symbol, go)", "CC BY 4.0", ("gene_go",)),
    SourceKind("obo", "Gene Ontology (go-basic)", "CC BY 4.0", ("go_terms",)),
    SourceKind("go_table", "Gene Ontology (table)", "CC BY 4.0", ("go_terms",)),
    SourceKind("gmt", "gene sets", "see the provider", ("gene_sets",)),
    SourceKind("string_info", "STRING protein.info", "CC BY 4.0", ("genes",)),
    SourceKind("string_aliases", "STRING protein.aliases", "CC BY 4.0", ()),
    SourceKind("string_links", "STRING protein.links", "CC BY 4.0", ("edges_string",)),
    SourceKind("string", "STRING, gene symbols", "CC BY 4.0", ("edges_string",)),
    SourceKind(
        "string_ge800",
        "STRING pairs of combined score >= 800, gene symbols",
        "CC BY 4.0",
        ("edges_string_ge800",),
    ),
    SourceKind("omnipath", "OmniPath interactions", "composite (per source)", ("edges_omnipath",)),
    SourceKind(
        "regulation",
        "OmniPath gene regulation",
        "composite (per source)",
        ("edges_regulation",),
    ),
    SourceKind("collectri", "CollecTRI", "composite (per source)", ("edges_collectri",)),
    SourceKind("dorothea", "DoRothEA", "composite (per source)", ("edges_dorothea",)),
    SourceKind("positions", "gene positions", "see the provider", ("positions",)),
    SourceKind("gtf", "Ensembl / GENCODE gene annotation", "open (EMBL-EBI)", ("positions",)),
    SourceKind("graph", "user graph", "", ()),
    SourceKind("curated", "module descriptions curated for pertwise", "BSD-3-Clause", ()),
)
KINDS: dict[str, SourceKind] = {k.kind: k for k in _KINDS}

#: Directed edge tables in the order in which they are named as evidence.
DIRECTED = {
    "collectri": "CollecTRI",
    "dorothea": "DoRothEA",
    "omnipath": "OmniPath",
    "regulation": "OmniPath regulation",
}
UNDIRECTED = {"string": "STRING", "string_ge800": "STRING >= 800"}
#: STRING's evidence channels kept as graphs of their own ("string_experiments" ...) -> the names
#: of their columns. They are part of the combined score, so relations do not cite them again.
STRING_CHANNELS = {
    "coexpression": ("coexpression",),
    "experiments": ("experiments", "experimental"),
    "database": ("database",),
}

#: How to get what is missing: shown when something is asked of a folder built without it.
HOW = {
    "symbols": "hgnc_complete_set.txt (HGNC) or gene_alias.tsv.gz",
    "genes": "Homo_sapiens.gene_info.gz + gene_summary.gz (NCBI), 9606.protein.info (STRING) "
    "or gene_summary.tsv.gz",
    "go_terms": "go-basic.obo or go_ontology.tsv.gz",
    "gene_go": "goa_human.gaf.gz or gene_go.tsv.gz",
    "gene_sets": "any .gmt file (MSigDB Hallmark, Reactome)",
    "positions": "a GENCODE/Ensembl .gtf.gz or gene_position_grch38.tsv.gz",
    "edges_string": "9606.protein.links(.detailed) + 9606.protein.info (STRING)",
    "edges_string_ge800": "string_v12_ge800_pairs.tsv.gz",
    **{
        f"edges_string_{c}": "STRING with channel scores (9606.protein.links.detailed)"
        for c in STRING_CHANNELS
    },
    "edges_omnipath": "OmniPath interactions (genesymbols=1)",
    "edges_regulation": "omnipath_gene_regulation.tsv.gz or OmniPath interactions of type "
    "transcriptional",
    "edges_collectri": "CollecTRI (source, target, weight)",
    "edges_dorothea": "DoRothEA (source, target, confidence, weight)",
}
