"""What `import pertwise` offers: these names and no others, each usable and documented."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pertwise

#: The front door. A name added to `pertwise.__all__` is added here and to docs/api.md.
NAMES = (
    "InputError",
    "Kernel",
    "Knowledge",
    "PertwiseError",
    "Pick",
    "Plan",
    "Predicted",
    "Prediction",
    "Predictor",
    "PseudobulkSettings",
    "Query",
    "Rated",
    "Screen",
    "Selection",
    "Selector",
    "Strategy",
    "add_embedding",
    "add_graph",
    "amend",
    "ask",
    "bench",
    "build_knowledge",
    "chat",
    "design",
    "join",
    "model",
    "parts",
    "plan",
    "plot",
    "predict",
    "pseudobulk",
    "rate",
    "read_prediction",
    "read_screen",
    "score",
    "simulate",
    "write_plan",
    "write_prediction",
)
#: Offered beside them, without a row in docs/api.md.
PLAIN = ("__version__",)

API = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
DOCUMENTED = re.findall(r"(?m)^\| `pw\.(\w+)", API)


def test_these_names_and_no_others():
    assert sorted(pertwise.__all__) == sorted((*NAMES, *PLAIN))
    assert len(set(pertwise.__all__)) == len(pertwise.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_resolves_and_says_what_it_is(name):
    found = getattr(pertwise, name)
    assert found is getattr(pertwise, name)
    if inspect.ismodule(found) or callable(found):
        text = inspect.getdoc(found) or ""
        assert text.split("\n")[0].strip(), f"pertwise.{name} has no docstring"
        # A dataclass without one of its own gets its signature as a docstring.
        assert not text.startswith(f"{name}("), f"pertwise.{name} has no docstring of its own"


@pytest.mark.parametrize("name", NAMES)
def test_is_in_the_api_page(name):
    assert DOCUMENTED.count(name) == 1, (
        f"docs/api.md has {DOCUMENTED.count(name)} rows of pw.{name}"
    )


def test_the_api_page_names_nothing_else():
    assert set(DOCUMENTED) == set(NAMES)
    for used in re.findall(r"\bpw\.(\w+)", API):
        assert used in pertwise.__all__, f"docs/api.md uses pw.{used}"


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match="no attribute 'nosuchname'"):
        _ = pertwise.nosuchname


def test_a_star_import_works():
    code = f"from pertwise import *; print(set({NAMES!r}) <= set(globals()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
