"""The part of a text that is an answer and not reasoning, for every family of reasoning marks."""

from __future__ import annotations

import re

_NAME = (
    r"(?:seed:|ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|scratchpad|reflection|analysis|"
    r"inner_monologue)"
)
#: Opening and closing marks: XML-like (most models), Magistral, Kimi, Cohere and others, Gemma.
_MARK = re.compile(
    rf"(?P<open><{_NAME}\b[^<>]{{0,200}}>|\[THINK(?:ING)?\]|◁think▷|<unused94>|"
    r"<\|(?:begin_of_thought|start_thinking|begin_thinking|thinking|think)\|>|<\|channel>\s*thought)"
    rf"|(?P<close></{_NAME}\s*>|\[/THINK(?:ING)?\]|◁/think▷|<unused95>|"
    r"<\|(?:end_of_thought|end_thinking|/thinking|/think)\|>|<channel\|>)",
    re.IGNORECASE,
)
_CHANNEL = "<|channel|>"
_CHANNEL_END = re.compile(r"<\|(?:end|return|start|call)\|>")


def visible_text(text: str) -> str:
    """The answer without its reasoning (see `split_reasoning`)."""
    return split_reasoning(text)[0]


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
    unfinished = re.match(r"\s*analysis(?=[A-Z])", text) is not None
    return "" if unfinished else text, unfinished
