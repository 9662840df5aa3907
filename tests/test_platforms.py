"""What differs between systems: text encodings, questions about processes, folders as files."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pertwise
from pertwise import _io, _process
from pertwise.knowledge.tables import leftovers
from pertwise.llm.account import _alive

ROOT = Path(__file__).parents[1]


def run(code, *args, **environment):
    return subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", code, *map(str, args)],
        capture_output=True, env=os.environ | environment, check=False,
    )  # fmt: skip


def test_no_file_is_read_or_written_in_the_encoding_of_the_system(tmp_path):
    """Python warns of every open() without an encoding; in this package that is an error."""
    code = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="pertwise.*")
sys.argv = ["pertwise", *sys.argv[1:]]
from pertwise.cli.main import main
main()
"""
    made = tmp_path / "made"
    assert run(code, "screen", "simulate", made, "--perturbations", 40, "--cells").returncode == 0
    done = run(
        code, "screen", "pseudobulk", made / "cells.h5ad", tmp_path / "s.h5ad",
        "--counts", tmp_path / "c.h5ad", "--min-cells", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run(code, "knowledge", "build", made / "knowledge_sources", tmp_path / "kb")
    done = run(code, "plan", made / "screen.h5ad", "--knowledge", tmp_path / "kb", "--cold-start")
    assert b"EncodingWarning" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_a_sign_does_not_end_the_run(encoding):
    code = """
import sys, typer
from pertwise.cli import main as m
m.app = lambda: typer.echo("\\u2265 \\u0394 \\U0001F9EC")
m.main()
"""
    done = run(code, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_on_windows_nobody_asks_a_process_by_a_signal(monkeypatch, tmp_path):
    """There os.kill(pid, 0) ends the process that is asked about."""

    def never(*args):
        raise AssertionError("os.kill was called")

    monkeypatch.setattr(_process.os, "kill", never)
    monkeypatch.setattr(_process.os, "name", "nt")
    assert _process.alive(1)
    import socket

    assert _alive(f"1@{socket.gethostname()}")
    monkeypatch.undo()
    (tmp_path / ".kb.building-999999999-x").mkdir()
    (tmp_path / f".kb.building-{os.getppid()}-x").mkdir()
    found = {path.name.split("-")[1]: dead for path, dead in leftovers(tmp_path / "kb", "building")}
    assert found == {"999999999": True, str(os.getppid()): False}


def test_a_folder_that_cannot_be_opened_as_a_file_is_no_error(monkeypatch, tmp_path):
    opened = os.open

    def like_windows(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", like_windows)
    _io.write_text_atomic(tmp_path / "a.txt", "µ")
    assert (tmp_path / "a.txt").read_bytes() == "µ".encode()


def test_workers_end_without_signals_that_windows_lacks(monkeypatch):
    monkeypatch.delattr(_process.signal, "SIGKILL")
    assert "use fewer workers" in _process._how_ended([])


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    named = project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{pertwise.__version__}"' in (ROOT / named).read_text(encoding="utf-8")
    # No address is claimed before there is one: it could be a stranger's.
    assert "urls" not in project["project"]
    assert "github.com" not in (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_oldest_versions_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = dict(d.split(">=") for d in project["dependencies"])
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert set(pinned) == set(bounds)
    for name, bound in bounds.items():
        assert (pinned[name] + ".").startswith(bound + "."), name
