"""README and docs do what they say: every block runs, every option exists.

Blocks of a page run in order in one folder of SIMULATED files (`scratch.py`): Python in one
namespace, commands in this process, chat addresses at a scripted server, downloads at a loopback
one. What cannot run says why in a comment right above it, such as
<!-- not run: needs the public screens -->
"""

import os
import re
import shlex
import shutil
import tomllib
import typing

import pytest
from docs.markdown import (
    PAGES,
    PROGRAMS,
    ROOT,
    SILENT,
    Block,
    blocks,
    commands,
    inline,
    name,
    prose,
)
from docs.scratch import Mirror, fill_ledger, make_scratch, small_networks
from typer.main import get_command
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.testing.server import ScriptedServer, picks_json
from pertwise.testing.server import first_alphabetical as by_alphabet

RUN = ("python", "bash", "console")
#: Placeholder of a chat address, and what an address looks like.
ADDRESS = re.compile(r"MODEL@URL|[\w.:-]+@https?://[^\s\"')]+")
BY_NAME = {name(p): p for p in PAGES}
WITH_CODE = [n for n, p in BY_NAME.items() if any(b.language in RUN for b in blocks(p))]


@pytest.mark.parametrize("page", BY_NAME)
def test_every_block_is_labelled(page):
    """A block says what it is; commands never hide in indented text or unlabelled blocks."""
    for block in blocks(BY_NAME[page]):
        assert block.language in (*RUN, *SILENT), f"{block.where}: label it {RUN} or {SILENT}"
        if block.language in SILENT:
            shown = [
                x for x in block.text.splitlines() if x.startswith(tuple(f"{p} " for p in PROGRAMS))
            ]
            assert not shown, f"{block.where}: these are commands, label the block bash: {shown}"
        if block.language == "toml":
            tomllib.loads(block.text)
    hidden = re.findall(rf"(?m)^ {{4,}}(?:{'|'.join(PROGRAMS)}) \S.*$", prose(BY_NAME[page]))
    assert not hidden, f"{page}: put these into a ```bash block: {hidden}"


# -- running ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_scratch(tmp_path_factory.mktemp("docs") / "template")


@pytest.fixture
def desk(template, tmp_path, monkeypatch):
    """A fresh copy of the files, with servers; the working directory."""
    folder = tmp_path / "desk"
    shutil.copytree(template, folder)
    mirror = Mirror(folder / "public")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    small_networks(monkeypatch)
    with ScriptedServer(answer) as server:
        fill_ledger(server, folder / "run" / "ledger.sqlite")
        yield server, mirror, monkeypatch
    mirror.stop()


def answer(asked):
    """By the alphabet; the tiny question of `llm ping` by its gene."""
    return picks_json(["MYC"]) if "TABLE" in asked.first else by_alphabet(asked)


@pytest.mark.parametrize("page", WITH_CODE)
def test_page(page, desk):
    server, mirror, monkeypatch = desk
    namespace: dict[str, typing.Any] = {"__name__": "docs"}
    for block in blocks(BY_NAME[page]):
        text = ADDRESS.sub(server.openai(), block.text)
        if block.language == "toml" and (file := re.match(r"# (\w+\.toml)", text)):
            with open(file.group(1), "w") as out:
                out.write(text)
        if block.language not in RUN or block.not_run:
            continue
        if block.language == "python":
            exec(compile(text, block.where, "exec"), namespace)
        else:
            for command in commands(text):
                run(command, block, mirror.url, monkeypatch)


def run(command: str, block: Block, mirror: str, monkeypatch) -> None:
    """One command of a shell block, in this process."""
    given = re.fullmatch(r"export (\w+)=(.*)", command)
    if given:
        monkeypatch.setenv(given.group(1), given.group(2))
        return
    words = [os.path.expandvars(w) for w in shlex.split(command)]
    where = f"{block.where}: {command}"
    assert words[0] == "pertwise", f"{where}: say why it is not run"
    if words[1:3] == ["knowledge", "fetch"]:
        words += ["--mirror", mirror]
    if words[1:3] == ["knowledge", "build"]:
        # The page makes what other pages find ready.
        shutil.rmtree("knowledge", ignore_errors=True)
    words, target = (words[:-2], words[-1]) if ">" in words else (words, "")
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{where}: {done.output}\n{done.exception!r}"
    if target:
        with open(target, "w") as out:
            out.write(done.stdout)


# -- commands and options, run or not --------------------------------------------------------------


def parsed(words: list[str]) -> None:
    """Parse a command line to its end, as the program would, without running it."""
    command, context = get_command(app), None
    label = "pertwise"
    while True:
        context = command.make_context(label, list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        label, command, words = command.resolve_command(context, rest)


def options(command, seen: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Path of every command -> its options."""
    own = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    found = {seen: {*own, "--help"}}
    for label, sub in getattr(command, "commands", {}).items():
        found |= options(sub, (*seen, label))
    return found


@pytest.mark.parametrize("page", WITH_CODE)
def test_command_lines_parse(page):
    """Also those that are not run: their options and files of this repository exist."""
    targets = re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text())
    for block in blocks(BY_NAME[page]):
        if block.language not in ("bash", "console"):
            continue
        for command in commands(block.text):
            words = shlex.split(command.partition(" > ")[0])
            where = f"{block.where}: {command}"
            if words[0] == "make":
                assert words[1] in targets, where
            elif words[0] == "pertwise":
                try:
                    parsed(words[1:])
                except Exception as error:
                    pytest.fail(f"{where}: {type(error).__name__}: {error}")
            for word in words:
                if word.startswith("benchmarks/") and "$" not in word:
                    assert (ROOT / word).is_file(), f"{where}: no file {word}"


@pytest.mark.parametrize("page", BY_NAME)
def test_commands_in_the_text_exist(page):
    """`pertwise plan amend`, `--budget-usd` and the like in running text."""
    known = options(get_command(app))
    every = {o for own in known.values() for o in own}
    for span in inline(BY_NAME[page]):
        words = span.split()
        if words[0] == "pertwise" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            path: tuple[str, ...] = ()
            for word in words[1:]:
                if (*path, word) not in known:
                    break
                path = (*path, word)
            assert path, f"{page}: `{span}`: no such command"
            beneath = {o for p, own in known.items() if p[: len(path)] == path for o in own}
            used = set(re.findall(r"(?<!\S)\[?(--[a-z][\w-]*)", span))
            assert used <= beneath, f"{page}: `{span}`: no option {sorted(used - beneath)}"
        elif span.startswith("--"):
            flag = re.match(r"--[a-z][\w-]*", span)
            outside = {"--quick", "--sizes", "--rounds", "--sample"}  # of benchmarks/*.py
            assert flag is None or flag.group(0) in every | outside, f"{page}: `{span}`"
