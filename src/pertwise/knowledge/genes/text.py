"""One sentence of at most 20 words about a gene, out of RefSeq and UniProt/STRING prose."""

from __future__ import annotations

import re

MAX_WORDS = 20

_ATTRIBUTION = re.compile(
    r"\s*[\[(](?:provided by|supplied by|PubMed|RefSeq|summary by|adapted|OMIM)[^\])]*[\])]",
    re.IGNORECASE,
)
_TRUNCATED = re.compile(r"\s*\[\.\.\.\]\s*$")
# Square brackets within a word are part of it: the sequence "CAC[GA]TG".
_PARENTHESIS = re.compile(r"\s*\([^()]*\)|\s+\[[^\[\]]*\]")
_FAMILY = re.compile(r"; Belongs to the .*$")
# A full stop ends a sentence only before white space and a capital, digit or quote, and not after
# these abbreviations or a single initial ("E. coli").
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9'\"(])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|et al|etc|vs|cf|approx|sp|Dr|No|Fig)|\b[A-Z])\.$")

_LEAD = (
    (
        re.compile(r"^(?:This|The) (?:[\w-]+ )?gene (?:product )?encodes (?:for )?", re.I),
        "Encodes ",
    ),
    (re.compile(r"^The (?:human )?(?:[\w-]+ )?gene encodes ", re.I), "Encodes "),
    (
        re.compile(
            r"^(?:The|A|This) (?:protein|enzyme|product) (?:that is )?(?:encoded|specified) "
            r"by this gene (?:is|was) ",
            re.I,
        ),
        "Is ",
    ),
    (
        re.compile(
            r"^(?:The|A|This) (?:protein|enzyme|product|receptor|gene product) "
            r"(?:that is )?(?:encoded|specified) by this gene ",
            re.I,
        ),
        "",
    ),
    (re.compile(r"^(?:The|This) (?:encoded|gene) (?:protein|enzyme|product) ", re.I), ""),
    (re.compile(r"^(?:This|The) (?:protein|enzyme) ", re.I), ""),
)
_GOOD = re.compile(
    r"\b(catalyz\w*|catalys\w*|regulat\w*|bind\w*|required|essential|mediat\w*|component|subunit|"
    r"transport\w*|activat\w*|repress\w*|inhibit\w*|phosphorylat\w*|ubiquitin\w*|involved in|"
    r"functions? (?:as|in)|plays? (?:a|an)\b.* role|responsible|converts?|conversion|synthesis|"
    r"biosynthe\w*|promot\w*|controls?|receptor for|transcription factor|recruits?|acts? as|"
    r"degrad\w*|assembl\w*|splicing|translation|replication|repair|apoptosis|differentiation|"
    r"hydroly\w*|transfer\w*|necessary|initiat\w*|participat\w*|helicase|kinase|ligase)\b",
    re.IGNORECASE,
)
_BAD = re.compile(
    r"\b(alternativ\w* (?:splic\w*|spliced|transcript|promoter)|transcript variants?|isoforms?|"
    r"mutations?|polymorphisms?|pseudogenes?|chromosome|located (?:on|in) the|similarit\w*|"
    r"identity|belongs? to|evolved|conserved|has been (?:identified|reported|shown)|cluster(?:ed)?|"
    r"patients?|disease|syndrome|associated with|implicated|cancer|deficien\w*|"
    r"observed|unknown|not known|read-?through|genome|exons?|introns?|haplotype|locus|"
    r"amino acids?|residues|see OMIM)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(r"\b(may|might|probably|possibly|putative|could|thought to|predicted)\b", re.I)
_DANGLING_WORDS = (
    "a an the of in on to by for with from and or but nor as at into that which who whose "
    "where when while is are was were be been being its their this these those via through "
    "between during within than both either including such upon thereby also has have"
)
_DANGLING = frozenset(_DANGLING_WORDS.split())


def strip_attribution(text: str) -> str:
    """Text without "[provided by RefSeq, ...]", citations and STRING's "[...]" cut mark."""
    text = _TRUNCATED.sub("", _ATTRIBUTION.sub("", text))
    return re.sub(r"(?<=\.)\s*\.(?=\s|$)|\s+\.(?=\s|$)", "", text).strip()


def sentences(text: str) -> list[str]:
    """Split prose into sentences; abbreviations and initials do not end one."""
    parts: list[str] = []
    for piece in _END.split(" ".join(text.split())):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] += " " + piece
        else:
            parts.append(piece)
    return [p.strip() for p in parts if p.strip()]


def _candidates(refseq: str, annotation: str) -> list[tuple[float, str]]:
    found: list[tuple[float, str]] = []
    truncated = bool(_TRUNCATED.search(annotation))
    function = strip_attribution(annotation).partition("; ")[2]
    function_sentences = sentences(function)
    if truncated and len(function_sentences) > 1:
        function_sentences = function_sentences[:-1]
    # UniProt opens with what the protein does; RefSeq often with the family.
    for source, bonus in ((function_sentences, 0.6), (sentences(strip_attribution(refseq)), 0.0)):
        for position, sentence in enumerate(source):
            found.append((bonus + _score(sentence, position), sentence))
    return found


def _score(sentence: str, position: int) -> float:
    n_words = len(_PARENTHESIS.sub("", sentence).split())
    score = -0.45 * position
    score += min(len(_GOOD.findall(sentence)), 3) * 0.7
    score -= min(len(_BAD.findall(sentence)), 3) * 1.0
    score -= 0.2 * bool(_HEDGE.search(sentence))
    score -= 1.5 * (n_words < 3)
    score -= 0.05 * max(0, n_words - MAX_WORDS)
    if re.search(r"\bmember of\b", sentence):
        score -= 0.5
    if re.match(r"(?:It|They|These|In addition|Also|However|Thus|Therefore)\b", sentence):
        score -= 0.5
    return score


#: Where a long sentence may be cut, and how much is lost by cutting there: before these words.
_CUTS = {
    0.0: ("which", "where", "whereas", "thereby", "while", "because", "leading", "resulting"),
    1.0: ("by", "through", "via", "during", "including", "for", "in", "and"),
    2.5: ("that", "to", "with", "from", "as", "of", "into"),
}
_CUT_COST = {word: cost for cost, words in _CUTS.items() for word in words}


def _shorten(sentence: str, max_words: int) -> str:
    """Cut to `max_words`, at the border of a clause where one is near."""
    words = sentence.split()
    if len(words) <= max_words:
        return sentence
    best, best_cost = max_words, 4.0
    for n in range(max_words, max_words // 3, -1):
        cost = _CUT_COST.get(words[n].strip(",;").casefold(), 4.0)
        if words[n - 1].endswith((",", ";", ":")):
            cost = 0.0
        # A shorter text loses too: three words weigh as much as one step of cost.
        cost += (max_words - n) / 3.0
        if cost < best_cost:
            best, best_cost = n, cost
    kept = words[:best]
    while kept and kept[-1].casefold().strip(",;:") in _DANGLING:
        kept.pop()
    return " ".join(kept)


def tidy(sentence: str, max_words: int = MAX_WORDS) -> str:
    """Shorten one sentence: no brackets, no "this gene encodes a protein that", <= `max_words`."""
    text = sentence.strip()
    for _ in range(3):
        text = _PARENTHESIS.sub("", text)
    text = _FAMILY.sub("", text)
    text = re.sub(
        r"(\w)- (?!and\b|or\b|to\b)(\w)", r"\1-\2", text
    )  # "two- step": a line break kept by UniProt
    for pattern, replacement in _LEAD:
        text, n = pattern.subn(replacement, text, count=1)
        if n:
            break
    text = re.sub(
        r"^(?:Encodes|Is) (?:an? )?(?:protein|enzyme|gene product) (?:that|which) ", "", text
    )
    text = re.sub(r"^is (?:an?|the) ", "", text, flags=re.IGNORECASE)
    text = _shorten(text, max_words).rstrip(" ,;:.")
    if not text:
        return ""
    return text[0].upper() + text[1:] + "."


def one_sentence(
    refseq: str = "", annotation: str = "", full_name: str = "", max_words: int = MAX_WORDS
) -> str:
    """The most informative sentence of the two texts, at most `max_words` words.

    Sentences that say what the gene product does win over those about family, splicing, disease
    or genome position; without any text the full name is the answer, "" without that.

    Parameters
    ----------
    refseq
        RefSeq summary.
    annotation
        STRING annotation: "protein name; function. More."
    """
    found = _candidates(refseq, annotation)
    best = max(found, key=lambda c: c[0], default=(-9.0, ""))
    # A text whose best sentence is about splicing or mutations only tells less than the name.
    if best[0] > -0.9:
        text = tidy(best[1], max_words)
        if len(text.split()) >= 3:
            return text
    name = full_name or strip_attribution(annotation).partition(";")[0]
    return tidy(name, max_words)
