"""`pertwise review` as a process: opened, ended, killed."""

import os
import re
import signal
import subprocess
import sys

import httpx
import pytest
from acquire.test_planning import make_plan

from pertwise.acquire import Plan
from pertwise.report import write_plan

pytest.importorskip("starlette", reason="the review page needs pertwise[review]")
pytest.importorskip("uvicorn", reason="the review page needs pertwise[review]")


@pytest.fixture
def folder(tmp_path):
    write_plan(make_plan(), tmp_path / "round1")
    return tmp_path / "round1"


def command(*words):
    code = "from pertwise.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "review", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


@pytest.fixture
def process(folder):
    made = command(folder, "--no-browser")
    yield made
    made.kill()
    made.communicate()


def address_of(process):
    text = process.stdout.readline() + process.stdout.readline()
    return re.search(r"http://127\.0\.0\.1:\d+/[\w-]{40,}/", text)[0]


def drop(address, gene, version):
    origin = re.match(r"http://[^/]+", address)[0]
    value = {"do": "drop", "gene": gene, "by": "Ada", "why": "w", "version": version}
    return httpx.post(f"{address}api/change", json=value, headers={"Origin": origin}, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_it_in_order(process, folder, number):
    address = address_of(process)
    assert httpx.get(address.rsplit("/", 2)[0] + "/").status_code == 403
    seen = httpx.get(f"{address}api/state", timeout=60).json()
    gene = seen["picks"][0]["gene"]
    assert drop(address, gene, seen["version"]).status_code == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "closed; the panel as it is now" in out
    assert err == ""
    assert gene not in Plan.load(folder).genes


def test_killed_it_leaves_a_whole_plan_and_no_lock(process, folder):
    address = address_of(process)
    seen = httpx.get(f"{address}api/state", timeout=60).json()
    assert drop(address, seen["picks"][0]["gene"], seen["version"]).status_code == 200
    process.kill()
    process.wait(timeout=60)
    again = command(folder, "--no-browser")
    try:
        now = httpx.get(f"{address_of(again)}api/state", timeout=60).json()
        assert now["revision"] == 2
        assert len(now["picks"]) == len(seen["picks"]) - 1
    finally:
        again.kill()
        again.communicate()


def test_only_this_machine_is_listened_to(process):
    port = int(re.search(r":(\d+)/", address_of(process))[1])
    with open("/proc/net/tcp") as lines:
        listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert [a for a in listening if a.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "there is no port 70000"),
        (["--port", "-1"], "there is no port -1"),
        (["--knowledge", "nowhere"], "nowhere"),
        (["--lines", "x.csv"], "--lines"),
    ],
)
def test_what_cannot_be_used_is_one_line(folder, words, message):
    made = command(folder, "--no-browser", *words)
    out, err = made.communicate(timeout=60)
    assert made.returncode == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_a_port_that_is_taken(process, folder):
    port = re.search(r":(\d+)/", address_of(process))[1]
    second = command(folder, "--no-browser", "--port", port)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"port {port} cannot be used" in err
