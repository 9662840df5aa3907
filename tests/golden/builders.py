"""How to build everything whose numbers are recorded. THE ONE PLACE to edit when code moves.

`CASES` maps a stable name ("predictor/multi-kernel") to a function of a `World`, which holds the
simulated inputs. A case returns arrays, tables and texts in dictionaries; `digest.py` takes them
apart. The names left of a colon here are the goldens' own: when a part gets another name or another
home, change what is right of it, and the recorded numbers must stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from drug_example import DRUGS, LINES, cell_table, drug_frame, drug_screen
from golden.digest import normalised

from pertwise import parts
from pertwise.acquire import (
    AcquisitionState,
    Target,
    plan,
)
from pertwise.acquire.amendment import amend
from pertwise.acquire.state import gene_features, neighbour_weights
from pertwise.arrays.folds import group_folds
from pertwise.benchmark.acquisition import config as acquisition_config
from pertwise.benchmark.acquisition.judged import JudgeConfig, JudgeTask
from pertwise.benchmark.acquisition.replay import make_split
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import BenchmarkRun, run_task
from pertwise.benchmark.perturbqa import (
    TASKS,
    PerturbqaConfig,
    PerturbqaTask,
    gene_frequency,
    predictor_scorer,
    selector_scorer,
)
from pertwise.benchmark.prediction.clusters import summarise
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.regimes import RegimesConfig, RegimesTask
from pertwise.benchmark.prediction.run import PredictionTask
from pertwise.config import check_settings
from pertwise.evaluate import (
    auroc,
    calibration,
    ceiling,
    distribution,
    genes,
    metrics,
    plates,
    row_scores,
    splits,
    statistics,
)
from pertwise.evaluate.given import split_given
from pertwise.evaluate.prefilter import PREFILTERS, mean_recall, split_recall
from pertwise.evaluate.retrieval import DISTANCES, distances, retrieval_all
from pertwise.evaluate.score import METRICS, score_predictions
from pertwise.evaluate.splits import REGIME_WORDS, REGIMES, split_rows
from pertwise.kernels.genes import DEFAULT_KERNELS, gene_blocks
from pertwise.kernels.known import drug_kernels, kernel, list_kernels
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.ratings import Ratings
from pertwise.llm import open_chat
from pertwise.models.dose import RULES, DosePredictor
from pertwise.prediction.asking import compound_questions
from pertwise.prediction.predicting import predict
from pertwise.report.acquisition_page import write_markdown
from pertwise.report.acquisition_page import write_page as write_acquisition_page
from pertwise.report.drug_bench import regimes
from pertwise.report.page import Page
from pertwise.report.plan_page import render_plan
from pertwise.report.prediction_bench import shown_table
from pertwise.report.prediction_page import render_prediction
from pertwise.screen import Screen, simulate_screen
from pertwise.screen.core import make_obs
from pertwise.screen.signatures import RANKED_UNIT, normal_scores
from pertwise.select.base import Query, Selection
from pertwise.select.chat.selector import RandomSelector
from pertwise.select.chat.similar import lgr_selector
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.kernel import HybridSelector, KernelSelector
from pertwise.select.oracle import OracleSelector
from pertwise.select.recorded import LinkedSelector, RecordedSelector
from pertwise.select.words import selector_from
from pertwise.testing.server import ScriptedServer, first_alphabetical

Value = Mapping[str, Any]
Case = Callable[["World"], Value]
CASES: dict[str, Case] = {}

#: Cases in which a near tie or an iterative fit decides, so that another processor (not another
#: program) may choose otherwise; there only the names of their parts are compared. On the machine
#: that recorded them they are compared to the last bit like all others.
CHOOSING = {
    "bench/prefilter",
    "drugs, open world/combined-knn",
    "drugs, open world/mechanism-knn",
    "drugs, scaffold/mechanism-knn",
    "page/acquisition",
    "page/plan",
    "page/plan amended",
    "page/prediction benchmark",
    "plan/tables",
    "predictor of doubles/forest",
    "predictor of doubles/llmpert",
    "predictor of doubles/multi-kernel",
    "predictor/embedding-neighbours",
    "predictor/forest",
    "predictor/fused",
    "predictor/fused, marks alone",
    "predictor/gp-text",
    "predictor/langpert, cut list",
    "predictor/llmpert",
    "predictor/llmpert, uncertainty",
    "predictor/neighbours, median",
    "predictor/neighbours, rank",
    "predictor/neighbours, shrunk with fallbacks",
    "predictor/neighbours, similarity",
    "predictor/neighbours, trimmed",
    "predictor/stacked",
    "selector/and",
    "selector/edit policy",
    "selector/embedding",
    "selector/embeddings joined",
    "selector/three",
    "selector/without",
    "strategy/iterpert",
    "strategy/typiclust",
    "strategy/variance-reduction",
}
#: Small networks and few trees: what is recorded is the numbers, not how good they are.
NETWORK = {"hidden": (16, 8), "epochs": 12, "members": 3, "dim": 16}
TREES = {"n_trees": 4}
UNKNOWN = "NOSUCHGENE"


# -- the simulated inputs --------------------------------------------------------------------------


class World:
    """Simulated screens, knowledge, recorded answers and a scripted chat server, made on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @cached_property
    def simulation(self) -> Any:
        """60 single perturbations of 40 features in four pathways."""
        return simulate_screen(3, n_perturbations=60, n_features=40, n_pathways=4)

    @cached_property
    def screen(self) -> Screen:
        """Complete, but for a few values that were not measured."""
        whole = self.simulation.screen
        values = np.array(whole.responses)
        values[1, 2] = values[5, 7:9] = values[20] = np.nan
        return with_responses(whole, values)

    @cached_property
    def knowledge(self) -> Knowledge:
        """The folder that goes with `screen`."""
        return built(self.simulation, self.folder / "one")

    @cached_property
    def pathway(self) -> str:
        """The largest simulated pathway."""
        members = self.simulation.truth.pathways
        return max(sorted(members), key=lambda p: len(members[p]))

    @cached_property
    def asked(self) -> list[str]:
        """Held-out perturbations and a name that nobody knows."""
        return [*self.screen.perturbations[-8:], UNKNOWN]

    @cached_property
    def train(self) -> Screen:
        """What the predictors learn from."""
        return self.screen.hide(self.asked)

    @cached_property
    def doubles(self) -> tuple[Screen, Knowledge]:
        """A screen with combinations."""
        made = simulate_screen(
            5, n_perturbations=30, n_features=30, n_pathways=4, n_combinations=30
        )
        return made.screen, built(made, self.folder / "two")

    @cached_property
    def ratings(self) -> tuple[Ratings, ...]:
        """Marks of all perturbations but two, drawn at random."""
        names = list(self.screen.perturbations[2:])
        marks = np.random.default_rng(9).integers(0, 7, (len(names), 4)) / 2
        marks[:, :3] -= 1.5
        return (Ratings.from_marks(names, ["a", "b", "c", "strength"], marks, source="drawn"),)

    @cached_property
    def other(self) -> Screen:
        """Another line: the same perturbations without the first, weaker and noisier."""
        noise = np.random.default_rng(8).normal(scale=0.2, size=self.screen.responses.shape)
        rows = np.nan_to_num(self.simulation.screen.responses) * 0.7 + noise
        return with_responses(self.screen, rows.astype(np.float32)).hide(
            self.screen.perturbations[:1]
        )

    @cached_property
    def answers(self) -> Path:
        """Recorded neighbour lists: three names each, some reasons; one subject has none."""
        names = list(self.screen.perturbations)
        rows = [
            {
                "subject": subject,
                "neighbours": [names[(i + k) % len(names)] for k in (1, 2, 5)],
                "reason": "" if i % 7 == 0 else f"group {i % 4} protein, binds {names[i - 1]}",
            }
            for i, subject in enumerate(names)
            if i != 3
        ]
        file = self.folder / "answers.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return file

    @cached_property
    def server(self) -> ScriptedServer:
        """Answers by the alphabet; keeps what it was asked."""
        return ScriptedServer(first_alphabetical).start()

    def chat(self, name: str = "") -> Any:
        """A chat with the scripted server, without a ledger."""
        return open_chat(self.server.openai(name or "scripted"))

    @cached_property
    def run(self) -> BenchmarkRun[AcquisitionTask]:
        """A finished replay of acquisition rounds."""
        self.screen.save(self.folder / "screen.h5ad")
        settings = {
            "screen": str(self.folder / "screen.h5ad"),
            "knowledge": str(self.knowledge.path),
            "targets": [{"name": "one pathway", "pathway": self.pathway}],
            "strategies": ["random", "typiclust", "knowledge", "uncertainty"],
            "predictors": {"toy": {"use": "tests_toy_predictor:Toy"}, "kernel ridge": {}},
            "protocol": {"seeds": 2, "batch": 8, "rounds": 3},
            "embedding": "go",
        }
        config = check_settings(settings, acquisition_config.AcquisitionConfig)
        return run_task(AcquisitionTask(config), self.folder / "acquisition")

    @cached_property
    def bench(self) -> tuple[Path, pd.DataFrame, str]:
        """A finished benchmark of prediction: folder, table, report in Markdown."""
        few = self.screen.hide(self.screen.perturbations[24:]).only_measured()
        few.save(self.folder / "few.h5ad")
        langpert = {"llm": self.server.openai(), "ledger": str(self.folder / "bench.sqlite")}
        settings = {
            "screen": str(self.folder / "few.h5ad"),
            "knowledge": str(self.knowledge.path),
            "reference": "training mean",
            "methods": [
                {"use": "training mean"},
                {"use": "graph neighbours"},
                {"use": "langpert", "settings": langpert},
                {"use": "oracle"},
            ],
            "split": {"folds": 3, "shuffles": 1},
            "metrics": {"tops": [10]},
        }
        folder = self.folder / "prediction"
        run = run_task(PredictionTask(check_settings(settings, PredictionConfig)), folder)
        run.page(folder / "report.html")
        return folder, shown_table(run), (folder / "report.md").read_text()

    @cached_property
    def drug_folder(self) -> Path:
        """Drug screens (ranked and not), tables and recorded lists; targets are simulated genes."""
        folder = self.folder / "drugs"
        folder.mkdir()
        drug_screen().save(folder / "screen.h5ad")
        drug_screen(ranked=False).save(folder / "raw.h5ad")
        genes_ = self.simulation.screen.perturbations
        frame = drug_frame()
        targets = sorted({t.strip() for row in DRUGS for t in row[2].split(",")} - {""})
        place = {t: genes_[5 * i] for i, t in enumerate(targets)}
        frame["targets"] = [
            ", ".join(place[t.strip()] for t in row.split(",") if t.strip())
            for row in frame["targets"]
        ]
        frame.to_parquet(folder / "drugs.parquet")
        names = list(drug_screen().perturbations)

        def others(name: str) -> list[str]:
            return [m for m in names if m != name]

        said = {
            n: {
                "mechanism": f"note {i % 3}",
                "neighbours": [m for m in names if m != n][i % 4 :][:5],
            }
            for i, n in enumerate(names)
        }
        (folder / "lists.json").write_text(json.dumps({"model": "a test", "answers": said}))
        lines = [
            {
                "cell_name": c.name,
                "Organ": c.organ,
                "Cell_ID_Cellosaur": c.ids[0],
                "Driver_Gene_Symbol": c.drivers[0][0],
            }
            for c in cell_table().lines.values()
        ]
        pd.DataFrame(lines).to_csv(folder / "cells.csv", index=False)
        few = {
            p: [f"[('{d}', 1.0, 'uM')]" for d in names[i::4]] for i, p in enumerate(("test", "val"))
        }
        toml = f'[zeroshot]\n"x.{LINES[0]}" = "test"\n[fewshot."x.{LINES[1]}"]\n'
        (folder / "split.toml").write_text(
            toml + "".join(f"{p} = {json.dumps(v)}\n" for p, v in few.items())
        )
        return folder

    def drug_config(self, **changes: Any) -> RegimesConfig:
        """Settings of a drug benchmark on `drug_folder`."""
        data = {
            "name": "simulated",
            "signatures": "screen.h5ad",
            "drugs": ["drugs.parquet"],
            "cells": "cells.csv",
            "lists": "lists.json",
            "knowledge": str(self.knowledge.path),
            "split": "split.toml",
            **changes.pop("data", {}),
        }
        given = {"data": data, "n_folds": 3, "k": 3, **changes}
        return check_settings(given, RegimesConfig, place=lambda name: str(self.drug_folder / name))

    @cached_property
    def drugs(self) -> Any:
        """The loaded drug benchmark on ranks."""
        return RegimesTask(self.drug_config())

    @cached_property
    def raw_drugs(self) -> Any:
        """The same screen with magnitudes, without cell-line facts or lists."""
        data = {"signatures": "raw.h5ad", "cells": None, "lists": None}
        return RegimesTask(self.drug_config(data=data))

    @cached_property
    def doses(self) -> Screen:
        """Every drug at two or three doses in one line; a longer response at a higher dose."""
        base = drug_screen(ranked=False).in_context(LINES[0])
        parts, names, doses = [], [], []
        for level, dose in enumerate((0.1, 1.0, 10.0)):
            for i, name in enumerate(base.obs["perturbation"]):
                if level < 2 or i % 3:
                    parts.append(np.nan_to_num(base.responses[i]) * (0.4 + 0.3 * level) + 0.05 * i)
                    names.append(name)
                    doses.append(dose)
        return Screen(
            np.array(parts, dtype=np.float32),
            make_obs(names, context=LINES[0], dose=doses),
            base.features,
            np.full((1, base.n_features), np.nan, dtype=np.float32),
            meta={"simulated": True},
        )

    def close(self) -> None:
        """Stop the server if it was started."""
        if "server" in self.__dict__:
            self.server.stop()


def with_responses(screen: Screen, values: Any) -> Screen:
    """The same rows with other responses."""
    return Screen(
        responses=values,
        obs=screen.obs,
        features=screen.features,
        control_mean=np.array(screen.control_mean),
        feature_table=screen.feature_table,
        meta=dict(screen.meta),
    )


def built(simulation: Any, folder: Path) -> Knowledge:
    """The knowledge folder of a simulation."""
    simulation.write_sources(folder / "sources")
    return Knowledge.open(
        build_knowledge(folder / "sources", folder / "knowledge", label="simulated")
    )


def case(label: str, /, **settings: Any) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function of a world (and settings) under a name."""

    def register(function: Callable[..., Value]) -> Callable[..., Value]:
        assert label not in CASES, f"{label} is recorded twice"
        CASES[label] = partial(function, **settings)
        return function

    return register


def slug(text: str) -> str:
    """The goldens' own spelling of a name."""
    return "-".join(text.lower().replace("(", "").replace(")", "").replace("+", "and").split())


@case("data/screens")
def _screens(w: World) -> Value:
    relations = w.knowledge.relations(w.screen.perturbations, w.knowledge.pathway(w.pathway))
    return {
        "screen": w.screen.responses,
        "doubles": w.doubles[0].responses,
        "other": w.other.responses,
        "drugs": w.drugs.opened.screen.responses,
        "doses": w.doses.responses,
        "relations": [f"{k} {r.kind} {r.evidence} {r.module}" for k, r in relations.items()],
    }


# -- predictors ------------------------------------------------------------------------------------

#: Golden name -> name in the catalogue, settings (of a world, where they need one).
PREDICTORS: dict[str, tuple[str, Callable[[World], dict[str, Any]]]] = {
    "control": ("control", lambda w: {}),
    "training-mean": ("training mean", lambda w: {}),
    "graph-neighbours": ("graph neighbours", lambda w: {}),
    "graph-neighbours, several": (
        "graph neighbours",
        lambda w: {"graphs": ("string", "go", "reactome"), "weighted": False, "k": 4},
    ),
    "rewired-graph-neighbours": ("rewired graph neighbours", lambda w: {}),
    "neighbours": ("neighbours", lambda w: {}),
    "embedding-neighbours": ("embedding neighbours", lambda w: {}),
    "ridge-on-embedding": ("ridge on embedding", lambda w: {}),
    "bilinear": ("bilinear", lambda w: {}),
    "gp-text": ("gp text", lambda w: {}),
    "kernel-ridge": ("kernel ridge", lambda w: {}),
    "llmpert": ("LLMPert", lambda w: dict(NETWORK)),
    "multi-kernel": ("multi-kernel", lambda w: {}),
    "multi-kernel, no direction": ("multi-kernel", lambda w: {"direction": 0.0}),
    "learned-neighbours": ("learned neighbours", lambda w: {}),
    "additive": ("additive", lambda w: {}),
    "kernel-vote": ("kernel vote", lambda w: {}),
    "radial": ("radial", lambda w: {}),
    "forest": ("forest", lambda w: dict(TREES)),
    "stacked": ("stacked", lambda w: dict(TREES)),
    "langpert": ("langpert", lambda w: {"llm": w.chat()}),
    "langpert, cut list": (
        "langpert",
        lambda w: {"llm": w.chat(), "k": 4, "max_candidates": 15, "how": "rank"},
    ),
    "graph-edit": ("graph+edit", lambda w: {"llm": w.chat()}),
    "langpert-recorded": ("langpert (recorded)", lambda w: {"answers": str(w.answers)}),
    "cross-line-transfer": ("cross-line transfer", lambda w: {"other": w.other}),
    "fused": ("fused", lambda w: {"answers": str(w.answers), **TREES}),
    "marks": ("marks", lambda w: {"ratings": w.ratings}),
    "multi-kernel, marks": ("multi-kernel", lambda w: {"ratings": w.ratings}),
    "fused, marks alone": ("fused", lambda w: {"ratings": w.ratings, **TREES}),
}
for how in ("similarity", "rank", "median", "trimmed"):
    PREDICTORS[f"neighbours, {how}"] = (
        "neighbours",
        lambda w, how=how: {"selector": "embedding:text", "how": how},
    )
PREDICTORS["neighbours, shrunk with fallbacks"] = (
    "neighbours",
    lambda w: {
        "selector": "graph:string and embedding:text",
        "shrinkage": "cv",
        "min_support": 2,
        "fallbacks": ["graph:go", "embedding:text"],
    },
)


def uncovered_predictors() -> set[str]:
    """Names of the catalogue that no golden builds."""
    built = {parts.slugify(name) for name, _ in PREDICTORS.values()}
    # Those of several contexts are built by the cases of drugs; "dose" by the regime of that name,
    # and "external" is a file that somebody else predicted.
    built |= {parts.slugify(name) for name in DRUG_METHODS.values()} | {"dose", "external"}
    return set(parts.names("predictor", offered=False)) - built


def told(prediction: Any) -> Value:
    """A prediction as arrays and texts."""
    near = prediction.neighbours
    return {
        "mean": prediction.mean,
        "spread": prediction.spread,
        "members": prediction.members,
        "n_support": prediction.support["n_support"],
        "fallback": prediction.support["fallback"],
        "weight": None if near is None else near["weight"],
        "neighbours": None
        if near is None
        else [
            f"{p} {n} {int(r)}: {why}"
            for p, n, r, why in near[["perturbation", "neighbour", "rank", "reason"]].itertuples(
                index=False
            )
        ],
    }


def _predictor(w: World, name: str) -> Value:
    use, settings = PREDICTORS[name]
    model = parts.load("predictor", use, **settings(w)).fit(w.train, w.knowledge)
    return told(model.predict(w.asked))


for name in PREDICTORS:
    case(f"predictor/{name}", name=name)(_predictor)


def _of_doubles(w: World, name: str) -> Value:
    screen, knowledge = w.doubles
    pairs = [p for p in screen.perturbations if "+" in p]
    asked = [*pairs[:6], pairs[0].split("+")[0], f"{pairs[1].split('+')[0]}+{UNKNOWN}"]
    use, settings = PREDICTORS[name]
    model = parts.load("predictor", use, **settings(w)).fit(screen.hide(asked), knowledge)
    return told(model.predict(asked))


for name in ("additive", "graph-neighbours", "multi-kernel", "llmpert", "kernel-vote", "forest"):
    case(f"predictor of doubles/{name}", name=name)(_of_doubles)


@case("predictor/llmpert, uncertainty")
def _uncertainty(w: World) -> Value:
    model = parts.load("predictor", "LLMPert", **NETWORK).fit(w.train, w.knowledge)
    return {"u": model.uncertainty(w.asked, w.train.features[:5])}


# -- kernels ---------------------------------------------------------------------------------------


def _gene_kernel(w: World, kind: str) -> Value:
    names = list(w.screen.perturbations)
    all_, some = (gene_blocks(w.knowledge, n, [kind]) for n in (names, names[:9]))
    return {"gram": all_.gram(), "cross": some.cross(all_)}


for kind in DEFAULT_KERNELS:
    case(f"kernel of genes/{kind}", kind=kind)(_gene_kernel)


@case("kernels of drugs")
def _drug_kernels(w: World) -> Value:
    names = [*w.drugs.opened.screen.perturbations, "NoSuchDrug"]
    known = w.drugs.opened.knowledge
    made = [kernel(known, k) for k in drug_kernels(known)]
    made += list_kernels(open_lists(w).answers)
    return {k.name: k.between(names, names[:7], names) for k in made}


# -- selectors -------------------------------------------------------------------------------------

SELECTORS = {
    "graph": "graph:string",
    "graphs": "graph:string,go,reactome",
    "embedding": "embedding:text",
    "embeddings joined": "embedding:text+graph",
    "kernel": "kernel:string,go",
    "learned": "learned",
    "recorded": "recorded:ANSWERS",
    "langpert": "langpert",
    "edit": "edit:string",
    "edit policy": "edit-policy:string",
    "and": "graph:string and embedding:text",
    "or": "graph:string or recorded:ANSWERS",
    "without": "embedding:text without graph:string",
    "three": "graph:string and embedding:text or recorded:ANSWERS",
    "chat and graph": "langpert or graph:go",
}


def uncovered_selectors() -> set[str]:
    """Kinds of selectors in words that no golden builds."""
    named = {w.partition(":")[0] for text in SELECTORS.values() for w in text.split()}
    # LGR's question is put by the cases of drugs.
    return set(parts.names("selector", offered=False)) - named - {"oracle", "lgr"}


def chosen(selection: Selection) -> Value:
    """A selection as one text and its numbers."""
    rows = [f"{p.item}: {p.reason} | {'; '.join(p.evidence)}" for p in selection.picks]
    notes = [f"repair {r.kind} {r.item}: {r.action}" for r in selection.repairs]
    scores = [np.nan if p.score is None else float(p.score) for p in selection.picks]
    head = f"{normalised(selection.source)}, fallback {selection.fallback}"
    utilities = selection.utilities
    return {
        "said": [head, *rows, *notes],
        "scores": np.array(scores),
        **({} if utilities is None else {"utilities": utilities}),
    }


def _asked(w: World, selector: Any) -> Value:
    pool = sorted(w.train.only_measured().perturbations)
    subjects = [*w.asked[:3], pool[0], UNKNOWN]
    query = partial(Query, context="K562", context_text="leukaemia")
    return {s: chosen(selector.select(query(s), pool, 6)) for s in subjects}


def _selector(w: World, words: str) -> Value:
    chat = {"llm": w.chat()} if {"langpert", "edit"} & set(words.replace(":", " ").split()) else {}
    short = {"n_steps": 5} if "edit-policy" in words else {}
    build = selector_from(words.replace("ANSWERS", str(w.answers)), **chat, **short)
    return _asked(w, build(w.knowledge, w.train))


for name, words in SELECTORS.items():
    case(f"selector/{name}", words=words)(_selector)


@case("selector/classes")
def _classes(w: World) -> Value:
    recorded = RecordedSelector.from_file(w.answers)
    made = {
        "linked": LinkedSelector(recorded.answers, source=recorded.source),
        "random": RandomSelector(4),
        "oracle": OracleSelector(w.screen, ceiling_only=True),
        "oracle by cosine": OracleSelector(w.screen, metric="cosine", ceiling_only=True),
        "rewired": GraphSelector(w.knowledge, rewire_seed=2),
        "unweighted": GraphSelector(w.knowledge, ("string", "go"), weighted=False),
    }
    return {name: _asked(w, selector) for name, selector in made.items()}


@case("selector/drugs")
def _drug_selectors(w: World) -> Value:
    known, lists = w.drugs.opened.knowledge, open_lists(w)
    chemistry = KernelSelector(kernel(known, "chemistry"))
    chat = lgr_selector(
        w.chat(), k=3, facts=known.facts, resolve=known.canonical,
        fallback=KernelSelector(kernel(known, "chemistry")),
    )  # fmt: skip
    made = {
        "chemistry": chemistry,
        "mechanism": KernelSelector(kernel(known, "mechanism"), above=0.3),
        "recorded": lists,
        "hybrid": HybridSelector(lists, chemistry, min_coverage=1.0),
        "lgr": chat,
    }
    asked = compound_questions(w.drugs.opened.screen, knowledge=known)
    questions = asked.questions[:: len(DRUGS)]
    return {
        name: {str(i): chosen(s.select(q, pool, 4)) for i, (q, pool) in enumerate(questions)}
        for name, s in made.items()
    }


@case("prompts")
def _prompts(w: World) -> Value:
    """Every prompt as the server saw it: the first question of each kind."""
    made: dict[str, Callable[[], Any]] = {
        "langpert": lambda: CASES["selector/langpert"](w),
        "edit": lambda: CASES["selector/edit"](w),
        "lgr": lambda: CASES["selector/drugs"](w),
        "acquire": lambda: CASES["strategy/llm"](w),
    }
    out = {}
    for name, ask in made.items():
        before = len(w.server.asked)
        ask()
        body = w.server.asked[before].body
        out[name] = "\n\n".join(str(m["content"]) for m in body["messages"])
    return out


# -- strategies ------------------------------------------------------------------------------------

#: Golden name -> name of the strategy.
STRATEGIES = {
    "random": "random",
    "uncertainty": "uncertainty",
    "bald": "bald",
    "batchbald": "batchbald",
    "bait": "bait",
    "acs-fw": "acs_fw",
    "iterpert": "iterpert",
    "iterpert-fused": "iterpert-fused",
    "coreset": "coreset",
    "typiclust": "typiclust",
    "badge": "badge",
    "lcmd": "lcmd",
    "variance-reduction": "variance_reduction",
    "adaptive": "adaptive",
    "knowledge": "knowledge",
    "llm": "llm",
}


def uncovered_strategies() -> set[str]:
    """Built-in strategies that no golden builds."""
    return set(parts.names("strategy", offered=False)) - set(STRATEGIES)


def situation(w: World, *, cold: bool = False, n_pinned: int = 0, pathway: bool = True) -> Any:
    """A state with made-up ensemble members; complete but for the screen."""
    genes_ = list(w.screen.perturbations)
    candidates, rest = tuple(genes_[:30]), genes_[30:]
    measured = () if cold else tuple(rest[:20])
    pinned = tuple(rest[20 : 20 + n_pinned])
    names = [*candidates, *measured, *pinned]
    members = u = None
    if not cold:
        rng = np.random.default_rng(11)
        scale = rng.uniform(0.2, 2.0, size=(1, len(candidates), 1))
        members = (rng.normal(size=(5, len(candidates), 6)) * scale).astype(np.float32)
        spread = members.astype(float).var(axis=0, ddof=1).mean(axis=1)
        u = pd.Series(spread, index=list(candidates))
    return AcquisitionState(
        candidates=candidates,
        measured=(*measured, *pinned),
        rng=np.random.default_rng(12),
        target=Target(w.knowledge.pathway(w.pathway) if pathway else None),
        knowledge=w.knowledge,
        uncertainty=u,
        member_predictions=members,
        embedding=gene_features(w.knowledge, names, kind="go", dim=16)[0],
        neighbours=neighbour_weights(w.knowledge, names),
        pinned=pinned,
        round=1 if cold else 2,
        context="K562",
        noise_variance=None if n_pinned else 0.3,
    )


def _strategy(w: World, name: str) -> Value:
    settings = {"chat": w.chat(), "k": 15} if name == "llm" else {}
    out = {}
    for label, given in {
        "warm": {},
        "pinned": {"n_pinned": 3},
        "no pathway": {"pathway": False},
        "cold": {"cold": True},
    }.items():
        strategy = parts.load("strategy", STRATEGIES[name], **settings)
        out[label] = chosen(strategy.choose(situation(w, **given), 7))
    return out


for name in STRATEGIES:
    case(f"strategy/{name}", name=name)(_strategy)


def planned(w: World, **settings: Any) -> Any:
    """The next panel after the first 40 perturbations."""
    names = w.screen.perturbations
    return plan(
        w.screen.hide(names[40:]),
        w.knowledge,
        pathway=w.pathway,
        candidates=names[40:],
        batch=6,
        embedding="go",
        predictor=parts.load("predictor", "LLMPert", **NETWORK),
        seed=2,
        **settings,
    )


@case("plan/tables")
def _plans(w: World) -> Value:
    out = {}
    for name in ("knowledge", "iterpert", "batchbald", "llm"):
        settings = {"chat": w.chat()} if name == "llm" else {}
        made = planned(w, strategy=STRATEGIES[name], strategy_settings=settings)
        left = [f"{x.gene} {x.kind} {x.why}" for x in made.near_misses]
        out[name] = {"panel": made.table, "all": made.candidate_table, "next": left}
    return out


@case("page/plan")
def _plan_page(w: World) -> Value:
    made = planned(w, pin=[w.screen.perturbations[50]])
    return {"page": normalised(render_plan(made), str(w.folder))}


@case("page/plan amended")
def _amended(w: World) -> Value:
    made = planned(w)
    new = next(g for g in made.candidates["gene"] if g not in made.genes)
    changed = amend(made, replace={made.genes[1]: new}, by="Ada", why="no guide")
    return {"page": normalised(render_plan(changed), str(w.folder))}


# -- drugs -----------------------------------------------------------------------------------------

#: Golden name -> name of the method.
DRUG_METHODS = {
    "cell-mean": "context mean",
    "cell-mean-shrunk": "context mean (shrunk)",
    "drug-mean": "perturbation mean",
    "drug-and-cell": "additive contexts",
    "pca-ridge": "PCA + ridge",
    "chemistry-knn": "chemistry kNN",
    "kernel-ridge": "kernel ridge",
    "mechanism-knn": "mechanism kNN",
    "target-knn": "target kNN",
    "combined-knn": "combined kNN",
    "multi-kernel": "multi-kernel",
    "lgr": "LGR",
    "lgr-shrunk": "LGR (shrunk)",
    "hybrid": "hybrid",
    "chat-kernel": "chat kernel",
    "fused": "fused",
}
#: Regimes in which a method of `DRUG_METHODS` learns and predicts.
REGIMES_LEARNED = ("unseen drug", "unseen line", "open world", "scaffold", "given")


def open_lists(w: World) -> RecordedSelector:
    """The recorded lists, their names resolved."""
    lists = RecordedSelector.from_file(w.drugs.settings.data.lists)
    return lists.resolving(w.drugs.opened.knowledge)


def uncovered_drugs(w: World) -> set[str]:
    """Drug methods and regimes that no golden builds."""
    methods = {m.label for bench in (w.drugs, w.raw_drugs) for m in bench.methods}
    return (methods - set(DRUG_METHODS.values())) | (
        set(REGIMES)
        - {REGIME_WORDS.get(r, r) for r in REGIMES_LEARNED}
        - {"dose", "perturbation", "both"}
    )


def _drug_method(w: World, name: str, regime: str, raw: bool = False) -> Value:
    """Predictions for all that the first two splits hold out, for a line and a drug unheard of."""
    bench = w.raw_drugs if raw else w.drugs
    out = {}
    for split in bench.splits_of(regime, 0)[:2]:
        train, test = split.of(bench.opened.screen)
        model = bench.method(DRUG_METHODS[name]).build(split.hold_out)
        model.fit(train, bench.opened.knowledge)
        for line in test.contexts:
            drugs = list(test.in_context(line).obs["perturbation"])
            out[f"{split.fold} {line}"] = told(model.predict([*drugs, "NoSuchDrug"], line))
    if not raw:
        out["SW480"] = told(model.predict(list(test.perturbations[:2]), "SW480"))
    return out


def _fewer(w: World, **settings: Any) -> Value:
    """One array a kind of result over all lines: hundreds of leaves would tell no more."""
    found = _drug_method(w, **settings)
    near = {k: v for k, v in found.items() if v["neighbours"] is not None}
    spreads = [v["spread"] for v in found.values() if v["spread"] is not None]
    return {
        "mean": np.vstack([v["mean"] for v in found.values()]),
        "spread": np.vstack(spreads) if spreads else None,
        "n_support": np.concatenate([v["n_support"] for v in found.values()]),
        "fallback": [f for v in found.values() for f in v["fallback"]],
        "weight": np.concatenate([v["weight"] for v in near.values()]) if near else None,
        "neighbours": [f"{k} {x}" for k, v in near.items() for x in v["neighbours"]],
    }


for regime in REGIMES_LEARNED:
    for name in DRUG_METHODS:
        case(f"drugs, {regime}/{name}", name=name, regime=regime)(_fewer)
for name in DRUG_METHODS:
    if not {"lgr", "lgr-shrunk", "hybrid", "chat-kernel", "fused"} & {name}:
        settings = {"name": name, "regime": "unseen drug", "raw": True}
        case(f"drugs with magnitudes/{name}", **settings)(_fewer)


@case("drugs, dose")
def _dose(w: World) -> Value:
    obs = w.doses.obs
    train = w.doses.take((obs["dose"] < 10).to_numpy())
    names = list(train.perturbations)[:5]
    return {
        rule: told(DosePredictor(rule).fit(train).predict([*names, "NoSuchDrug"], LINES[0], 10.0))
        for rule in RULES
    }


@case("drugs, one at a time")
def _one_drug(w: World) -> Value:
    out = {}
    for drug, line in (
        ("erlotinib", "A549"),
        ("ONC(=O)CCCCCC(=O)Nc1ccccc1", "MCF7"),
        ("[K+].[O-]C(=O)c1ccccc1O", "A549"),
        ("Aspirin", "CVCL_0546"),
    ):
        found = predict(
            w.drugs.opened.screen,
            [drug],
            knowledge=w.drugs.opened.knowledge,
            method="fused",
            settings={"answers": w.drugs.settings.data.lists},
            context=line,
            folds=0,
        )
        out[drug] = {
            **told(found.prediction),
            "notes": [n.replace(w.drugs.settings.data.lists or "-", "FILE") for n in found.notes],
        }
    return out


@case("page/drug report")
def _drug_report(w: World) -> Value:
    config = w.drug_config(
        regimes=["unseen drug", "unseen line", "open world"],
        methods=["context mean", "perturbation mean", "chemistry kNN", "multi-kernel", "fused"],
        top_n=[20],
    )
    run = run_task(RegimesTask(config))
    table, notes = run.table, run.record["notes_on_data"]
    summary = summarise(table, n_resamples=200)
    columns = [c for c in table.columns if c not in ("data", "seed")]
    page = Page("")
    regimes(page, summary, sorted(set(summary["metric"])))
    return {
        "scores": table[columns],
        "summary": summary,
        "report": page.markdown(),
        "notes": normalised(json.dumps(notes, default=str, sort_keys=True), str(w.folder)),
    }


# -- splits ----------------------------------------------------------------------------------------


def sides(found: Sequence[Any]) -> list[str]:
    """Each split as one line."""
    return [
        f"{s.seed} {s.fold}: {','.join(s.train)} | {','.join(s.test)} | "
        + ",".join(f"{k}={v}" for k, v in getattr(s, "strata", {}).items())
        for s in found
    ]


@case("split/genes")
def _gene_splits(w: World) -> Value:
    names = w.screen.perturbations
    folds = [{"available_genes": names[i:], "answers": {}} for i in (5, 20)]
    file = w.folder / "folds.json"
    file.write_text(json.dumps({"folds": folds}))
    replay = make_split(tuple(names), 0.1, 3)
    return {
        "folds": sides(splits.split_folds(names, 4, 2, 7)),
        "growing": sides(splits.split_growing(names, (5, 20, 999), 2, 7)),
        "doubles": sides(splits.split_doubles(w.doubles[0].perturbations, 2, 7)),
        "given": sides(split_given(names, file)),
        "replay": f"{','.join(replay.heldout)} | {','.join(replay.pool)}",
    }


def _drug_split(w: World, regime: str) -> Value:
    bench = w.drugs
    if regime == "dose":
        return {"splits": sides(split_rows(w.doses, regime, bench.opened.knowledge))}
    return {"splits": sides([s for seed in (0, 1) for s in bench.splits_of(regime, seed)])}


for regime in (*REGIMES_LEARNED, "dose"):
    case(f"split/drugs, {regime}", regime=regime)(_drug_split)


@case("split/groups")
def _groups(w: World) -> Value:
    return {"folds": group_folds([f"g{i % 11}" for i in range(40)], 4, 5)}


# -- metrics ---------------------------------------------------------------------------------------


def compared() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and reference with every odd row: NaN, constant, zero, perfect."""
    rng = np.random.default_rng(21)
    t = rng.normal(size=(14, 30))
    p = 0.6 * t + rng.normal(scale=0.7, size=t.shape)
    ref = 0.3 * rng.normal(size=30)
    t[0] = np.nan
    t[1, 5:] = np.nan
    t[2, ::3] = np.nan
    t[3] = 2.0
    t[4] = 0.0
    p[5] = 1.5
    p[6] = 0.0
    p[7] = t[7]
    p[8] = -t[8]
    p[9] = ref
    t[10, 1:] = np.nan
    return t, p, ref


#: Golden name -> kernel (truth, prediction, mask) -> one value a row.
ROW_METRICS: dict[str, Callable[..., Any]] = {
    "squared_error": metrics.squared_error,
    "mse": metrics.mse,
    "mae": metrics.mae,
    "pearson_delta": metrics.pearson_delta,
    "cosine": metrics.cosine,
    "direction_accuracy": metrics.direction_accuracy,
    "slope": metrics.regression_slope,
    "r2": metrics.r_squared,
}


def _row_metric(w: World, name: str) -> Value:
    t, p, _ = compared()
    mask = np.random.default_rng(22).random(t.shape) < 0.7
    kernel = ROW_METRICS[name]
    many = np.tile(np.nan_to_num(t), (30, 1)), np.tile(p, (30, 1))
    return {"plain": kernel(t, p), "masked": kernel(t, p, mask), "in blocks": kernel(*many)}


for name in ROW_METRICS:
    case(f"metric/{name}", name=name)(_row_metric)


@case("metric/pearson_reference")
def _reference(w: World) -> Value:
    t, p, ref = compared()
    rows = np.tile(ref, (len(t), 1)) + 0.1 * np.nan_to_num(t)
    return {
        "shared": metrics.pearson_reference(t, p, ref),
        "own": metrics.pearson_reference(t, p, rows),
    }


@case("metric/learning curve")
def _area(w: World) -> Value:
    x, y = [20, 40, 80, 100], [3.0, 2.5, 2.0, 1.9]
    return {"area": [metrics.learning_curve_area(x, y, normalise=n) for n in (True, False)]}


def uncovered_metrics() -> set[str]:
    """Columns of a score table that the golden score table lacks."""
    columns = scored().values.columns
    known = {m for m in METRICS if any(c == m or c.startswith(m + "_") for c in columns)}
    # Energy distances need cells; `metric/energy distance` records them.
    return set(METRICS) - known - {"energy_distance"}


def scored() -> Any:
    """The score table of `compared`."""
    t, p, ref = compared()
    rng = np.random.default_rng(23)
    features = [f"G{i}" for i in range(30)]
    return score_predictions(
        t,
        p,
        perturbations=[f"G{i}" if i % 2 else f"G{i}+G{i + 1}" for i in range(len(t))],
        features=features,
        reference=ref,
        sampling_variance=rng.uniform(0.1, 1.0, size=t.shape),
        candidates=np.vstack([t, rng.normal(size=(5, 30))]),
        own=np.arange(len(t)),
        tops=(5, 10, 40),
        significant=rng.random(t.shape) < 0.3,
    )


@case("metric/score table")
def _score_table(w: World) -> Value:
    found = scored()
    return {"values": found.values, "undefined": found.undefined}


@case("metric/retrieval")
def _retrieval(w: World) -> Value:
    t, p, _ = compared()
    out: dict[str, Any] = {}
    for label, truth in (("nan", t), ("complete", np.nan_to_num(t))):
        for kind in DISTANCES:
            found = retrieval_all(p, truth, kind=kind)
            both = {k: {"score": v.score, "undefined": v.undefined} for k, v in found.items()}
            out[f"{label} {kind}"] = {**both, "distances": distances(p, truth, kind)}
    return out


@case("metric/differential genes")
def _genes(w: World) -> Value:
    t, p, _ = compared()
    rng = np.random.default_rng(24)
    called = rng.random(t.shape) < 0.4
    score = genes.differential_score(t, rng.uniform(0.1, 1.0, size=t.shape))
    return {
        "score": score,
        "top": genes.top_mask(score, 6),
        "overlap": genes.de_overlap(score, p, 6),
        "precision": genes.de_overlap(
            score, p, None, prediction_significant=called, divide_by="prediction"
        ),
        "recall": genes.significant_recall(called, called[::-1]),
        "t": genes.welch_t(p, p**2 + 1, np.arange(2, 16), (p[0], p[1] ** 2 + 1, 30)),
        "adjusted": genes.benjamini_hochberg(rng.random((3, 9))),
    }


@case("metric/energy distance")
def _energy(w: World) -> Value:
    rng = np.random.default_rng(25)
    x, y = rng.normal(size=(40, 5)), rng.normal(0.5, size=(30, 5))
    return {
        f"{kind} {u}": distribution.energy_distance(x, y, metric=kind, unbiased=u)
        for kind in ("euclidean", "sqeuclidean")
        for u in (False, True)
    }


@case("metric/ceiling")
def _ceiling(w: World) -> Value:
    t, p, _ = compared()
    rng = np.random.default_rng(26)
    v = rng.uniform(0.01, 0.2, size=t.shape)
    cells = rng.normal(0.3, size=(31, 8))
    half = ceiling.split_half(cells, rng.normal(size=(40, 8)), np.random.default_rng(1), n_splits=5)
    return {
        "cosine": ceiling.ceiling_from_variance(t, v),
        "pearson": ceiling.ceiling_from_variance(t, v, similarity="pearson"),
        "half": half,
        "share": ceiling.share_of_ceiling(p[0], np.abs(p[1])),
    }


@case("metric/calibration")
def _calibration(w: World) -> Value:
    t, p, _ = compared()
    spread = np.abs(p) * 0.5 + 0.2
    both = calibration.spread_and_error(t, p, spread)
    return {
        "coverage": calibration.interval_coverage(t, p, spread),
        "both": both,
        "rank": calibration.spread_rank_correlation(both["spread"], both["error"]),
    }


@case("metric/auroc")
def _auroc(w: World) -> Value:
    rng = np.random.default_rng(27)
    scores, labels = rng.integers(0, 9, 200) / 9, rng.integers(0, 2, 200)
    groups = rng.integers(0, 8, 200)
    return {
        "groups": auroc.grouped_auroc(scores, labels, groups, 9),
        "all": auroc.auroc(scores, labels),
    }


@case("metric/statistics")
def _statistics(w: World) -> Value:
    rng = np.random.default_rng(28)
    table = pd.DataFrame(rng.normal(size=(25, 3)) + np.array([0, 0.4, 0.1]), columns=list("abc"))
    table.iloc[3, 1] = np.nan
    one = statistics.bootstrap_mean(table["b"], np.random.default_rng(1))
    seeds = pd.Series(np.arange(25) % 4)
    return {
        "interval": [one.mean, one.low, one.high, one.n],
        "holm": statistics.holm([0.01, np.nan, 0.04, 0.03]),
        "wilcoxon": statistics.wilcoxon_p(table["a"] - table["b"]),
        "pairs": statistics.compare_methods(table, np.random.default_rng(2)),
        "against": statistics.compare_methods(table, np.random.default_rng(2), reference="a"),
        "seeds": statistics.summarise_seeds(table["a"], seeds),
        "strata": statistics.quantile_strata(table["b"], 4),
    }


@case("metric/drugs")
def _drug_scores(w: World) -> Value:
    t, p, ref = compared()
    rows = np.tile(ref, (len(t), 1))
    tops = {"_top": np.arange(30) < 12}
    rng = np.random.default_rng(29)
    clusters = [f"c{i % 5}" for i in range(len(t))]
    interval = statistics.cluster_interval(
        p[:, 0], clusters, rng, weights=np.abs(p[:, 1]), n_resamples=300
    )
    raw = w.raw_drugs.opened.screen
    plated = raw.take(np.arange(len(raw)))
    plated.obs["plate"] = [f"p{i % 3}" for i in range(len(raw))]
    centred, left_out = plates.centre_within(plated, "plate")
    return {
        "rows": row_scores.score_rows(t, p, rows, list(row_scores.ROWWISE), tops),
        "interval": [interval.mean, interval.low, interval.high, interval.n],
        "variable": row_scores.top_variable(raw, 7),
        "plates": plates.plate_confounding(plated, "plate"),
        "centred": centred.responses,
        "left out": left_out,
        "ranks": normal_scores(p),
        "unit": RANKED_UNIT,
    }


# -- benchmarks and their pages --------------------------------------------------------------------


@case("page/prediction")
def _prediction_page(w: World) -> Value:
    asked = [*w.screen.perturbations[3:5], w.asked[0], UNKNOWN]
    found = predict(
        w.screen.hide(w.asked),
        asked,
        knowledge=w.knowledge,
        method=PREDICTORS["graph-neighbours"][0],
        folds=3,
        seed=1,
    )
    assert found.standing is not None
    return {
        "page": normalised(render_prediction(found), str(w.folder)),
        "notes": normalised("\n".join(found.notes), str(w.folder)),
        "standing": found.standing.summary,
        "held out": found.standing.per_perturbation,
        "sentence": found.standing.sentence,
        **told(found.prediction),
    }


@case("page/prediction by chat")
def _chat_page(w: World) -> Value:
    found = predict(
        w.train, w.asked, knowledge=w.knowledge, method=PREDICTORS["langpert"][0], chat=w.chat()
    )
    return {"page": normalised(render_prediction(found), str(w.folder))}


@case("page/prediction benchmark")
def _bench_page(w: World) -> Value:
    folder, table, report = w.bench
    page = (folder / "report.html").read_text()
    results = pd.read_parquet(folder / "results.parquet")
    numbers = results.select_dtypes("number").drop(columns=["seconds"], errors="ignore")
    return {
        "table": table,
        "results": numbers,
        "methods": results["method"].astype(str),
        "report": normalised(report, str(w.folder)),
        "page": normalised(page, str(w.folder)),
        **{f"tables/{f.stem}": pd.read_csv(f) for f in sorted((folder / "tables").glob("*.csv"))},
    }


@case("page/acquisition")
def _acquisition_page(w: World) -> Value:
    page = write_acquisition_page([w.run], w.folder / "acquisition.html").read_text()
    report = write_markdown([w.run], w.folder / "acquisition.md").read_text()
    tables = ["rounds.parquet", "picks.parquet", "areas.parquet", "differences.csv"]
    tables += [
        "labels_needed.csv",
        "overlap.csv",
        "coverage.csv",
        "relations.csv",
        "enrichment.csv",
    ]
    return {
        "page": normalised(page, str(w.folder)),
        "report": normalised(report, str(w.folder)),
        **{Path(t).stem: w.run.read(t) for t in tables if w.run.has(t)},
    }


@case("bench/judges")
def _judges(w: World) -> Value:
    addresses = [w.server.openai("one"), w.server.openai("two")]
    given = {"run": str(w.run.folder), "judges": addresses, "max_pairs": 6, "seed": 1}
    task = JudgeTask(check_settings(given, JudgeConfig))
    found = run_task(task, task.place)
    names = ("overall", "per_target", "per_judge", "position", "votes", "verdicts")
    tables = {name: found.read(f"{name}.csv").copy() for name in names}
    for table in tables.values():
        if "judge" in table:
            table["judge"] = [normalised(str(x)) for x in table["judge"]]
    return tables


@case("bench/perturbqa")
def _perturbqa(w: World) -> Value:
    rng = np.random.default_rng(31)
    names = w.screen.perturbations
    folder = w.folder / "labels"
    folder.mkdir(exist_ok=True)
    for task in TASKS:
        rows = [
            (p, f"F{j:02d}", int(rng.random() < (0.7 if (i + j) % 3 == 0 else 0.2)))
            for i, p in enumerate(names)
            for j in range(10)
            if rng.random() < 0.6
        ]
        frame = pd.DataFrame(rows, columns=["pert", "gene", "label"])
        frame["split"] = np.where(frame["pert"].isin(names[40:]), "test", "train")
        frame.to_csv(folder / f"k562-{task}.csv", index=False)

    def learned(line: str, task: str) -> Any:
        model = partial(parts.load, "predictor", PREDICTORS["graph-neighbours"][0])
        return predictor_scorer(model, task, w.knowledge, context=line)

    scorers = {
        "frequency": lambda line, task: gene_frequency,
        "graph": learned,
        "vote": lambda line, task: selector_scorer(EmbeddingSelector(w.knowledge, "go")),
    }
    settings = check_settings({"labels": str(folder)}, PerturbqaConfig)
    run = run_task(PerturbqaTask(settings, scorers))
    return {"summary": run.summary, "per gene": run.table}


@case("bench/prefilter")
def _prefilter(w: World) -> Value:
    found = splits.split_folds(w.train.only_measured().perturbations, 3, 1, 0)
    whole = w.train.only_measured()
    pieces = [
        split_recall(
            words,
            whole.of_perturbations(split.train),
            whole.of_perturbations(split.test),
            w.knowledge,
            [5, 15],
        )
        for split in found
        for words in PREFILTERS
    ]
    table = mean_recall(pd.concat(pieces))
    return {"table": table}
