"""What shows that llama.cpp gets on in this process, so that the server can tell a slow step from one that hangs."""

from __future__ import annotations

_beats = 0


def beat() -> None:
    """A step, a picture or a piece of a model is done. Called in the threads that work, with the GIL held."""
    global _beats
    _beats += 1


def beats() -> int:
    """How often that happened."""
    return _beats
