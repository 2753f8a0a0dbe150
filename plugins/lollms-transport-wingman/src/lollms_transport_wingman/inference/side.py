"""The inference side of the transport: routes on the main port, and a port of its own."""

from __future__ import annotations

from ..side import Side


class InferenceSide(Side):
    """llama-server's and OpenAI's endpoints."""
