"""Knowledge source tables that match a simulated screen, with facts left out and errors put in.

File names and columns are those of the public tables the knowledge builder reads, so simulated
knowledge takes the same road as real knowledge.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pertwise._io import atomic_path, write_text_atomic
from pertwise.screen.simulate import NOTICE, Truth

#: Columns of a gene set table; written as gmt (set, description, genes ...).
GMT_COLUMNS = ("set", "description", "genes")
_ROOTS = {
    "P": ("GO:0008150", "biological_process"),
    "F": ("GO:0003674", "molecular_function"),
    "C": ("GO:0005575", "cellular_component"),
}


def make_sources(
    truth: Truth, rng: np.random.Generator, completeness: float, errors: float
) -> dict[str, pd.DataFrame]:
    """All source tables by file name.

    Each true fact (an annotation, a member of a gene set, an edge, a sentence) is kept with
    probability `completeness`; wrong facts are added, `errors` times as many as the true ones.
    """
    known = _Known(truth, rng, completeness, errors)
    string = known.string()
    return {
        "gene_alias.tsv.gz": known.aliases(),
        "gene_summary.tsv.gz": known.summaries(),
        "gene_go.tsv.gz": known.annotations(),
        "go_ontology.tsv.gz": known.ontology(),
        "hallmark_simulated.symbols.gmt": known.hallmark(),
        "reactome_simulated.symbols.gmt": known.reactome(),
        "omnipath_directed_signaling.tsv.gz": known.signaling(),
        "omnipath_gene_regulation.tsv.gz": known.regulation().drop(columns="weight"),
        "collectri_signed.tsv.gz": known.regulation(),
        "string_v12_notext_weighted.tsv.gz": string,
        "string_v12_ge800_pairs.tsv.gz": string.loc[
            string["combined_score"] >= 800, ["a", "b"]
        ].reset_index(drop=True),
        "gene_position_grch38.tsv.gz": known.positions(),
    }


def write_sources(sources: Mapping[str, pd.DataFrame], folder: str | os.PathLike[str]) -> Path:
    """Write the tables (tsv.gz, gmt) and SIMULATED.txt into `folder`, each file atomically."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, table in sources.items():
        if name.endswith(".gmt"):
            lines = ["\t".join(row) for row in table[list(GMT_COLUMNS)].itertuples(index=False)]
            write_text_atomic(out / name, "\n".join(lines) + "\n")
        else:
            # A fixed time stamp inside the gzip header makes equal tables equal files.
            text = table.to_csv(sep="\t", index=False).encode()
            with atomic_path(out / name) as temporary:
                temporary.write_bytes(gzip.compress(text, mtime=0))
    write_text_atomic(out / "SIMULATED.txt", NOTICE)
    return out


class _Known:
    """Draws the tables one by one; a class only to share truth, stream and rates."""

    def __init__(
        self, truth: Truth, rng: np.random.Generator, completeness: float, errors: float
    ) -> None:
        self.truth, self.rng = truth, rng
        self.completeness, self.errors = completeness, errors
        self.genes = [str(g) for g in truth.genes.index]
        self.perturbed = [g for g, p in zip(self.genes, truth.genes["perturbed"], strict=True) if p]
        self.complex_term = {c: f"GO:99{i:05d}" for i, c in enumerate(truth.complexes, 10001)}
        self.pathway_term = {p: f"GO:99{i:05d}" for i, p in enumerate(truth.pathways, 20001)}
        self._regulation: pd.DataFrame | None = None

    def _kept(self, n: int) -> np.ndarray:
        return self.rng.random(n) < self.completeness

    def _n_wrong(self, n_true: int) -> int:
        return round(self.errors * n_true)

    def _some(self, items: Sequence[str]) -> list[str]:
        """The items that happen to be known (at least two, so that a set stays a set)."""
        kept = [g for g, k in zip(items, self._kept(len(items)), strict=True) if k]
        return kept if len(kept) >= 2 else list(items[:2])

    def aliases(self) -> pd.DataFrame:
        """Every symbol itself and, for one gene in five, an old symbol (OLDSIM0001)."""
        old = [g for g in self.genes if self.rng.random() < 0.2]
        table = pd.DataFrame(
            {
                "symbol": [*self.genes, *(f"OLD{g}" for g in old)],
                "approved": [*self.genes, *old],
            }
        )
        return table.sort_values(["symbol", "approved"], ignore_index=True)

    def summaries(self) -> pd.DataFrame:
        """Names and texts; what the text says of complex and pathway may be missing."""
        rows = []
        for i, gene in enumerate(self.genes, 1):
            entry = self.truth.genes.loc[gene]
            facts = [f"Subunit of {c}." for c in self._mentioned(entry["complex"])]
            facts += [f"Acts in {p}." for p in self._mentioned(entry["pathway"])]
            text = " ".join(facts) or "Function not known."
            rows.append(
                {
                    "symbol": gene,
                    "string_id": f"9606.SIMP{i:011d}",
                    "entrez": 990000000 + i,
                    "ensembl": f"SIMG{i:011d}",
                    "full_name": f"simulated gene {gene[3:]}",
                    "string_annotation": f"Simulated gene {gene[3:]}; {text}",
                    "refseq_summary": f"This gene is simulated and does not exist. {text}",
                }
            )
        return pd.DataFrame(rows)

    def _mentioned(self, joined: str) -> list[str]:
        return [n for n in joined.split("|") if n and self.rng.random() < self.completeness]

    def ontology(self) -> pd.DataFrame:
        """Three roots, two middle terms and one term for each complex and pathway."""
        rows = [(i, name, ns, 0, 0, "") for ns, (i, name) in _ROOTS.items()]
        rows.append(("GO:9900001", "protein complex (simulated)", "C", 0, 1, _ROOTS["C"][0]))
        rows.append(("GO:9900002", "cellular process (simulated)", "P", 0, 1, _ROOTS["P"][0]))
        rows += [(t, n, "C", 0, 0, "GO:9900001") for n, t in self.complex_term.items()]
        rows += [(t, n, "P", 0, 0, "GO:9900002") for n, t in self.pathway_term.items()]
        columns = ["id", "name", "ns", "obsolete", "goslim_generic", "parents"]
        return pd.DataFrame(rows, columns=columns)

    def annotations(self) -> pd.DataFrame:
        """Gene-term pairs, with omissions and a few wrong ones."""
        true = [(g, self.complex_term[c]) for c, m in self.truth.complexes.items() for g in m]
        true += [(g, self.pathway_term[p]) for p, m in self.truth.pathways.items() for g in m]
        pairs = {pair for pair, kept in zip(true, self._kept(len(true)), strict=True) if kept}
        terms = [*self.complex_term.values(), *self.pathway_term.values()]
        for _ in range(self._n_wrong(len(true))):
            pairs.add((str(self.rng.choice(self.perturbed)), str(self.rng.choice(terms))))
        table = pd.DataFrame(sorted(pairs), columns=["symbol", "go"])
        table["src"] = "S"
        return table

    def hallmark(self) -> pd.DataFrame:
        """A set per pathway: known members and known output genes, as response sets have."""
        return self._sets(
            {
                p: [*self._some(m), *self._some(self.truth.outputs[p])]
                for p, m in self.truth.pathways.items()
            }
        )

    def reactome(self) -> pd.DataFrame:
        """A set per pathway and per complex: known members only."""
        return self._sets(
            {f"{n} mechanism": self._some(m) for n, m in self.truth.pathways.items() if len(m) > 1}
            | {n: self._some(m) for n, m in self.truth.complexes.items()}
        )

    def _sets(self, sets: Mapping[str, Sequence[str]]) -> pd.DataFrame:
        rows = []
        for name, genes in sets.items():
            wrong = self.rng.choice(self.genes, self._n_wrong(len(genes)), replace=False)
            members = sorted({*genes, *map(str, wrong)})
            rows.append((name, "simulated gene set", "\t".join(members)))
        return pd.DataFrame(rows, columns=list(GMT_COLUMNS))

    def signaling(self) -> pd.DataFrame:
        """Signed edges: along the pathway graph, and from the members to the pathway's regulator.

        Sign 0 (not known) for one edge in four, as in OmniPath.
        """
        names = list(self.truth.pathways)
        edges: dict[tuple[str, str], int] = {}
        for j, k in np.argwhere(self.truth.pathway_graph != 0):
            sign = int(np.sign(self.truth.pathway_graph[j, k]))
            sources, targets = self.truth.pathways[names[j]], self.truth.pathways[names[k]]
            smaller = min(len(sources), len(targets))
            # In a small screen a pathway may have no perturbed member at all.
            for _ in range(max(1, smaller // 2) if smaller else 0):
                pair = (str(self.rng.choice(sources)), str(self.rng.choice(targets)))
                edges.setdefault(pair, sign)
        for name, members in self.truth.pathways.items():
            for gene in members:
                edges.setdefault((gene, self.truth.regulators[name]), 1)
        kept = self._kept(len(edges))
        found = {p: s for (p, s), k in zip(edges.items(), kept, strict=True) if k}
        for _ in range(self._n_wrong(len(edges))):
            a, b = self.rng.choice(self.perturbed, 2, replace=False)
            found.setdefault((str(a), str(b)), 0)
        rows = [
            (a, b, 0 if self.rng.random() < 0.25 else s)
            for (a, b), s in sorted(found.items())
            if a != b
        ]
        return pd.DataFrame(rows, columns=["source", "target", "sign"])

    def regulation(self) -> pd.DataFrame:
        """Regulator of each pathway -> its output genes, weight = sign of the effect."""
        if self._regulation is None:
            column = {f: i for i, f in enumerate(self.truth.features)}
            true = [
                (self.truth.regulators[p], g, int(self.truth.output_sign[k, column[g]]))
                for k, (p, genes) in enumerate(self.truth.outputs.items())
                for g in genes
            ]
            found = {
                (a, b): w for (a, b, w), k in zip(true, self._kept(len(true)), strict=True) if k
            }
            for _ in range(self._n_wrong(len(true))):
                a, b = str(self.rng.choice(self.perturbed)), str(self.rng.choice(self.genes))
                found.setdefault((a, b), int(self.rng.choice([-1, 1])))
            rows = [(a, b, w) for (a, b), w in sorted(found.items()) if a != b]
            self._regulation = pd.DataFrame(rows, columns=["source", "target", "weight"])
        return self._regulation

    def string(self) -> pd.DataFrame:
        """Weighted pairs: strong within complexes, weaker within pathways, some wrong."""
        scores: dict[tuple[str, str], tuple[int, int, int]] = {}

        def add(a: str, b: str, channels: tuple[float, float, float]) -> None:
            values = tuple(int(np.clip(v, 0, 990)) for v in channels)
            if a != b:
                scores.setdefault((min(a, b), max(a, b)), (values[0], values[1], values[2]))

        true = 0
        for members in self.truth.complexes.values():
            for i, a in enumerate(members):
                for b in members[i + 1 :]:
                    true += 1
                    if self.rng.random() < self.completeness:
                        add(a, b, tuple(self.rng.normal((300, 750, 500), (150, 150, 250))))
        for members in self.truth.pathways.values():
            for i, a in enumerate(members):
                for b in members[i + 1 :]:
                    if self.rng.random() < 0.3:
                        true += 1
                        if self.rng.random() < self.completeness:
                            add(a, b, tuple(self.rng.normal((150, 150, 450), (100, 100, 150))))
        for _ in range(self._n_wrong(true)):
            a, b = (str(g) for g in self.rng.choice(self.genes, 2, replace=False))
            add(a, b, tuple(self.rng.normal((350, 200, 50), (120, 120, 50))))
        rows = []
        for (a, b), channels in sorted(scores.items()):
            # STRING combines channels as 1 - prod(1 - s), leaving out its prior correction.
            combined = round(1000 * (1 - np.prod(1 - np.array(channels) / 1000)))
            if combined >= 400:
                rows.append((a, b, *channels, min(combined, 999)))
        columns = ["a", "b", "coexpression", "experiments", "database", "combined_score"]
        return pd.DataFrame(rows, columns=columns)

    def positions(self) -> pd.DataFrame:
        """Random places on chromosomes 1-22; one gene in fifty shares its promoter with another."""
        n = len(self.genes)
        table = pd.DataFrame({"symbol": self.genes})
        table["ensgene"] = [f"SIMG{i:011d}" for i in range(1, n + 1)]
        table["chr"] = self.rng.integers(1, 23, n).astype(str)
        table["start"] = self.rng.integers(1, 150_000_000, n)
        table["strand"] = self.rng.choice([-1, 1], n)
        for i in np.flatnonzero(self.rng.random(n) < 0.02):
            partner = int(self.rng.integers(n))
            if partner != i:
                table.loc[i, "chr"] = table.loc[partner, "chr"]
                table.loc[partner, "strand"], table.loc[i, "strand"] = 1, -1
                # Head to head: the end of a minus-strand gene lies just before its partner.
                table.loc[i, "start"] = max(1, int(table.loc[partner, "start"]) - 20_500)
        table["end"] = table["start"] + 20_000
        table["biotype"] = "protein_coding"
        columns = ["symbol", "ensgene", "chr", "start", "end", "strand", "biotype"]
        return table[columns].sort_values(["chr", "start"], ignore_index=True)
