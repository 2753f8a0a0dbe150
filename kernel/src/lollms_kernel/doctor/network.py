"""Who can reach the server, and whether its port is free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .findings import Finding

if TYPE_CHECKING:
    from ..config.load import LoadedConfig

PRIVILEGED_CURE = "Ports below 1024 belong to the system: take one above, e.g. `lollms serve --port 9601`."


def examine_network(loaded: LoadedConfig) -> Iterator[Finding]:
    """Findings about `server.host`, `server.port` and `security.allowed_api_keys`."""
    yield _exposure(loaded)
    yield _port(loaded)


def _exposure(loaded: LoadedConfig) -> Finding:
    from ..config.exposure import check_exposure, is_loopback

    host, keys = loaded.main.server.host, len(loaded.main.security.allowed_api_keys)
    try:
        check_exposure(host, loaded.main)
    except ConfigError as error:
        return Finding("error", "exposure", error.message, error.hint)
    key_text = f"{keys} API key{'s' if keys != 1 else ''}" if keys else "no API key"
    if is_loopback(host):
        return Finding("ok", "exposure", f"only this machine can reach {host}; {key_text}")
    if keys:
        return Finding("ok", "exposure", f"others can reach {host}; {key_text}")
    return Finding(
        "warning",
        "exposure",
        f"everybody who reaches {host} can use the server: no API key is set",
        "List keys under security.allowed_api_keys.",
    )


def _port(loaded: LoadedConfig) -> Finding:
    host, port = loaded.main.server.host, loaded.main.server.port
    title = f"port {port}"
    problem = _bind_problem(host, port)
    if problem is None:
        return Finding("ok", title, f"free on {host}")
    if problem.errno == errno.EADDRINUSE:
        return _occupant(loaded, title)
    reason = problem.strerror or str(problem)
    if problem.errno == errno.EACCES:
        return Finding("error", title, f"cannot be used on {host}: {reason}", PRIVILEGED_CURE)
    return Finding(
        "error",
        title,
        f"cannot be used on {host}: {reason}",
        "Set server.host to an address of this machine.",
    )


def _bind_problem(host: str, port: int) -> OSError | None:
    """Why nobody could listen there now."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        return error
    return None


def _occupant(loaded: LoadedConfig, title: str) -> Finding:
    """Whether the port is taken by a server like this one."""
    from .running import server_health, server_url

    url = server_url(loaded)
    health = server_health(url)
    if health is not None:
        return Finding("ok", title, f"a lollms server (version {health.get('version')}) runs at {url}")
    cure = f"Stop it, or choose another port: `lollms serve --port {loaded.main.server.port + 1}` or server.port."
    return Finding("error", title, "taken by another program", cure)
