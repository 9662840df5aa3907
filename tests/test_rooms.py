"""The house rules that can be checked by machine: who may import whom, and how fast."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "pertwise"
#: From the bottom to the top of docs/architecture.md; a room may import from those before it.
ROOMS = (
    "_lazy",
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
    "_cache",
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


#: What only the extra `train` (and vllm, verifiers) brings: asked for within functions of train.
TRAINERS = {
    "trl", "transformers", "peft", "accelerate", "datasets", "gguf", "gepa", "verifiers", "vllm",
}  # fmt: skip
#: An extra of its own: `torch` may also be imported, within functions, by these.
USES_TORCH = {"pertwise.models.llmpert.train", "pertwise._process"}
#: Functions whose first argument is the name of a module.
BY_NAME = {"need", "optional_import", "import_module", "__import__", "find_spec"}


def packages_imported(tree):
    """(package, whether within a function) of every import, also of those by name."""

    def walk(node, inside):
        found = []
        if isinstance(node, ast.Import):
            found = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [node.module]
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = [*node.args, *(k.value for k in node.keywords)]
            if called in BY_NAME and given and isinstance(given[0], ast.Constant):
                found = [str(given[0].value)]
        yield from ((name.partition(".")[0], inside) for name in found)
        within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field, value in ast.iter_fields(node):
            # Defaults and decorators of a function run when the module is loaded.
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, inside or (within and field == "body"))

    yield from walk(tree, False)


def wrongly_imported(module, text):
    """What a module imports of the extra `train` where it may not."""
    at_home = room_of(module) == "train"
    for package, inside in packages_imported(ast.parse(text)):
        allowed = inside and (at_home or (package == "torch" and module in USES_TORCH))
        if package in TRAINERS | {"torch"} and not allowed:
            yield package


def test_packages_of_the_extra_train_are_imported_in_functions_of_train_only():
    wrong = {m: [*wrongly_imported(m, path.read_text())] for m, path in modules().items()}
    assert {m: found for m, found in wrong.items() if found} == {}


def test_the_extra_train_brings_nothing_that_this_file_does_not_know():
    extras = tomllib.loads((SRC.parents[1] / "pyproject.toml").read_text())["project"]
    brought = {
        re.split(r"[<>=~!\[; ]", line)[0] for line in extras["optional-dependencies"]["train"]
    }
    assert brought <= TRAINERS | {"torch"}


@pytest.mark.parametrize(
    ("module", "text", "wrong"),
    [
        ("pertwise.select.x", "def f():\n    import trl", ["trl"]),
        ("pertwise.select.x", "async def f():\n    from peft.tuners import lora", ["peft"]),
        ("pertwise.llm.x", "def f():\n    need('gguf')", ["gguf"]),
        ("pertwise.llm.x", "def f():\n    importlib.import_module('gepa.core')", ["gepa"]),
        ("pertwise.cli.x", "def f():\n    optional_import(module='datasets')", ["datasets"]),
        ("pertwise.models.radial", "def f():\n    import torch", ["torch"]),
        ("pertwise.models.llmpert.train", "import torch", ["torch"]),
        ("pertwise.models.llmpert.train", "def f():\n    import torch.nn", []),
        ("pertwise.train.x", "import transformers", ["transformers"]),
        ("pertwise.train.x", "def f(a=need('trl')):\n    need('trl')", ["trl"]),
        ("pertwise.train.x", "class A:\n    def f(self):\n        import accelerate", []),
        ("pertwise.knowledge.x", "from pertwise.knowledge.genes import transformers", []),
        ("pertwise.knowledge.x", "from . import transformers", []),
    ],
)
def test_an_import_in_the_wrong_place_is_found(module, text, wrong):
    assert [*wrongly_imported(module, text)] == wrong
