# %% [markdown]
# # Benchmark a method of your own
#
# One class in one file: `fit` and `predict`. It is checked by the shipped suite and stands in the table beside all others. SIMULATED data.

# %%
import tempfile
from pathlib import Path

import pertwise as pw

folder = Path(tempfile.mkdtemp())
(folder / "mine.py").write_text('''
import numpy as np
import pandas as pd
import pertwise as pw


class HalfMean:
    """Half of the training mean: shrinks what every knock-down has in common."""

    name = "half mean"

    def fit(self, screen, knowledge=None):
        measured = screen.only_measured()
        self.features = measured.features
        self.mean = np.nanmean(measured.responses, axis=0) / 2
        self.n = len(measured.perturbations)
        return self

    def predict(self, names, *, context=None):
        support = pd.DataFrame({"n_support": self.n, "fallback": ""}, index=list(names))
        mean = np.tile(self.mean, (len(names), 1)).astype(np.float32)
        return pw.Prediction(tuple(names), self.features, mean, None, support)
''')
mine = f"{folder / 'mine.py'}:HalfMean"

# %% [markdown]
# ## Is it correct?

# %%
from pertwise.testing import check_predictor

sim = pw.simulate(5, n_perturbations=60, n_features=40, n_pathways=4)
knowledge = pw.Knowledge.open(pw.build_knowledge(sim.write_sources(folder / "sources"), folder / "knowledge"))
# It answers every name alike, so it has no fallback to declare.
check_predictor(pw.parts.find("predictor", mine), unknown_fallback=False)

# %% [markdown]
# ## Is it any good?

# %%
sim.screen.to_anndata().write_h5ad(folder / "screen.h5ad")
(folder / "bench.toml").write_text(f'''
screen = "{folder / 'screen.h5ad'}"
knowledge = "{folder / 'knowledge'}"
methods = ["training-mean", "kernel-ridge", "{mine}"]
[split]
kind = "folds"
folds = 4
''')
run = pw.bench(folder / "bench.toml")
run.summary
