"""How do we ask? Chat back ends, prompt templates, typed answers, the ledger."""

from pertwise.llm.address import Address, key_variables, parse_address
from pertwise.llm.base import Chat, ChatReply, ChatRequest, FatalChatError, Message
from pertwise.llm.budget import Estimate, Price, read_prices
from pertwise.llm.client import EndpointChat, open_chat
from pertwise.llm.converse import Conversation, converse
from pertwise.llm.ledger import Ledger
from pertwise.llm.loop import run_sync
from pertwise.llm.settings import ChatSettings
from pertwise.llm.templates import PromptTemplate, load_prompt

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
