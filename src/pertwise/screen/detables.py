"""Tables of differential expression of many tools: which columns say what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pertwise.errors import InputError
from pertwise.screen.labels import control_kind, fold_label

#: Columns of p-values and the like, which no table of responses has.
_P_VALUE = re.compile(
    r"p|pvals?|pvalues?|pvals?adj|padj|adjp(?:val(?:ue)?)?|fdr|qvals?|qvalues?|pvaladj"
)
#: Effects on a logarithmic scale, best known first.
_EFFECTS = (
    "log2foldchange",
    "log2foldchanges",
    "logfoldchanges",
    "logfoldchange",
    "log2fc",
    "avglog2fc",
    "avglogfc",
    "logfc",
    "lfc",
    "log2foldch",
    "beta",
    "coef",
)
_GENE_NAMES = """gene names feature symbol genesymbol genename genes geneid id hgncsymbol
    externalgenename name ensemblid ensembl target variable primerid responseid featureid"""
_GROUP_NAMES = """perturbation group contrast comparison pert condition target targetgene guide
    sgrna drug compound treatment cluster knockdown coef coefficient term grnatarget grnagroup"""
_MAGECK = re.compile(r"(?:neg|pos)\|(?:score|p-value|fdr|rank|goodsgrna|lfc)|.+\|(?:beta|wald-fdr)")


@dataclass(frozen=True)
class LongColumns:
    """Columns of a long table: who was perturbed, what was measured, how much; and who wrote it."""

    perturbation: str
    feature: str
    value: str
    tool: str


def de_columns(table: pd.DataFrame, wanted: str | None, path: Path) -> LongColumns | None:
    """The columns to pivot a table of differential expression by; None when it is no such table.

    Raises
    ------
    pertwise.errors.InputError
        If it is one, but of a single comparison, without genes or without a logarithmic effect.
    """
    folded = {str(c): fold_label(str(c)) for c in table.columns}
    if any(_MAGECK.fullmatch(str(c)) for c in table.columns) or {"sgrna", "gene", "lfc"} <= {
        *folded.values()
    }:
        raise InputError(
            f"{path} is a MAGeCK summary: one score for each perturbed gene, no response of other "
            "genes. A screen needs a row for each perturbation and a column for each measured "
            "feature; to use the score as the only feature, keep two columns: perturbation (the "
            "gene) and the log fold change"
        )
    tests = [c for c, name in folded.items() if _P_VALUE.fullmatch(name)]
    if not tests:
        return None
    effect = next((c for name in _EFFECTS for c, f in folded.items() if f == name), None)
    tool = _tool(set(folded.values()))
    texts = [str(c) for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])]
    if effect is None or not pd.api.types.is_numeric_dtype(table[effect]):
        raise InputError(
            f"{path} looks like {tool} (column {tests[0]!r}) but has no column of log fold changes "
            "(log2FoldChange, logFC, logfoldchanges ...); keep a table of perturbation, gene, value"
        )
    groups = [c for name in _GROUP_NAMES.split() for c in texts if folded[c] == name]
    genes = [c for name in _GENE_NAMES.split() for c in texts if folded[c] == name and c != wanted]
    genes += [c for c in texts if c.startswith("Unnamed") or c == "row"]
    group = wanted or next((c for c in groups if c != (genes or [""])[0]), None)
    gene = next((c for c in genes if c != group), None)
    if gene is None and group is not None:
        gene = next((c for c in texts if c != group), None)
    if group is None or gene is None:
        raise InputError(
            f"{path} is {tool} of one comparison (column {tests[0]!r}): it does not say what was "
            "perturbed. Join the tables of all perturbations with a column 'perturbation' that "
            "names the perturbed gene of each row (and a column 'gene' for the measured one), or "
            "name that column with --perturbation-key"
        )
    return LongColumns(group, gene, effect, tool)


_VERSUS = ("_vs_", " vs ", ".vs.", "-vs-", " vs. ", " versus ", "_versus_", " - ", "-", "/")
_FACTOR = re.compile(r"(?:condition|group|treatment|perturbation|gene|genotype|target)[_ ](?=.)")


def of_contrast(label: str) -> str:
    """The perturbation of "condition_GATA1_vs_ctrl"; a label that names no control stays."""
    for mark in _VERSUS:
        first, found, last = label.rpartition(mark)
        if found and first and control_kind(last):
            return _FACTOR.sub("", first, count=1) if _FACTOR.match(first) else first
    return label


def _tool(names: set[str]) -> str:
    for tool, signs in (
        ("a DESeq2 table", {"basemean", "lfcse"}),
        ("a limma table", {"aveexpr"}),
        ("an edgeR table", {"logcpm"}),
        ("scanpy's rank_genes_groups", {"logfoldchanges", "pvals"}),
        ("a Seurat table", {"pct1", "pct2"}),
    ):
        if signs <= names:
            return tool
    return "a table of differential expression"
