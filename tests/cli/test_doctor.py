"""`pertwise doctor` and the user's own defaults."""

import os

import pytest
from typer.testing import CliRunner

from pertwise.cli import doctor as module
from pertwise.cli.main import app
from pertwise.config import user_file, user_settings
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge

run = CliRunner().invoke


def line(output: str, what: str) -> str:
    return next(x for x in output.splitlines() if x[4:].startswith(what))


def test_a_sound_installation_is_told_and_ends_well(simulated):
    _, knowledge = simulated
    found = run(app, ["doctor", "--knowledge", str(knowledge.path)])
    assert found.exit_code == 0, found.output
    assert line(found.output, "pertwise").startswith("ok")
    assert line(found.output, "knowledge").startswith(f"ok  knowledge      {knowledge.path}")
    assert line(found.output, "model").startswith("--")
    assert not [x for x in found.output.splitlines() if x.startswith("!!")]


def test_what_is_broken_is_named_with_what_to_do(monkeypatch, tmp_path):
    versions = {"numpy": "1.0", "scipy": None}
    own = module._version
    monkeypatch.setattr(module, "_version", lambda n: versions[n] if n in versions else own(n))
    found = run(app, ["doctor", "--knowledge", str(tmp_path / "none")])
    assert found.exit_code == 1
    assert "!!  numpy" in found.output
    assert "pip install --upgrade 'numpy>=" in found.output
    assert "!!  scipy          missing" in found.output
    assert line(found.output, "knowledge").startswith("!!")


def test_an_old_folder_is_a_note(monkeypatch, simulated):
    _, knowledge = simulated
    manifest = {**knowledge.manifest, "built": "2001-01-01T00:00:00+00:00"}
    monkeypatch.setattr(Knowledge, "manifest", property(lambda self: manifest))
    found = run(app, ["doctor", "--knowledge", str(knowledge.path)])
    assert found.exit_code == 0
    assert "build it anew" in line(found.output, "knowledge")
    assert line(found.output, "knowledge").startswith("--")


def test_the_endpoint_is_asked_once(scripted_llm):
    found = run(app, ["doctor", "--llm", f"scripted@{scripted_llm.url}"])
    assert "answers" in line(found.output, "model")
    assert len(scripted_llm.asked) == 1


def test_an_endpoint_that_is_not_there_is_broken():
    found = run(app, ["doctor", "--llm", "m@http://127.0.0.1:9/v1", "--timeout", "2"])
    assert found.exit_code == 1
    assert line(found.output, "model").startswith("!!")


def test_options_that_doctor_does_not_use_are_refused():
    for given in (["--replay"], ["--budget-tokens", "5"], ["--drugs", "x.csv"]):
        found = run(app, ["doctor", "--llm", "m@http://127.0.0.1:9/v1", *given])
        assert isinstance(found.exception, InputError), given
        assert given[0] in str(found.exception)


# -- defaults ------------------------------------------------------------------------------------


@pytest.fixture
def defaults(monkeypatch, tmp_path):
    file = tmp_path / "pertwise.toml"
    monkeypatch.setenv("PERTWISE_CONFIG", str(file))
    return file


def test_the_file_stands_where_other_tools_have_theirs(monkeypatch, tmp_path):
    monkeypatch.delenv("PERTWISE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_file() == tmp_path / "pertwise.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_file() == tmp_path / ".config" / "pertwise.toml"
    assert user_settings().knowledge is None


def test_a_default_folder_is_used_and_said(defaults, simulated, tmp_path):
    screen, knowledge = simulated
    file = tmp_path / "screen.h5ad"
    screen.to_anndata().write_h5ad(file)
    folder = os.path.relpath(knowledge.path, defaults.parent)
    defaults.write_text(f'knowledge = "{folder}"\n')
    name = screen.perturbations[0]
    words = ["predict", str(file), "--genes", name, "--method", "kernel-ridge", "--folds", "0"]
    found = run(app, [*words, "--out", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert f"(from {defaults})" in found.output
    defaults.write_text("")
    assert run(app, [*words, "--out", str(tmp_path / "again")]).exit_code != 0


def test_a_default_folder_counts_as_given_and_is_said_once(
    defaults, simulated, tmp_path, scripted_llm
):
    screen, knowledge = simulated
    file = tmp_path / "screen.h5ad"
    screen.to_anndata().write_h5ad(file)
    defaults.write_text(f'knowledge = "{knowledge.path}"\n')
    words = ["ask", str(file), "--genes", screen.perturbations[0], "--max-candidates", "5"]
    words += ["--llm", scripted_llm.openai("scripted"), "--dry-run"]
    found = run(app, [*words, "--out", str(tmp_path / "lists.jsonl")])
    assert found.exit_code == 0, found.output
    assert found.output.count("knowledge: ") == 1


@pytest.mark.parametrize(
    "text",
    ["api_key = 'x'", "knowledge = 3", "llm = 'm@https://user:pass@host/v1'", "=", "llm = 1"],
)
def test_a_faulty_file_is_named_and_no_secret_is_repeated(defaults, text):
    defaults.write_text(text)
    with pytest.raises(InputError, match=r"pertwise\.toml") as told:
        user_settings()
    assert "pass" not in str(told.value).replace("password", "")
    found = run(app, ["doctor"])
    assert found.exit_code == 1
    assert line(found.output, "defaults").startswith("!!")


def test_a_default_model_is_asked_only_where_a_model_is_needed(defaults, simulated, tmp_path):
    """`plan` picks without a model unless one is named, whatever the defaults say."""
    screen, knowledge = simulated
    defaults.write_text('llm = "m@http://127.0.0.1:9/v1"\n')
    file = tmp_path / "screen.h5ad"
    screen.to_anndata().write_h5ad(file)
    words = ["plan", "make", str(file), "--knowledge", str(knowledge.path), "--batch", "3"]
    found = run(app, [*words, "--strategy", "typiclust", "--out", str(tmp_path / "plan")])
    assert found.exit_code == 0, found.output
    rated = run(app, ["rate", str(file), "--dry-run"])
    assert rated.exit_code == 0, rated.output
    assert rated.output.count("(from") == 1
    assert "model: m@http://127.0.0.1:9/v1 (from" in rated.output, rated.output


def test_the_theme_of_pages_is_a_default_too(defaults):
    from pertwise.report import render_page

    def page():
        return render_page("page.html.j2", title="x", simulated=False, lead="", blocks=[])

    assert '<html lang="en" data-theme="light">' in page()
    defaults.write_text('theme = "auto"\n')
    assert '<html lang="en" data-theme="auto">' in page()
    defaults.write_text('theme = "pink"\n')
    with pytest.raises(InputError, match=r"pertwise.toml: theme: .*'light', 'dark' or 'auto'"):
        page()
