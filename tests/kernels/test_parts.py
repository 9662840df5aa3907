"""Every kernel that can be named passes the shipped check; one's own works for genes and drugs."""

import pytest
from drug_example import drug_frame, drug_knowledge, drug_screen

from pertwise import parts
from pertwise.errors import InputError
from pertwise.kernels.known import DRUG_KERNELS, kernel
from pertwise.knowledge import Knowledge
from pertwise.models.methods import model
from pertwise.select.words import selector_from
from pertwise.testing import check_kernel

ARGUMENT = {"features": ":go", "emb": ":text", "diffusion": ":string"}
COMPOUNDS = tuple(k.replace("_", "-") for k in DRUG_KERNELS)
OWN = '''
import numpy as np
from scipy.sparse import csr_matrix

class First:
    """Alike by the first letter."""
    kinds, source = ("first letter",), "names"
    def rows(self, kind, names):
        out = np.zeros((len(names), 128))
        out[np.arange(len(names)), [min(ord(n[0]), 127) for n in names]] = 1
        return csr_matrix(out)

class Near:
    """Alike by how near the first letters are."""
    name = "near letters"
    def between(self, rows, others, pool):
        a, b = ([ord(n[0]) for n in names] for names in (rows, others))
        return np.exp(-np.abs(np.subtract.outer(np.array(a, float), np.array(b, float))) / 5)
    def missing(self, names):
        return ()
'''


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return file


@pytest.fixture(scope="module")
def both(simulated, tmp_path_factory):
    """A folder of genes and a table of drugs whose targets are some of these genes."""
    screen, knowledge = simulated
    frame = drug_frame()
    genes = sorted(screen.perturbations)
    frame["targets"] = [
        ", ".join(genes[3 * i + j] for j, t in enumerate(row.split(",")) if t.strip())
        for i, row in enumerate(frame["targets"].fillna(""))
    ]
    file = tmp_path_factory.mktemp("drugs") / "drugs.csv"
    frame.to_csv(file, index=False)
    return Knowledge.open(knowledge.path, drugs=[file])


@pytest.mark.parametrize("name", parts.names("kernel"))
def test_every_kernel_of_the_registry(name, both, simulated):
    names = simulated[0].perturbations[:8]
    if name in COMPOUNDS:
        known = kernel(both, name)
        names = [n for n in both.drugs.cards if n not in known.missing(list(both.drugs.cards))][:8]
    check_kernel(parts.load("kernel", name + ARGUMENT.get(name, ""), knowledge=both), names)


@pytest.mark.parametrize("name", ["First", "Near"])
def test_ones_own(name, own, simulated):
    use = f"{own}:{name}"
    check_kernel(parts.load("kernel", use), simulated[0].perturbations[:8])
    assert parts.describe("kernel", use).about.startswith("Alike by")
    drugs, known = drug_screen(), drug_knowledge()
    for kernels in ([use], ["chemistry", use]):
        ridge = model("kernel-ridge", kernels=kernels).fit(drugs, known)
        found = ridge.predict(["Aspirin"], "A549")
        assert found.support["fallback"].tolist() == [""]
        assert any(name.lower() in k.lower() for k in ridge.chosen.weights)
    picked = selector_from(f"kernel:{use}")(known, drugs)
    from pertwise.select import Query

    names = list(drugs.perturbations)
    assert len(picked.select(Query(names[0]), names, 3).items) > 0


def test_similarities_cannot_be_stacked_with_feature_rows(own, simulated):
    screen, knowledge = simulated
    with pytest.raises(InputError, match=r"has no feature rows, only similarities"):
        model("multi-kernel", kernels=["go", f"{own}:Near"]).fit(screen, knowledge)


def test_sources_alone_also_over_several_contexts(own):
    source = parts.load("kernel", f"{own}:First")
    made = model("multi-kernel", kernels=(), sources=[source])
    found = made.fit(drug_screen(), drug_knowledge())
    assert next(k for k in found.chosen.weights if "context" not in k) == "first letter"
    assert found.predict(["Aspirin"], "A549").support["fallback"].tolist() == [""]
