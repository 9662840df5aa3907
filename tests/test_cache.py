"""What is kept between two starts: the same as what was made, and made again when in doubt."""

import os

import numpy as np
import pytest

from pertwise import _cache
from pertwise._cache import digest, keeping, kept


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PERTWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Counts how often it was asked."""

    def __init__(self, value=1 / 3):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        return {"x": np.array([self.value, np.nan, -0.0]), "n": np.arange(3, dtype=np.uint16)}

    def asked(self, question="q", fresh=False, **how):
        with keeping(fresh):
            return kept("thing", lambda: question, self, **how)


def test_the_same_bits_come_back(folder):
    make = Maker()
    first, second = make.asked(), make.asked()
    assert make.calls == 1
    for name in ("x", "n"):
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes()


def test_nothing_is_kept_outside_the_block_or_when_it_is_off(folder, monkeypatch):
    make = Maker()
    kept("thing", lambda: "q", make)
    assert not folder.exists()
    monkeypatch.setenv("PERTWISE_CACHE", "off")
    make.asked()
    make.asked()
    assert make.calls == 3


def test_another_question_version_package_or_code_is_made_anew(folder, monkeypatch):
    make = Maker()
    make.asked()
    make.asked("another")
    assert make.calls == 2
    make.asked(packages=("pytest",))
    assert make.calls == 3
    with monkeypatch.context() as patch:
        patch.setattr("pertwise.provenance.__version__", "0.0.1")
        make.asked()
    assert make.calls == 4
    with monkeypatch.context() as patch:
        patch.setattr(_cache, "_code", lambda: "a line changed")
        make.asked()
    assert make.calls == 5
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "abacus")
        make.asked()
    assert make.calls == 6
    make.asked()
    assert make.calls == 6


def test_without_the_package_that_computes_it_nothing_is_kept(folder):
    make = Maker()
    make.asked(packages=("no-such-package-here",))
    make.asked(packages=("no-such-package-here",))
    assert make.calls == 2
    assert not folder.exists()


def test_fresh_makes_it_again_and_keeps_that(folder):
    Maker(1.0).asked()
    assert Maker(2.0).asked(fresh=True)["x"][0] == 2.0
    assert Maker(3.0).asked()["x"][0] == 2.0


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_copy_is_made_again(folder, damage):
    make = Maker()
    make.asked()
    (path,) = folder.glob("*.npz")
    held = path.read_bytes()
    at = held.index(np.array(1 / 3).tobytes())
    path.write_bytes(
        {
            "cut": held[: len(held) // 2],
            "flip": held[:at] + bytes([held[at] ^ 1]) + held[at + 1 :],
            "empty": b"",
            "other": b"not an archive at all",
        }[damage]
    )
    assert make.asked()["x"][0] == 1 / 3
    assert make.calls == 2
    make.asked()
    assert make.calls == 2, "what was made again is kept"


def test_a_folder_that_cannot_be_made_does_without(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PERTWISE_CACHE", str(tmp_path / "file" / "cache"))
    make = Maker()
    assert make.asked()["x"][0] == make.asked()["x"][0] == 1 / 3
    assert make.calls == 2
    assert not caplog.records


def test_a_folder_that_can_only_be_read_is_read(folder, monkeypatch):
    make = Maker()
    make.asked()

    def refuse(*_, **__):
        raise PermissionError(13, "read-only", str(folder))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    make.asked()
    assert make.calls == 1
    make.asked("another")
    assert make.calls == 2
    assert len(list(folder.glob("*"))) == 1


def test_what_was_used_longest_ago_goes_first(folder, monkeypatch):
    make = Maker()
    for question in "abc":
        make.asked(question)
    sizes = [p.stat().st_size for p in folder.glob("*.npz")]
    for age, path in enumerate(sorted(folder.glob("*.npz"), key=lambda p: p.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    make.asked("a")
    monkeypatch.setattr(_cache, "MOST_BYTES", 3 * max(sizes))
    make.asked("d")
    assert len(list(folder.glob("*.npz"))) == 3
    calls = make.calls
    for question in "acd":
        make.asked(question)
    assert make.calls == calls
    make.asked("b")
    assert make.calls == calls + 1


def test_digest_tells_values_shapes_and_kinds_apart():
    x = np.arange(6.0)
    seen = [[x], [x + 1e-16], [x.reshape(2, 3)], [x.astype(np.float32)], [x[:3], x[3:]]]
    assert digest([x]) == digest([x + 0.0])
    assert len({digest(s) for s in seen}) == len(seen) - (x + 1e-16 == x).all()
    assert digest([x.reshape(2, 3).T]) != digest([x.reshape(3, 2)])


def test_the_folder_is_where_such_things_belong(monkeypatch, tmp_path):
    monkeypatch.delenv("PERTWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _cache.folder() == tmp_path / "pertwise"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _cache.folder() == tmp_path / "home" / ".cache" / "pertwise"
