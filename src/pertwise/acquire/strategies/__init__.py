"""Strategies of acquisition, one a file."""
