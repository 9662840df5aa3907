"""`pertwise doctor`: what is installed, is the knowledge complete, does the endpoint answer?"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import typer

from pertwise import __version__
from pertwise.cli.groups import Facts, Llm
from pertwise.cli.options import grouped
from pertwise.errors import PertwiseError

#: Days after which the sources of a knowledge folder may have changed much.
_OLD = 365
_OK, _NOTE, _BAD = "ok", "--", "!!"
_LIMITS = "doctor asks one tiny question"


@grouped
def doctor(facts: Facts, llm: Llm) -> None:
    """Check this installation; with --knowledge and --llm those, too.

    Exit status 1 when something is broken (!!); what is merely absent (--) breaks nothing.
    """
    facts.refuse("doctor looks at the folder", but=("knowledge",))
    llm.refuse(_LIMITS, but=("llm", "timeout"))
    broken = False
    for state, what, told in (*_python(), *_extras(), *_defaults(facts, llm)):
        typer.echo(f"{state}  {what:<14} {told}")
        broken = broken or state == _BAD
    if broken:
        raise typer.Exit(1)


Line = tuple[str, str, str]


def _python() -> Iterator[Line]:
    from pertwise.arrays.memory import available_memory

    yield _OK, "pertwise", f"{__version__} in {Path(__file__).parents[1]}"
    yield _OK, "python", f"{platform.python_version()}, {platform.platform()}, {sys.executable}"
    memory = available_memory()
    gigabytes = "" if memory is None else f", {memory / 1024**3:.1f} GB of memory available"
    yield _OK, "machine", f"{os.cpu_count() or 1} processors{gigabytes}"
    for name, wanted in _needs(""):
        found = _version(name)
        if found is None:
            yield _BAD, name, f"missing ({wanted}): pip install '{wanted}'"
        elif not _allowed(found, wanted):
            yield _BAD, name, f"{found}, but {wanted} is needed: pip install --upgrade '{wanted}'"
    yield _OK, "packages", ", ".join(f"{n} {_version(n)}" for n, _ in _needs("") if _version(n))


def _extras() -> Iterator[Line]:
    for extra, gives in _GIVES.items():
        needs = [(n, w) for n, w in _needs(extra) if n != "pertwise"]
        missing = [n for n, _ in needs if _version(n) is None]
        old = [w for n, w in needs if (v := _version(n)) and not _allowed(v, w)]
        if old:
            yield (
                _BAD,
                f"[{extra}]",
                f"too old for {', '.join(old)}: pip install 'pertwise[{extra}]'",
            )
        elif missing or not needs:
            why = f"without {', '.join(missing)}: pip install 'pertwise[{extra}]'"
            yield _NOTE, f"[{extra}]", f"{why}, which gives {gives}"
        else:
            yield _OK, f"[{extra}]", ", ".join(f"{n} {_version(n)}" for n, _ in needs)


#: Extra -> what a user has from it.
_GIVES = {
    "torch": "llmpert, the ensemble behind `uncertainty` and BALD",
    "drugs": "structures of compounds",
    "dask": "benchmarks, pseudobulk and rate on a cluster",
    "review": "`pertwise review`, the plan in the browser",
    "excel": "order sheets as xlsx",
    "train": "trainers of a judge (`pertwise train`)",
    "text": "embeddings by sentence-transformers models",
}


def _defaults(facts: Facts, llm: Llm) -> Iterator[Line]:
    from pertwise.config import user_file, user_settings

    file = user_file()
    knowledge, model = facts.knowledge, llm.llm
    try:
        settings = user_settings()
    except PertwiseError as error:
        yield _BAD, "defaults", str(error)
    else:
        yield (
            (_OK if file.is_file() else _NOTE),
            "defaults",
            (str(file) if file.is_file() else f"no {file}; it may set knowledge, llm and theme"),
        )
        knowledge = knowledge or (Path(settings.knowledge) if settings.knowledge else None)
        model = model or settings.llm
    yield from _folder(knowledge)
    yield from _endpoint(model, llm)


def _folder(folder: Path | None) -> Iterator[Line]:
    if folder is None:
        yield _NOTE, "knowledge", "none given (--knowledge DIR); make one: pertwise knowledge build"
        return
    from pertwise.knowledge import Knowledge

    try:
        manifest = Knowledge.open(folder).manifest
    except PertwiseError as error:
        yield _BAD, "knowledge", str(error)
        return
    try:
        days = (datetime.now(UTC) - datetime.fromisoformat(str(manifest["built"]))).days
    except (TypeError, ValueError):
        days = 0
    age = f"{days} days old" + (f"; build it anew (over {_OLD})" if days > _OLD else "")
    yield (_NOTE if days > _OLD else _OK), "knowledge", f"{folder}, {age}"
    lacks = manifest["unavailable"]
    for name, how in lacks.items():
        yield _NOTE, "", f"not in it: {name} (needs {how})"
    if not lacks:
        yield _OK, "", "complete"


def _endpoint(model: str | None, llm: Llm) -> Iterator[Line]:
    if model is None:
        yield _NOTE, "model", "none given (--llm MODEL@URL)"
        return
    from pertwise.llm import Message, open_chat
    from pertwise.llm.loop import run_sync

    try:
        chat = open_chat(model, attempts=1, max_tokens=16, **llm.limits())
    except PertwiseError as error:
        yield _BAD, "model", str(error)
        return
    try:
        question = chat.request((Message(role="user", content="Answer with: yes"),))
        reply = run_sync(chat.complete(question))
        yield _OK, "model", f"{chat.name} answers ({reply.seconds:.1f} s); more: pertwise llm ping"
    except PertwiseError as error:
        yield _BAD, "model", str(error)
    finally:
        chat.shutdown()


def _needs(extra: str) -> list[tuple[str, str]]:
    """(distribution, requirement) of an extra, or of the core for ""."""
    found = []
    for line in requires("pertwise") or []:
        wanted, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", wanted)
        of = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if name and (of[1] if of else "") == extra:
            found.append((name[0], wanted.strip()))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _allowed(found: str, wanted: str) -> bool:
    from packaging.requirements import Requirement

    return Requirement(wanted).specifier.contains(found, prereleases=True)
