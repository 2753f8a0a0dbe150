"""`lollms config`: look at the configuration, change it, and keep its secrets safe."""

from __future__ import annotations

import click

from .reading import check, get, schema, show
from .rewriting import convert, migrate
from .sealing import encrypt, rotate_key
from .setting import set_value, unset


@click.group()
def config() -> None:
    """Show, change and check the configuration.

    Changes keep comments, are checked before they are written, and leave the previous version as NAME.bak. Paths are
    written as in server.port, security.allowed_api_keys[0] or bindings_map."my.model".
    """


for _command in (show, get, set_value, unset, check, migrate, convert, encrypt, rotate_key, schema):
    config.add_command(_command)

__all__ = ["config"]
