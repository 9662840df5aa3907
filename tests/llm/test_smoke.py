"""The shortest way through, with both protocols."""

import pytest

from pertwise.llm import Ledger, Message, open_chat, run_sync
from pertwise.select import Query
from pertwise.select.chat.similar import langpert_selector
from pertwise.testing.server import ScriptedServer, listed

GENES = [f"GENE{i:02d}" for i in range(20)]


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_ask_store_and_ask_again(tmp_path, protocol):
    with ScriptedServer() as server:
        chat = open_chat(server.address(protocol), ledger=tmp_path / "l.sqlite")
        request = chat.request((Message(role="user", content="ping"),))
        first, again = (run_sync(chat.complete(request)) for _ in range(2))
        assert first.text == again.text == "pong"
        assert (first.from_ledger, again.from_ledger, server.count) == (False, True, 1)
        assert len(Ledger(tmp_path / "l.sqlite")) == 1


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_select_neighbours(protocol):
    with ScriptedServer() as server:
        selector = langpert_selector(open_chat(server.address(protocol)))
        chosen = selector.select(Query("GENE03", "K562"), GENES, 10)
        assert chosen.items == tuple(g for g in GENES if g != "GENE03")[:10]
        assert not chosen.repairs
        shown = listed(server.asked[0].first)
        assert sorted(shown) == [g for g in GENES if g != "GENE03"]
        assert shown != sorted(shown)
        assert "erythroid" in server.asked[0].first
