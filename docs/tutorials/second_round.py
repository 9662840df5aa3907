# %% [markdown]
# # The second round
#
# When results are back, plan on the new screen: it knows what is measured, and no other state is needed. SIMULATED data.

# %%
import tempfile
from pathlib import Path

import pertwise as pw

folder = Path(tempfile.mkdtemp())
sim = pw.simulate(3, n_perturbations=80, n_features=120)
knowledge = pw.Knowledge.open(pw.build_knowledge(sim.write_sources(folder / "sources"), folder / "knowledge"))
names = sim.screen.perturbations
pool = list(names[30:])
screen = sim.screen.hide(pool)

# %% [markdown]
# First round: eight perturbations, "measured" by looking them up in the simulation.

# %%
first = pw.plan(screen, knowledge, candidates=pool, batch=8, strategy="variance-reduction", seed=0)
left = [n for n in pool if n not in first.genes]
screen = sim.screen.hide(left)
int(screen.measured.sum()), first.genes

# %%
second = pw.plan(screen, knowledge, candidates=left, batch=8, strategy="variance-reduction", seed=0)
second.table[["gene", "reason"]]

# %% [markdown]
# ## Did the first round help?
#
# The same perturbations are predicted from the first 30 alone and with the eight that were added. On one small simulated screen either may win;
# `pertwise bench acquisition` repeats this over seeds and compares with random choice.

# %%
scores = {}
for words, known in (("30 measured", sim.screen.hide(pool)), ("38 measured", screen)):
    found = pw.predict(known, left, knowledge=knowledge, method="kernel-ridge", folds=0)
    truth = sim.screen.of_perturbations(left)
    order = [truth.perturbations.index(n) for n in found.prediction.perturbations]
    scores[words] = float(((found.prediction.mean - truth.responses[order]) ** 2).sum(axis=1).mean())
scores
