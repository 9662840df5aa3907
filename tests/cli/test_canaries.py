"""No key gets out: every command that takes a model or an address, walked with canaries.

The server repeats the keys in every place of an answer or of a refusal that it has. What the
command prints, logs (as with --verbose), raises and writes is then searched for them.
"""

import gzip
import json
import logging
import re
import sys
import traceback
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import tenacity
import typer
from drug_example import drug_frame, drug_screen

from pertwise.cli.main import app, main
from pertwise.errors import PertwiseError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.screen import simulate_screen
from pertwise.testing.server import Answer as Said
from pertwise.testing.server import Fault, ScriptedServer, answer_body, first_alphabetical

KEY = 'canary-KEY-4f"8/x+y=='
QUERY = "qU3ry+c/anary="
SHORT = "s3k"
VARIABLES = {
    "PERTWISE_API_KEY": "canary-general-11",
    "PERTWISE_API_KEY_127_0_0_1": KEY,
    "OPENAI_API_KEY": "canary-openai-2222",
    "ANTHROPIC_API_KEY": "canary-anthropic-33",
    "ANTHROPIC_AUTH_TOKEN": "canary-token-4444",
    "AZURE_OPENAI_API_KEY": "canary-azure-55555",
}
PLAIN = [KEY, QUERY, *VARIABLES.values()]
FORMS = {f for c in PLAIN for f in (c, quote(c), quote(c, safe=""), json.dumps(c)[1:-1])}


def everywhere(text):
    return f"{text} {' '.join(sorted(FORMS))} key={SHORT}!"


def answers(asked):
    said = first_alphabetical(asked)
    if said.startswith("{"):
        for word in (
            "scripted: the alphabet decides",
            "scripted: alphabet",
            "scripted: the letters",
            "scripted: G",
        ):
            said = said.replace(word, json.dumps(everywhere(word))[1:-1])
        said = said.replace("comes early", json.dumps(everywhere("comes early"))[1:-1])
        said += f"\n{everywhere('That is all.')}"
    body = answer_body(asked.protocol, asked.body, Said(said, reasoning=everywhere("hm")))
    body["model"] = everywhere("m")
    body["id"] = body["system_fingerprint"] = everywhere("id")
    for choice in body.get("choices", ()):
        choice["finish_reason"] = "stop"
    return Fault(200, raw=json.dumps(body).encode(), headers={"x-key": quote(KEY)})


def refuses(asked):
    body = {"error": {"message": everywhere("wrong key"), "code": everywhere("c")}}
    return Fault(401, raw=json.dumps(body).encode(), headers={"location": f"/?key={quote(QUERY)}"})


def breaks(asked):
    return Fault(200, raw=f"<html><title>{everywhere('login')}</title>".encode())


def redirects(asked):
    return Fault(307, raw=b"", headers={"location": f"http://u:{KEY}@127.0.0.1:1/?key={QUERY}"})


def cuts(asked):
    body = {"choices": [{"message": {"content": everywhere("cut")}, "finish_reason": KEY}]}
    return Fault(200, raw=json.dumps(body).encode())


SCRIPTS = {"answers": answers, "refuses": refuses, "breaks": breaks, "redirects": redirects}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    made = simulate_screen(
        np.random.default_rng(7), n_perturbations=30, n_features=20, n_pathways=3
    )
    made.screen.save(folder / "screen.h5ad")
    build_knowledge(made.write_sources(folder / "sources"), folder / "kb", label="simulated")
    drug_screen().save(folder / "drugs.h5ad")
    drug_frame().to_parquet(folder / "drugs.parquet")
    (folder / "drugs.toml").write_text(
        'n_folds = 3\nk = 3\nregimes = ["unseen drug"]\nmethods = ["cell mean"]\n'
        '[data]\nname = "simulated"\nsignatures = "drugs.h5ad"\ndrugs = ["drugs.parquet"]\n'
    )
    pathway = next(iter(Knowledge.open(folder / "kb").pathway_names()))
    return folder, pathway, sorted(made.screen.perturbations)


@pytest.fixture
def walk(world, monkeypatch, capsys, caplog, tmp_path):
    """Run a command in this process; gives back everything that got out of it."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    # Retries without their waiting time.
    monkeypatch.setattr(tenacity.wait, "wait_random_exponential", lambda **_: lambda state: 0.0)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pertwise", "--verbose", *map(str, arguments)])
        with caplog.at_level(logging.DEBUG):
            try:
                main()
            except SystemExit:
                pass
            except BaseException as error:
                if not isinstance(error, PertwiseError):
                    raise
                traceback.print_exc()
        return "\n".join([*capsys.readouterr(), caplog.text, *map(str, files(tmp_path))])

    return run


def files(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield f"{path}\n{data.decode('latin-1')}"
            if path.suffix == ".parquet":
                yield pd.read_parquet(path).to_string(max_colwidth=None)
            if data[:2] == b"\x1f\x8b":
                yield gzip.decompress(data).decode("latin-1")


def check(text):
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)
    for canary in sorted(FORMS):
        assert canary.lower() not in text.lower(), canary
        assert canary.lower() not in plain.lower(), canary
    assert f"key={SHORT}!" not in text


def plan(world, address, out):
    folder, pathway, names = world
    (out / "list.txt").write_text("\n".join(names))
    return ["plan", "--cold-start", "--candidates", out / "list.txt",
            "--knowledge", folder / "kb",
            "--pathway", pathway, "--batch", 3, "--llm", address,
            "--out", out / "plan"]  # fmt: skip


def predict(world, address, out):
    folder, _, names = world
    return ["predict", folder / "screen.h5ad", "--genes", names[0], "--knowledge", folder / "kb",
            "--llm", address, "--out", out / "predicted"]  # fmt: skip


def graph_edit(world, address, out):
    return [*predict(world, address, out), "--method", "graph+edit"]


def langpert(world, address, out):
    folder, _, names = world
    return ["langpert", folder / "screen.h5ad", "--genes", names[0], "--no-measured",
            "--llm", address, "--out", out / "l.jsonl"]  # fmt: skip


def ask_compounds(world, address, out):
    folder = world[0]
    return ["ask", folder / "drugs.h5ad", "--drugs", folder / "drugs.parquet", "--context", "A549",
            "--k", 3, "--llm", address, "--out", out / "lgr.jsonl"]  # fmt: skip


def rate(world, address, out):
    folder, _, names = world
    return ["rate", folder / "screen.h5ad", "--names", names[0], "--knowledge", folder / "kb",
            "--reasons", "--replicates", 2, "--min-agreement", -1, "--llm", address,
            "--out", out / "marks.csv"]  # fmt: skip


def perturbqa(world, address, out):
    folder, _, names = world
    rows = [(p, g, (i + j) % 2, "train" if i < 6 else "test")
            for i, p in enumerate(names[:10]) for j, g in enumerate(names[10:13])]  # fmt: skip
    (out / "labels").mkdir(exist_ok=True)
    table = pd.DataFrame(rows, columns=["pert", "gene", "label", "split"])
    table.to_csv(out / "labels" / "k562-de.csv", index=False)
    return ["bench", "perturbqa", out / "labels", "--knowledge", folder / "kb", "--llm", address,
            "--out", out / "qa"]  # fmt: skip


def ping(world, address, out):
    return ["llm", "ping", address]


def judge(world, address, out):
    folder = world[0]
    config = {
        "screen": str(folder / "screen.h5ad"),
        "knowledge": str(folder / "kb"),
        "strategies": ["random", "typiclust"],
        "predictors": {"toy": {"use": "tests_toy_predictor:Toy"}},
        "protocol": {"seeds": 1, "batch": 4, "rounds": 2},
        "embedding": "go",
    }
    from pertwise.benchmark import bench

    bench(config, out / "run")
    return ["judge", out / "run", "--llm", address, "--max-pairs", 2]


def doctor(world, address, out):
    return ["doctor", "--llm", address]


def train_tasks(world, out):
    from typer.testing import CliRunner

    folder = world[0]
    words = ["train", "tasks", folder / "screen.h5ad", "--knowledge", folder / "kb"]
    found = CliRunner().invoke(app, [*map(str, words), "--out", str(out / "tasks.jsonl")])
    assert found.exit_code == 0, found.output
    return out / "tasks.jsonl"


def train_sample(world, address, out):
    folder = world[0]
    return ["train", "sample", train_tasks(world, out), "--screen", folder / "screen.h5ad",
            "--knowledge", folder / "kb", "--llm", address, "--limit", 1, "--answers", 1,
            "--out", out / "sampled"]  # fmt: skip


def train_evaluate(world, address, out):
    folder = world[0]
    return ["train", "evaluate", folder / "screen.h5ad", "--knowledge", folder / "kb", "--llm",
            address, "--out", out / "evaluated"]  # fmt: skip


def train_prompts(world, address, out):
    return ["train", "prompts", train_tasks(world, out), "--screen", world[0] / "screen.h5ad",
            "--knowledge", world[0] / "kb", "--llm", address, "--reflect", address,
            "--out", out / "prompts"]  # fmt: skip


#: Commands that ask a model and show nothing of its answers.
SILENT = [doctor, train_sample, train_evaluate, train_prompts]
WALKED = [plan, predict, graph_edit, langpert, ask_compounds, rate, perturbqa, ping, judge]
#: Options through which an address comes in -> the test that walks it.
OPTIONS = {
    "plan": "llm", "predict": "llm", "ask": "llm", "rate": "llm", "bench perturbqa": "llm",
    # The names of its two questions: the same command.
    "langpert": "llm", "lgr": "llm", "judge": "llm",
    "llm ping": "model", "knowledge fetch": "mirror", "doctor": "llm",
    "train sample": "llm", "train evaluate": "llm", "train prompts": "llm",
    # Folders of weights, no addresses.
    "train grpo": "model", "train sft": "model", "train dpo": "model",
}  # fmt: skip


def test_no_command_is_left_out():
    found = {}

    def visit(command, path):
        for name, inner in getattr(command, "commands", {}).items():
            visit(inner, [*path, name])
        for option in command.params:
            if option.name in ("llm", "model", "mirror", "url", "endpoint"):
                found[" ".join(path)] = option.name

    visit(typer.main.get_command(app), [])
    # `plan` is a group whose bare form is the command `make`.
    found = {k.removesuffix(" make"): v for k, v in found.items()}
    assert found == OPTIONS


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("command", WALKED, ids=lambda f: f.__name__)
def test_walk(command, script, world, walk, tmp_path):
    protocols = ["openai", "anthropic"] if command in (ping, langpert) else ["openai"]
    for protocol in protocols:
        with ScriptedServer(SCRIPTS[script]) as server:
            address = f"{server.address(protocol)}?key={QUERY}&sig={SHORT}&pw={quote(QUERY)}"
            out = walk(*command(world, address, tmp_path))
            assert server.count, out[-3000:]
            sent = str(server.asked[0].headers)
            assert KEY in sent
            check(out)
            if script == "answers":
                assert "[redacted]" in out
    if command is not ping and script == "answers":
        ledger = next(tmp_path.rglob("*ledger.sqlite"))
        check(walk("llm", "export", ledger, tmp_path / "out.jsonl"))
        check(walk("llm", "ledger", ledger))
        if command is plan:
            check(walk("plan", "show", tmp_path / "plan"))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("command", SILENT, ids=lambda f: f.__name__)
def test_walk_in_silence(command, script, world, walk, tmp_path):
    with ScriptedServer(SCRIPTS[script]) as server:
        address = f"{server.openai()}?key={QUERY}&sig={SHORT}&pw={quote(QUERY)}"
        out = walk(*command(world, address, tmp_path))
        assert server.count, out[-3000:]
        check(out)
    for ledger in tmp_path.rglob("*ledger.sqlite"):
        check(walk("llm", "export", ledger, tmp_path / "out.jsonl"))


def test_an_answer_that_cannot_be_read_tells_no_key(walk, tmp_path, world):
    with ScriptedServer(cuts) as server:
        check(walk(*langpert(world, f"{server.openai()}?key={QUERY}&sig={SHORT}", tmp_path)))
        assert server.count > 1


BAD_ADDRESSES = [
    "m@http://user:PASS@127.0.0.1:9/v1",
    "m@HTTP://user:PASS@127.0.0.1:9/v1",
    "m@https://PASS@127.0.0.1/v1",
    "http://user:PASS@127.0.0.1:9/v1",
    "m@user:PASS@127.0.0.1",
    "user:PASS@m",
    "anthropic:m@ftp://user:PASS@h",
    "openai:m?key=PASS",
    "openai:PASS\nx",
    "m@http://127.0.0.1:9PASS/v1",
    "m@http://[PASS/v1",
    "m@http://h/v1/sk-PASS-0123456789",
    "sk-PASS-0123456789@http://h/v1",
    "openai:m@http://user:PASS@h/v1",
    "m@127.0.0.1:9/v1?key=PASS",
]


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
@pytest.mark.parametrize("command", WALKED, ids=lambda f: f.__name__)
def test_addresses_with_a_secret_are_refused_unsaid(bad, command, world, walk, tmp_path):
    if command is judge:
        pytest.skip("needs a finished run; the address is read by the same function")
    out = walk(*command(world, bad.replace("PASS", "hunter-22-canary"), tmp_path))
    assert "error: " in out
    assert "hunter-22-canary" not in out


@pytest.mark.parametrize("end", ["\nX-Evil: 1", "\r\n", "\x07", "é", "\u200b"])
def test_malformed_keys_are_named_by_their_variable(end, world, walk, tmp_path, monkeypatch):
    monkeypatch.setenv("PERTWISE_API_KEY_127_0_0_1", f"canary-bad-66{end}x")
    with ScriptedServer() as server:
        out = walk("llm", "ping", server.openai())
        assert server.count == 0
    assert "canary-bad-66" not in out
    assert "PERTWISE_API_KEY_127_0_0_1 holds" in out


def test_a_mirror_keeps_its_password(walk, tmp_path, world):
    mirror = "http://user:hunter-22-canary@127.0.0.1:9/m?key=" + QUERY
    out = walk(
        "knowledge", "fetch", "--out", tmp_path / "raw", "--mirror", mirror, "--only", "hgnc"
    )
    assert "error: " in out
    assert "127.0.0.1:9/m/" in out
    assert "hunter-22-canary" not in out
    check(out)


@pytest.mark.parametrize("kind", ["acquisition", "prediction", "drugs"])
@pytest.mark.parametrize(
    "address", ["m@https://h/v1?key=hunter-22-canary", "m@https://u:hunter-22-canary@h/v1"]
)
def test_configurations_hold_no_secret(kind, address, walk, tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "c.toml"
    strategy = f'screen = "s.h5ad"\nknowledge = "k"\n[strategies.llm]\nmodel = "{address}"\n'
    method = f'screen = "s"\n[[methods]]\nuse = "langpert"\nsettings = {{ llm = "{address}" }}\n'
    file.write_text(strategy if kind == "acquisition" else method)
    out = walk("bench", kind, file, "--out", tmp_path / "o")
    out = out.replace(file.read_text(), "")
    assert "hunter-22-canary" not in out
    assert "holds a password or key" in out
    out = walk(
        "predict", "s.h5ad", "--genes", "A", "--out", tmp_path / "o", "--set", f"llm={address}"
    )
    assert "hunter-22-canary" not in out.replace(file.read_text(), "")
