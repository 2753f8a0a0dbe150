"""The last word on what a request carries: put on where the library has finished its headers."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import httpx2


class Credentials(httpx2.Auth):
    """The instance's key and no other, if it has one, and none of the `stopped` headers."""

    def __init__(self, key: str | None, stopped: Iterable[str]) -> None:
        self._key = key
        self._stopped = ("Authorization", *stopped)

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Called by httpx2 for every request."""
        for name in self._stopped:
            request.headers.pop(name, None)
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        yield request
