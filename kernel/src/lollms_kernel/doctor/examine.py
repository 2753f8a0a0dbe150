"""Everything that the doctor looks at, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .findings import Finding
from .machine import examine_machine

if TYPE_CHECKING:
    from ..config.load import LoadedConfig


def examine(config_dir: Path) -> Iterator[Finding]:
    """Findings about this machine, this installation and this configuration; nothing is started or changed."""
    from ..plugins import load_plugins
    from .extensions import examine_bindings, examine_plugins
    from .folders import examine_folders
    from .network import examine_network

    yield from examine_machine()
    plugins = load_plugins()
    yield from examine_plugins(plugins)
    try:
        loaded = _load(config_dir)
    except ConfigError as error:
        yield Finding("error", "configuration", error.message, error.hint)
        return
    yield _configuration(loaded)
    yield from examine_bindings(loaded, plugins)
    yield from examine_folders(loaded)
    yield from examine_network(loaded)


def _load(config_dir: Path) -> LoadedConfig:
    from ..config.load import load_config

    return load_config(config_dir)


def _configuration(loaded: LoadedConfig) -> Finding:
    if loaded.file is None:
        return Finding(
            "ok", "configuration", f"no main_config file in {loaded.config_dir}: the defaults hold"
        )
    holds_secrets = loaded.main.security.allowed_api_keys or loaded.main.security.encryption_key
    if holds_secrets and loaded.file.stat().st_mode & 0o004:
        return Finding(
            "warning",
            "configuration",
            f"{loaded.file} holds secrets and every user of this machine can read it",
            f"Keep it to yourself: `chmod 600 {loaded.file}`.",
        )
    return Finding("ok", "configuration", str(loaded.file))
