import gzip

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.screen import Screen, simulate_screen
from pertwise.screen.simulate import responses


@pytest.fixture(scope="module")
def simulation():
    return simulate_screen(0, n_combinations=10, contexts=("A", "B"))


def test_same_seed_same_result_and_other_seed_not(simulation):
    again = simulate_screen(0, n_combinations=10, contexts=("A", "B"))
    np.testing.assert_array_equal(simulation.screen.responses, again.screen.responses)
    pd.testing.assert_frame_equal(simulation.screen.obs, again.screen.obs)
    for name, table in simulation.sources.items():
        pd.testing.assert_frame_equal(table, again.sources[name])
    other = simulate_screen(1, n_combinations=10, contexts=("A", "B"))
    assert not np.array_equal(simulation.screen.responses, other.screen.responses)


def test_knowledge_and_noise_settings_leave_the_truth_alone():
    base = simulate_screen(3, n_perturbations=40, n_features=60, n_pathways=4)
    other = simulate_screen(
        3, n_perturbations=40, n_features=60, n_pathways=4, noise=3.0, knowledge_completeness=0.3
    )
    np.testing.assert_array_equal(base.truth.effect, other.truth.effect)
    assert base.truth.complexes == other.truth.complexes
    assert len(other.sources["gene_go.tsv.gz"]) < len(base.sources["gene_go.tsv.gz"])


def test_noise_has_the_stated_variance(simulation):
    screen = simulation.screen
    error = screen.responses - simulation.truth.effect
    z2 = error**2 / screen.sampling_variance
    # 400 features x 420 rows of mean-1 variables whose rows share the (small) control noise.
    assert z2.mean() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(
        screen.obs["sampling_variance"], screen.sampling_variance.sum(1), rtol=1e-5
    )


def test_zero_noise_gives_the_truth():
    s = simulate_screen(5, n_perturbations=20, n_features=30, n_pathways=2, noise=0.0)
    np.testing.assert_allclose(s.screen.responses, s.truth.effect, atol=1e-6)


def test_partners_in_a_complex_respond_alike_and_more_than_strangers(simulation):
    genes = simulation.truth.genes
    strong = genes.index[genes["perturbed"] & ~genes["weak"]]
    names = list(simulation.screen.obs["perturbation"])
    row = {g: names.index(g) for g in strong}
    corr = np.corrcoef(simulation.truth.effect)
    partners = [
        corr[row[a], row[b]]
        for members in simulation.truth.complexes.values()
        for a in members
        for b in members
        if a < b and a in row and b in row
    ]
    everyone = corr[np.ix_(list(row.values()), list(row.values()))]
    assert np.median(partners) > np.median(everyone) + 0.3


def test_weak_perturbations_are_weaker(simulation):
    genes = simulation.truth.genes
    names = list(simulation.screen.obs["perturbation"])
    size = pd.Series((simulation.truth.effect**2).sum(1)[:200], index=names[:200])
    assert size[genes["weak"].reindex(size.index)].median() < 0.1 * size.median()


def test_two_hits_in_one_complex_are_less_than_additive():
    # One unit with two fully essential subunits: the second hit adds nothing.
    from pertwise.screen.simulate import _Structure

    model = _Structure(
        essentiality=np.array([[1.0], [1.0]]),
        unit_pathway=np.array([[1.0]]),
        pathway_graph=np.zeros((1, 1)),
        order=np.array([0]),
        specific=np.array([[2.0, 0.0]]),
        diffuse=np.zeros((1, 2)),
        unit_output=np.array([[0.0, 0.5]]),
        stress=np.zeros(2),
        own=np.zeros((2, 2)),
        strength=np.ones(2),
    )
    out = responses(model, np.array([[1.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.0, 0.0]]), np.ones(1))
    np.testing.assert_allclose(out[0], [-2 * np.tanh(1.5), -0.5])
    np.testing.assert_allclose(out[1], out[0])
    np.testing.assert_allclose(out[2], [-2 * np.tanh(1.5 * 0.75), -0.5 * 0.75])
    np.testing.assert_array_equal(out[3], 0.0)


def test_downstream_pathway_follows_its_upstream_and_gain_silences_it():
    from pertwise.screen.simulate import _Structure

    model = _Structure(
        essentiality=np.eye(2),
        unit_pathway=np.eye(2),
        pathway_graph=np.array([[0.0, -0.5], [0.0, 0.0]]),
        order=np.array([0, 1]),
        specific=np.eye(2),
        diffuse=np.zeros((2, 2)),
        unit_output=np.zeros((2, 2)),
        stress=np.zeros(2),
        own=np.zeros((2, 2)),
        strength=np.ones(2),
    )
    t = np.tanh(1.5)
    hit = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(responses(model, hit, np.ones(2)), [[-t, 0.5 * t]])
    np.testing.assert_allclose(responses(model, hit, np.array([1.0, 0.0])), [[-t, 0.0]])


def test_every_simulated_thing_says_so(simulation, tmp_path):
    assert simulation.screen.simulated
    assert "SIMULATED" in repr(simulation.screen)
    assert all(p.endswith("(simulated)") for p in simulation.truth.pathways)
    folder = simulation.write_sources(tmp_path / "knowledge")
    assert "do not exist" in (folder / "SIMULATED.txt").read_text()


@pytest.mark.shared
def test_sources_have_the_columns_of_the_public_tables(simulation, tmp_path, shared_data):
    folder = simulation.write_sources(tmp_path)
    for path in sorted((shared_data / "knowledge").glob("*.tsv.gz")):
        with gzip.open(path, "rt") as real, gzip.open(folder / path.name, "rt") as made:
            assert made.readline() == real.readline(), path.name
    assert list(folder.glob("hallmark_*.gmt"))
    assert list(folder.glob("reactome_*.gmt"))


def test_written_tables_are_equal_files_for_equal_seeds(simulation, tmp_path):
    one = simulation.write_sources(tmp_path / "1")
    two = simulation.write_sources(tmp_path / "2")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_completeness_is_the_share_of_true_facts_that_is_known():
    s = simulate_screen(2, n_perturbations=400, knowledge_completeness=0.6, knowledge_errors=0.0)
    true = sum(map(len, s.truth.complexes.values())) + sum(map(len, s.truth.pathways.values()))
    assert len(s.sources["gene_go.tsv.gz"]) / true == pytest.approx(0.6, abs=0.06)
    full = simulate_screen(2, n_perturbations=400, knowledge_completeness=1.0, knowledge_errors=0.0)
    sets = full.sources["reactome_simulated.symbols.gmt"].set_index("set")["genes"]
    for name, members in full.truth.complexes.items():
        assert tuple(sets[name].split("\t")) == members


def test_cells_are_counts_that_agree_with_the_screen():
    s = simulate_screen(4, n_perturbations=30, n_features=80, n_pathways=3, mean_cells=80)
    cells = s.cells(1, n_batches=2)
    assert (cells.X.data == np.rint(cells.X.data)).all()
    assert cells.obs["batch"].nunique() == 2
    x = np.log1p(cells.X.toarray() / cells.X.sum(axis=1).A1[:, None] * 160)
    control = x[(cells.obs["perturbation"] == "control").to_numpy()].mean(0)
    strongest = int((s.truth.effect**2).sum(1).argmax())
    label = s.screen.obs["perturbation"].iloc[strongest]
    delta = x[(cells.obs["perturbation"] == label).to_numpy()].mean(0) - control
    assert np.corrcoef(delta, s.truth.effect[strongest])[0, 1] > 0.6


def test_screen_survives_a_file(simulation, tmp_path):
    simulation.screen.save(tmp_path / "s.h5ad")
    import anndata

    back = Screen.from_anndata(anndata.read_h5ad(tmp_path / "s.h5ad"))
    np.testing.assert_array_equal(back.responses, simulation.screen.responses)
    assert back.simulated


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_perturbations": 2}, "at least 8 perturbations"),
        ({"n_pathways": 0}, "n_pathways = 0"),
        ({"knowledge_completeness": 1.5}, r"knowledge_completeness must lie in \[0, 1\], got 1.5"),
        ({"contexts": ("A", "A")}, "context names must be given and differ"),
        ({"n_perturbations": 8, "n_pathways": 2, "n_combinations": 99}, "fewer pairs"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        simulate_screen(0, **settings)


def test_a_small_screen_may_have_pathways_without_members():
    simulation = simulate_screen(3, n_perturbations=40, n_features=40, n_combinations=50)
    assert any(not members for members in simulation.truth.pathways.values())
    assert len(simulation.sources["omnipath_directed_signaling.tsv.gz"])
