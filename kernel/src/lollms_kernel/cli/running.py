"""A running server that is told about a change of its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from ..config.api_keys import usable_key
from ..config.load import load_config
from ..doctor.running import is_loopback, server_health, server_url
from ..drafts import folder_id
from ..errors import Forbidden, NotFound, Unauthorized, Unavailable
from .http_partner import error_of

LIMIT = 150.0
"""Seconds that the server may take: a worker may start meanwhile, and be refused by its timeout."""


class RunningServer:
    """The admin routes of the server at `url`."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = url
        self._headers = {"X-API-Key": api_key} if api_key else {}

    @classmethod
    def find(cls, config_dir: Path, url: str | None, api_key: str | None) -> Self | None:
        """The server that runs with this configuration, by default at its address; None if there is none.

        Raises Forbidden if it lets nobody in without another key.
        """
        loaded = load_config(config_dir)
        address = (url or server_url(loaded)).rstrip("/")
        if server_health(address) is None:
            if url is not None:
                raise Unavailable(f"No lollms server answers at {address}.", hint="Leave --url out.")
            return None
        server = cls(address, api_key or usable_key(loaded.main.security.allowed_api_keys))
        try:
            answer = server.call("GET", "instances")
        except (Unauthorized, Forbidden) as error:
            raise Forbidden(
                f"The server at {address} does not take the change: {error.message}",
                hint="Give a key that may administer it in LOLLMS_API_KEY, or stop the server first.",
            ) from None
        except NotFound:
            return None
        return server if answer.get("configuration") == folder_id(loaded.config_dir) else None

    def call(self, method: str, path: str, **query: Any) -> dict[str, Any]:
        """What an admin route answers. Raises the error that it tells."""
        try:
            response = httpx.request(
                method,
                f"{self.url}/api/v1/admin/{path}",
                params=query,
                headers=self._headers,
                timeout=LIMIT,
                trust_env=not is_loopback(self.url),
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The connection to {self.url} failed: {str(error) or type(error).__name__}.",
                hint="Does the server still run?",
            ) from None
        if response.status_code != httpx.codes.OK:
            raise error_of(response)
        answer: dict[str, Any] = msgspec.json.decode(response.content)
        return answer

    def reload(self, grace: float | None) -> dict[str, Any]:
        """Let it take over what the files say now; what it did. `grace` None: as long as the server thinks right."""
        query = {} if grace is None else {"grace": grace}
        result: dict[str, Any] = self.call("POST", "reload", **query)["result"]
        return result

    def test(self, name: str) -> dict[str, Any]:
        """Let it test an instance."""
        return self.call("POST", f"instances/{quote(name, safe='')}/test")
