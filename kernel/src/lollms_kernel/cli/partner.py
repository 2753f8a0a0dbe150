"""Who answers `lollms chat` and `lollms generate`: a running server, else a kernel in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import click

from ..types import Chunk, GenerateRequest


class Partner(Protocol):
    """The other side of a conversation, with plain blocking methods; LollmsError says what went wrong."""

    def ask(self, request: GenerateRequest) -> Generator[Chunk, None, None]:
        """Stream the answer up to its Finished or Failed. Closing the generator stops the work."""

    def personalities(self) -> list[str]:
        """Names that `GenerateRequest.personality` may have."""

    def bindings(self) -> list[str]:
        """Names of the binding instances that can answer."""

    def models(self, binding: str | None) -> list[str]:
        """Names of the models of an instance, by default of the one that answers text."""


@contextmanager
def open_partner(config_dir: Path, url: str | None, api_key: str | None) -> Iterator[Partner]:
    """The server at `url`; without one the configured server if it runs, else a kernel in this process.

    Raises Unavailable when nothing answers at an explicit `url`, ConfigError for a broken configuration.
    """
    from ..doctor.running import server_health, server_url
    from .http_partner import HttpPartner

    if url is not None:
        with HttpPartner(url, api_key) as server:
            server.check()
            yield server
        return

    from ..config.api_keys import usable_key
    from ..config.load import load_config

    loaded = load_config(config_dir)
    address = server_url(loaded)
    if server_health(address) is not None:
        with HttpPartner(address, api_key or usable_key(loaded.main.security.allowed_api_keys)) as server:
            yield server
        return
    click.secho(f"No server runs at {address}: answering without one.", dim=True, err=True)

    from ..plugins import load_plugins
    from .local_partner import LocalPartner

    with LocalPartner(loaded, load_plugins()) as local:
        yield local
