"""Settings from TOML: paths, variables, errors that name file and key."""

import os

import pytest

from pertwise.config import (
    FileName,
    Settings,
    check_settings,
    config_path,
    read_settings,
    read_toml,
    toml_value,
)
from pertwise.errors import InputError


def test_relative_absolute_and_variables(monkeypatch):
    monkeypatch.setenv("SCREENS", "/data/screens")
    assert config_path("runs/a.toml", "b.h5ad") == os.path.abspath("runs/b.h5ad")
    assert config_path("runs/a.toml", "/x/b.h5ad") == "/x/b.h5ad"
    assert config_path("runs/a.toml", "$SCREENS/b.h5ad") == "/data/screens/b.h5ad"
    assert config_path("runs/a.toml", "${SCREENS}_2/b.h5ad") == "/data/screens_2/b.h5ad"


def test_unset_and_secret_variables_are_refused_by_name(monkeypatch):
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(InputError, match=r"a.toml: .*variable NOT_SET_ANYWHERE; set it"):
        config_path("a.toml", "$NOT_SET_ANYWHERE/x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123")
    with pytest.raises(InputError, match="OPENAI_API_KEY looks like a secret") as caught:
        config_path("a.toml", "$OPENAI_API_KEY/x")
    assert "sk-123" not in str(caught.value)


class Inner(Settings):
    file: FileName
    n: int = 1


class Outer(Settings):
    data: FileName | None = None
    parts: tuple[Inner, ...] = ()


def test_files_are_relative_to_the_file_of_settings_at_every_depth(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/data")
    path = tmp_path / "a" / "b.toml"
    path.parent.mkdir()
    path.write_text('data = "x.csv"\n[[parts]]\nfile = "../y"\n[[parts]]\nfile = "$PLACE/z"\n')
    found = read_settings(path, Outer)
    assert found.data == str(tmp_path / "a" / "x.csv")
    assert [p.file for p in found.parts] == [str(tmp_path / "y"), "/data/z"]
    elsewhere = read_settings(path, Outer, folder=tmp_path / "other")
    assert elsewhere.data == str(tmp_path / "other" / "x.csv")
    assert check_settings({"data": "x.csv"}, Outer).data == "x.csv", "in a call as it is"
    again = check_settings(found.model_dump(), Outer)
    assert again == found


def test_every_key_at_fault_is_named(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('dat = 1\n[[parts]]\nfile = "f"\nn = "many"\n[[parts]]\n')
    with pytest.raises(InputError) as caught:
        read_settings(path, Outer)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "dat: Extra inputs" in text
    assert "parts.0.n: " in text
    assert "parts.1.file: Field required" in text
    monkey = tmp_path / "d.toml"
    monkey.write_text('data = "$API_KEY/x"\n')
    with pytest.raises(InputError, match=r"d.toml: data: .*API_KEY looks like a secret"):
        read_settings(monkey, Outer)
    with pytest.raises(InputError, match="options: settings: "):
        check_settings([1], Outer, "options")


def test_what_is_no_toml_is_told(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path)
    for name, content in (("a", b"x = "), ("b", b"\xff\xfe"), ("c", b"x = " + b"[" * 100_000)):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(InputError, match="is not valid TOML"):
            read_toml(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("true", True), ("[1, 2]", [1, 2]), ("rank", "rank"), ("1\nx = 2", "1\nx = 2"),
     (" a b ", "a b"), ("[A, b/c.csv]", ["A", "b/c.csv"]), ('["A"]', ["A"]), ("[]", []),
     ('{K = "a"}', {"K": "a"})],
)  # fmt: skip
def test_one_value(text, value):
    assert toml_value(text) == value


@pytest.mark.parametrize("text", ['[A, "b]', "{K: 1}", "[[a]", "[a"])
def test_what_begins_like_a_list_and_is_none_is_told(text):
    with pytest.raises(InputError, match="neither a list nor a table"):
        toml_value(text)
