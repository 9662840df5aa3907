"""Files named in configurations."""

import pytest

from pertwise._io import config_path
from pertwise.errors import InputError


def test_relative_absolute_and_variables(monkeypatch):
    monkeypatch.setenv("SCREENS", "/data/screens")
    assert config_path("runs/a.toml", "b.h5ad") == "runs/b.h5ad"
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
