"""The review server: who may ask, what is shown, what is saved, and what is not lost."""

import json
import threading

import pytest
from acquire.test_planning import KNOWLEDGE, make_plan

from pertwise._process import only_writer
from pertwise.acquire import Plan, amend
from pertwise.report import write_plan
from pertwise.report.review.session import Review

pytest.importorskip("starlette", reason="the review page needs pertwise[review]")
from starlette.testclient import TestClient

from pertwise.report.review.app import BODY, make_app

TOKEN = "the-secret-word"
HOST = "127.0.0.1:4711"


@pytest.fixture
def folder(tmp_path):
    write_plan(make_plan(), tmp_path / "round1")
    return tmp_path / "round1"


def client_of(review):
    return TestClient(
        make_app(review, TOKEN), base_url=f"http://{HOST}", raise_server_exceptions=False
    )


@pytest.fixture
def review(folder):
    made = Review(folder, KNOWLEDGE, "Ada")
    made.open_question()
    return made


@pytest.fixture
def client(review):
    return client_of(review)


def state(client):
    return client.get(f"/{TOKEN}/api/state").json()


def post(client, what="change", headers=None, **value):
    return client.post(
        f"/{TOKEN}/api/{what}", json=value, headers={"Origin": f"http://{HOST}"} | (headers or {})
    )


def change(client, **value):
    value = {"by": "Ada", "why": "because", "version": state(client)["version"]} | value
    return post(client, **value)


def free(folder):
    made = Plan.load(folder)
    return next(g for g in made.candidates["gene"] if g not in made.genes)


# -- who may ask ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/api/state", "/wrong/", f"/{TOKEN}x/", f"/{TOKEN}", "/%F0%9F/", "//", f"//{TOKEN}/"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_the_token_nothing_is_shown(client, method, path):
    reply = client.request(method, path, headers={"Origin": f"http://{HOST}"})
    assert reply.status_code == 403
    assert "K562" not in reply.text


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:4711", ""]
)
def test_a_rebound_name_is_refused(client, host):
    assert client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:80"])
def test_this_machine_may_be_called_by_its_names(client, host):
    assert client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"https://{HOST}"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_a_change_comes_from_the_page_itself(client, folder, headers, status):
    before = (folder / "plan.json").read_bytes()
    reply = post(client, headers=headers, do="drop", gene=Plan.load(folder).genes[0])
    assert reply.status_code == status
    assert (folder / "plan.json").read_bytes() == before


def test_every_answer_says_what_a_browser_may_do_with_it(client):
    for reply in (client.get(f"/{TOKEN}/"), client.get("/"), client.get(f"/{TOKEN}/api/state")):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["cache-control"] == "no-store"


def test_the_page_has_no_script_or_style_of_its_own(client):
    text = client.get(f"/{TOKEN}/").text
    assert " style=" not in text
    assert " onclick" not in text
    for name in ("review.css", "review.js", "table.js"):
        assert name in text
        assert client.get(f"/{TOKEN}/{name}").status_code == 200
        assert "innerHTML" not in client.get(f"/{TOKEN}/{name}").text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * (BODY + 1), 413),
        (b"[" * 50_000, 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"do": 1}', 400),
        (b'{"do": "rm"}', 400),
    ],
)
def test_requests_that_the_page_never_sends(client, body, status):
    headers = {"Origin": f"http://{HOST}", "Content-Type": "application/json"}
    reply = client.post(f"/{TOKEN}/api/preview", content=body, headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS"])
def test_other_methods(client, method):
    assert client.request(method, f"/{TOKEN}/api/state").status_code == 405


# -- what is shown -------------------------------------------------------------------------------


def test_the_state_is_the_plan_on_disk(client, folder):
    seen, made = state(client), Plan.load(folder)
    assert [p["gene"] for p in seen["picks"]] == list(made.genes)
    assert seen["by"] == "Ada"
    assert seen["simulated"]
    assert [c["module"] for c in seen["coverage"]] == [c.module for c in made.coverage]
    assert 0 < seen["information"]["panel"] < 1
    assert all(0 <= p["teaches"] <= seen["information"]["panel"] for p in seen["picks"])
    assert "panel_before" not in json.dumps(seen)
    again = client.get(f"/{TOKEN}/api/state", params={"version": seen["version"]}).json()
    assert again == {"version": seen["version"]}


def test_what_a_swap_costs_is_told_before_it_is_made(client, folder):
    made = Plan.load(folder)
    reply = post(client, "preview", do="replace", gene=made.genes[0], new=free(folder)).json()
    assert reply["out"] == [made.genes[0]]
    assert reply["in"] == [free(folder)]
    rest = post(client, "preview", do="drop", gene=made.genes[0]).json()
    assert rest["after"] < rest["before"]
    lost = next(p["teaches"] for p in state(client)["picks"] if p["gene"] == made.genes[0])
    assert rest["before"] - rest["after"] == pytest.approx(lost, rel=1e-6)
    assert Plan.load(folder) == made, "a preview saves nothing"


def test_candidates_are_searched_and_sorted(client, folder):
    made = Plan.load(folder)
    found = client.get(
        f"/{TOKEN}/api/candidates", params={"order": "information", "instead": made.genes[0]}
    ).json()
    adds = [r["adds"] for r in found["rows"]]
    assert adds == sorted(adds, reverse=True)
    assert not {r["gene"] for r in found["rows"]} & set(made.genes)
    name = found["rows"][-1]["gene"]
    one = client.get(f"/{TOKEN}/api/candidates", params={"q": name.lower()}).json()
    assert [r["gene"] for r in one["rows"]] == [name]
    assert client.get(f"/{TOKEN}/api/candidates", params={"q": "<b>"}).json()["total"] == 0


def test_without_knowledge_the_rest_works_and_the_reason_is_told(folder):
    made = Review(folder)
    made.open_question()
    client = client_of(made)
    assert "--knowledge" in state(client)["information"]["why"]
    assert change(client, do="drop", gene=Plan.load(folder).genes[0]).status_code == 200
    assert "chosen anew" in change(client, do="anew").json()["error"]


def test_numbers_that_json_has_not_and_broken_text_do_not_break_the_page(folder):
    file = folder / "plan.json"
    value = json.loads(file.read_text())
    value["picks"][0]["uncertainty"] = float("nan")
    value["picks"][1]["reason"] = "half \ud800 pair <script>"
    file.write_text(json.dumps(value))
    seen = state(client_of(Review(folder)))
    assert seen["picks"][0]["uncertainty"] is None
    assert seen["picks"][1]["reason"].endswith("<script>")


# -- what is saved -------------------------------------------------------------------------------


def test_every_change_is_an_amendment_with_who_and_why(client, folder):
    genes, new = Plan.load(folder).genes, free(folder)
    assert change(client, do="replace", gene=genes[0], new=new).status_code == 200
    after = Plan.load(folder)
    assert after.genes == (new, *genes[1:])
    last = after.decisions[-1]
    assert (last.by, last.why, last.added, last.dropped) == ("Ada", "because", [new], [genes[0]])
    assert new in (folder / "plan.html").read_text()
    assert new in (folder / "plan.csv").read_text()
    for do in ({"do": "pin", "gene": genes[1]}, {"do": "unpin", "gene": genes[1]}):
        assert change(client, **do).status_code == 200
    assert change(client, do="remark", gene=genes[1]).status_code == 200
    assert change(client, do="sign").json()["signed"]["current"]
    assert change(client, do="drop", gene=genes[1]).json()["signed"]["current"] is False
    assert change(client, do="add", new=genes[1]).status_code == 200
    seen = change(client, do="anew").json()
    assert seen["picks"][0]["gene"] == new
    assert len(seen["picks"]) == len(genes)
    undone = change(client, do="undo").json()
    assert undone["picks"][-1]["gene"] == genes[1]
    assert [d.action for d in Plan.load(folder).decisions][1:4] == [
        "replaced",
        "pinned",
        "unpinned",
    ]


@pytest.mark.parametrize("missing", [{"by": " "}, {"why": ""}, {"why": "x" * 4001}, {"by": None}])
def test_no_change_without_name_and_reason(client, folder, missing):
    made = Plan.load(folder)
    reply = change(client, do="drop", gene=made.genes[0], **missing)
    assert reply.status_code == 400
    assert Plan.load(folder) == made


def test_control_characters_of_names_and_reasons_stay_out_of_the_files(client, folder):
    gene = Plan.load(folder).genes[0]
    change(client, do="drop", gene=gene, by="A\x1b[31mda", why="no\x07 \u202eguides")
    last = Plan.load(folder).decisions[-1]
    assert "\x1b" not in last.by
    assert (last.why.count("\x07"), last.why.count("\u202e")) == (0, 0)


def test_a_second_person_sees_it_and_a_stale_change_is_told_not_lost(client, folder):
    genes, new = Plan.load(folder).genes, free(folder)
    second = client_of(Review(folder, KNOWLEDGE, "Bob"))
    seen = state(second)["version"]
    assert change(client, do="drop", gene=genes[0]).status_code == 200
    reply = change(second, do="replace", gene=genes[1], new=new, version=seen)
    assert reply.status_code == 409
    assert "Ada dropped (because)" in reply.json()["error"]
    assert [p["gene"] for p in reply.json()["now"]["picks"]] == list(genes[1:])
    assert Plan.load(folder).genes == genes[1:]
    again = change(second, do="replace", gene=genes[1], new=new)
    assert again.status_code == 200
    assert Plan.load(folder).genes == (new, *genes[2:])
    # The command line is a second person, too.
    write_plan(amend(Plan.load(folder), drop=[new], by="Eve", why="x"), folder)
    assert state(client)["picks"][0]["gene"] == genes[2]


def test_two_changes_at_once_are_one_saved_and_one_told(review, folder):
    genes = Plan.load(folder).genes
    version = review.view()["version"]
    answers = []

    def drop(gene):
        reply = post(client_of(review), do="drop", gene=gene, by="A", why="w", version=version)
        answers.append(reply.status_code)

    threads = [threading.Thread(target=drop, args=(g,)) for g in genes[:3]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(answers) == [200, 409, 409]
    assert Plan.load(folder).revision == 2


def test_another_process_that_writes_is_waited_for_then_told(client, folder, monkeypatch):
    monkeypatch.setattr("pertwise.report.review.session.PATIENCE", 0.3)
    with only_writer(folder):
        reply = change(client, do="drop", gene=Plan.load(folder).genes[0])
    assert reply.status_code == 400
    assert "another pertwise process" in reply.json()["error"]


def test_a_plan_that_vanishes_is_told(client, folder):
    (folder / "plan.json").unlink()
    reply = client.get(f"/{TOKEN}/api/state")
    assert reply.status_code == 400
    assert "no such plan file" in reply.json()["error"]
