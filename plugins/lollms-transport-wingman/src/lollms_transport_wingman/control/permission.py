"""Who may change something, or stop the server.

The gate has checked Host, Origin and key already. But everything here is a GET, which browsers send on behalf of any
page, an image's address for example; so what changes something is refused to pages of other machines once more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

import msgspec

from lollms_kernel.config.exposure import is_loopback
from lollms_kernel.contracts import Caller

_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip")
_SCHEMES_OF_SHELLS = ("tauri", "app", "file")
"""Desktop shells show pages of their own; no web page has such an origin."""


class Visitor(msgspec.Struct, frozen=True):
    """Who asks: the key's holder, the address, and what a browser says about the page."""

    headers: Mapping[str, str]
    client: str
    caller: Caller | None
    origins: Collection[str]
    """`server.allowed_origins`."""

    @property
    def may_change(self) -> bool:
        """Whether downloads and models may be changed: with a key that is not limited, or where none is needed, unless
        a page of another machine asks."""
        if self.caller is not None and self.caller.tenant:
            return not self.caller.limited
        return not self._from_elsewhere

    @property
    def may_stop(self) -> bool:
        """Whether the server may be stopped: with such a key, or by a program on this machine."""
        if self.caller is not None and self.caller.tenant:
            return not self.caller.limited
        direct = is_loopback(self.client) and not any(name in self.headers for name in _FORWARDING)
        return direct and not self._from_elsewhere

    @property
    def _from_elsewhere(self) -> bool:
        origin = self.headers.get("origin")
        if origin is None:
            # a page that loads an image says nothing of itself, but its browser does
            return self.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if origin in self.origins:
            return False
        parts = urlsplit(origin)
        if parts.scheme in _SCHEMES_OF_SHELLS:
            return False
        return (
            not is_loopback(parts.hostname or "")
            and parts.netloc.lower() != self.headers.get("host", "").lower()
        )
