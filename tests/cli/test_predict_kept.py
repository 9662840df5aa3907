"""A second `pertwise predict` on the same data does not fit again, and says the same."""

import json

import pytest
from drug_example import drug_frame, drug_screen
from typer.testing import CliRunner

from pertwise.arrays import gaussian_process
from pertwise.cli.main import app
from pertwise.knowledge.drugs import chemistry

RUNNER = CliRunner()
FILES = ("prediction.csv", "neighbours.csv", "prediction.json")


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """Runs the command on files of its own; counts fits and parsed molecules."""
    monkeypatch.setenv("PERTWISE_CACHE", str(tmp_path / "cache"))
    drug_screen().save(tmp_path / "screen.h5ad")
    drug_frame().to_csv(tmp_path / "drugs.csv", index=False)
    done = {"fits": 0, "molecules": 0}
    likelihood, parse = gaussian_process.negative_log_likelihood, chemistry._parse

    def fit(*args):
        done["fits"] += 1
        return likelihood(*args)

    def parsed(text):
        done["molecules"] += 1
        return parse(text)

    monkeypatch.setattr(gaussian_process, "negative_log_likelihood", fit)
    monkeypatch.setattr(chemistry, "_parse", parsed)

    def run(*more):
        chemistry.structure.cache_clear()
        done.update(fits=0, molecules=0)
        out = tmp_path / "out"
        ended = RUNNER.invoke(
            app,
            ["predict", str(tmp_path / "screen.h5ad"), "--drugs", str(tmp_path / "drugs.csv"),
             "--drug", "Lapatinib", "--context", "A549", "--folds", "0", "--out", str(out), *more],
        )  # fmt: skip
        assert ended.exit_code == 0, ended.output
        return [(out / f).read_text() for f in FILES], dict(done)

    run.folder = tmp_path
    return run


def test_the_second_run_says_the_same_without_a_fit(setting):
    first, worked = setting()
    assert worked["fits"] > 0 < worked["molecules"]
    second, again = setting()
    assert second == first
    assert again == {"fits": 0, "molecules": 0}
    anew, worked_anew = setting("--fresh")
    assert anew == first
    assert worked_anew == worked


def test_another_drug_that_was_not_measured_needs_no_other_fit(setting):
    setting("--drug", "O=C(O)c1ccccc1")
    _, again = setting("--drug", "O=C(O)c1ccccc1")
    assert again["fits"] == 0


def test_a_changed_screen_table_or_setting_is_fitted_anew(setting):
    first, _ = setting()
    folder = setting.folder
    changed, worked = setting("--set", "prior=0.5")
    assert worked["fits"] > 0
    assert changed[0] != first[0]

    drug_screen(seed=5).save(folder / "screen.h5ad")
    changed, worked = setting()
    assert worked["fits"] > 0
    assert changed[0] != first[0]
    drug_screen().save(folder / "screen.h5ad")

    table = drug_frame()
    table.loc[table["drug"] == "Vorinostat", "smiles"] = "CCCCCCCC"
    table.to_csv(folder / "drugs.csv", index=False)
    changed, worked = setting()
    assert worked["fits"] > 0 < worked["molecules"]
    assert changed[0] != first[0]

    drug_frame().to_csv(folder / "drugs.csv", index=False)
    back, again = setting()
    assert json.loads(back[2])["prediction"] == json.loads(first[2])["prediction"]
    assert back[0] == first[0]
    assert again["fits"] == 0


def test_damaged_copies_are_made_again(setting):
    first, worked = setting()
    for path in (setting.folder / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    again, done = setting()
    assert again == first
    assert done == worked


def test_a_place_that_cannot_be_written_to_changes_nothing(setting, monkeypatch):
    first, worked = setting()
    (setting.folder / "file").write_text("")
    monkeypatch.setenv("PERTWISE_CACHE", str(setting.folder / "file" / "cache"))
    again, done = setting()
    assert again == first
    assert done == worked


def test_a_rejected_smiles_is_reported_by_both_runs(setting):
    table = drug_frame()
    table.loc[table["drug"] == "Ethanol", "smiles"] = "C(C"
    table.to_csv(setting.folder / "drugs.csv", index=False)
    first, _ = setting("--drug", "Ethanol")
    second, again = setting("--drug", "Ethanol")
    assert second == first
    assert again["fits"] == 0
