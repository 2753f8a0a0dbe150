"""Runs the server of `lollms llama-server`: one instance, one port, the model loaded at the start."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import msgspec

from lollms_kernel.contracts import Listener, Register, Transport
from lollms_kernel.errors import BindingUnavailable, LollmsError, Unavailable
from lollms_kernel.hookspecs import hookimpl

from ..inference.side import InferenceSide
from ..settings import WingmanSettings
from .configuration import INSTANCE, Flags, configuration, transport_settings

logger = logging.getLogger(__name__)

NEEDS = ("lollms-binding-llamacpp",)
POLL = 0.02
"""Seconds between two looks whether the worker has started."""


def serve(model: Path, given: dict[str, Any]) -> int:
    """Serve until a signal comes; the exit code. Raises ConfigError."""
    from lollms_kernel.server import run_protocol

    chosen = Flags(model=model, **given)
    loaded = configuration(chosen)
    if loaded.main.server.allow_insecure_bind and chosen.host not in ("127.0.0.1", "localhost", "::1"):
        click.echo(f"everybody who reaches {chosen.host} can use this server: no --api-key is set", err=True)
    plugin = _Plugin(transport_settings(chosen))
    code = run_protocol(
        loaded, chosen.host, lambda _: _announce(chosen), needs=NEEDS, brings=("llama-server", plugin)
    )
    return 1 if plugin.failed else code


def _announce(flags: Flags) -> None:
    host = f"[{flags.host}]" if ":" in flags.host else flags.host
    click.echo(f"main: server is listening on http://{host}:{flags.port} - the model is loading")
    sys.stdout.flush()


class _Plugin:
    """Brings the transport of this command through the same door as any other."""

    def __init__(self, settings: WingmanSettings) -> None:
        self._settings = settings
        self.failed = False
        """Whether the model could not be loaded."""

    @hookimpl
    def register_transports(self, register: Register) -> None:
        """Register the port."""
        plugin, settings = self, self._settings

        class LlamaServer(LlamaServerTransport):
            """With the settings of the command line."""

            def __init__(self, kernel: Any, _: Any) -> None:
                super().__init__(kernel, settings, plugin)

        register(LlamaServer)


class LlamaServerTransport(Transport):
    """The inference side alone, closed until the model is loaded."""

    name: ClassVar[str] = "llama_server"

    def __init__(self, kernel: Any, settings: WingmanSettings, plugin: _Plugin) -> None:
        super().__init__(kernel, settings)
        self._plugin = plugin
        self._side = InferenceSide(kernel, settings)
        self._side.inference.single_model = True
        self._side.inference.loading = Unavailable("Loading model")
        self._loading: asyncio.Task[None] | None = None

    def listeners(self) -> Sequence[Listener]:
        """The port of the command line."""
        return [msgspec.structs.replace(listener, required=True) for listener in self._side.listeners()]

    async def open(self) -> None:
        """Begin to load."""
        self._loading = asyncio.create_task(self._load())

    async def close(self) -> None:
        """Stop loading."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])

    async def _load(self) -> None:
        try:
            binding = await self._binding()
            info = await binding.get_model_info(None)
            await binding.load(info.name)
        except LollmsError as error:
            logger.error("error loading model: %s", error.detail)
            self._plugin.failed = True
            self.kernel.stop()
            return
        self._side.inference.loading = None
        logger.info("main: model loaded")

    async def _binding(self) -> Any:
        """The instance, once its worker is there. Raises what kept it from starting."""
        while True:
            status = next(status for status in self.kernel.instances() if status.name == INSTANCE)
            if status.state == "ready":
                return self.kernel.binding(INSTANCE)
            if status.state == "failed":
                raise BindingUnavailable(status.error or "The engine did not start.", hint=status.hint)
            await asyncio.sleep(POLL)
