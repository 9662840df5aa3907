"""Budgets are kept before money is spent, also by concurrent calls."""

import asyncio
import json

import pytest

from pertwise.errors import BudgetError, InputError
from pertwise.llm import Message, Price, open_chat, read_prices, run_sync
from pertwise.llm.account import Amount, MemoryAccount
from pertwise.llm.address import parse_address
from pertwise.llm.budget import Budget, find_price, prompt_tokens_at_most, prompt_tokens_expected
from pertwise.testing.server import Answer, ScriptedServer

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
    with pytest.raises(InputError, match="no such file"):
        read_prices(tmp_path / "no.json")


def test_own_table_is_named_by_the_environment_or_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("PERTWISE_API_KEY", "k" * 10)
    address = parse_address("new-model@https://h.example/v1")
    config, table = tmp_path / "pertwise.toml", tmp_path / "prices.json"
    monkeypatch.setenv("PERTWISE_CONFIG", str(config))
    monkeypatch.delenv("PERTWISE_PRICES", raising=False)
    assert find_price(address, {}) is None
    open_chat("new-model@https://h.example/v1", budget_tokens=10)
    table.write_text(json.dumps({"new-model": {"input": 2, "output": 8}}))
    config.write_text('prices = "prices.json"')
    assert find_price(address, {}).cost(10**6, 10**6) == 10
    open_chat("new-model@https://h.example/v1", budget_usd=1)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"new-model": {"input": 3, "output": 9}}))
    monkeypatch.setenv("PERTWISE_PRICES", str(other))
    assert find_price(address, {}).cost(10**6, 10**6) == 12
    assert find_price(address, {"new-model": Price(input=1, output=1)}).cost(10**6, 0) == 1
    monkeypatch.setenv("PERTWISE_PRICES", str(tmp_path / "gone.json"))
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        open_chat("new-model@https://h.example/v1")


def test_the_table_that_litellm_maintains_is_read(tmp_path):
    path = tmp_path / "model_prices_and_context_window.json"
    listed = {
        "sample_spec": {"input_cost_per_token": "dollars", "mode": "one of chat, embedding"},
        "m": {"input_cost_per_token": 1e-06, "output_cost_per_token": 1e-05, "mode": "chat"},
        "picture": {"output_cost_per_image": 0.04},
    }
    path.write_text(json.dumps(listed))
    got = read_prices(path)
    assert list(got) == ["m"]
    assert got["m"].cost(10**6, 10**6) == pytest.approx(11.0)


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
    # What a server may wrap around: 16 a message, 128 a request.
    assert prompt_tokens_at_most(requests[1]) == 202 + 16 + 128
    assert (estimate.n_requests, estimate.n_in_ledger) == (4, 2)
    assert estimate.prompt_tokens == 2 * 63
    assert estimate.tokens_at_most == 2 * (346 + 100)
    assert estimate.cost_usd_prompt == pytest.approx(2 * 63e-6)
    assert estimate.cost_usd_at_most == pytest.approx(2 * (346e-6 + 1000e-6))
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
        # A call is reserved at 346 + 50 and uses 150: the 5th starts at 600 spent, the 6th cannot.
        assert server.paid == 5
        assert chat.budget.spent.tokens == 750
        # What was answered is free now; the rest goes on under a larger budget.
        more = open_chat(server.address(protocol, "m"), ledger=tmp_path / "l.sqlite", max_tokens=50)
        run_sync(more.complete_many([ask(more, i) for i in range(20)]))
        assert server.paid == 20


def test_money_budget(tmp_path):
    def script(asked):
        return Answer("ok", prompt_tokens=100, completion_tokens=100)

    with ScriptedServer(script) as server:
        # Each call costs 100e-6 + 1000e-6 dollars and is reserved at 346e-6 + 1000e-6.
        chat = open_chat(
            server.openai("m"), prices=PRICES, budget_usd=0.0036, max_tokens=100, concurrency=1
        )
        with pytest.raises(BudgetError, match=r"\$0\.0033 of \$0\.0036"):
            run_sync(chat.complete_many([ask(chat, i) for i in range(9)]))
        assert server.paid == 3
        assert chat.budget.spent.usd == pytest.approx(0.0033)


def test_waiting_for_calls_under_way_instead_of_refusing():
    def script(asked):
        return Answer("ok", prompt_tokens=50, completion_tokens=1, delay=0.02)

    with ScriptedServer(script) as server:
        # One reservation is 346 + 500 of 1250 tokens, so only one call fits at a time.
        chat = open_chat(server.openai("m"), budget_tokens=1250, max_tokens=500)
        run_sync(chat.complete_many([ask(chat, i) for i in range(8)]))
        assert server.paid == 8
        assert server.most_at_once == 1
        assert chat.budget.spent.tokens == 8 * 51


def test_a_resumed_run_keeps_its_budget(tmp_path):
    with ScriptedServer(lambda a: Answer("ok", prompt_tokens=100, completion_tokens=1)) as server:
        for _ in range(3):
            chat = open_chat(
                server.openai("m"),
                ledger=tmp_path / "l.sqlite",
                run="panel",
                budget_tokens=704,
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
    account = MemoryAccount()
    budget, most, nothing = Budget(100, None, account), Amount(90), Amount()

    async def scenario():
        first = await budget.reserve(most)
        waiting = asyncio.ensure_future(budget.reserve(most))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        account.release(first, nothing, nothing)
        account.release(await waiting, most, nothing)
        with pytest.raises(BudgetError):
            await budget.reserve(Amount(11))
        await budget.reserve(Amount(10))

    asyncio.run(scenario())


def test_usage_is_estimated_when_the_server_reports_none():
    with ScriptedServer(lambda a: Answer("four word answer here", usage=False)) as server:
        chat = open_chat(server.openai("m"))
        reply = run_sync(chat.complete(ask(chat, 1)))
        assert reply.degraded == ("usage_estimated",)
        assert reply.prompt_tokens == 63
        assert reply.completion_tokens == 8
