"""Readers of gene networks: STRING, OmniPath, CollecTRI, DoRothEA, any edge table.

All give edge tables with columns a, b, weight (0..1], sign (1, -1, 0 = unknown); directed ones
run from a to b. STRING protein files still hold protein ids, see `build`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.knowledge.build.readers._text import (
    Parsed,
    head,
    ids_of,
    numeric,
    read_table,
    split_header,
)
from pertwise.knowledge.layout import STRING_CHANNELS
from pertwise.parts import part

#: CollecTRI names two dimer families as one regulator; the field splits them into their members
#: (Müller-Dott et al. 2023, Nucleic Acids Research 51:10934).
DIMERS = {
    "AP1": ("FOS", "FOSB", "FOSL1", "FOSL2", "JUN", "JUNB", "JUND"),
    "NFKB": ("NFKB1", "NFKB2", "REL", "RELA", "RELB"),
}
#: STRING's prior that two proteins are linked (von Mering et al. 2005).
STRING_PRIOR = 0.041
_TEXT_CHANNELS = ("textmining",)
_STRING_CHANNELS = (
    "neighborhood", "fusion", "cooccurence", "coexpression", "experimental", "database",
    "textmining",
)  # fmt: skip


@part(label="string", about="STRING, gene symbols", licence="CC BY 4.0")
def read_string(path: Path) -> Parsed:
    """Pairs of gene symbols with combined_score (0..1000)."""
    table = read_table(path, ["a", "b", "combined_score"])
    score = numeric(path, table, "combined_score")
    _check_scores(path, score)
    pairs = table[["a", "b"]]
    edges = pairs.assign(weight=score / 1000.0, sign=0)
    return Parsed({"edges_string": edges, **_channels(path, table, pairs)})


def _channels(path: Path, table: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """An edge table for every evidence channel of `table`, pairs without that evidence left out."""
    found = {}
    for channel, names in STRING_CHANNELS.items():
        column = next((n for n in names if n in table), None)
        if column is not None:
            score = numeric(path, table, column).loc[pairs.index]
            _check_scores(path, score)
            some = score > 0
            found[f"edges_string_{channel}"] = pairs[some].assign(
                weight=(score[some] / 1000.0).clip(upper=1.0), sign=0
            )
    return found


@part(
    label="string_ge800",
    about="STRING pairs of combined score >= 800, gene symbols",
    licence="CC BY 4.0",
)
def read_string_ge800(path: Path) -> Parsed:
    """Unweighted pairs of gene symbols, combined score >= 800: weight 0.8, the lower bound."""
    table = read_table(path, ["a", "b"])
    return Parsed({"edges_string_ge800": table[["a", "b"]].assign(weight=0.8, sign=0)})


@part(label="string_links", about="STRING protein.links", licence="CC BY 4.0")
def read_string_links(path: Path, min_score: int = 400, text_mining: bool = True) -> Parsed:
    """STRING protein.links(.detailed): protein pairs, score >= `min_score`.

    Parameters
    ----------
    text_mining
        False leaves the text-mining channel out of the combined score; needs the detailed file.
    """
    table = read_table(path, ["protein1", "protein2", "combined_score"], sep=" ")
    score = numeric(path, table, "combined_score")
    _check_scores(path, score)
    if not text_mining:
        channels = [c for c in _STRING_CHANNELS if c in table and c not in _TEXT_CHANNELS]
        if not channels:
            raise InputError(
                f"{path}: leaving out text mining needs the channel scores; "
                "download protein.links.detailed instead"
            )
        values = np.stack([numeric(path, table, c).to_numpy() for c in channels], axis=1)
        score = pd.Series(combine_channels(values / 1000.0) * 1000.0, index=table.index)
    keep = (score >= min_score) & (table["protein1"] != table["protein2"])
    # Every pair stands in the file in both orders.
    first = keep & (table["protein1"] < table["protein2"])
    pairs = table.loc[first, ["protein1", "protein2"]].set_axis(["a", "b"], axis=1)
    edges = pairs.assign(weight=(score[first] / 1000.0).clip(upper=1.0), sign=0)
    by_channel = {f"{n}_protein": t for n, t in _channels(path, table, pairs).items()}
    return Parsed(
        {"edges_string_protein": edges, **by_channel},
        counts={f"score_below_{min_score}": int((~keep).sum())},
    )


def combine_channels(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """STRING's combined score of channel scores, shape (n_pairs, n_channels) in 0..1 -> (n_pairs,).

    s_i' = (s_i - p) / (1 - p), combined = 1 - prod(1 - s_i') with the prior p = 0.041 added back:
    c + p (1 - c) (von Mering et al. 2005; STRING help page). Homology correction is not redone.
    """
    without = np.clip((scores - STRING_PRIOR) / (1.0 - STRING_PRIOR), 0.0, 1.0)
    combined = 1.0 - np.prod(1.0 - without, axis=1)
    return np.asarray(np.where(combined > 0, combined + STRING_PRIOR * (1.0 - combined), 0.0))


def _check_scores(path: Path, score: pd.Series) -> None:
    if len(score) and (score.min() < 0 or score.max() > 1000):
        raise InputError(
            f"{path}: combined_score ranges {score.min():g}..{score.max():g}, expected 0..1000"
        )


#: Data-set flags of the OmniPath web service and the graph each goes to.
_DATASETS = {
    "omnipath": "edges_omnipath",
    "collectri": "edges_collectri",
    "dorothea": "edges_dorothea",
    "tf_target": "edges_regulation",
}


def read_omnipath(path: Path, levels: str = "ABC") -> Parsed:
    """OmniPath web service table (genesymbols=1): its directed rows, split into graphs.

    Complexes ("COMPLEX:P1_P2" with symbols "A_B") stand for each of their members. A table with
    data-set columns (omnipath, collectri, dorothea, tf_target) is split by them, DoRothEA rows
    only of the given confidence levels; else the file name says collectri or dorothea; else rows
    of type transcriptional go to `regulation` and the others to `omnipath`.
    """
    table = read_table(path, ["source_genesymbol", "target_genesymbol"])
    n = len(table)
    if "is_directed" in table:
        table = table[_true(table["is_directed"])]
    counts = {"undirected": n - len(table)}
    stem = path.name.casefold()
    flags = [d for d in _DATASETS if d in table]
    parts: dict[str, pd.DataFrame] = {}
    if flags:
        for dataset in flags:
            rows = table[_true(table[dataset])]
            if dataset == "dorothea" and "dorothea_level" in rows:
                good = rows["dorothea_level"].map(lambda v: bool(set(v) & set(levels)))
                counts[f"dorothea_level_not_{levels}"] = int((~good.astype(bool)).sum())
                rows = rows[good.astype(bool)]
            parts[_DATASETS[dataset]] = rows
    elif "collectri" in stem or "dorothea" in stem:
        parts["edges_collectri" if "collectri" in stem else "edges_dorothea"] = table
    elif "type" in table:
        regulatory = table["type"] == "transcriptional"
        parts = {"edges_omnipath": table[~regulatory], "edges_regulation": table[regulatory]}
    else:
        parts["edges_omnipath"] = table
    tables = {name: _edges_of(rows) for name, rows in parts.items() if len(rows)}
    sides = [table[[s, f"{s}_genesymbol"]] for s in ("source", "target") if s in table]
    if sides:
        named = pd.concat([s.set_axis(["id", "symbol"], axis=1) for s in sides]).drop_duplicates()
        tables["ids"] = ids_of(named["symbol"], named, "id")
    return Parsed(tables, counts=counts)


def _edges_of(table: pd.DataFrame) -> pd.DataFrame:
    up = _flag(table, "consensus_stimulation", "is_stimulation")
    down = _flag(table, "consensus_inhibition", "is_inhibition")
    edges = pd.DataFrame(
        {
            "a": _members(table, "source"),
            "b": _members(table, "target"),
            "weight": 1.0,
            "sign": np.where(up & ~down, 1, np.where(down & ~up, -1, 0)),
        }
    )
    return edges.explode("a").explode("b").reset_index(drop=True)


def _true(column: pd.Series) -> pd.Series:
    return column.str.casefold().isin(["1", "true", "t"])


def _flag(table: pd.DataFrame, *names: str) -> NDArray[np.bool_]:
    for name in names:
        if name in table:
            return np.asarray(_true(table[name]), dtype=bool)
    return np.zeros(len(table), dtype=bool)


def _members(table: pd.DataFrame, side: str) -> list[list[str]]:
    symbols = table[f"{side}_genesymbol"].tolist()
    ids = table[side].tolist() if side in table else [""] * len(symbols)
    return [
        s.split("_") if i.startswith("COMPLEX") else [s] for s, i in zip(symbols, ids, strict=True)
    ]


def read_regulons(path: Path, kind: str, levels: str = "ABC") -> Parsed:
    """source, target with weight, mor, sign or sign_decision and DoRothEA's confidence.

    Parameters
    ----------
    kind
        "collectri", "dorothea", "omnipath" or "regulation": which graph it becomes.
    levels
        DoRothEA confidence levels to keep (A best, E worst); A-C is the field's usual choice.
    """
    table = read_table(path, [])
    lower = {c.casefold(): c for c in table.columns}
    source = next((lower[c] for c in ("source", "tf") if c in lower), None)
    target = next((lower[c] for c in ("target", "target gene", "gene") if c in lower), None)
    if source is None or target is None:
        raise InputError(f"{path}: no columns source and target; found {', '.join(table.columns)}")
    counts: dict[str, int] = {}
    if "confidence" in lower:
        keep = table[lower["confidence"]].str.upper().isin(list(levels))
        counts[f"confidence_not_{levels}"] = int((~keep).sum())
        table = table[keep]
    sign = np.zeros(len(table), dtype=np.int64)
    for name in ("sign", "weight", "mor"):
        if name in lower:
            sign = np.sign(numeric(path, table, lower[name])).to_numpy().astype(np.int64)
            break
    edges = pd.DataFrame(
        {"a": table[source].to_numpy(), "b": table[target].to_numpy(), "weight": 1.0, "sign": sign}
    )
    dimers = edges["a"].isin(list(DIMERS))
    if dimers.any():
        counts["dimer_family_edges_split"] = int(dimers.sum())
        edges["a"] = [list(DIMERS.get(a, (a,))) for a in edges["a"]]
        edges = edges.explode("a").reset_index(drop=True)
    return Parsed({f"edges_{kind}": edges}, counts=counts)


def _directed(path: Path, kind: str) -> Parsed:
    """OmniPath's own table (genesymbols=1), or regulators and targets."""
    if "source_genesymbol" in split_header((head(path, 1) or [""])[0]):
        return read_omnipath(path)
    return read_regulons(path, kind)


@part(label="omnipath", about="OmniPath interactions", licence="composite (per source)")
def omnipath(path: Path) -> Parsed:
    """Interactions of OmniPath."""
    return _directed(path, "omnipath")


@part(label="regulation", about="OmniPath gene regulation", licence="composite (per source)")
def regulation(path: Path) -> Parsed:
    """Transcriptional interactions of OmniPath."""
    return _directed(path, "regulation")


@part(label="collectri", about="CollecTRI", licence="composite (per source)")
def collectri(path: Path) -> Parsed:
    """Regulators and their targets, with signs."""
    return _directed(path, "collectri")


@part(label="dorothea", about="DoRothEA", licence="composite (per source)")
def dorothea(path: Path) -> Parsed:
    """Regulators and their targets, with confidence levels."""
    return _directed(path, "dorothea")


@part(label="graph", about="user graph", licence="", argument="name")
def read_graph(path: Path, name: str) -> Parsed:
    """A user's edges: columns a, b or source, target; optional weight (0..1] and sign."""
    table = read_table(path, [])
    if {"a", "b"} <= set(table):
        first, second = "a", "b"
    elif {"source", "target"} <= set(table):
        first, second = "source", "target"
    else:
        raise InputError(f"{path}: a graph table has columns a, b or source, target")
    weight = numeric(path, table, "weight") if "weight" in table else pd.Series(1.0, table.index)
    if len(weight) and (weight.min() <= 0 or weight.max() > 1):
        raise InputError(
            f"{path}: edge weights range {weight.min():g}..{weight.max():g}, expected (0, 1]"
        )
    sign = numeric(path, table, "sign").astype("int64") if "sign" in table else 0
    edges = pd.DataFrame({"a": table[first], "b": table[second], "weight": weight, "sign": sign})
    return Parsed({f"edges_{name}": edges})
