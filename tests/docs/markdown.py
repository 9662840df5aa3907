"""Code blocks of Markdown pages, the commands in them, and what a page says of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
NOT_RUN = re.compile(r"<!--\s*not run:\s*(\S.*?)\s*-->\s*$")
#: Commands that the tests know how to run or to check.
PROGRAMS = ("pertwise", "make")
#: Not shown to a shell, so nothing to run.
SILENT = ("text", "toml", "json")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, why it is not run ("" = it is)."""

    page: str
    line: int
    language: str
    text: str
    not_run: str = ""

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found, i = [], 0
    while i < len(lines):
        if lines[i].startswith("```"):
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith("```"))
            above = next((x for x in reversed(lines[:i]) if x.strip()), "")
            note = NOT_RUN.search(above)
            text = "\n".join(lines[i + 1 : end])
            found.append(
                Block(name(path), i + 1, lines[i][3:].strip(), text, note.group(1) if note else "")
            )
            i = end
        i += 1
    return found


def name(path: Path) -> str:
    """Path of a page as people write it."""
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    out, inside = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            out.append(line)
    return "\n".join(out)


def commands(text: str) -> list[str]:
    """Shell commands of a block: continued lines joined, comments and prompts off, && apart."""
    joined = re.sub(r"\\\n\s*", " ", text)
    out = []
    for line in joined.splitlines():
        bare = without_comment(line).strip().removeprefix("$ ").strip()
        out += [part.strip() for part in bare.split(" && ") if part.strip()]
    return out


def without_comment(line: str) -> str:
    """A shell line up to a "#" that begins a word outside quotes."""
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def inline(path: Path) -> list[str]:
    """Code spans of a page's prose."""
    return [" ".join(x.split()) for x in re.findall(r"`([^`]+)`", prose(path))]
