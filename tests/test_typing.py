"""The public names are typed: a strict checker accepts right uses and refuses wrong ones."""

import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("typing_sample.py")
ROOT = Path(__file__).parents[1]


def mypy(path):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(path)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _needs_mypy():
    pytest.importorskip("mypy")


def test_right_uses_pass():
    done = mypy(SAMPLE)
    assert done.returncode == 0, done.stdout


def test_wrong_uses_are_seen(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import pertwise as pw\n"
        "pw.plan(1, 2)\n"
        "pw.nosuchname\n"
        "found: int = pw.model('kernel-ridge')\n"
    )
    told = mypy(wrong).stdout
    assert "wrong.py:2" in told
    assert "wrong.py:3" in told
    assert "wrong.py:4" in told
