"""The pytest plugin that ships with the kernel: fixtures for tests of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .server_process import ServerProcess


@pytest.fixture
def lollms_server() -> Iterator[Callable[..., ServerProcess]]:
    """Call it with a configuration and instances (see `ServerProcess`) to get a live server; stopped at the end."""
    from .server_process import ServerProcess

    with ExitStack() as stack:

        def start(
            config: dict[str, Any] | None = None, instances: Any = None, **options: Any
        ) -> ServerProcess:
            return stack.enter_context(ServerProcess(config, instances, **options))

        yield start
