"""The house rules that can be checked by machine: who may import whom, and how fast."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "pertwise"
#: From the bottom to the top of docs/architecture.md; a room may import from those before it.
ROOMS = (
    "errors",
    "_text",
    "_shown",
    "_external",
    "_io",
    "_files",
    "_together",
    "_hdf5",
    "_names",
    "_tables",
    "_progress",
    "_process",
    "parts",
    "config",
    "provenance",
    "arrays",
    "screen",
    "knowledge",
    "llm",
    "kernels",
    "select",
    "models",
    "acquire",
    "evaluate",
    "prediction",
    "benchmark",
    "train",
    "report",
    "cli",
    "testing",
)
#: These three know nothing of each other.
STRANGERS = {"screen", "knowledge", "llm"}


@cache
def modules():
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, *, lazily=True):
    """Modules of the package that a file imports; with `lazily` False only when it is loaded."""
    known, found = modules(), set()

    def walk(nodes):
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pertwise"):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in known else node.module)
            elif isinstance(node, ast.Import):
                found.update(a.name for a in node.names if a.name.startswith("pertwise"))
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                walk(node.body if lazily else ())
                walk(node.orelse)
            elif lazily or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(ast.iter_child_nodes(node))

    walk(ast.parse(path.read_text()).body)
    return found & set(known)


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("room", sorted({room_of(m) for m in modules()} - {""}))
def test_room_imports_only_from_rooms_above(room):
    above = set(ROOMS[: ROOMS.index(room)]) | {room, ""}
    if room in STRANGERS:
        above -= STRANGERS - {room}
    for name, path in modules().items():
        if room_of(name) == room:
            wrong = {m for m in imported(path) if room_of(m) not in above}
            assert not wrong, f"{name} imports {sorted(wrong)}"


def test_no_circle_of_imports():
    graph = {}
    for name, path in modules().items():
        if path.name != "__init__.py":
            graph[name] = {
                m for m in imported(path, lazily=False) if modules()[m].name != "__init__.py"
            }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_import_loads_no_heavy_package():
    code = (
        "import sys, pertwise, pertwise.cli.main; "
        "print([m for m in ('torch','rdkit','dask','anndata','openai','anthropic','sklearn',"
        "'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_trainers_are_imported_in_functions_of_train_only():
    heavy = {"trl", "transformers", "peft", "accelerate", "datasets", "gepa", "verifiers", "vllm"}

    def named(node):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        return {str(n).partition(".")[0] for n in names}

    for module, path in modules().items():
        tree = ast.parse(path.read_text())
        inside = {
            id(n)
            for f in ast.walk(tree)
            if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
            for n in ast.walk(f)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and named(node) & heavy:
                allowed = room_of(module) == "train" and id(node) in inside
                assert allowed, f"{module} imports {named(node) & heavy}"
