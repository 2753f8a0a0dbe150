"""Personalities from the configured folders: config.yaml and SOUL.md, flat or in categories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

from .loader import load_personalities

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig
    from lollms_kernel.contracts import Register


@hookimpl
def register_personalities(register: Register, config: MainConfig) -> None:
    """Register every enabled personality; one of the user's takes the place of an example of the same id."""
    overrides = config.personalities_config or {}
    disabled = {key for key, override in overrides.items() if not override.enabled}
    for root in (config.paths.example_personalities_folder, config.paths.personalities_folder):
        if root is not None:
            for personality in load_personalities(Path(root), disabled):
                register(personality)
