"""Mouse sources as MGI, NCBI, GO, STRING and MSigDB write them (columns as in their files, values
made up), of any symbols."""

# ruff: noqa: E501 - lines are as long as those of the real files

import gzip

MARKER = (
    "MGI Accession ID\tChr\tcM Position\tgenome coordinate start\tgenome coordinate end\tstrand\t"
    "Marker Symbol\tStatus\tMarker Name\tMarker Type\tFeature Type\tMarker Synonyms (pipe-separated)\n"
)
INFO = (
    "#tax_id\tGeneID\tSymbol\tLocusTag\tSynonyms\tdbXrefs\tchromosome\tmap_location\tdescription\t"
    "type_of_gene\tSymbol_from_nomenclature_authority\tFull_name_from_nomenclature_authority\t"
    "Nomenclature_status\tOther_designations\tModification_date\tFeature_type\n"
)
GAF = "!gaf-version: 2.2\n!generated-by: MGI\n!date-generated: 2024-06-17\n"
OBO = """format-version: 1.2
data-version: releases/2024-06-17

[Term]
id: GO:0008150
name: biological_process
namespace: biological_process
"""


def marker(symbol, number, synonyms="", kind="Gene", status="O"):
    return (
        f"MGI:{number}\t11\t     58.52\t{number}000\t{number}900\t-\t{symbol}\t{status}\t"
        f"{symbol.lower()} gene\t{kind}\tprotein coding gene\t{synonyms}\n"
    )


def write_sources(folder, symbols, terms=None, sets=None, links=()):
    """One file of each kind; `terms` GO id -> symbols, `sets` name -> symbols, `links` (a, b)."""
    folder.mkdir(parents=True, exist_ok=True)
    number = {s: 10000 + i for i, s in enumerate(symbols)}
    protein = {s: f"10090.ENSMUSP{n:011d}" for s, n in number.items()}
    (folder / "MRK_List2.rpt").write_text(
        MARKER
        + "".join(marker(s, n, f"{s}old|old{n}") for s, n in number.items())
        + marker("Aabpr", 3042396, "Abpr", "QTL")
    )
    rows = [
        f"10090\t{n}\t{s}\t-\tsyn{n}|{s}2nd\tMGI:MGI:{n}|Ensembl:ENSMUSG{n:011d}|AllianceGenome:MGI:{n}\t11\t11 B3\t"
        f"about {s}\tprotein-coding\t{s}\tabout {s}\tO\t-\t20240101\t-\n"
        for s, n in number.items()
    ]
    with gzip.open(folder / "Mus_musculus.gene_info.gz", "wt") as out:
        out.write(INFO + "".join(rows))
    terms = terms or {"GO:0008150": symbols}
    with gzip.open(folder / "mgi.gaf.gz", "wt") as out:
        out.write(GAF)
        for term, genes in terms.items():
            for s in genes:
                out.write(
                    f"MGI\tMGI:{number[s]}\t{s}\tinvolved_in\t{term}\tMGI:MGI:4834177|GO_REF:0000096\tISO\t"
                    f"UniProtKB:P00001\tP\tabout {s}\t{s}old\tprotein\ttaxon:10090\t20240101\tMGI\t\t\n"
                )
    defined = "".join(
        f"\n[Term]\nid: {t}\nname: process {t[-4:]}\nnamespace: biological_process\nis_a: GO:0008150 ! biological_process\n"
        for t in terms
        if t != "GO:0008150"
    )
    (folder / "go-basic.obo").write_text(OBO + defined)
    (folder / "mh.all.v2024.1.Mm.symbols.gmt").write_text(
        "".join(
            "\t".join(
                [name, f"https://www.gsea-msigdb.org/gsea/msigdb/mouse/geneset/{name}", *genes]
            )
            + "\n"
            for name, genes in (sets or {"HALLMARK_P53_PATHWAY": symbols}).items()
        )
    )
    with gzip.open(folder / "10090.protein.info.v12.0.txt.gz", "wt") as out:
        out.write("#string_protein_id\tpreferred_name\tprotein_size\tannotation\n")
        out.writelines(f"{protein[s]}\t{s}\t400\tActs as {s}.\n" for s in symbols)
    with gzip.open(folder / "10090.protein.aliases.v12.0.txt.gz", "wt") as out:
        out.write("#string_protein_id\talias\tsource\n")
        for s, n in number.items():
            out.write(f"{protein[s]}\t{s}\tEnsembl_MGI\n{protein[s]}\tMGI:{n}\tEnsembl_MGI\n")
            out.write(f"{protein[s]}\tQ{n % 10}A{n:05d}\tUniProt_AC\n")
    with gzip.open(folder / "10090.protein.links.detailed.v12.0.txt.gz", "wt") as out:
        out.write(
            "protein1 protein2 neighborhood fusion cooccurence coexpression experimental database textmining combined_score\n"
        )
        for a, b in links:
            for x, y in ((a, b), (b, a)):
                out.write(f"{protein[x]} {protein[y]} 0 0 0 600 500 0 300 870\n")
    return folder
