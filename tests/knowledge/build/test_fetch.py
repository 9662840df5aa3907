"""Downloading, against a server on this machine."""

import functools
import hashlib
import http.server
import json
import threading

import pytest
from knowledge.raw import HALLMARK, HGNC

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.build.fetch import REMOTES, Remote, fetch_sources


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "hgnc.txt").write_text(HGNC)
    (folder / "h.gmt").write_text(HALLMARK)
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remotes(server):
    base = f"http://127.0.0.1:{server.server_address[1]}"
    return [
        Remote("hgnc", "hgnc_complete_set.txt", f"{base}/hgnc.txt", "HGNC", "CC0 1.0"),
        Remote("hallmark", "h.gmt", f"{base}/h.gmt", "Hallmark", "CC BY 4.0"),
        Remote("gone", "gone.gmt", f"{base}/gone.gmt", "Gone", "CC0"),
    ]


def test_fetch_records_and_does_not_repeat(server, tmp_path):
    out = fetch_sources(tmp_path / "d", ["hgnc", "hallmark"], remotes=remotes(server))
    assert server.asked == ["/hgnc.txt", "/h.gmt"]
    record = json.loads((out / "sources.json").read_text())["files"]
    assert record["h.gmt"]["sha256"] == hashlib.sha256(HALLMARK.encode()).hexdigest()
    fetch_sources(out, ["hgnc", "hallmark"], remotes=remotes(server))
    assert len(server.asked) == 2
    (out / "h.gmt").write_text("tampered")
    fetch_sources(out, ["hgnc", "hallmark"], remotes=remotes(server))
    assert server.asked[2:] == ["/h.gmt"]
    assert (out / "h.gmt").read_text() == HALLMARK


def test_what_was_fetched_is_built_with_its_address(server, tmp_path):
    out = fetch_sources(tmp_path / "d", ["hgnc", "hallmark"], remotes=remotes(server))
    k = Knowledge.open(build_knowledge(out, tmp_path / "k"))
    entry = k.manifest["sources"]["h"]
    assert entry["url"].endswith("/h.gmt")
    assert entry["licence"] == "CC BY 4.0"
    assert entry["title"] == "Hallmark"
    assert "sources.json" not in k.manifest["ignored_files"]


def test_an_interrupted_fetch_goes_on(server, tmp_path):
    with pytest.raises(InputError, match="answered 404: the address may have moved"):
        fetch_sources(tmp_path / "d", ["hgnc", "gone", "hallmark"], remotes=remotes(server))
    assert (tmp_path / "d" / "hgnc_complete_set.txt").is_file()
    fetch_sources(tmp_path / "d", ["hgnc", "hallmark"], remotes=remotes(server))
    assert server.asked == ["/hgnc.txt", "/gone.gmt", "/h.gmt"]


def test_offline_says_so_and_how_to_go_on(tmp_path):
    dead = [Remote("hgnc", "x.txt", "http://127.0.0.1:9/x.txt", "HGNC", "CC0")]
    with pytest.raises(InputError, match=r"seems to be offline.*knowledge build FOLDER"):
        fetch_sources(tmp_path / "d", remotes=dead, timeout=2)
    assert not (tmp_path / "d" / "x.txt").exists()


def test_a_mirror_replaces_every_address(server, tmp_path):
    mirror = f"http://127.0.0.1:{server.server_address[1]}/"
    table = [Remote("hallmark", "h.gmt", "http://127.0.0.1:9/h.gmt", "Hallmark", "CC BY 4.0")]
    fetch_sources(tmp_path / "d", remotes=table, mirror=mirror)
    assert (tmp_path / "d" / "h.gmt").read_text() == HALLMARK


def test_unknown_source(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'hgnc'"):
        fetch_sources(tmp_path, ["hgcn"])


def test_public_addresses_are_complete():
    assert len({r.file for r in REMOTES}) == len(REMOTES) == len({r.name for r in REMOTES})
    assert all(r.url.startswith("https://") and r.licence for r in REMOTES)
