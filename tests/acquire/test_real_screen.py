"""The plan on a real screen: 1,949 knock-downs in K562, half of them hidden, heme metabolism."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pertwise.acquire import plan
from pertwise.cli.demo import blank
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.report import render_plan
from pertwise.screen import read_screen


class Noise:
    """Members that disagree at random: the plan, not the ensemble, is under test here."""

    name = "noise"

    def fit(self, screen, knowledge=None):
        self.features = screen.features
        return self

    def predict(self, perturbations):
        rng = np.random.default_rng(0)
        members = rng.normal(size=(3, len(perturbations), len(self.features))).astype(np.float32)
        return SimpleNamespace(
            perturbations=tuple(perturbations),
            features=self.features,
            members=members,
            spread=None,
            support=pd.DataFrame({"n_support": 1, "fallback": [""] * len(perturbations)}),
        )


@pytest.mark.shared
def test_erythroid_programs_and_heme_metabolism(shared_data, tmp_path):
    screen = read_screen(shared_data / "screens" / "replogle_k562_programs25.h5ad")
    names = sorted(screen.perturbations)
    hidden = names[::2]
    knowledge = Knowledge.open(build_knowledge(shared_data / "knowledge", tmp_path / "k"))
    made = plan(
        blank(screen, hidden),
        knowledge,
        pathway="heme metabolism",
        features=["*erythroid*"],
        predictor=Noise(),
    )
    assert len(made.target["features"]) == 2
    assert len(made.picks) == 20
    assert len(made.candidates["gene"]) == len(hidden)
    assert made.target["pathway"]["name"] == "HALLMARK_HEME_METABOLISM"
    assert made.target["pathway"]["modules_from"] == "curated"
    # Nearly all of the library is known under some name; old symbols are candidates as spelt.
    assert sum(r.kind == "unknown" for r in made.left_out) <= 0.01 * len(names)
    symbols = dict(zip(made.candidates["gene"], made.candidates["symbol"], strict=True))
    symbols |= dict(zip(made.measured["gene"], made.measured["symbol"], strict=True))
    assert symbols["AARS"] == "AARS1"
    relations = made.candidate_table["relation"].value_counts()
    assert relations["direct_member"] >= 5
    assert made.table["relation"].isin(["direct_member", "upstream_regulator"]).mean() > 0.3
    # Several modules are on the panel or measured, and no two picks are of one STRING complex.
    assert sum(bool(r.picked or r.related) for r in made.coverage) >= 4
    assert made.table["evidence"].str.len().gt(0).mean() > 0.5
    assert "Simulated data" not in render_plan(made)
