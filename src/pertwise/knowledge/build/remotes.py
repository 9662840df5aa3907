"""Where the public source files are, of every species that a folder can be built of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pertwise.knowledge.genes.species import taxon_id


@dataclass(frozen=True)
class Remote:
    """One public file: short name, file name here, address, title, licence.

    `kind` is what `readers.recognise` must say of it; `sums` the name of the list of checksums
    that stands beside it ("" = none is published).
    """

    name: str
    file: str
    url: str
    title: str
    licence: str
    kind: str = ""
    sums: str = ""


_STRING = "https://stringdb-downloads.org/download"
_NCBI = "https://ftp.ncbi.nlm.nih.gov/gene/DATA"
_OMNIPATH = "https://omnipathdb.org/interactions?genesymbols=1&organisms=9606&fields=type&datasets="
#: Where the public files are. Addresses change: `fetch_sources` takes others.
REMOTES = (
    Remote(
        "hgnc",
        "hgnc_complete_set.txt",
        "https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt",
        "HGNC complete set",
        "CC0 1.0",
        "hgnc",
    ),
    Remote(
        "gene_info",
        "Homo_sapiens.gene_info.gz",
        f"{_NCBI}/GENE_INFO/Mammalia/Homo_sapiens.gene_info.gz",
        "NCBI gene_info",
        "public domain",
        "gene_info",
    ),
    Remote(
        "gene_summary",
        "gene_summary.gz",
        f"{_NCBI}/gene_summary.gz",
        "NCBI gene_summary (RefSeq)",
        "public domain",
        "gene_summary",
    ),
    Remote(
        "gaf",
        "goa_human.gaf.gz",
        "https://current.geneontology.org/annotations/goa_human.gaf.gz",
        "GO annotations (goa_human)",
        "CC BY 4.0",
        "gaf",
    ),
    Remote(
        "obo",
        "go-basic.obo",
        "https://current.geneontology.org/ontology/go-basic.obo",
        "Gene Ontology (go-basic)",
        "CC BY 4.0",
        "obo",
    ),
    Remote(
        "hallmark",
        "h.all.v2024.1.Hs.symbols.gmt",
        "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2024.1.Hs/"
        "h.all.v2024.1.Hs.symbols.gmt",
        "MSigDB Hallmark",
        "CC BY 4.0",
        "gmt",
    ),
    Remote(
        "reactome",
        "ReactomePathways.gmt.zip",
        "https://reactome.org/download/current/ReactomePathways.gmt.zip",
        "Reactome pathways",
        "CC0 1.0",
        "gmt",
    ),
    Remote(
        "string_info",
        "9606.protein.info.v12.0.txt.gz",
        f"{_STRING}/protein.info.v12.0/9606.protein.info.v12.0.txt.gz",
        "STRING protein.info",
        "CC BY 4.0",
        "string_info",
    ),
    Remote(
        "string_links",
        "9606.protein.links.detailed.v12.0.txt.gz",
        f"{_STRING}/protein.links.detailed.v12.0/9606.protein.links.detailed.v12.0.txt.gz",
        "STRING protein.links.detailed",
        "CC BY 4.0",
        "string_links",
    ),
    Remote(
        "omnipath",
        "omnipath_interactions.tsv",
        f"{_OMNIPATH}omnipath",
        "OmniPath interactions",
        "composite (per source)",
        "omnipath",
    ),
    Remote(
        "collectri",
        "collectri_interactions.tsv",
        f"{_OMNIPATH}collectri",
        "CollecTRI (OmniPath)",
        "composite (per source)",
        "omnipath",
    ),
    Remote(
        "gtf",
        "gencode.v46.basic.annotation.gtf.gz",
        "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human/release_46/"
        "gencode.v46.basic.annotation.gtf.gz",
        "GENCODE basic annotation",
        "open (EMBL-EBI)",
        "gtf",
        "MD5SUMS",
    ),
)


#: Mouse files by the name of the human one in whose place they stand.
_MOUSE = {
    "hgnc": Remote(
        "mgi",
        "MRK_List2.rpt",
        "https://www.informatics.jax.org/downloads/reports/MRK_List2.rpt",
        "MGI marker list",
        "CC BY 4.0",
        "mgi",
    ),
    "gaf": Remote(
        "gaf",
        "mgi.gaf.gz",
        "https://current.geneontology.org/annotations/mgi.gaf.gz",
        "GO annotations (MGI)",
        "CC BY 4.0",
        "gaf",
    ),
    "hallmark": Remote(
        "hallmark",
        "mh.all.v2024.1.Mm.symbols.gmt",
        "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2024.1.Mm/"
        "mh.all.v2024.1.Mm.symbols.gmt",
        "MSigDB Hallmark (mouse)",
        "CC BY 4.0",
        "gmt",
    ),
    "reactome": Remote(
        "reactome",
        "m2.cp.reactome.v2024.1.Mm.symbols.gmt",
        "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/2024.1.Mm/"
        "m2.cp.reactome.v2024.1.Mm.symbols.gmt",
        "Reactome pathways (MSigDB, mouse)",
        "CC BY 4.0",
        "gmt",
    ),
    "gtf": Remote(
        "gtf",
        "gencode.vM35.basic.annotation.gtf.gz",
        "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_mouse/release_M35/"
        "gencode.vM35.basic.annotation.gtf.gz",
        "GENCODE basic annotation",
        "open (EMBL-EBI)",
        "gtf",
        "MD5SUMS",
    ),
}


def remotes_of(taxon: str = "human") -> tuple[Remote, ...]:
    """The public files of a species; the others than human are named alike but for the taxon.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a species of which no folder can be built.
    """
    if (number := taxon_id(taxon)) == "9606":
        return REMOTES
    return tuple(
        _MOUSE.get(r.name)
        or replace(
            r,
            file=r.file.replace("Homo_sapiens", "Mus_musculus").replace("9606", number),
            url=r.url.replace("Homo_sapiens", "Mus_musculus").replace("9606", number),
        )
        for r in REMOTES
    )
