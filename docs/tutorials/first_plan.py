# %% [markdown]
# # Your first plan, from cells
#
# From single cells to a panel of perturbations with a reason for each. The cells are SIMULATED; yours take their place in the first
# cell: `cells = "my_cells.h5ad"` (GEARS, scPerturb, Replogle and Tahoe layouts are recognised). Public files, with the commands that fetch them:
# [public screens](public_files.md).

# %%
import tempfile
from pathlib import Path

import pertwise as pw

folder = Path(tempfile.mkdtemp())
sim = pw.simulate(7, n_perturbations=80, n_features=120)
knowledge = pw.Knowledge.open(pw.build_knowledge(sim.write_sources(folder / "sources"), folder / "knowledge"))
knowledge

# %% [markdown]
# A screen holds one response (delta against control cells) per perturbation. Half of the perturbations are measured here; the others
# are the candidates.

# %%
names = sim.screen.perturbations
screen = sim.screen.hide(names[40:])
screen

# %% [markdown]
# ## The panel
#
# Without a model, `plan` picks with what is known of the genes and what was measured.

# %%
plan = pw.plan(screen, knowledge, candidates=names[40:], batch=8, strategy="knowledge", seed=0)
plan.table[["gene", "relation", "reason"]]

# %% [markdown]
# ## Arguing with a pick
#
# A change has an author and a reason, and becomes a new revision; nothing is overwritten.

# %%
spare = next(n for n in names[40:] if n not in plan.genes)
changed = plan.amend(replace={plan.genes[0]: spare}, by="R. Franklin", why="no guide for it in stock")
changed, changed.genes

# %%
written = changed.write(folder / "round1")
sorted(path.name for path in written.values())
