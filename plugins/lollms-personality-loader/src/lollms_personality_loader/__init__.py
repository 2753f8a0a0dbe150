"""Personalities from the configured folders: config.yaml and SOUL.md, flat or in categories, with their scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lollms_kernel.hookspecs import hookimpl

from .loader import build_library

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig
    from lollms_kernel.contracts import Register


@hookimpl
def register_personalities(register: Register, config: MainConfig) -> None:
    """Register the library: every enabled personality, kept up to date while the server runs."""
    register(build_library(config))
