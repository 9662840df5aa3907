# %% [markdown]
# # Asking a language model
#
# Any OpenAI-compatible server works (Ollama, vLLM, llama.cpp, OpenAI), and Anthropic. Keys come from the environment.
#
# ```python
# chat = pw.chat("qwen3:8b@http://localhost:11434/v1")     # Ollama on this machine
# chat = pw.chat("openai:gpt-4.1")                         # needs OPENAI_API_KEY
# ```
#
# So that this page can be built anywhere, a **scripted server** answers below. It is NOT a language model: it follows a dumb rule and knows no
# biology, so its answers mean nothing. What it shows is how answers are asked, checked and used.

# %%
import tempfile
from pathlib import Path

import pertwise as pw
from pertwise.testing import ScriptedServer

folder = Path(tempfile.mkdtemp())
sim = pw.simulate(5, n_perturbations=60, n_features=60, n_pathways=4)
knowledge = pw.Knowledge.open(pw.build_knowledge(sim.write_sources(folder / "sources"), folder / "knowledge"))
names = sim.screen.perturbations
screen = sim.screen.hide(names[40:])
server = ScriptedServer().__enter__()
chat = pw.chat(server.openai("scripted-not-a-model"), ledger=folder / "ledger.sqlite")

# %% [markdown]
# ## A panel with reasons
#
# The model sees a closed list. Every pick is checked against it; what had to be repaired is counted.

# %%
plan = pw.plan(screen, knowledge, candidates=names[40:], batch=5, strategy="llm", strategy_settings={"chat": chat}, seed=0)
plan.table[["gene", "reason", "chosen_by"]]

# %%
plan.warnings, plan.repairs

# %% [markdown]
# ## What it cost
#
# Every exchange is in the ledger: the same call again is answered from there, without asking (and paying) twice.

# %%
before = len(server.asked)
again = pw.plan(screen, knowledge, candidates=names[40:], batch=5, strategy="llm", strategy_settings={"chat": chat}, seed=0)
before, len(server.asked), again.genes == plan.genes

# %%
chat.shutdown()
server.__exit__(None, None, None)

# %% [markdown]
# Better than named picks, in our measurements, are **marks**: the model rates each perturbation once on each program, from -3 to 3, and the marks
# join the kernels of every predictor: `pw.rate`, `pertwise rate`, [what they gave](../results/marks.md).
