# %% [markdown]
# # Predict, and know how far to trust it
#
# One call gives responses of unmeasured perturbations, an interval, and a score of the method *on this very screen*. SIMULATED data.

# %%
import tempfile
from pathlib import Path

import pertwise as pw

folder = Path(tempfile.mkdtemp())
sim = pw.simulate(5, n_perturbations=80, n_features=60)
knowledge = pw.Knowledge.open(pw.build_knowledge(sim.write_sources(folder / "sources"), folder / "knowledge"))
names = sim.screen.perturbations
screen = sim.screen.hide(names[60:])
found = pw.predict(screen, names[60:66], knowledge=knowledge, method="multi-kernel", folds=5)
found.table.head()

# %% [markdown]
# ## Can we trust that?
#
# Every measured perturbation was predicted as if it had not been measured. If the method does not beat the training mean, this sentence says so.

# %%
print(found.standing.sentence)

# %% [markdown]
# ## Why this prediction?

# %%
why = found.why(names[60])
why.neighbours[["neighbour", "weight", "reason"]].head()

# %%
ax = pw.plot.neighbours(found, names[60])

# %% [markdown]
# The truth of a simulation is known, so here the prediction can be held against it:

# %%
ax = pw.plot.predicted_against_measured(found, sim.screen, names[60:63])

# %%
ax = pw.plot.program_heat_map(found, most=20)

# %% [markdown]
# For scanpy and kin:

# %%
found.to_anndata()
