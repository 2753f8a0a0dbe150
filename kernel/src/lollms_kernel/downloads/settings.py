"""Which hub and folder a configuration means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..config.schema import MainConfig
from .service import Downloads

PUBLIC = "https://huggingface.co"


def hub_of(config: MainConfig, environ: Mapping[str, str] | None = None) -> str:
    """The address of the hub: `downloads.hub_url`, else what a protocol's section names, else `HF_ENDPOINT`."""
    if config.downloads.hub_url is not None:
        return config.downloads.hub_url
    for section in config.transports.values():
        named = (section or {}).get("hub_url")
        if isinstance(named, str) and named.startswith(("http://", "https://")):
            return named
    return (os.environ if environ is None else environ).get("HF_ENDPOINT") or PUBLIC


def downloads_of(config: MainConfig, models_folder: Path, hub_url: str | None = None) -> Downloads:
    """The downloads of a configuration, not open; from another hub if one is named, which does not get the token."""
    if hub_url is not None:
        return Downloads(models_folder / "gguf", hub_url, None, config.downloads)
    token = config.downloads.hub_token or os.environ.get("HF_TOKEN") or None
    return Downloads(models_folder / "gguf", hub_of(config), token, config.downloads)
