"""Invented genes in two clear groups, in the derived table formats (symbol, go ... tsv)."""

from pathlib import Path

import pandas as pd

LEFT = [f"LEFT{i}" for i in range(1, 9)]
RIGHT = [f"RIGHT{i}" for i in range(1, 9)]
GENES = [*LEFT, *RIGHT, "ALONE", "TF"]


def write_small(folder: Path) -> Path:
    """Tables of two groups: each has its own GO term, pathway, words and STRING clique."""
    aliases = [(g, g) for g in GENES] + [("SINISTER1", "LEFT1")]
    write(folder / "gene_alias.tsv.gz", aliases, ["symbol", "approved"])
    text = [(g, f"left factor {g}", "x; Builds sinister widgets.", "") for g in LEFT]
    text += [(g, f"right factor {g}", "x; Breaks dexter gadgets.", "") for g in RIGHT]
    text += [("TF", "master", "", "")]
    columns = ["symbol", "full_name", "string_annotation", "refseq_summary"]
    write(folder / "gene_summary.tsv.gz", text, columns)
    go = [(g, "GO:0000010") for g in LEFT] + [(g, "GO:0000020") for g in RIGHT]
    go += [(g, "GO:0000011") for g in LEFT[:3]] + [(g, "GO:0000030") for g in RIGHT[:4]]
    write(folder / "gene_go.tsv.gz", go, ["symbol", "go"])
    terms = [
        ("GO:0008150", "biological_process", "P", ""),
        ("GO:0000001", "all process", "P", "GO:0008150"),
        ("GO:0000010", "sinister process", "P", "GO:0000001"),
        ("GO:0000011", "very sinister process", "P", "GO:0000010"),
        ("GO:0000020", "dexter process", "P", "GO:0000001"),
        ("GO:0005575", "cellular_component", "C", ""),
        ("GO:0000030", "gadget complex", "C", "GO:0005575"),
    ]
    write(folder / "go_ontology.tsv.gz", terms, ["id", "name", "ns", "parents"])
    sets = {
        "HALLMARK_BOTH_SIDES": [*LEFT, *RIGHT, "ALONE"],
        "HALLMARK_LEFT_SIDE": [*LEFT, "NOTAGENE"],
    }
    lines = ["\t".join([n, "na", *m]) for n, m in sets.items()]
    (folder / "hallmark.gmt").write_text("\n".join(lines) + "\n")
    (folder / "reactome.gmt").write_text(
        "\t".join(["R-HSA-1", "Left pathway", *LEFT]) + "\n"
        + "\t".join(["R-HSA-2", "Both Sides", *RIGHT]) + "\n"
    )  # fmt: skip
    pairs = [(a, b, 900) for group in (LEFT, RIGHT) for a in group for b in group if a < b]
    pairs += [("LEFT1", "RIGHT1", 400)]
    write(folder / "string_weighted.tsv.gz", pairs, ["a", "b", "combined_score"])
    regulon = [("TF", g, 1) for g in LEFT]
    write(folder / "collectri_signed.tsv.gz", regulon, ["source", "target", "weight"])
    return folder


def write(path: Path, rows, columns) -> None:
    pd.DataFrame(rows, columns=columns).to_csv(path, sep="\t", index=False)
