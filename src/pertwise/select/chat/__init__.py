"""Selectors that ask a chat model: one file a kind of question."""
