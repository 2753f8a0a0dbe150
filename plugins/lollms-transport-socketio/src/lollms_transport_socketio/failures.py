"""What goes wrong, in the words of this protocol."""

from __future__ import annotations

import logging
import secrets

logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """There is nobody any more to send to."""


def report(error: Exception) -> str:
    """Log an error that nobody foresaw; what to tell the client, which leads an operator to the log line."""
    number = secrets.token_hex(4)
    logger.error("unexpected error %s", number, exc_info=error)
    return f"Internal server error {number}. The server's log has the details."
