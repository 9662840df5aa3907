"""A folder with everything that the pages name: SIMULATED files under the names people use."""

from __future__ import annotations

import functools
import gzip
import http.server
import re
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drug_example import cell_table, drug_frame, drug_screen

from pertwise.acquire import planning
from pertwise.knowledge import build_knowledge
from pertwise.knowledge.build import fetch
from pertwise.knowledge.build.fetch import REMOTES
from pertwise.llm import Message, open_chat
from pertwise.llm.loop import run_sync
from pertwise.models import LLMPertEnsemble
from pertwise.screen import Screen, simulate_screen
from pertwise.screen.core import make_obs
from pertwise.testing.server import ScriptedServer

#: Names of real genes that the pages ask for; a simulated gene stands behind each.
MEASURED = ("MYC", "SMG5", "MED1", "AARS", "MYB", "ISCU")
UNMEASURED = ("GATA1", "PSMD2")
#: Simulated pathway -> what the pages call it.
PATHWAYS = {"SIM_PATHWAY_01 (simulated)": "HALLMARK_HEME_METABOLISM"}
N_UNMEASURED = 20
#: Files that the loopback server offers under the names of the public ones.
PUBLIC = {
    "hgnc": "gene_alias.tsv.gz",
    "gene_info": "gene_summary.tsv.gz",
    "gene_summary": "omnipath_gene_regulation.tsv.gz",
    "gaf": "gene_go.tsv.gz",
    "obo": "go_ontology.tsv.gz",
    "hallmark": "hallmark_simulated.symbols.gmt",
    "reactome": "reactome_simulated.symbols.gmt",
    "string_info": "gene_summary.tsv.gz",
    "string_links": "string_v12_notext_weighted.tsv.gz",
    "omnipath": "omnipath_directed_signaling.tsv.gz",
    "collectri": "collectri_signed.tsv.gz",
    "gtf": "gene_position_grch38.tsv.gz",
}

#: What `readers.recognise` says of them, where it is not what the public file is.
OFFERED = {
    "hgnc": "alias",
    "gene_info": "gene_text",
    "gene_summary": "regulation",
    "gaf": "gene_go",
    "obo": "go_table",
    "string_info": "gene_text",
    "string_links": "string",
    "collectri": "collectri",
}


class Renaming:
    """Real names for some of the simulated genes and pathways."""

    def __init__(self, perturbations: list[str]) -> None:
        hidden = perturbations[-N_UNMEASURED:]
        self.names = dict(zip(perturbations, MEASURED, strict=False))
        self.names |= dict(zip(hidden, UNMEASURED, strict=False))

    def __call__(self, text: str) -> str:
        text = re.sub(r"SIM\d{4}", lambda m: self.names.get(m.group(0), m.group(0)), text)
        for simulated, real in PATHWAYS.items():
            text = text.replace(simulated, real)
        return text


def make_scratch(folder: Path) -> Path:
    """Write every file; see the table in the code."""
    made = simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=4)
    names = list(made.screen.perturbations)
    rename = Renaming(names)
    hidden = names[-N_UNMEASURED:]
    _sources(made, rename, folder)
    _screens(made, rename, hidden, folder)
    # KLF1 is no gene of the simulated knowledge: a person may put it on a panel all the same.
    library = "\n".join([*map(rename, hidden), "KLF1"]) + "\n"
    (folder / "library.txt").write_text(library)
    (folder / "mine.gmt").write_text("\t".join(["SET", "mine", *map(rename, names[:9])]) + "\n")
    known = [rename(n) for n in names]
    vectors = np.random.default_rng(0).normal(size=(len(known), 8)).astype(np.float32)
    np.savez(folder / "genept.npz", genes=np.array(known), matrix=vectors)
    _drugs(folder)
    return folder


def _sources(made: object, rename: Renaming, folder: Path) -> None:
    raw = made.write_sources(folder / "raw")  # type: ignore[attr-defined]
    public = folder / "public"
    public.mkdir()
    texts = {}
    for file in sorted(raw.iterdir()):
        data = file.read_bytes()
        text = rename((gzip.decompress(data) if file.suffix == ".gz" else data).decode())
        texts[file.name] = text
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    for remote in REMOTES:
        target, text = public / remote.file, texts[PUBLIC[remote.name]]
        if remote.name == "gtf":
            text = as_gtf(text)
        if target.suffix == ".gz":
            target.write_bytes(gzip.compress(text.encode()))
        elif target.suffix == ".zip":
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr(target.stem, text)
        else:
            target.write_text(text)
    build_knowledge(raw, folder / "knowledge", label="simulated")
    shutil.rmtree(raw)


def as_gtf(table: str) -> str:
    """A table of positions as gene rows of a gtf, the one format that is told by its name."""
    rows = []
    for line in table.splitlines()[1:]:
        symbol, gene, place, start, end, strand, biotype = line.split("\t")
        said = f'gene_id "{gene}"; gene_type "{biotype}"; gene_name "{symbol}";'
        sign = "+" if strand == "1" else "-"
        rows.append("\t".join([f"chr{place}", "x", "gene", start, end, ".", sign, ".", said]))
    return "\n".join(rows) + "\n"


def _screens(made: object, rename: Renaming, hidden: list[str], folder: Path) -> None:
    whole: Screen = made.screen  # type: ignore[attr-defined]
    features = [rename(f) for f in whole.features]
    features[3] = "programme 4, erythroid differentiation"
    values = np.array(whole.responses)
    values[whole.obs["perturbation"].isin(hidden)] = np.nan
    obs = make_obs([rename(p) for p in whole.obs["perturbation"]], context="K562")
    obs["n_cells"] = whole.obs["n_cells"].to_numpy()
    screen = replace(whole, responses=values, obs=obs, features=tuple(features))
    screen.save(folder / "screen.h5ad")
    screen.only_measured().save(folder / "replogle_k562_pseudobulk.h5ad")
    means = pd.DataFrame(screen.only_measured().responses, columns=features)
    means.insert(0, "perturbation", list(screen.only_measured().obs["perturbation"]))
    means.to_csv(folder / "means.csv", index=False)
    cells = made.cells(1, n_batches=2, max_cells=12)  # type: ignore[attr-defined]
    cells = cells[~cells.obs["perturbation"].isin(hidden)].copy()
    cells.obs["perturbation"] = [rename(str(p)) for p in cells.obs["perturbation"]]
    cells.var_names = [rename(v) for v in cells.var_names]
    cells.write_h5ad(folder / "cells.h5ad")
    shards = folder / "shards"
    shards.mkdir()
    half = np.arange(cells.n_obs) % 2 == 0
    for number, rows in enumerate((half, ~half), start=1):
        cells[rows].copy().write_h5ad(shards / f"part{number}.h5ad")


def _drugs(folder: Path) -> None:
    made = drug_screen()
    values = np.array(made.responses)
    # Part of the library is not measured in one line yet: what a plan chooses from.
    values[:5] = np.nan
    Screen(values, made.obs, made.features, np.array(made.control_mean), meta=dict(made.meta)).save(
        folder / "drug_screen.h5ad"
    )
    drug_frame().to_parquet(folder / "drug_metadata.parquet")
    lines = [
        {"cell_name": c.name, "Organ": c.organ, "Cell_ID_Cellosaur": c.ids[0],
         "Driver_Gene_Symbol": c.drivers[0][0]}
        for c in cell_table().lines.values()
    ]  # fmt: skip
    pd.DataFrame(lines).to_parquet(folder / "cell_line_metadata.parquet")


def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans with small networks: what is tested is the page, not how good the panel is."""

    def small(seed: int, embedding: str, ensemble: str = "quick") -> LLMPertEnsemble:
        return LLMPertEnsemble(embedding, seed=seed, hidden=(32, 16), epochs=20, members=3)

    monkeypatch.setattr(planning, "default_predictor", small)
    # The loopback server offers simulated tables under the names of the public files: what is
    # fetched is checked all the same, against the kind that each of them is.
    real = fetch._check

    def check(remote: fetch.Remote, url: str, path: Path) -> None:
        real(replace(remote, kind=OFFERED.get(remote.name, remote.kind)), url, path)

    monkeypatch.setattr(fetch, "_check", check)


def fill_ledger(server: ScriptedServer, file: Path) -> None:
    """A ledger with one exchange, for the pages that look into one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    chat = open_chat(server.openai(), ledger=file)
    run_sync(chat.complete(chat.request((Message(role="user", content="ping"),))))
    chat.shutdown()


class Mirror:
    """A web server on this machine that offers a folder."""

    def __init__(self, folder: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

        handler = functools.partial(Quiet, directory=str(folder))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
