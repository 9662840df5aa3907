"""What a knowledge folder is made of: format version and tables."""

from __future__ import annotations

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
    "symbols": "hgnc_complete_set.txt (HGNC), MRK_List2.rpt (MGI) or gene_alias.tsv.gz",
    "genes": "gene_info.gz of the species + gene_summary.gz (NCBI), protein.info (STRING) "
    "or gene_summary.tsv.gz",
    "go_terms": "go-basic.obo or go_ontology.tsv.gz",
    "gene_go": "goa_human.gaf.gz, mgi.gaf.gz or gene_go.tsv.gz",
    "gene_sets": "any .gmt file (MSigDB Hallmark, Reactome)",
    "positions": "a GENCODE/Ensembl .gtf.gz or gene_position_grch38.tsv.gz",
    "edges_string": "protein.links(.detailed) + protein.info of the species (STRING)",
    "edges_string_ge800": "string_v12_ge800_pairs.tsv.gz",
    **{
        f"edges_string_{c}": "STRING with channel scores (protein.links.detailed)"
        for c in STRING_CHANNELS
    },
    "edges_omnipath": "OmniPath interactions (genesymbols=1)",
    "edges_regulation": "omnipath_gene_regulation.tsv.gz or OmniPath interactions of type "
    "transcriptional",
    "edges_collectri": "CollecTRI (source, target, weight)",
    "edges_dorothea": "DoRothEA (source, target, confidence, weight)",
}
