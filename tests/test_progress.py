"""Progress into a file or pipe: a line now and then, with the time left; none when quiet."""

import pytest

from pertwise import _progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_progress, "_state", {"quiet": False, "console": None})
    return now


def test_one_line_every_ten_seconds_with_time_left(clock, capsys):
    for _ in _progress.track(range(100), "working"):
        clock[0] += 0.5  # 50 s in all
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "working: 20 of 100, 40 s left",
        "working: 40 of 100, 30 s left",
        "working: 60 of 100, 20 s left",
        "working: 80 of 100, 10 s left",
    ]


def test_what_is_quick_or_quiet_says_nothing(clock, capsys):
    assert list(_progress.track([1, 2, 3], "working")) == [1, 2, 3]
    _progress._state["quiet"] = True
    for _ in _progress.track(range(10), "working"):
        clock[0] += 20
    assert capsys.readouterr().err == ""


def test_of_unknown_length_it_says_how_many(clock, capsys):
    for _ in _progress.track((i for i in range(3)), "working"):
        clock[0] += 600
    assert capsys.readouterr().err.splitlines() == ["working: 1", "working: 2"]
    for _ in _progress.track((i for i in range(2)), "working", 7):
        clock[0] += 60
    assert capsys.readouterr().err.splitlines() == ["working: 1 of 7, 6 min left"]
