"""The part of a text that is an answer and not reasoning, for every family of reasoning marks."""

from __future__ import annotations

import re

_NAME = (
    r"(?:seed:|ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|scratchpad|reflection|analysis|"
    r"inner_monologue)"
)
_WHAT = r"(?:think(?:ing)?|thought|reasoning)"
#: Opening and closing marks: XML-like (most models, also escaped), Magistral, Kimi, Cohere and
#: DeepSeek, Gemma, marks of a chat.
_MARK = re.compile(
    rf"(?P<open>(?:<|&lt;){_NAME}\b[^<>&]{{0,200}}(?:>|&gt;)|\[THINK(?:ING)?\]|◁think▷|<unused94>|"
    rf"<[|｜](?:(?:begin|start)[_▁](?:of[_▁])?)?{_WHAT}[|｜]>|<\|channel>\s*thought|"
    rf"<\|im_start\|>\s{{0,9}}{_WHAT}\b)"
    rf"|(?P<close>(?:<|&lt;)/{_NAME}\s*(?:>|&gt;)|\[/THINK(?:ING)?\]|◁/think▷|<unused95>|"
    rf"<[|｜](?:/|end[_▁](?:of[_▁])?){_WHAT}[|｜]>|<channel\|>|"
    r"<\|im_start\|>\s{0,9}(?:answer|assistant|final)\b)",
    re.IGNORECASE,
)
_ALOUD = re.compile(
    r"\W{0,20}(?:here (?:is|are) my (?:thought process|thoughts|reasoning|thinking)\b|"
    r"(?:my )?(?:thinking|thoughts?|reasoning)(?: process| steps)?\s{0,3}[:*\n]|"
    r"(?:(?:okay|ok|alright|hmm+|so|first|now|well)\b[,.]? {0,2}){0,3}"
    r"(?:the user (?:wants|asks|is asking|needs|gave)|let me (?:think|start|see|look|analy)|"
    r"let['’]s (?:think|start|see|look|analy)|(?:i|we) (?:need|have|should|must) to\b))",
    re.IGNORECASE,
)
_CHANNEL = "<|channel|>"
_CHANNEL_END = re.compile(r"<\|(?:end|return|start|call)\|>")


def visible_text(text: str) -> str:
    """The answer without its reasoning (see `split_reasoning`)."""
    return split_reasoning(text)[0]


def thinks_aloud(text: str) -> bool:
    """Whether a text begins as reasoning that nothing marks ("Okay, the user wants ...")."""
    return _ALOUD.match(text) is not None


def split_reasoning(text: str) -> tuple[str, bool]:
    """(the answer without its reasoning, whether the text ends inside reasoning).

    Handles marks around reasoning, a closing mark without an opening one (some chat templates put
    the opening mark into the prompt), reasoning that never ended, and the channels of gpt-oss,
    with their marks or with the bare words that a server left of them. One pass, linear.
    """
    text, unfinished = _final_channel(text)
    kept: list[str] = []
    position, inside = 0, False
    for mark in _MARK.finditer(text):
        if mark["close"]:
            if not inside:
                kept.clear()
            inside, position = False, mark.end()
        elif not inside:
            kept.append(text[position : mark.start()])
            inside = True
    if not inside:
        kept.append(text[position:])
    return "".join(kept).strip(), inside or unfinished


def _final_channel(text: str) -> tuple[str, bool]:
    if _CHANNEL in text:
        final, is_final = "", False
        for part in text.split(_CHANNEL)[1:]:
            name, message, said = part.partition("<|message|>")
            is_final = name.lstrip().lower().startswith("final")
            if is_final:
                said = said if message else name.lstrip()[len("final") :]
                final = _CHANNEL_END.split(said, maxsplit=1)[0]
        return final, not is_final
    if "assistantfinal" in text:
        return text.rpartition("assistantfinal")[2], False
    start = r"\s*analysis(?=[A-Z{]|\s+(?:We|I|The|User|Need|Let)\b)"
    unfinished = re.match(start, text) is not None
    return "" if unfinished else text, unfinished
