"""Random sources of knowledge: a folder, or one clear line; never another kind of error."""

import pytest
from fuzzing import attempt, fuzz
from hypothesis import given
from hypothesis import strategies as st
from knowledge import raw

from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.genes.pathways import read_gene_list

SOURCES = {
    "h.all.symbols.gmt": raw.HALLMARK,
    "go-basic.obo": raw.OBO,
    "hgnc_complete_set.txt": raw.HGNC,
    "goa_human.gaf": raw.GAF,
    "gencode.gtf": raw.GTF,
    "9606.protein.links.detailed.txt": raw.STRING_LINKS,
    "omnipath.tsv": raw.OMNIPATH,
}
CELLS = ["", "NA", "-1", "1e999", "TP53", "GO:0006783", "9606.ENSP1", "\x00", "é", '"', "[Term]"]


def test_every_file_of_the_package_is_under_version_control():
    """A pattern of ignored files once hid this folder from git and from wheels."""
    import shutil
    import subprocess
    from pathlib import Path

    root = Path(__file__).parents[3]
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("no git checkout")
    found = subprocess.run(
        ["git", "-C", str(root), "ls-files", "--others", "--ignored", "--exclude-standard",
         "--", "src", "tests"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    lost = [f for f in found if "__pycache__" not in f and ".hypothesis" not in f
            and f.endswith((".py", ".json", ".toml", ".j2", ".html"))]  # fmt: skip
    assert not lost


@st.composite
def damaged(draw, text):
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(["drop", "repeat", "cell", "cut", "line", "swap"]))
        if how == "drop" and len(lines) > 1:
            del lines[at]
        elif how == "repeat":
            lines.insert(at, lines[at])
        elif how == "cell":
            cells = lines[at].split("\t")
            cells[draw(st.integers(0, len(cells) - 1))] = draw(
                st.sampled_from(CELLS) | st.text(max_size=8)
            )
            lines[at] = "\t".join(cells)
        elif how == "cut":
            lines[at] = lines[at][: draw(st.integers(0, max(len(lines[at]), 1)))]
        elif how == "line":
            lines.insert(at, draw(st.text(max_size=30)))
        else:
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


@pytest.mark.parametrize("name", SOURCES)
@fuzz
@given(data=st.data())
def test_damaged_source(name, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    path = folder / name
    path.write_bytes(data.draw(damaged(SOURCES[name])).encode("utf-8", "surrogatepass"))

    def through():
        build_knowledge([path], folder / "kb")
        known = Knowledge.open(folder / "kb")
        known.genes()
        known.resolve(["TP53"])

    attempt(through)
    if name.endswith(".gmt"):
        attempt(lambda: read_gene_list(path))
