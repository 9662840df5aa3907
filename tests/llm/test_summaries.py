"""Gene summaries: short, stored once, and honest about whose words they are."""

import json

from pertwise.llm import open_chat
from pertwise.llm.summaries import summarise
from pertwise.testing.server import ScriptedServer

LONG = " ".join(f"word{i}" for i in range(40))


def test_summaries(tmp_path):
    def script(asked):
        if "Gene BAD" in asked.first:
            return json.dumps({"summary": LONG})
        if "Gene LONG" in asked.first and asked.turn == 1:
            return json.dumps({"summary": LONG})
        return json.dumps({"summary": "Binds  DNA."})

    texts = {"GOOD": "text", "LONG": "text", "NONE": " ", "BAD": LONG}
    with ScriptedServer(script) as server:
        chat = open_chat(server.openai("m"), ledger=tmp_path / "l")
        found = summarise(chat, texts, max_reasks=1)
        assert "has 40 words, at most 20" in next(a.last for a in server.asked if a.turn == 2)
        count = server.count
        assert summarise(chat, texts, max_reasks=1) == found
        assert server.count == count == 5
    assert list(found) == list(texts)
    assert found["GOOD"].summary == found["LONG"].summary == "Binds DNA."
    assert found["GOOD"].source.startswith("m@")
    assert (found["NONE"].summary, found["NONE"].source) == ("", "text")
    assert found["BAD"].source == "text"
    assert found["BAD"].summary == " ".join(LONG.split()[:20])
    assert "40 words" in found["BAD"].problem
