"""Budgets are kept before money is spent, also by concurrent calls."""

import asyncio
import json

import pytest
from scripted_llm import Answer, ScriptedServer

from pertwise.errors import BudgetError, InputError
from pertwise.llm import Message, Price, open_chat, read_prices, run_sync
from pertwise.llm.address import parse_address
from pertwise.llm.budget import Budget, find_price, prompt_tokens_at_most, prompt_tokens_expected

PRICES = {"m": Price(input=1.0, output=10.0)}


def ask(chat, i, text="x" * 200):
    return chat.request((Message(role="user", content=f"{i} {text}"),))


def test_price_lookup_order():
    local = parse_address("m@http://127.0.0.1:1/v1")
    assert find_price(local, {}).cost(10**6, 10**6) == 0
    assert find_price(local, PRICES).cost(10**6, 10**6) == 11.0
    dated = find_price(parse_address("openai:gpt-4o-mini-2024-07-18"), {})
    assert dated == find_price(parse_address("openai:gpt-4o-mini"), {})
    assert dated.as_of
    # The same name on another host is another product.
    assert find_price(parse_address("gpt-4o-mini@https://h.example/v1"), {}) is None
    assert find_price(parse_address("openai:gpt-4o-mini-audio"), {}) is None


def test_money_budget_without_a_price_is_refused(monkeypatch):
    monkeypatch.setenv("PERTWISE_API_KEY", "k" * 10)
    with pytest.raises(BudgetError, match=r"no price is known for model 'm' at h\.example"):
        open_chat("m@https://h.example/v1", budget_usd=1)
    open_chat("m@https://h.example/v1", budget_tokens=10)
    open_chat("m@https://h.example/v1", budget_usd=1, prices=PRICES)


def test_price_file(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"m": {"input": 1, "output": 10}}))
    assert read_prices(path) == PRICES
    path.write_text('{"m": 3}')
    with pytest.raises(InputError, match=r"p\.json"):
        read_prices(path)
    with pytest.raises(InputError, match="does not exist"):
        read_prices(tmp_path / "no.json")


def test_estimate_by_hand(tmp_path):
    with ScriptedServer() as server:
        chat = open_chat(
            server.openai("m"), prices=PRICES, max_tokens=100, ledger=tmp_path / "l.sqlite"
        )
        requests = [ask(chat, i) for i in range(3)]
        run_sync(chat.complete(requests[0]))
        estimate = chat.estimate([*requests, requests[1]])
        assert server.count == 1
    # bytes: 202 of text + 16 a message
    assert prompt_tokens_expected(requests[1]) == 63
    assert prompt_tokens_at_most(requests[1]) == 109
    assert (estimate.n_requests, estimate.n_in_ledger) == (4, 2)
    assert estimate.prompt_tokens == 2 * 63
    assert estimate.tokens_at_most == 2 * (109 + 100)
    assert estimate.cost_usd_prompt == pytest.approx(2 * 63e-6)
    assert estimate.cost_usd_at_most == pytest.approx(2 * (109e-6 + 1000e-6))
    assert "4 requests, 2 already in the ledger, 2 to send" in str(estimate)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_concurrent_calls_cannot_overshoot(tmp_path, protocol):
    def script(asked):
        return Answer("ok", prompt_tokens=100, completion_tokens=50, delay=0.02)

    with ScriptedServer(script) as server:
        chat = open_chat(
            server.address(protocol, "m"),
            ledger=tmp_path / "l.sqlite",
            max_tokens=50,
            budget_tokens=1000,
            concurrency=8,
        )
        with pytest.raises(BudgetError, match="of 1000 tokens used"):
            run_sync(chat.complete_many([ask(chat, i) for i in range(20)]))
        # A call is reserved at 109 + 50 and uses 150: the 6th starts at 750 spent, the 7th cannot.
        assert server.paid == 6
        assert chat.budget.spent.tokens == 900
        # What was answered is free now; the rest goes on under a larger budget.
        more = open_chat(server.address(protocol, "m"), ledger=tmp_path / "l.sqlite", max_tokens=50)
        run_sync(more.complete_many([ask(more, i) for i in range(20)]))
        assert server.paid == 20


def test_money_budget(tmp_path):
    def script(asked):
        return Answer("ok", prompt_tokens=100, completion_tokens=100)

    with ScriptedServer(script) as server:
        # Each call costs 100e-6 + 1000e-6 dollars and is reserved at 109e-6 + 1000e-6.
        chat = open_chat(
            server.openai("m"), prices=PRICES, budget_usd=0.0034, max_tokens=100, concurrency=1
        )
        with pytest.raises(BudgetError, match=r"\$0\.0033 of \$0\.0034"):
            run_sync(chat.complete_many([ask(chat, i) for i in range(9)]))
        assert server.paid == 3
        assert chat.budget.spent.usd == pytest.approx(0.0033)


def test_waiting_for_calls_under_way_instead_of_refusing():
    def script(asked):
        return Answer("ok", prompt_tokens=10, completion_tokens=1, delay=0.02)

    with ScriptedServer(script) as server:
        # One reservation is 109 + 800 of 1000 tokens, so only one call fits at a time.
        chat = open_chat(server.openai("m"), budget_tokens=1000, max_tokens=800)
        run_sync(chat.complete_many([ask(chat, i) for i in range(8)]))
        assert server.paid == 8
        assert server.most_at_once == 1
        assert chat.budget.spent.tokens == 88


def test_a_resumed_run_keeps_its_budget(tmp_path):
    with ScriptedServer(lambda a: Answer("ok", prompt_tokens=100, completion_tokens=0)) as server:
        for _ in range(3):
            chat = open_chat(
                server.openai("m"),
                ledger=tmp_path / "l.sqlite",
                run="panel",
                budget_tokens=500,
                max_tokens=1,
            )
            with pytest.raises(BudgetError):
                run_sync(chat.complete_many([ask(chat, i) for i in range(9)]))
        assert server.paid == 4
        other = open_chat(
            server.openai("m"), ledger=tmp_path / "l.sqlite", run="b", budget_tokens=500
        )
        assert other.budget.spent.tokens == 0


def test_failed_calls_give_their_reservation_back():
    budget = Budget(100, None)

    async def scenario():
        await budget.reserve(90, 0.0)
        waiting = asyncio.ensure_future(budget.reserve(90, 0.0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        budget.settle(90, 0.0, 0, 0.0)
        await waiting
        budget.settle(90, 0.0, 90, 0.0)
        with pytest.raises(BudgetError):
            await budget.reserve(11, 0.0)
        await budget.reserve(10, 0.0)

    asyncio.run(scenario())


def test_usage_is_estimated_when_the_server_reports_none():
    with ScriptedServer(lambda a: Answer("four word answer here", usage=False)) as server:
        chat = open_chat(server.openai("m"))
        reply = run_sync(chat.complete(ask(chat, 1)))
        assert reply.degraded == ("usage_estimated",)
        assert reply.prompt_tokens == 63
        assert reply.completion_tokens == 8
