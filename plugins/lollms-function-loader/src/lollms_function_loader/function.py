"""Functions of a file as the kernel's `Function`s: called in a process of the file, for a bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lollms_kernel.contracts import Function
from lollms_kernel.errors import GenerationFailed, LollmsError
from lollms_kernel.sandbox import Limits, SandboxProcess

from .describing import Described

log = logging.getLogger(__name__)

TARGET = "lollms_function_loader.worker:serve"
PING = 1.0
"""Seconds in which the process must answer after a call was stopped; else the function blocks it, and it is killed."""
MAX_FRAME = 64 * 1024 * 1024


class FileWorker:
    """The process of one file, started with its first call and again after it has ended."""

    def __init__(self, file: Path, memory: int | None) -> None:
        self._file = file
        self._limits = Limits(memory=memory)
        self._process: SandboxProcess | None = None
        self._starting: asyncio.Lock | None = None

    async def call(self, name: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """What the function gives. Raises its error, or GenerationFailed after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                process = await self._ready()
                return await process.peer.call("call", name, dict(arguments))
        except TimeoutError:
            await self._free()
            raise GenerationFailed(
                f"Error executing function '{name}': it took longer than {timeout:g} s and was stopped.",
                hint="`functions.timeout`, or `timeout` of its entry in `functions_config`, sets this limit.",
            ) from None

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            await process.kill()

    async def _ready(self) -> SandboxProcess:
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._process is None or self._process.peer.lost.done():
                await self.close()
                name = f"functions of {self._file.name}"
                process = SandboxProcess(name, TARGET, self._limits, max_frame=MAX_FRAME, inherit=True)
                try:
                    await process.start()
                    await process.peer.call("load", str(self._file))
                except BaseException:
                    await process.kill()
                    raise
                self._process = process
        return self._process

    async def _free(self) -> None:
        """Kill the process if a function that was told to stop still blocks it."""
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(PING):
                await process.peer.call("ping")
        except (TimeoutError, LollmsError):
            log.warning("the process of %s does not answer and is killed", self._file)
            await self.close()


class FileFunction(Function):
    """One function of a file; what it returns is handed on as plain values."""

    def __init__(self, described: Described, worker: FileWorker, timeout: float) -> None:
        self.name = described.name
        self.description = described.description
        self.schema = described.schema
        self._worker = worker
        self._timeout = timeout

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Run it. Raises InvalidRequest for wrong arguments, GenerationFailed for what it raises itself."""
        return await self._worker.call(self.name, arguments, self._timeout)

    async def close(self) -> None:
        """End the process of its file."""
        await self._worker.close()
