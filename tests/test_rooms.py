"""The house rules that can be checked by machine: who may import whom, and how fast."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "pertwise"
BASE = ["screen", "knowledge", "llm"]
# Each room may import from those listed (design: only from rooms above it; the first three know
# nothing of each other).
ALLOWED = {
    "screen": [],
    "knowledge": [],
    "llm": [],
    "select": BASE,
    "predict": [*BASE, "select"],
    "acquire": [*BASE, "select", "predict"],
    "evaluate": [*BASE, "select", "predict", "acquire"],
    "train": [*BASE, "select", "predict", "acquire", "evaluate"],
    "report": [*BASE, "select", "predict", "acquire", "evaluate", "train"],
    "cli": [*BASE, "select", "predict", "acquire", "evaluate", "train", "report"],
}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pertwise" and len(parts) > 1:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("room", [p.name for p in SRC.iterdir() if (p / "__init__.py").exists()])
def test_room_imports_only_from_rooms_above(room):
    shared = {p.stem for p in SRC.glob("_[a-z]*.py")}
    allowed = {room, "errors", *shared, *ALLOWED[room]}
    for path in (SRC / room).rglob("*.py"):
        assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"


def test_import_loads_no_heavy_package():
    code = (
        "import sys, pertwise, pertwise.cli.main; "
        "print([m for m in ('torch','rdkit','dask','anndata','openai','anthropic','sklearn',"
        "'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
