"""Downloading, against a server on this machine."""

import base64
import functools
import gzip
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest
from knowledge.raw import GAF, GTF, HALLMARK, HGNC, OBO, OMNIPATH

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


# --- nothing lost, nothing false accepted ------------------------------------------------------


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with `server.answer`: status, headers, body, and how many bytes of it are sent."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        status, headers, body, sent = self.server.answers.get(self.path, self.server.answer)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *args):
        pass


@pytest.fixture
def scripted():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as running:
        running.answers, running.answer = {}, (404, {}, b"", None)
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


PAGE = b"<!DOCTYPE html><html><body>Please sign in to the proxy</body></html>\n"
PACKED = gzip.compress(GAF.encode())
BODIES = {
    "hgnc": ("hgnc_complete_set.txt", HGNC.encode()),
    "hallmark": ("h.gmt", HALLMARK.encode()),
    "gaf": ("goa_human.gaf.gz", PACKED),
    "obo": ("go-basic.obo", OBO.encode()),
    "gtf": ("gencode.gtf.gz", gzip.compress(GTF.encode())),
    "omnipath": ("omnipath.tsv", OMNIPATH.encode()),
}


def digest_of(body, name):
    return base64.b64encode(hashlib.new(name, body).digest()).decode()


def bad_answers(body):
    whole = {"Content-Length": str(len(body))}
    wrong = {"md5": digest_of(b"other", "md5"), "sha-256": digest_of(b"other", "sha256")}
    yield "page", (200, {}, PAGE, None)
    yield "page that calls itself text", (200, {"Content-Type": "text/plain"}, b"\n " + PAGE, None)
    yield "json", (200, {}, b'{"error": "quota"}\n', None)
    yield "empty", (200, {}, b"", None)
    yield "cut, with length", (200, whole, body, len(body) // 2)
    yield "cut, without length", (200, {}, body, len(body) - 7)
    yield "md5 of another", (200, {"Content-MD5": wrong["md5"]}, body, None)
    yield "google", (200, {"x-goog-hash": f"crc32c=AAAAAA==,md5={wrong['md5']}"}, body, None)
    yield "rfc", (200, {"Repr-Digest": f"sha-256=:{wrong['sha-256']}:"}, body, None)
    yield "refused", (403, {}, PAGE, None)
    yield "broken", (500, {}, PAGE, None)


@pytest.mark.parametrize("name", BODIES)
def test_a_false_answer_never_takes_the_place_of_a_file(name, scripted, tmp_path):
    file, body = BODIES[name]
    kind = name.replace("hallmark", "gmt")
    table = [Remote(name, file, f"{scripted.url}/{file}", name, "CC0", kind)]
    folder = tmp_path / "d"
    folder.mkdir()
    for what, answer in bad_answers(body):
        # A file that no record knows of: fetched anew, but not before the new one is here.
        (folder / file).write_bytes(b"kept")
        scripted.answer = answer
        with pytest.raises(InputError) as told:
            fetch_sources(folder, remotes=table)
        assert "\n" not in str(told.value)
        assert scripted.url in str(told.value), what
        assert (folder / file).read_bytes() == b"kept", what
        assert [p.name for p in folder.iterdir()] == [file], what
    good = {
        "Content-Length": str(len(body)),
        "x-goog-hash": f"crc32c=AAAAAA==,md5={digest_of(body, 'md5')}",
        "Repr-Digest": f"sha-256=:{digest_of(body, 'sha256')}:",
    }
    scripted.answer = (200, good, body, None)
    fetch_sources(folder, remotes=table)
    assert (folder / file).read_bytes() == body
    assert build_knowledge({kind: folder / file}, tmp_path / "k")


def test_the_published_list_of_checksums_is_used(scripted, tmp_path):
    file, body = BODIES["gtf"]
    table = [Remote("gtf", file, f"{scripted.url}/{file}", "GENCODE", "", "gtf", "MD5SUMS")]
    scripted.answer = (200, {}, body, None)
    wrong = f"{hashlib.md5(b'x').hexdigest()}  {file}\n".encode()
    scripted.answers["/MD5SUMS"] = (200, {}, wrong, None)
    with pytest.raises(InputError, match="md5 checksum"):
        fetch_sources(tmp_path / "d", remotes=table)
    right = f"{hashlib.md5(b'x').hexdigest()}  other\n{hashlib.md5(body).hexdigest()}  ./{file}\n"
    scripted.answers["/MD5SUMS"] = (200, {}, right.encode(), None)
    fetch_sources(tmp_path / "d", remotes=table)
    # A mirror without the list still serves.
    scripted.answers["/MD5SUMS"] = (404, {}, b"", None)
    fetch_sources(tmp_path / "e", remotes=table)


def test_a_killed_fetch_leaves_nothing_that_build_reads(scripted, tmp_path):
    file, body = BODIES["hallmark"]
    (tmp_path / "d").mkdir()
    code = (
        "import os, sys\nfrom pertwise.knowledge.build import fetch\n"
        "fetch._check = lambda *a: os._exit(9)\n"
        f"fetch.fetch_sources({str(tmp_path / 'd')!r}, remotes=[fetch.Remote('h', {file!r}, "
        f"{scripted.url + '/x'!r}, 'H', '')])"
    )
    scripted.answer = (200, {}, body, None)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert all(p.name.startswith(".") for p in (tmp_path / "d").iterdir())
    with pytest.raises(InputError, match="no file that is recognised"):
        build_knowledge(tmp_path / "d", tmp_path / "k")
    table = [Remote("h", file, f"{scripted.url}/x", "H", "")]
    fetch_sources(tmp_path / "d", remotes=table)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [file, "sources.json"]


def test_a_password_of_a_mirror_is_never_shown(server, tmp_path):
    mirror = f"http://someone:canary@127.0.0.1:{server.server_address[1]}/?token=canary"
    table = [Remote("gone", "gone.gmt", "http://127.0.0.1:9/x", "Gone", "")]
    with pytest.raises(InputError) as told:
        fetch_sources(tmp_path / "d", remotes=table, mirror=mirror)
    assert "canary" not in str(told.value)
    mirror = f"http://someone:canary@127.0.0.1:{server.server_address[1]}"
    table = [Remote("hallmark", "h.gmt", "http://127.0.0.1:9/x", "Hallmark", "")]
    fetch_sources(tmp_path / "d", remotes=table, mirror=mirror)
    assert "canary" not in (tmp_path / "d" / "sources.json").read_text()
