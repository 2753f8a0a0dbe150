"""Whether a lollms server runs at an address."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import msgspec

if TYPE_CHECKING:
    from ..config.load import LoadedConfig

PROBE_TIMEOUT = 2.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - read, never bound


def server_url(loaded: LoadedConfig) -> str:
    """Where `lollms serve` of this configuration is reached from this machine."""
    server = loaded.main.server
    host = _EVERYWHERE.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


def server_health(url: str) -> dict[str, Any] | None:
    """What /health says at `url`; None unless a lollms server answers there."""
    try:
        response = httpx.get(f"{url}/health", timeout=PROBE_TIMEOUT, trust_env=not is_loopback(url))
        body = msgspec.json.decode(response.content)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError):
        return None
    known = isinstance(body, dict) and "status" in body and "api_key_required" in body
    return body if known else None


def is_loopback(url: str) -> bool:
    """Whether the address is this machine, so that no proxy of the environment may stand between."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
