"""What an address of a service says about where it is."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def on_this_machine(address: str) -> bool:
    """Whether an address, with or without scheme, is one of the loopback interface: no proxy leads there.

    Where a proxy is set in the environment, HTTP libraries send requests to this machine through it too, unless
    NO_PROXY says otherwise; a client made with `trust_env=not on_this_machine(…)` does not.
    """
    try:
        name = urlsplit(address if "://" in address else f"http://{address}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
