#!/usr/bin/env bash
# Two rounds on SIMULATED cells: pseudobulk, plan, guides, join, plan again.
# Usage: examples/two_rounds.sh [FOLDER]      (needs pertwise[review,excel] on the PATH; about two minutes)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-two_rounds}
mkdir -p "$work"
cd "$work"

# What a lab would have: cells of a first experiment, a list of what could be done next, a guide library.
pertwise --quiet screen simulate simulated --seed 7 --perturbations 90 --features 120 --pathways 4 --cells
pertwise --quiet knowledge build simulated/knowledge_sources --out knowledge
pathway=$(python - <<'PY'
import pertwise as pw
print(pw.Knowledge.open("knowledge").pathway_names()[0])
PY
)
python - <<'PY'
import anndata, numpy as np, pathlib
cells = anndata.read_h5ad("simulated/cells.h5ad")
names = [p for p in dict.fromkeys(cells.obs["perturbation"]) if p != "control"]
first, later = names[:60], names[60:]
pathlib.Path("library.txt").write_text("\n".join(later) + "\n")
control = (cells.obs["perturbation"] == "control").to_numpy()
half = np.cumsum(control) % 2 == 0
# The two experiments share some controls' kind, not their cells, and most genes, not all.
one = cells[cells.obs["perturbation"].isin(first) | (control & half), :-10].copy()
one.write_h5ad("cells_round1.h5ad")
cells[~cells.obs["perturbation"].isin(first) & ~(control & half), 10:].copy().write_h5ad("later.h5ad")
rng = np.random.default_rng(0)
with open("guides_library.tsv", "w") as file:
    file.write("sgID\tgene\ttranscript\tprotospacer sequence\tselection rank\n")
    for gene in [*later[:-2], *["negative_control"] * 6]:  # two genes have no guide
        for rank in range(1, 4):
            spacer = "".join(rng.choice(list("ACGT"), 20))
            file.write(f"{gene}_{rank}\t{gene}\tP1\t{spacer}\t{rank}\n")
PY

# Round 1
pertwise --quiet screen pseudobulk cells_round1.h5ad round1.h5ad --hvg 0 --min-cells 5
pertwise --quiet design round1.h5ad --perturbations 8
pertwise --quiet plan round1.h5ad --knowledge knowledge --pathway "$pathway" --candidates library.txt \
    --batch 8 --by "A. Person" --out plan1
# A person swaps a pick in the browser, before guides are ordered.
python "$here/swap_in_browser.py" plan1 "its guides did not work here before"
pertwise plan show plan1
pertwise --quiet guides plan1 --library guides_library.tsv --guides-per-gene 3 --controls 8 --plate 96 \
    --replace-missing --xlsx

# The panel is measured: the cells of round 2 (here simulated, too)
python - <<'PY'
import anndata
import pertwise as pw
panel = pw.Plan.load("plan1").genes
cells = anndata.read_h5ad("later.h5ad")
cells[cells.obs["perturbation"].isin([*panel, "control"])].copy().write_h5ad("cells_round2.h5ad")
PY
pertwise --quiet screen pseudobulk cells_round2.h5ad round2.h5ad --hvg 0 --min-cells 5

# Round 2: both experiments, each with its own controls
pertwise --quiet screen join round1.h5ad round2.h5ad --features intersect --out both.h5ad
pertwise --quiet plan both.h5ad --knowledge knowledge --pathway "$pathway" --candidates library.txt \
    --batch 8 --by "A. Person" --out plan2
ls plan1 plan2
