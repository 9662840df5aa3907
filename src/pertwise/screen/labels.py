"""What single labels mean: controls, cells without a call, guides of a gene.

Only the text is looked at. What is recognised here is said in `Layout.notes`, and ``labels =
"as-is"`` takes every label as it stands.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pertwise._names import canonical_perturbation, split_combination
from pertwise.screen.odd_labels import is_date, joined_names, odd_notes, some_labels

#: Longer labels are neither controls nor non-calls; bounds the work on hostile input.
_LONGEST = 60
_FOLD = re.compile(r"[\s_\-.:#()\[\]%<>]+")
# A tag of the guide, replicate or pool before the number.
_TAIL = re.compile(r"(?:sg(?:rna)?|g(?:rna)?|guide|rep|pool|oligo)\Z")
_HEAD = re.compile(r"\A(?:s[gih](?:rna)?|grna|guide)(?=.)")
_FILLING = r"""targeting|targets?|guides?|cells?|empty|negative|human|mouse|hg|mm|for|library
    |crispr(?:i|a|ko)?|one|gene|sites?|cutting""".replace("\n    ", "")
_CONTROL = r"""nontarget(?:t?ing|ed|s)?|notarget(?:ing)?|untarget(?:ing|ed)|safeharbou?r|safe
    |controls?|ctrls?|ctls?|neg|ntc|nt|nc|scr|scrambled?|intergenic|nongene|no(?:n|t)?cutting
    |nosite|unperturbed|nonperturbed|noperturbation|untreated|notreatment|uninfected|untransfected
    |untransduced|nontransduced|parental|mock|vehicle|solvent|dmso(?:tf)?|pbs|saline|water|media
    |medium|vector|aavs|rosa|lacz|e?gfp|mcherry|rfp|bfp|luc(?:iferase)?""".replace("\n    ", "")
# No word is another with a word behind it, so that there is one way at most to take a text apart.
_ALL_CONTROL = re.compile(f"(?:{_CONTROL}|{_FILLING})+")
_ALL_FILLING = re.compile(f"(?:{_FILLING})*")
_DIGITS = re.compile(r"(?<![A-Za-z0-9])\d+|\d+(?![A-Za-z0-9])")
# With a digit right behind, these are also names of genes and compounds (NT3, SCRG1, SCR7).
_SHORT = re.compile(r"(?i)(?:nt|(?:nc|scr|luc|neg)g?)\d+")
_CALLED = "(?:sgrna|grna|guide|feature|call|barcode|oligo)s?"
_UNCALLED = re.compile(
    r"(?:[*?/]|unassigned?|n[oa]n?t?assign(?:ed|ment)|multiplets?|doublets?|triplets?|mult|multi"
    r"|multiple|mixed|mixture|none|nan|na|n/a|null|nil|ambiguous|unknown|negative|uncalled"
    r"|unclassified|undetermined|undefined|uncertain|unclear|unmapped|unlabell?ed|blank|collision"
    r"|empty(?:droplets?)?|lowquality|lowumi|missing|filtered|background|ambient|undetected"
    rf"|notdetected|nocall|(?:no|multi|multiple|morethanone|\d+)(?:{_CALLED})+(?:detected|called"
    r"|assigned|found|(?:molecules)?expressed)?|nofeaturemoleculesexpressed)?"
)
# Families of genes whose symbols end in a hyphen or point and a number.
_SYMBOL = re.compile(
    r"(?:NKX\d|KRTAP\d*|HLA|MT|H[1-4]|H?ERV\w*|IG[HKL][VDJ]\d*|TR[ABDG][VDJ]\d*|TR\w-\w+|MIR\w*"
    r"|LET|SNOR[AD]\d*|RNU\d\w*|RNA\d\w*|LINC\d+|BCL|CD|IL|IFN|TGF|A[CDFJLP]\d+|A[CLP]|RP\d*"
    r"|CT[ABCD]|XX\w*|CR\d+|FP\d+|[BLUZ]\d+)\Z",
    re.IGNORECASE,
)
#: Stems that number perturbations instead of naming a gene.
_STEMS = """gene pert perturbation drug compound cpd cmpd guide sgrna grna target sample cell well p
    g sim tf barcode cluster cond condition treatment group id row plate batch chembl brd"""
_GENERIC = frozenset(_STEMS.split())
_GENE = r"(?P<gene>[A-Za-z][A-Za-z0-9.\-]*?)"
_WORD = r"(?:sgRNA|gRNA|crRNA|shRNA|siRNA|guide|sg|sh|cr|ko|rep)"
_SEQUENCE = r"(?:[_\-][ACGT]{17,23})"
_STRONG = tuple(
    re.compile(pattern)
    for pattern in (
        # GATA1_sg1, GATA1-sgRNA-2, GATA1_g1, GATA1 guide 3, GATA1 (sg1), GATA1_sgA, GATA1_sg1_rep2
        _GENE + rf"(?:[ _\-.:|(]{{1,2}}(?i:{_WORD})|[ _.:|](?i:g)|-g)[ _\-.:]?"
        rf"(?:#?\d+|(?<=[gdAe])[ _\-.]?[A-Da-d])\)?(?:[_\-.](?i:rep|r)\d+)?{_SEQUENCE}?\Z",
        # STAT1g2
        r"(?P<gene>[A-Z][A-Z0-9\-]*[A-Z0-9])g\d+\Z",
        # sg1_GATA1, guide_2_GATA1
        rf"(?:{_WORD}|g)[ _\-.]?\d+[ _\-.]" + _GENE + r"\Z",
        # sgGATA1_2, sg-GATA1, sgRNA_GATA1, p_sgGATA1_2
        r"(?:[pcm][_\-])?(?:s[gih]RNA[_\-. ]|s[gih](?!RNA\d)[_\-. ]?)(?P<gene>[A-Z][A-Za-z0-9\-]*?)"
        r"(?P<tail>[_\-.#:]\d{1,3}|_[A-D])?\Z",
        # GATA1_P1P2|ENSG00000102145, GATA1_P1, GATA1|ENSG00000102145.13
        _GENE + r"(?:_P\d(?:P\d)?(?:[|_]ENS[A-Z]*\d+(?:\.\d+)?)?|[|_\-.]ENS[A-Z]*G\d+(?:\.\d+)?)\Z",
        # 3375_GATA1_P1P2_ENSG00000102145
        r"\d+_" + _GENE + r"_P\d(?:P\d)?_ENS[A-Z]*\d+(?:\.\d+)?\Z",
        # GATA1_+_48649545.23-P1P2
        _GENE + r"_[+\-]_\d+(?:\.\d+)?(?:-P\d(?:P\d)?|-all|-ENST\d+)?(?:_\d\d)?\Z",
        # GATA1_ACGTACGTACGTACGTACGT, GATA1_1_ACGTACGTACGTACGTACGT
        _GENE + rf"(?:_\d+)?{_SEQUENCE}\Z",
        # GATA1_pDS353: the plasmid
        _GENE + r"_p[A-Z]{2}\d{3}\Z",
    )
)
_WEAK = re.compile(_GENE + r"(?P<mark>[_\-.:]| ?#)(?P<number>\d{1,3}|(?<=_)[A-H])\Z")
_PARTS = re.compile(r"[|;,]")
# No symbol of a gene: a well of a plate, or anything but capitals first.
_NO_GENE = re.compile(r"[A-P]\d{1,2}|[^A-Z].*|.|.*[^A-Za-z0-9\-].*", re.DOTALL)


def fold_label(label: str) -> str:
    """Letter case, blanks and marks folded away: "Non-Targeting 2" -> "nontargeting2"."""
    return _FOLD.sub("", label.casefold())


def control_kind(label: str) -> str:
    """What kind of control a label looks like ("nontargeting" for "non-targeting_00023"), or ""."""
    text = str(label).strip()
    if not text or len(text) > _LONGEST or _SHORT.fullmatch(text):
        return ""
    first, _, second = text.partition("__")
    if first and second and control_kind(first) and control_kind(second):
        return control_kind(first)
    guide = next((m["gene"] for p in _STRONG if (m := p.match(text))), "")
    # "non-targeting-A", "p_INTERGENIC3934"
    single = re.sub(r"\A[pcm][_\-]|[\s_\-.][A-Za-z]\Z", "", text)
    for form in (single, guide):
        if fold_label(form) in ("wt", "wildtype"):
            return "wt"
        plain = _HEAD.sub("", fold_label(_DIGITS.sub("", form)), count=1)
        for core in (plain, _TAIL.sub("", plain, count=1)):
            if _ALL_CONTROL.fullmatch(core) and not _ALL_FILLING.fullmatch(core):
                return core
    return ""


def is_uncalled(label: str) -> bool:
    """Whether a label says that a cell has no call, or more than one ("unassigned", "doublet")."""
    text = str(label).strip()
    if len(text) > _LONGEST:
        return False
    key = fold_label(text)
    plain = key.rstrip("0123456789")
    return bool(_UNCALLED.fullmatch(key) or (len(plain) > 4 and _UNCALLED.fullmatch(plain)))


def without_controls(label: str, control: Iterable[str]) -> list[str]:
    """Parts of a combination that are no control; a single label is left alone."""
    parts = split_combination(label)
    if len(parts) == 1:
        return parts
    return [p for p in parts if p not in control and not control_kind(p)]


def guide_gene(label: str) -> str:
    """The gene a label names a guide of, where its form leaves no doubt; else ""."""
    text = str(label).strip()
    if len(text) > 200:
        return ""
    for pattern in _STRONG:
        found = pattern.match(text)
        if found and not control_kind(found["gene"]):
            gene, tail = found["gene"], found.groupdict().get("tail")
            return gene + tail if tail and _SYMBOL.match(gene) else gene
    return ""


def numbered_gene(label: str) -> str:
    """The gene in "GATA1_1", "GATA1-1" or "GATA1.1" if that is no symbol itself; else ""."""
    return _numbered_parts(label)[0]


def _numbered_parts(label: str) -> tuple[str, str, int]:
    """(gene, mark, number) of `numbered_gene`; letters count as numbers of a mark of their own."""
    text = str(label).strip()
    found = _WEAK.match(text) if len(text) <= 200 else None
    if not found or found["gene"].casefold() in _GENERIC or control_kind(found["gene"]):
        return "", "", 0
    gene, mark, number = found["gene"], found["mark"].strip(), found["number"]
    if (
        is_date(text)
        or len(gene) < 2
        or (mark in "-." and (_SYMBOL.match(gene) or gene.upper().startswith("ENS")))
    ):
        return "", "", 0
    return (gene, mark, int(number)) if number.isdigit() else (gene, "A", ord(number) - 64)


@dataclass(frozen=True)
class Meaning:
    """What the labels of a file mean together.

    Attributes
    ----------
    rename
        Label -> name, where it is not the label itself.
    left_out
        Labels that are no perturbation.
    notes
        What was decided, for people.
    """

    rename: dict[str, str]
    left_out: frozenset[str]
    notes: tuple[str, ...]


def read_labels(
    labels: Sequence[str],
    control: Sequence[str],
    mode: str = "auto",
    features: Iterable[str] = (),
    drugs: bool = False,
) -> Meaning:
    """Tell controls that are not used, cells without a call and guides of genes from names.

    Parameters
    ----------
    labels
        Distinct labels.
    control
        Those used as controls.
    mode
        "auto": guides are folded to their genes when most labels are guides; "genes": whenever a
        label is one; "as-is": every label is a perturbation.
    features
        Names that are measured: a label that is one is a gene and no guide.
    drugs
        Labels are names of drugs, which have no guides.
    """
    if mode == "as-is":
        return Meaning({}, frozenset(), ())
    used = set(control)
    rest = [label for label in labels if label not in used]
    left: dict[str, list[str]] = {"also look like controls": [], "cells without a call": []}
    mixes: list[str] = []
    rename: dict[str, str] = {}
    names: list[str] = []
    measured = frozenset() if drugs else frozenset(features)
    known = measured | {n for n in rest if not control_kind(n) and not is_uncalled(n)}
    joined: list[str] = []
    for label in rest:
        parts = split_combination(label)
        kinds = [control_kind(p) for p in parts]
        if drugs:
            # NT-157 and SCR-7 are compounds.
            kinds = [k if len(k) > 3 else "" for k in kinds]
        if all(p in used or kind for p, kind in zip(parts, kinds, strict=True)):
            # "ctrl+ctrl" is the control itself where "ctrl" is.
            if len(parts) == 1 or not used & set(parts):
                left["also look like controls"].append(label)
        elif any(is_uncalled(p) for p in parts):
            left["cells without a call"].append(label)
        elif not drugs and (gene := _beside_control(label)):
            rename[label] = gene
        elif not drugs and _is_mix(label):
            mixes.append(label)
        elif label not in measured and (pair := joined_names(label, known, drugs)):
            rename[label] = pair
            joined.append(label)
        else:
            names.append(label)
    notes = [f"{some_labels(found)}: {what}, left out" for what, found in left.items() if found]
    if mixes:
        notes.append(
            f"{some_labels(mixes)}: a mix with a control guide or of several guides, left out"
        )
    if notes:
        notes[-1] += " (--control LABEL uses a label as control, --labels as-is keeps all)"
    beside = [n for n in names if len(without_controls(n, used)) < len(split_combination(n))]
    beside = [n for n in [*beside, *rename] if "ctrl" not in n.split("+")]
    beside = [n for n in beside if n not in joined]
    if joined:
        notes.append(
            f"{some_labels(joined)}: every part is a name of its own, so read as combinations "
            "(--labels as-is takes each as one name)"
        )
    if beside:
        notes.append(f"{some_labels(beside)}: a gene beside a control, read as the gene")
    if not drugs:
        folded, said = _fold_guides(names, used, mode, measured)
        rename |= folded
        notes += said
    notes += odd_notes([n for n in names if n not in rename], measured, known, drugs)
    gone = frozenset([*mixes, *(x for found in left.values() for x in found)])
    return Meaning(rename, gone, tuple(notes))


def _beside_control(label: str) -> str:
    """The gene of "KLF1_NegCtrl0" or "KLF1_NegCtrl0__KLF1_NegCtrl0" (a vector of two guides), and
    both of "KLF1_MAP2K6__KLF1_MAP2K6"."""
    first, _, second = label.partition("__")
    if second and second != first:
        return ""
    parts = first.split("_")
    genes = [p for p in parts if not control_kind(p)]
    if len(parts) != 2 or not genes or any(is_uncalled(g) or _NO_GENE.fullmatch(g) for g in genes):
        return ""
    return canonical_perturbation("+".join(genes)) if len(genes) == 1 or second else ""


def _is_mix(label: str) -> bool:
    """Several guides called in one cell, of a control or of different genes."""
    parts = [p.strip() for p in _PARTS.split(label)]
    if len(parts) < 2 or len(label) > 1000:
        return False
    if any(control_kind(p) for p in parts):
        return True
    genes = [guide_gene(p) or numbered_gene(p) for p in parts]
    return all(genes) and len(set(genes)) > 1


def _fold_guides(
    names: Sequence[str], used: set[str], mode: str, features: frozenset[str]
) -> tuple[dict[str, str], list[str]]:
    parts = {n: without_controls(n, used) for n in names}
    singles = list(dict.fromkeys(p for found in parts.values() for p in found))
    gene_of = {p: g for p in singles if p not in features and (g := _guide(p))}
    gene_of |= _numbered([p for p in singles if p not in gene_of], features)
    folded = {
        n: canonical_perturbation("+".join(dict.fromkeys(gene_of.get(p, p) for p in found)))
        for n, found in parts.items()
        if found and any(p in gene_of for p in found)
    }
    if not folded:
        return {}, []
    genes = len(set(folded.values()))
    what = f"{len(folded)} of {len(names)} labels name guides ({some_labels(list(folded), 3)})"
    if mode == "genes" or 2 * len(folded) > len(names):
        return folded, [
            f"{what}, folded to {genes} genes; --labels as-is keeps one perturbation a guide"
        ]
    return {}, [f"{what}, but most do not: taken as they stand; --labels genes folds them to genes"]


def _guide(label: str) -> str:
    pieces = [p.strip() for p in _PARTS.split(label)]
    if len(pieces) > 1 and not guide_gene(label):
        genes = {guide_gene(p) or numbered_gene(p) for p in pieces}
        return genes.pop() if len(genes) == 1 else ""
    return guide_gene(label)


def _numbered(labels: Sequence[str], features: frozenset[str]) -> dict[str, str]:
    """Numbered labels that are guides: their stems are genes that recur with 1, 2, 3."""
    stems: dict[tuple[str, str], set[int]] = defaultdict(set)
    found = {}
    for label in labels:
        gene, mark, number = ("", "", 0) if label in features else _numbered_parts(label)
        if gene:
            stems[gene, mark].add(number)
            found[label] = (gene, mark)
    guides = {}
    marks = Counter(mark for _, mark in stems)
    for label, (gene, mark) in found.items():
        own = [numbers for (_, m), numbers in stems.items() if m == mark]
        runs = sum(len(n) > 1 and max(n) - min(n) < len(n) + 2 and min(n) < 3 for n in own)
        several = marks[mark] > 1 and max(map(len, own)) <= 12
        # No symbol holds an underscore; a hyphen needs to be seen counting.
        if gene in features or (several and (mark in "_:#" or 2 * runs >= len(own))):
            guides[label] = gene
    return guides
