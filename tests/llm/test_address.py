"""Addresses and keys: where a key may go, and that it never shows."""

import pytest

from pertwise.errors import InputError
from pertwise.llm.address import Redactor, find_key, key_variables, parse_address, redactor_for


@pytest.mark.parametrize(
    ("text", "protocol", "model", "url"),
    [
        ("qwen3:8b@http://localhost:11434/v1", "openai", "qwen3:8b", "http://localhost:11434/v1"),
        ("m@http://10.0.0.2:8000", "openai", "m", "http://10.0.0.2:8000/v1"),
        ("@cf/meta/x@https://a.b/ai/v1/", "openai", "@cf/meta/x", "https://a.b/ai/v1"),
        ("openai:gpt-4.1", "openai", "gpt-4.1", "https://api.openai.com/v1"),
        ("ollama:qwen3:8b", "openai", "qwen3:8b", "http://localhost:11434/v1"),
        ("anthropic:claude-x", "anthropic", "claude-x", "https://api.anthropic.com"),
        ("anthropic:c@http://h:1/v1", "anthropic", "c", "http://h:1"),
        (
            "d@https://x.openai.azure.com/openai/v1",
            "openai",
            "d",
            "https://x.openai.azure.com/openai/v1",
        ),
    ],
)
def test_forms(text, protocol, model, url):
    address = parse_address(text)
    assert (address.protocol, address.model, address.url) == (protocol, model, url)


def test_query_is_sent_but_not_part_of_the_address():
    address = parse_address(
        "d@https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21"
    )
    assert address.query == {"api-version": "2024-10-21"}
    assert "2024" not in str(address)


@pytest.mark.parametrize("text", ["gpt-4", "m@localhost:8000", "@http://h/v1", "m@http:///v1", ""])
def test_unusable_addresses_say_how_to_write_one(text):
    with pytest.raises(InputError, match="MODEL@URL"):
        parse_address(text)


def test_password_in_url_is_refused_without_echo():
    with pytest.raises(InputError) as caught:
        parse_address("m@https://user:hunter22@h/v1")
    assert "hunter22" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        parse_address("m@user:hunter22@h")
    assert "hunter22" not in str(caught.value)


def test_a_providers_key_goes_to_that_provider_only(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, f"secret-{name}")
    monkeypatch.delenv("PERTWISE_API_KEY", raising=False)
    assert find_key(parse_address("openai:m")) == "secret-OPENAI_API_KEY"
    assert find_key(parse_address("anthropic:m")) == "secret-ANTHROPIC_API_KEY"
    azure = parse_address("m@https://x.openai.azure.com/openai/v1")
    assert find_key(azure) == "secret-AZURE_OPENAI_API_KEY"
    elsewhere = parse_address("m@https://api.evil.example/v1")
    with pytest.raises(InputError, match="PERTWISE_API_KEY_API_EVIL_EXAMPLE or PERTWISE_API_KEY"):
        find_key(elsewhere)
    assert find_key(parse_address("m@http://127.0.0.1:1/v1")) == "not-needed"


def test_a_hosts_own_variable_comes_first(monkeypatch):
    address = parse_address("m@https://gpu.lab.example:8443/v1")
    assert key_variables(address) == ("PERTWISE_API_KEY_GPU_LAB_EXAMPLE", "PERTWISE_API_KEY")
    monkeypatch.setenv("PERTWISE_API_KEY", "general")
    assert find_key(address) == "general"
    monkeypatch.setenv("PERTWISE_API_KEY_GPU_LAB_EXAMPLE", "special")
    assert find_key(address) == "special"


def test_redaction():
    redact = Redactor(["topsecretkey", "topsecret"])
    assert redact("a topsecretkey, topsecret b") == "a [redacted], [redacted] b"
    assert redact("key sk-abcdefgh12345 there") == "key [redacted] there"
    assert "abcdefgh" not in redact("Authorization: Bearer abcdefghij.klm")
    assert redact.literal("sk-abcdefgh12345 stays, topsecretkey goes").endswith("[redacted] goes")
    assert "topsecret" not in repr(redact)
    address = parse_address("m@https://h/v1?code=abcdefgh99")
    assert redactor_for(address, "k" * 9)("x abcdefgh99") == "x [redacted]"
