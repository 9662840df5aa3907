"""Prompt templates: packaged, overridable, loud about mistakes."""

import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.llm.templates import BUILT_IN, load_prompt

VALUES = {
    "langpert": {
        "subject": "ABC1",
        "subject_facts": "a gene",
        "species": "human",
        "context": "K562",
        "context_text": "cells.",
        "n_min": 5,
        "n_max": 10,
        "candidates": ["X1", "X2"],
        "cut": "",
        "candidate_facts": {},
    },
    "gene_summary": {"symbol": "ABC1", "full_name": "", "text": "Long.", "max_words": 20},
    "judge": {
        "pathway": {"name": "P", "description": ""},
        "sample": ["A"],
        "context": "",
        "context_text": "",
        "set_a": ["A"],
        "set_b": ["B"],
    },
}
VALUES["lgr"] = VALUES["langpert"]
VALUES["edit"] = {
    **VALUES["langpert"],
    "neighbours": [{"name": "N1", "evidence": "STRING 900"}],
    "max_edits": 5,
}
VALUES["acquire-paper"] = {
    "n": 3,
    "objective": "Learn.",
    "context": "K562",
    "context_text": "",
    "round": 1,
    "acquired": [],
    "pathway": None,
    "rows": [],
    "show": {"go": True, "relation": True, "summary": True, "uncertainty": False},
    "n_modules_min": 0,
    "cut": "",
}
VALUES["acquire"] = {
    **VALUES["acquire-paper"],
    "briefing": {"features": [], "more_features": 0, "meaning": "", "modules": [],
                 "rounds_left": None},
}  # fmt: skip


VALUES["rate"] = {
    "kind": "drug",
    "species": "human",
    "context": "A549",
    "context_text": "",
    "programs": [
        {"key": "isr", "name": "ISR", "definition": "d", "plus": "ASNS rise", "low": "-3",
         "high": "3"}
    ],
    "rows": [{"name": "MYC", "facts": "a gene"}],
    "reasons": True,
    "anew": True,
}  # fmt: skip
VALUES["perturbqa"] = {
    **{k: VALUES["rate"][k] for k in ("species", "context", "context_text", "programs", "reasons")},
    "subject": "MYC",
    "subject_facts": "a gene",
    "task": "dir",
    "alike": ["MAX"],
    "rows": [{"name": "ODC1", "facts": "", "evidence": "fell in MAX"}],
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_prompt_renders(name):
    system, user = load_prompt(name).render(**VALUES[name])
    assert (system.role, user.role) == ("system", "user")
    assert '{"' in user.content
    assert "JSON" in user.content
    assert "{%" not in user.content


def test_a_user_can_override_one_by_path(tmp_path):
    path = tmp_path / "mine.j2"
    path.write_text("{% block user %}Only {{ subject }}{% endblock %}")
    prompt = load_prompt(path)
    assert [m.content for m in prompt.render(subject="X")] == ["Only X"]
    assert prompt.hash != load_prompt("langpert").hash
    path.write_text("{% block user %}Now {{ subject }}{% endblock %}")
    assert load_prompt(path).hash != prompt.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% block user %}{{ nosuch }}{% endblock %}", "nosuch"),
        ("no blocks", "block user"),
        ("\n{% block user %}{% if %}{% endblock %}", "line 2"),
    ],
)
def test_mistakes_in_a_template_are_named(tmp_path, text, message):
    path = tmp_path / "bad.j2"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_prompt(path).render(subject="X")


def test_unknown_names_and_files():
    with pytest.raises(UnknownNameError, match="langpert"):
        load_prompt("langprt")
    with pytest.raises(InputError, match=r"none\.j2"):
        load_prompt("none.j2")
