"""Graph neighbours that were corrected are lists: what was kept, then what was added."""

import gzip
import json

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError
from pertwise.knowledge.recorded import read_recording
from pertwise.models import recipes
from pertwise.screen.core import make_screen

EDIT = {
    "gene": "A",
    "graph_neighbours": ["B", "C"],
    "add": [{"name": "D", "reason": "same complex."}, {"name": "C", "reason": "same complex"}],
    "remove": [{"name": "B", "reason": "weak"}],
}


@pytest.mark.parametrize("layout", ["folds", "one", "by subject", "lines"])
def test_every_layout_of_edits(layout, tmp_path):
    by_subject = {"A": {k: v for k, v in EDIT.items() if k != "gene"}}
    text = {
        "folds": json.dumps({"model": "someone", "folds": [{"edits": [EDIT]}]}),
        "one": json.dumps({"model": "someone", "edits": [EDIT]}),
        "by subject": json.dumps({"model": "someone", "folds": [{"edits": by_subject}]}),
        "lines": json.dumps({**EDIT, "source": "someone"}) + "\n",
    }[layout]
    path = tmp_path / "edits.json.gz"
    path.write_bytes(gzip.compress(text.encode()))
    found = read_recording(path)
    assert found.answers == {"A": (("C", "D"), "same complex")}
    assert found.origin["model"] == "someone"


def test_edits_without_names_are_refused(tmp_path):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps({"edits": [{**EDIT, "add": [7]}]}))
    with pytest.raises(InputError, match=r"edits\.json: the edits for 'A' must be names"):
        read_recording(path)


def test_fused_takes_edits_beside_lists_and_says_what_is_wrong(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"G{i:02d}" for i in range(30)]
    groups = np.arange(30) // 5
    y = rng.normal(size=(6, 8))[groups] + 0.1 * rng.normal(size=(30, 8))
    screen = make_screen(y.astype(np.float32), names, [f"f{j}" for j in range(8)])
    near = {n: [m for m in names if m != n and groups[names.index(m)] == groups[i]]
            for i, n in enumerate(names)}  # fmt: skip
    lists, edits = tmp_path / "lists.json", tmp_path / "edits.json"
    lists.write_text(json.dumps({"answers": {n: {"kNN": k[:2]} for n, k in near.items()}}))
    edits.write_text(
        json.dumps({"edits": [{"gene": n, "graph_neighbours": k[2:], "add": [], "remove": []}
                              for n, k in near.items()]})
    )  # fmt: skip
    train, test = screen.of_perturbations(names[:24]), names[24:]
    from pertwise.knowledge import Knowledge

    model = recipes.fused(lists, edits=edits, n_trees=5, kernels=()).fit(train, Knowledge())
    members = model.predict(test).provenance["members"]
    assert {"linked neighbours", "linked edited neighbours"} <= set(members)
    with pytest.raises(InputError, match="error or retrieval"):
        recipes.fused(lists, purpose="fame")
    with pytest.raises(InputError, match=r"there are no marks.*pertwise ask"):
        parts.load("predictor", "fused", n_trees=5, kernels=()).fit(train, Knowledge())
