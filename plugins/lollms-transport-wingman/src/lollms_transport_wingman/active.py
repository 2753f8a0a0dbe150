"""Which model the control side has started, for the inference side to serve where a request names none."""

from __future__ import annotations


class Active:
    """Shared by the sides of one transport."""

    def __init__(self) -> None:
        self.instance: str | None = None
        """The binding instance; None while nothing runs."""
        self.alias: str | None = None
        """What its client calls it."""
