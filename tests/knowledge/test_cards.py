"""Gene cards and sentences kept from a language model."""

import subprocess
import sys

import pytest
from knowledge.small import write_small

from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, build_knowledge, store_summaries


def test_cards_are_keyed_by_the_input_name(small):
    cards = small.cards(["SINISTER1", "left4", "nope"])
    one = cards["SINISTER1"]
    assert (one.symbol, one.full_name, one.aliases) == (
        "LEFT1",
        "left factor LEFT1",
        ("SINISTER1",),
    )
    assert one.summary == "Builds sinister widgets."
    assert [t.id for t in one.go] == ["GO:0000011"]
    assert (one.go[0].depth, one.go[0].n_genes) == (3, 3)
    assert [t.id for t in cards["left4"].go] == ["GO:0000010"]
    assert cards["nope"].known is False
    assert cards["nope"].symbol == "nope"


def test_sentences_of_a_model_are_kept_and_win(tmp_path):
    sources = tmp_path / "s"
    sources.mkdir()
    folder = build_knowledge(write_small(sources), tmp_path / "k")
    before = Knowledge.open(folder).fingerprint()
    assert store_summaries(folder, {"sinister1": "Makes the left widget."}, "some-model") == 1
    assert store_summaries(folder, {"LEFT1": "Makes it.", "LEFT2": "Helps."}, "other-model") == 2
    k = Knowledge.open(folder)
    assert k.cards(["LEFT1"])["LEFT1"].summary == "Makes it."
    assert k.cards(["LEFT3"])["LEFT3"].summary == "Builds sinister widgets."
    table = k.table("summaries_llm").set_index("symbol")
    assert table.loc["LEFT2", "model"] == "other-model"
    assert k.fingerprint() != before
    build_knowledge(sources, folder, overwrite=True)
    assert Knowledge.open(folder).cards(["LEFT2"])["LEFT2"].summary == "Helps."
    with pytest.raises(InputError, match="has 21 words"):
        store_summaries(folder, {"LEFT1": "word " * 21}, "m")
    with pytest.raises(InputError, match="'nope' is not a gene"):
        store_summaries(folder, {"nope": "A text."}, "m")


def test_simulated_sources_label_the_folder(tmp_path):
    sources = tmp_path / "s"
    sources.mkdir()
    write_small(sources)
    assert Knowledge.open(build_knowledge(sources, tmp_path / "a")).label == ""
    (sources / "SIMULATED.txt").write_text("invented")
    assert Knowledge.open(build_knowledge(sources, tmp_path / "b")).label == "simulated"


def test_a_card_costs_no_import_of_pandas_or_scipy(small):
    code = (
        "import sys\n"
        "from pertwise.knowledge.cards import GeneCards\n"
        "from pertwise.knowledge.tables import Tables\n"
        f"cards = GeneCards(Tables.open({small.path!r})).cards({list(small.genes()[:5])!r})\n"
        "assert all(c.known for c in cards.values())\n"
        "print([m for m in ('pandas', 'scipy', 'pertwise.llm.client') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
