"""How do we ask? Chat back ends, prompt templates, typed answers, the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy

# Not lazily: `converse` is also the name of its module.
from pertwise.llm.converse import Conversation, converse

if TYPE_CHECKING:
    from pertwise.llm.address import Address as Address
    from pertwise.llm.address import key_variables as key_variables
    from pertwise.llm.address import parse_address as parse_address
    from pertwise.llm.base import Chat as Chat
    from pertwise.llm.base import ChatReply as ChatReply
    from pertwise.llm.base import ChatRequest as ChatRequest
    from pertwise.llm.base import FatalChatError as FatalChatError
    from pertwise.llm.base import Message as Message
    from pertwise.llm.budget import Estimate as Estimate
    from pertwise.llm.budget import Price as Price
    from pertwise.llm.budget import read_prices as read_prices
    from pertwise.llm.client import EndpointChat as EndpointChat
    from pertwise.llm.client import open_chat as open_chat
    from pertwise.llm.ledger import Ledger as Ledger
    from pertwise.llm.loop import run_sync as run_sync
    from pertwise.llm.settings import ChatSettings as ChatSettings
    from pertwise.llm.templates import PromptTemplate as PromptTemplate
    from pertwise.llm.templates import load_prompt as load_prompt

#: The command line asks for the addresses of keys only; a client is imported when it is used.
_LAZY = {
    "Address": "pertwise.llm.address",
    "Chat": "pertwise.llm.base",
    "ChatReply": "pertwise.llm.base",
    "ChatRequest": "pertwise.llm.base",
    "ChatSettings": "pertwise.llm.settings",
    "EndpointChat": "pertwise.llm.client",
    "Estimate": "pertwise.llm.budget",
    "FatalChatError": "pertwise.llm.base",
    "Ledger": "pertwise.llm.ledger",
    "Message": "pertwise.llm.base",
    "Price": "pertwise.llm.budget",
    "PromptTemplate": "pertwise.llm.templates",
    "key_variables": "pertwise.llm.address",
    "load_prompt": "pertwise.llm.templates",
    "open_chat": "pertwise.llm.client",
    "parse_address": "pertwise.llm.address",
    "read_prices": "pertwise.llm.budget",
    "run_sync": "pertwise.llm.loop",
}

__all__ = [
    "Address",
    "Chat",
    "ChatReply",
    "ChatRequest",
    "ChatSettings",
    "Conversation",
    "EndpointChat",
    "Estimate",
    "FatalChatError",
    "Ledger",
    "Message",
    "Price",
    "PromptTemplate",
    "converse",
    "key_variables",
    "load_prompt",
    "open_chat",
    "parse_address",
    "read_prices",
    "run_sync",
]

__getattr__ = lazy(__name__, _LAZY)
