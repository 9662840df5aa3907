"""`pw.plot`: figures say what the result says, label what is simulated, refuse what is absent."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise.cli.main import app
from pertwise.errors import InputError, UnknownNameError
from pertwise.report.page import Page
from pertwise.report.style import figures_as

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def made():
    simulated = pw.simulate(0, n_perturbations=40, n_features=20)
    screen = simulated.screen
    found = pw.predict(screen, screen.perturbations[:4], method="training-mean", folds=0)
    return screen, found


def words(ax):
    legend = ax.get_legend()
    return [] if legend is None else [t.get_text() for t in legend.get_texts()]


def test_predicted_against_measured_draws_a_point_a_feature_and_says_r(made):
    screen, found = made
    name = found.prediction.perturbations[0]
    ax = pw.plot.predicted_against_measured(found, screen, [name])
    points = ax.collections[0].get_offsets()
    assert len(points) == 20
    np.testing.assert_allclose(points[:, 0], found.prediction.mean[0], rtol=1e-6)
    np.testing.assert_allclose(points[:, 1], screen.of_perturbations([name]).responses[0])
    r = np.corrcoef(points[:, 0], points[:, 1])[0, 1]
    assert words(ax) == [f"{name} (r = {r:.2f})"]
    assert "SIMULATED" in ax.get_title(loc="left")


def test_heat_map_keeps_the_order_asked_for_and_is_symmetric_about_zero(made):
    screen, found = made
    names = list(found.prediction.perturbations[2:0:-1])
    ax = pw.plot.program_heat_map(found, names, found.prediction.features[:3])
    image = ax.images[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    np.testing.assert_allclose(image.get_array(), found.prediction.mean[[2, 1], :3])
    low, high = image.get_clim()
    assert low == -high
    assert len(pw.plot.program_heat_map(screen, most=5).images[0].get_array()) == 5


def test_what_is_not_there_is_refused_by_name(made):
    screen, found = made
    with pytest.raises(UnknownNameError, match="NOSUCH"):
        pw.plot.program_heat_map(found, ["NOSUCH"])
    with pytest.raises(UnknownNameError, match="NOSUCH"):
        pw.plot.predicted_against_measured(found, screen, ["NOSUCH"])
    others = screen.of_perturbations(screen.perturbations[10:])
    with pytest.raises(InputError, match="no perturbation"):
        pw.plot.predicted_against_measured(found, others)


def rounds(**changes):
    table = {
        "target": "heme", "predictor": "kernel ridge", "strategy": ["random"] * 4, "metric": "mse",
        "seed": [0, 0, 1, 1], "n_acquired": [20, 40, 20, 40], "value": [1.0, 0.5, 3.0, 1.5],
    }  # fmt: skip
    return pd.DataFrame(table | changes)


def test_learning_curves_are_means_over_seeds():
    ax = pw.plot.learning_curves(rounds())
    line = ax.lines[0]
    assert list(line.get_xdata()) == [20, 40]
    assert list(line.get_ydata()) == [2.0, 1.0]
    assert words(ax) == ["random"]
    assert ax.get_ylabel() == "mse"


def test_learning_curves_refuse_other_tables_and_unknown_names(tmp_path):
    with pytest.raises(UnknownNameError, match="cholesterol"):
        pw.plot.learning_curves(rounds(), target="cholesterol")
    with pytest.raises(InputError, match="n_acquired"):
        pw.plot.learning_curves(rounds().drop(columns="n_acquired"))
    with pytest.raises(InputError, match="no such file"):
        pw.plot.learning_curves(tmp_path)


def test_figures_of_a_page_are_written_in_the_formats_asked_for(tmp_path):
    import matplotlib.pyplot as plt

    def page(formats):
        with figures_as(formats):
            made = Page("A page", folder=tmp_path / str(formats))
            figure, ax = plt.subplots()
            ax.plot([0, 1], [0, 1])
            made.figure(figure, "line")
        return sorted(p.name for p in (tmp_path / str(formats)).rglob("*.*") if p.is_file())

    assert page("png,pdf") == ["line.pdf", "line.png"]
    assert page(None) == ["line.svg"]
    assert page("svg") == ["line.svg"]
    with pytest.raises(UnknownNameError, match="bmp"):
        page("bmp")


def test_predict_writes_its_figures(made, tmp_path):
    screen, _ = made
    file = tmp_path / "screen.h5ad"
    screen.to_anndata().write_h5ad(file)
    words = ["predict", str(file), "--genes", screen.perturbations[0], "--method", "training-mean"]
    words += ["--folds", "0", "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, [*words, "--figures", "tiff"])
    assert isinstance(refused.exception, UnknownNameError)
    assert not (tmp_path / "out").exists()
    found = CliRunner().invoke(app, [*words, "--figures", "png"])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "out" / "figures" / "heat_map.png").is_file()


def test_saved_figures_are_the_formats_asked_for_and_the_same_every_time(made, tmp_path):
    _, found = made
    draw = {
        "heat": lambda: pw.plot.program_heat_map(found),
        "nothing": lambda: pw.plot.predicted_against_measured(
            found, made[0].of_perturbations(made[0].perturbations[10:])
        ),
    }
    first = pw.plot.save(draw, tmp_path / "a", "svg,png,pdf")
    again = pw.plot.save(draw, tmp_path / "b", "svg, PNG,pdf,svg")
    assert sorted(first) == sorted(again) == ["heat.pdf", "heat.png", "heat.svg"]
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for name, path in first.items():
        assert path.read_bytes().startswith(starts[name[-3:]])
        assert path.read_bytes() == again[name].read_bytes()
    for wrong in ("jpg", "", "svg,bmp"):
        with pytest.raises(InputError):
            pw.plot.save(draw, tmp_path, wrong)
