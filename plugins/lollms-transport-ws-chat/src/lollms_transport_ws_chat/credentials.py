"""The API key of a connection: in a header, in a subprotocol, or in the first message.

Browsers cannot add headers to a WebSocket, but they can name subprotocols: `bearer.KEY`, or `bearer64.` and the key
in base64url where it has characters that a subprotocol may not have.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

BEARER = "bearer."
BEARER64 = "bearer64."


def key_offered(subprotocols: Sequence[str]) -> str:
    """The key among the subprotocols that a client offers, "" if there is none."""
    for offered in subprotocols:
        if offered.startswith(BEARER64):
            return _decoded(offered.removeprefix(BEARER64))
        if offered.startswith(BEARER):
            return offered.removeprefix(BEARER)
    return ""


def chosen(subprotocols: Sequence[str]) -> str | None:
    """The subprotocol to answer with: one that is no key, since answers are logged more often than questions.

    A browser that offers subprotocols gives up unless one of them comes back, so a key alone is answered with itself.
    """
    plain = [offered for offered in subprotocols if not offered.startswith((BEARER, BEARER64))]
    return next(iter([*plain, *subprotocols]), None)


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
