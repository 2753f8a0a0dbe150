"""Which hub and folder of models a command means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..downloads import Downloads

hub_option = click.option("--hub", metavar="URL", help="Ask this hub instead of the configured one.")


def configured(config_dir: Path, hub: str | None = None) -> Downloads:
    """The downloads of a configuration, perhaps from another hub."""
    from ..config.load import load_config
    from ..downloads import downloads_of
    from .opening import quiet

    quiet()
    loaded = load_config(config_dir)
    return downloads_of(loaded.main, loaded.path("models_folder"), hub)
