"""The client that a script works for."""

from __future__ import annotations

from typing import Any


class Client:
    """One client; its history is in the context."""

    def __init__(self) -> None:
        self.client_id = "client"
        self.discussion: Any = None
        self.rooms: set[str] = set()


class Session:
    """A name for annotations."""
