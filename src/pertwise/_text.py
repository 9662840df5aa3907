"""Text from outside (models, servers, files), made fit for files, prompts, terminals and sheets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

#: Terminal sequences: CSI; OSC and other strings up to their end; a choice of character set.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\\]P^_X]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*"
    "(?:\x07|\x1b\\\\|\x9c)?|\x1b(?:[()*+#%][0-9A-Za-z])?"
)
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
#: Controls, invisible formatting (bidirectional overrides, zero width, tags) and non-characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Valid UTF-8 without escape sequences, control characters and invisible formatting.

    Line breaks (all kinds become one newline) and tabs stay. Halves of a surrogate pair are
    joined, lone ones become U+FFFD. Linear in the length; idempotent.
    """
    if text.isascii() and text.isprintable():
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNSEEN.sub("", _BREAKS.sub("\n", _ESCAPES.sub("", text)))


def one_line(text: str, most: int | None = None) -> str:
    """`clean_text` with every run of white space made one space, cut to `most` characters."""
    line = " ".join(clean_text(text).split())
    return line if most is None or len(line) <= most else line[: max(0, most - 3)] + "..."


#: What could open or close a block of a prompt, or a control token of a chat template.
_TAG = re.compile(r"<(?=\s*[/|!?]?\s*[A-Za-z_|])")


def in_prompt(text: str) -> str:
    """One line that cannot pass for another row, field or tag of a prompt.

    " | ", which separates the fields of a row, becomes " / ", and "<" before a word becomes "‹".
    """
    return _TAG.sub("‹", one_line(text)).replace(" | ", " / ")


def shown_url(url: str) -> str:
    """An address fit to be shown or stored: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no readable address)"
    return one_line(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))
