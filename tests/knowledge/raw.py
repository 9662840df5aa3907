"""A dozen genes in the public raw formats, written as those files are (values made up)."""

# ruff: noqa: E501 - lines are as long as those of the real files

import gzip
import zipfile
from pathlib import Path

HGNC = """hgnc_id\tsymbol\tname\tlocus_group\tlocus_type\tstatus\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id
HGNC:20\tAARS1\talanyl-tRNA synthetase 1\tprotein-coding gene\tgene with protein product\tApproved\tALARS\tAARS\t16\tENSG00000090861
HGNC:1\tGATA1\tGATA binding protein 1\tprotein-coding gene\tgene with protein product\tApproved\t"ERYF1|NFE1|SHARED"\tGF1\t2623\tENSG00000102145
HGNC:2\tHMBS\thydroxymethylbilane synthase\tprotein-coding gene\tgene with protein product\tApproved\t\tPBGD|UPS\t3145\tENSG00000256269
HGNC:3\tUROD\turoporphyrinogen decarboxylase\tprotein-coding gene\tgene with protein product\tApproved\tSHARED\t\t7389\tENSG00000126088
HGNC:4\tTAL1\tTAL bHLH transcription factor 1\tprotein-coding gene\tgene with protein product\tApproved\tHMBS\tTCL5\t6886\tENSG00000162367
HGNC:5\tFOS\tFos proto-oncogene\tprotein-coding gene\tgene with protein product\tApproved\t\t\t2353\tENSG00000170345
HGNC:6\tJUN\tJun proto-oncogene\tprotein-coding gene\tgene with protein product\tApproved\t\t\t3725\tENSG00000177606
HGNC:7\tC1orf112\tchromosome 1 open reading frame 112\tprotein-coding gene\tgene with protein product\tApproved\t\t\t55732\tENSG00000000460
HGNC:8\tOLDGENE\twithdrawn thing\tother\tunknown\tEntry Withdrawn\t\t\t\t
"""

GAF_HEAD = "!gaf-version: 2.2\n!date-generated: 2024-06-17T00:00\n"


def gaf_row(symbol, qualifier, term, evidence, aspect="P", taxon="taxon:9606"):
    start = ("UniProtKB", "P00000", symbol, qualifier, term, "PMID:1", evidence, "", aspect)
    return "\t".join((*start, "a protein", "", "protein", taxon, "20240101", "UniProt", "", ""))


GAF = (
    GAF_HEAD
    + "\n".join(
        [
            gaf_row("HMBS", "involved_in", "GO:0006783", "IDA"),
            gaf_row("UROD", "involved_in", "GO:0006783", "TAS"),
            gaf_row("UROD", "involved_in", "GO:0042168", "IEA"),
            gaf_row("AARS1", "enables", "GO:0004813", "IDA", "F"),
            gaf_row("GATA1", "NOT|involved_in", "GO:0006783", "IDA"),
            gaf_row("TAL1", "involved_in", "GO:0042168", "HMP"),
            gaf_row("GATA1", "part_of", "GO:0005667", "IDA", "C"),
            gaf_row("TAL1", "part_of", "GO:0005667", "IDA", "C"),
            gaf_row("HMBS", "involved_in", "GO:0006783", "IEA", taxon="taxon:10090"),
        ]
    )
    + "\n"
)

OBO = """format-version: 1.2
data-version: releases/2024-06-17
ontology: go

[Term]
id: GO:0008150
name: biological_process
namespace: biological_process

[Term]
id: GO:0042168
name: heme metabolic process
namespace: biological_process
is_a: GO:0008150 ! biological_process

[Term]
id: GO:0006783
name: heme biosynthetic process
namespace: biological_process
is_a: GO:0042168 ! heme metabolic process

[Term]
id: GO:0003674
name: molecular_function
namespace: molecular_function

[Term]
id: GO:0004813
name: alanine-tRNA ligase activity
namespace: molecular_function
is_a: GO:0003674 ! molecular_function
relationship: part_of GO:0008150 ! biological_process

[Term]
id: GO:0005575
name: cellular_component
namespace: cellular_component

[Term]
id: GO:0032991
name: protein-containing complex
namespace: cellular_component
is_a: GO:0005575 ! cellular_component

[Term]
id: GO:0005667
name: transcription regulator complex
namespace: cellular_component
is_a: GO:0032991 ! protein-containing complex

[Term]
id: GO:0000005
name: obsolete thing
namespace: molecular_function
is_obsolete: true

[Typedef]
id: part_of
name: part of
namespace: external
is_transitive: true
"""

GENE_INFO = """#tax_id\tGeneID\tSymbol\tLocusTag\tSynonyms\tdbXrefs\tchromosome\tmap_location\tdescription\ttype_of_gene\tSymbol_from_nomenclature_authority\tFull_name_from_nomenclature_authority\tNomenclature_status\tOther_designations\tModification_date\tFeature_type
9606\t3145\tHMBS\t-\tPORC|HMB-S\tMIM:609806|Ensembl:ENSG00000256269\t11\t11q23.3\thydroxymethylbilane synthase\tprotein-coding\tHMBS\thydroxymethylbilane synthase\tO\t-\t20240101\t-
9606\t99999\tLOC99999\t-\t-\t-\t1\t1\tsome locus\tother\t-\t-\t-\t-\t20240101\t-
10090\t15288\tHmbs\t-\t-\t-\t9\t9\tmouse gene\tprotein-coding\tHmbs\tmouse\tO\t-\t20240101\t-
"""

GENE_SUMMARY = """#tax_id\tGeneID\tSource\tSummary
9606\t3145\tRefSeq\tThis gene encodes the third enzyme of the heme biosynthetic pathway. Alternatively spliced variants exist. [provided by RefSeq, Jul 2008]
9606\t12345678\tRefSeq\tA locus without a symbol here.
10090\t15288\tRefSeq\tA mouse gene.
"""

STRING_INFO = """#string_protein_id\tpreferred_name\tprotein_size\tannotation
9606.ENSP01\tHMBS\t361\tPorphobilinogen deaminase; Tetrapolymerization of the monopyrrole PBG.
9606.ENSP02\tUROD\t367\tUroporphyrinogen decarboxylase; Catalyzes the decarboxylation of uroporphyrinogen-III.
9606.ENSP03\tAARS\t968\tAlanine--tRNA ligase; Attaches alanine to tRNA(Ala).
9606.ENSP04\tNOGENE\t10\tUnknown.
"""

STRING_LINKS = """protein1 protein2 neighborhood fusion cooccurence coexpression experimental database textmining combined_score
9606.ENSP01 9606.ENSP02 0 0 0 600 0 900 999 998
9606.ENSP02 9606.ENSP01 0 0 0 600 0 900 999 998
9606.ENSP01 9606.ENSP03 0 0 0 0 0 0 300 300
9606.ENSP03 9606.ENSP01 0 0 0 0 0 0 300 300
9606.ENSP02 9606.ENSP03 0 0 0 0 500 0 0 500
9606.ENSP03 9606.ENSP02 0 0 0 0 500 0 0 500
9606.ENSP02 9606.ENSP04 0 0 0 0 500 0 0 500
9606.ENSP04 9606.ENSP02 0 0 0 0 500 0 0 500
"""

HALLMARK = (
    "HALLMARK_HEME_METABOLISM\thttps://www.gsea-msigdb.org/x\tHMBS\tUROD\tGATA1\tGF1\tNOTAGENE\n"
)
REACTOME = "Heme biosynthesis\tR-HSA-189451\tHMBS\tUROD\n"

OMNIPATH = """source\ttarget\tsource_genesymbol\ttarget_genesymbol\tis_directed\tis_stimulation\tis_inhibition\tconsensus_direction\tconsensus_stimulation\tconsensus_inhibition\ttype
P1\tP2\tJUN\tGATA1\t1\t1\t0\t1\t1\t0\tpost_translational
COMPLEX:P3_P1\tP4\tFOS_JUN\tTAL1\t1\t0\t1\t1\t0\t1\tpost_translational
P5\tP6\tGATA1\tUROD\t1\t1\t1\t1\t0\t0\ttranscriptional
P7\tP8\tAARS1\tUROD\t0\t0\t0\t0\t0\t0\tpost_translational
"""

COLLECTRI = """source,target,weight,resources
GATA1,HMBS,1,ExTRI
AP1,TAL1,-1,ExTRI
hsa-miR-1,HMBS,-1,ExTRI
"""
DOROTHEA = """source,confidence,target,weight
TAL1,A,HMBS,1
TAL1,D,UROD,1
"""

GTF = """##description: evidence-based annotation of the human genome (GRCh38), version 46 (Ensembl 112)
##date: 2024-03-18
chr11\tHAVANA\tgene\t119084864\t119093834\t.\t+\t.\tgene_id "ENSG00000256269.9"; gene_type "protein_coding"; gene_name "HMBS";
chr11\tHAVANA\ttranscript\t119084864\t119093834\t.\t+\t.\tgene_id "ENSG00000256269.9"; gene_name "HMBS";
chr11\tHAVANA\tgene\t119080000\t119084300\t.\t-\t.\tgene_id "ENSG00000126088.1"; gene_type "protein_coding"; gene_name "UROD";
chr11\tHAVANA\tgene\t119085000\t119086000\t.\t+\t.\tgene_id "ENSG00000170345.1"; gene_type "protein_coding"; gene_name "FOS";
chrM\tENSEMBL\tgene\t100\t200\t.\t+\t.\tgene_id "ENSG00000177606.1"; gene_type "protein_coding"; gene_name "JUN";
"""


def write_raw(folder: Path) -> Path:
    """All raw files, as their providers name and pack them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hgnc_complete_set.txt").write_text(HGNC)
    (folder / "goa_human.gaf.gz").write_bytes(gzip.compress(GAF.encode()))
    (folder / "go-basic.obo").write_text(OBO)
    (folder / "Homo_sapiens.gene_info.gz").write_bytes(gzip.compress(GENE_INFO.encode()))
    (folder / "gene_summary.gz").write_bytes(gzip.compress(GENE_SUMMARY.encode()))
    (folder / "9606.protein.info.v12.0.txt.gz").write_bytes(gzip.compress(STRING_INFO.encode()))
    (folder / "9606.protein.links.detailed.v12.0.txt.gz").write_bytes(
        gzip.compress(STRING_LINKS.encode())
    )
    (folder / "h.all.v2024.1.Hs.symbols.gmt").write_text(HALLMARK)
    with zipfile.ZipFile(folder / "ReactomePathways.gmt.zip", "w") as archive:
        archive.writestr("ReactomePathways.gmt", REACTOME)
    (folder / "omnipath_interactions.tsv").write_text(OMNIPATH)
    (folder / "CollecTRI.csv").write_text(COLLECTRI)
    (folder / "dorothea.csv").write_text(DOROTHEA)
    (folder / "gencode.v46.basic.annotation.gtf.gz").write_bytes(gzip.compress(GTF.encode()))
    (folder / "README.md").write_text("# notes\n")
    return folder
