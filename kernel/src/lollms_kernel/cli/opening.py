"""Builds the configured kernel for a command that works without a server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import msgspec

    from ..kernel import LocalKernel


def quiet() -> None:
    """Keep the log off the terminal: what it would say, the command shows in its own words."""
    logging.getLogger("lollms_kernel").addHandler(logging.NullHandler())


def registered(hook: str) -> list[Any]:
    """What the installed plugins register through a hook."""
    from ..plugins import load_plugins

    quiet()
    found: list[Any] = []
    for _ in load_plugins().call_each(hook, {"register": found.append}):
        pass
    return found


def binding_settings() -> dict[str, type[msgspec.Struct]]:
    """The settings of each installed binding type."""
    return {kind.type_name: kind.Settings for kind in registered("register_bindings")}


def build_kernel(config_dir: Path) -> LocalKernel:
    """The kernel of a configuration, not open: it knows types, personalities and instances but started nothing.

    Raises ConfigError.
    """
    from ..config.load import load_config
    from ..kernel import LocalKernel
    from ..plugins import load_plugins

    quiet()
    return LocalKernel(load_config(config_dir), load_plugins())
