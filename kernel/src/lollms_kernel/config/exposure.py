"""Which addresses the server may listen on."""

from __future__ import annotations

import ipaddress
import re

from ..errors import ConfigError
from .describe import shown
from .schema import MainConfig

ALLOWED = "an IP address such as 127.0.0.1 or ::1, or a host name"

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_host(text: str) -> bool:
    """Whether a server can be told to listen there: an IP address (without brackets) or a host name."""
    if _address(text) is not None:
        return True
    labels = text.removesuffix(".").split(".")
    # "10.0.0.300" and "0" are no host names but mistaken or shortened addresses.
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there; of names only `localhost` counts."""
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback if address is not None else host.lower() == "localhost"


def is_exposed(host: str, main: MainConfig) -> bool:
    """Whether a server that listens there needs an API key, because others reach it."""
    return not (is_loopback(host) or main.server.allow_insecure_bind)


def check_exposure(host: str, main: MainConfig) -> None:
    """Raise ConfigError if listening on `host` would open the server to others without any API key.

    Call it with the address that counts in the end, after command line and environment.
    """
    if not is_host(host):
        raise ConfigError(f"The host {shown(host)} is no address.", hint=f"Use {ALLOWED}.")
    if main.security.allowed_api_keys or not is_exposed(host, main):
        return
    raise ConfigError(
        f"On {host} everybody who reaches this machine could use the server, since no API key is set.",
        hint="Add a key to security.allowed_api_keys, or listen on 127.0.0.1, or set"
        " server.allow_insecure_bind: true if the network around is safe.",
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
