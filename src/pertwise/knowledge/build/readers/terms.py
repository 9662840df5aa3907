"""Readers of GO annotations, the GO graph, gene sets and gene positions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TextIO, cast

import pandas as pd

from pertwise._files import open_text
from pertwise.errors import InputError
from pertwise.knowledge.build.readers._text import Parsed, ids_of, numeric, read_table
from pertwise.knowledge.genes.ontology import go_namespace
from pertwise.knowledge.genes.species import TAXA
from pertwise.parts import part

#: Evidence codes of annotations that come from a high-throughput mutant-phenotype assay, that
#: is, from a perturbation screen (https://geneontology.org/docs/guide-go-evidence-codes).
SCREEN_EVIDENCE = frozenset({"HMP", "HGI"})
_REACTOME = re.compile(r"^R-[A-Z]{3}-\d+")
_COLLECTIONS = (
    ("HALLMARK_", "hallmark"), ("REACTOME_", "reactome"), ("KEGG_", "kegg"), ("WP_", "wiki"),
    ("BIOCARTA_", "biocarta"), ("PID_", "pid"), ("GOBP_", "go"), ("GOMF_", "go"), ("GOCC_", "go"),
)  # fmt: skip


@part(label="gaf", about="GO annotations", licence="CC BY 4.0")
def read_gaf(path: Path, taxon: str = "9606") -> Parsed:
    """GO annotation file 2.x: symbol, term, evidence. Rows with a NOT qualifier are left out."""
    version = date = ""
    rows: list[tuple[str, str, str]] = []
    ids: dict[tuple[str, str], None] = {}
    negated = other_taxon = 0
    with open_text(path) as text:
        for number, line in enumerate(text, 1):
            if line.startswith("!"):
                key, _, value = line[1:].partition(":")
                if key.strip() == "date-generated":
                    date = value.strip()
                elif key.strip() == "gaf-version":
                    version = f"gaf {value.strip()}"
                continue
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) < 15:
                raise InputError(
                    f"{path}, line {number}: {len(fields)} fields, a GAF row has at least 15"
                )
            if f"taxon:{taxon}" not in fields[12].split("|"):
                other_taxon += 1
                continue
            ids[fields[1], fields[2]] = None
            if "NOT" in fields[3].split("|"):
                negated += 1
            else:
                rows.append((fields[2], fields[4], fields[6]))
    if other_taxon and not ids:
        raise InputError(
            f"{path}: no {TAXA[taxon]} rows (taxon:{taxon}), all are of another species"
        )
    table = pd.DataFrame(rows, columns=["symbol", "go", "evidence"]).drop_duplicates()
    codes = table.groupby(["symbol", "go"], sort=False)["evidence"].agg(
        lambda c: "|".join(sorted(set(c)))
    )
    gene_go = codes.reset_index()
    gene_go["from_screen"] = [set(e.split("|")) <= SCREEN_EVIDENCE for e in gene_go["evidence"]]
    counts = {"NOT_qualifier": negated, "other_taxon": other_taxon}
    named = pd.DataFrame(list(ids), columns=["id", "symbol"], dtype=str)
    tables = {"gene_go": gene_go, "ids": ids_of(named["symbol"], named, "id")}
    return Parsed(tables, version=version, date=date, counts=counts)


@part(label="gene_go", about="GO annotations (symbol, go)", licence="CC BY 4.0")
def read_gene_go(path: Path) -> Parsed:
    """A table symbol, go(, src): evidence codes are not known."""
    table = read_table(path, ["symbol", "go"])
    gene_go = table[["symbol", "go"]].drop_duplicates().assign(evidence="", from_screen=False)
    return Parsed({"gene_go": gene_go})


@part(label="obo", about="Gene Ontology (go-basic)", licence="CC BY 4.0")
def read_obo(path: Path) -> Parsed:
    """go-basic.obo by obonet: names, namespaces and parents (is_a and part_of)."""
    import obonet

    with open_text(path, "an OBO file") as text:
        graph = obonet.read_obo(cast(TextIO, text), ignore_obsolete=True)
    parents: dict[str, set[str]] = {t: set() for t in graph.nodes}
    for child, parent, key in graph.edges(keys=True):
        if key in ("is_a", "part_of"):
            parents[child].add(parent)
    terms = [t for t, d in graph.nodes(data=True) if "name" in d]
    table = pd.DataFrame(
        {
            "id": terms,
            "name": [graph.nodes[t]["name"] for t in terms],
            "namespace": [go_namespace(graph.nodes[t].get("namespace", "")) for t in terms],
            "parents": ["|".join(sorted(parents[t])) for t in terms],
        }
    )
    return Parsed({"go_terms": table}, version=str(graph.graph.get("data-version", "")))


@part(label="go_table", about="Gene Ontology (table)", licence="CC BY 4.0")
def read_go_table(path: Path) -> Parsed:
    """A table id, name, ns, parents(, obsolete)."""
    table = read_table(path, ["id", "name", "ns", "parents"])
    n = len(table)
    if "obsolete" in table:
        table = table[table["obsolete"] != "1"]
    terms = pd.DataFrame(
        {
            "id": table["id"],
            "name": table["name"],
            "namespace": table["ns"].map(go_namespace),
            "parents": table["parents"],
        }
    )
    return Parsed({"go_terms": terms}, counts={"obsolete": n - len(table)})


@part(label="gmt", about="gene sets", licence="see the provider")
def read_gmt(path: Path) -> Parsed:
    """Gene sets: name, description, members. Reactome's own file has title and id swapped."""
    sets: list[tuple[str, str, str]] = []
    members: list[tuple[str, str]] = []
    seen: set[str] = set()
    stem = path.name.casefold()
    with open_text(path) as text:
        for number, line in enumerate(text, 1):
            fields = [f.strip() for f in line.rstrip("\r\n").split("\t")]
            if fields == [""]:
                continue
            if len(fields) < 3:
                raise InputError(
                    f"{path}, line {number}: a gmt line is name, description, genes, separated "
                    f"by tabs; found {len(fields)} fields"
                )
            name, title, genes = fields[0], fields[1], fields[2:]
            if _REACTOME.match(title) and not _REACTOME.match(name):
                name, title = title, name
            if name in seen:
                raise InputError(f"{path}, line {number}: gene set {name!r} appears twice")
            seen.add(name)
            collection = _collection(name, stem)
            if title.casefold() in ("", "na") or "://" in title:
                title = pretty(name)
            sets.append((name, title, collection))
            members.extend((name, g) for g in dict.fromkeys(genes) if g)
    if not sets:
        raise InputError(f"{path}: no gene set in it")
    return Parsed(
        {
            "gene_sets": pd.DataFrame(sets, columns=["name", "title", "collection"]),
            "gene_set_members": pd.DataFrame(members, columns=["name", "symbol"]),
        }
    )


def _collection(name: str, stem: str) -> str:
    if _REACTOME.match(name):
        return "reactome"
    for prefix, collection in _COLLECTIONS:
        if name.upper().startswith(prefix):
            return collection
    for word in ("hallmark", "reactome"):
        if word in stem:
            return word
    return "user"


def pretty(name: str) -> str:
    """HALLMARK_HEME_METABOLISM -> "heme metabolism": how a person would say a set's name."""
    for prefix, _ in _COLLECTIONS:
        if name.upper().startswith(prefix):
            name = name[len(prefix) :]
            break
    text = name.replace("_", " ").strip()
    return text.lower() if text.isupper() else text


@part(label="positions", about="gene positions", licence="see the provider")
def read_positions(path: Path) -> Parsed:
    """A table symbol, chr, start, end, strand(, ensgene, biotype); 1-based, strand 1 or -1."""
    table = read_table(path, ["symbol", "chr", "start", "end", "strand"])
    positions = pd.DataFrame(
        {
            "symbol": table["symbol"],
            "ensembl": table.get("ensgene", table.get("ensembl", "")),
            "chr": table["chr"],
            "start": table["start"],
            "end": table["end"],
            "strand": table["strand"].replace({"+": "1", "-": "-1"}),
            "biotype": table.get("biotype", ""),
        }
    )
    ids = ids_of(positions["symbol"], positions, "ensembl")
    return Parsed({"positions": _typed_positions(path, positions), "ids": ids})


_ATTRIBUTE = re.compile(r'(\w+) "([^"]*)"')


@part(label="gtf", about="Ensembl / GENCODE gene annotation", licence="open (EMBL-EBI)")
def read_gtf(path: Path) -> Parsed:
    """Ensembl or GENCODE gtf: its gene lines (chromosomes without "chr", strand 1 or -1)."""
    rows: list[tuple[str, ...]] = []
    version = date = ""
    unnamed = 0
    with open_text(path) as text:
        for number, line in enumerate(text, 1):
            if line.startswith("#"):
                if line.startswith(("##description:", "#!genome-version", "#!genome-build ")):
                    version = line.lstrip("#!").strip()
                elif line.startswith(("##date:", "#!genebuild-last-updated")):
                    date = line.split(maxsplit=1)[-1].strip()
                continue
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != 9:
                raise InputError(f"{path}, line {number}: {len(fields)} fields, a gtf row has 9")
            if fields[2] != "gene":
                continue
            attributes = dict(_ATTRIBUTE.findall(fields[8]))
            name = attributes.get("gene_name", "")
            if not name:
                unnamed += 1
                continue
            rows.append(
                (
                    str(name),
                    str(attributes.get("gene_id", "")).split(".")[0],
                    fields[0].removeprefix("chr").replace("M", "MT")
                    if fields[0] == "chrM"
                    else fields[0].removeprefix("chr"),
                    fields[3],
                    fields[4],
                    {"+": "1", "-": "-1"}.get(fields[6], str(fields[6])),
                    str(attributes.get("gene_biotype", attributes.get("gene_type", ""))),
                )
            )
    columns = ["symbol", "ensembl", "chr", "start", "end", "strand", "biotype"]
    table = _typed_positions(path, pd.DataFrame(rows, columns=columns))
    tables = {"positions": table, "ids": ids_of(table["symbol"], table, "ensembl")}
    return Parsed(tables, version=version, date=date, counts={"gene_without_name": unnamed})


def _typed_positions(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    for column in ("start", "end", "strand"):
        table[column] = numeric(path, table, column).astype("int64")
    bad = ~table["strand"].isin([1, -1])
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"{path}, data row {row + 1}: strand is {table['strand'].iloc[row]}, expected 1 or -1"
        )
    return table
