"""Runs scripts: each in a process of its own, for one request, bounded in time, memory and output."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.contracts import PersonalityCard, PersonalityContext
from lollms_kernel.errors import GenerationFailed, LollmsError, QueueTimeout, Unavailable
from lollms_kernel.sandbox import LOST, Limits, SandboxProcess
from lollms_kernel.types import Chunk, Finished, GenerateRequest

from ..scripts import Script
from .order import order_of
from .results import Results
from .services import Services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lollms_kernel.config.schema import ScriptsConfig

log = logging.getLogger(__name__)

TARGET = "lollms_personality_loader.scripting.child:serve"
MIB = 1 << 20
MAX_FRAME = 128 * MIB
"""A request may hold media of this size in all."""
SPARE_SECONDS = 300.0
"""How long a started process waits for a script, to save its start."""
FAILED = "Workflow execution failed: "
STREAM_FAILED = "Script stream error: "


class ScriptRunner:
    """Starts the processes and ends them. One is kept ready once a script has been run."""

    def __init__(self, limits: ScriptsConfig, queue_timeout: float) -> None:
        self._limits = limits
        self._queue_timeout = queue_timeout
        self._turns = asyncio.Semaphore(limits.max_running)
        self._spare: SandboxProcess | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._closed = False

    async def run(
        self,
        script: Script,
        folder: Path,
        card: PersonalityCard,
        conditioned: GenerateRequest,
        context: PersonalityContext,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream what the script gives. Whatever it does wrong is an error output, never an error of the server."""
        results = Results(card.name)
        services = Services(conditioned, context, self._limits.max_generations)
        order = msgspec.to_builtins(
            order_of(script, folder, card, conditioned, context), builtin_types=(bytes,), enc_hook=str
        )
        async with self._turn(), self._process(f"script of '{card.id}'") as process:
            process.peer.serve(services.handlers())
            deadline = asyncio.get_running_loop().time() + self._limits.timeout
            stage = FAILED
            async with aclosing(process.peer.stream("run", order)) as items:
                try:
                    while True:
                        async with asyncio.timeout_at(deadline):
                            item = await anext(items, None)
                        if item is None:
                            break
                        if "item" in item:
                            stage = STREAM_FAILED
                        for chunk in _chunks(results, item, stage, card.id):
                            yield chunk
                except TimeoutError:
                    reason = f"it took longer than {self._limits.timeout:g} s (`scripts.timeout`)."
                    for chunk in results.failed(stage + reason):
                        yield chunk
                except LollmsError as error:
                    reason = await self._post_mortem(process, error)
                    log.warning("the script of '%s' failed: %s", card.id, reason)
                    for chunk in results.failed(stage + reason):
                        yield chunk
        if results.empty:
            raise GenerationFailed(
                "Generation failed to produce output.", hint=f"The script of '{card.id}' returned nothing."
            )
        yield Finished(usage=services.usage, metadata=results.facts)

    async def close(self) -> None:
        """End the process that is kept ready."""
        self._closed = True
        if self._preparing is not None:
            self._preparing.cancel()
            with suppress(asyncio.CancelledError):
                await self._preparing
        await self._drop_spare()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._queue_timeout):
                await self._turns.acquire()
        except TimeoutError:
            raise QueueTimeout(
                f"{self._limits.max_running} scripts run already, and none ended within {self._queue_timeout:g} s.",
                hint="`scripts.max_running` lets more run at once.",
            ) from None
        try:
            yield
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _process(self, name: str) -> AsyncIterator[SandboxProcess]:
        process, self._spare = self._spare, None
        if process is None or process.pid is None:
            if process is not None:
                await process.kill()
            process = await self._start(name)
        process.name = name
        try:
            self._prepare()
            yield process
        finally:
            await process.kill()

    async def _start(self, name: str) -> SandboxProcess:
        limits = self._limits
        process = SandboxProcess(
            name,
            TARGET,
            Limits(
                memory=limits.memory_mb * MIB,
                cpu_seconds=int(limits.timeout) + 1,
                file_size=limits.max_output_mb * MIB,
                open_files=256,
                processes=False,
            ),
            max_frame=MAX_FRAME,
            max_total=limits.max_output_mb * MIB,
        )
        await process.start()
        return process

    def _prepare(self) -> None:
        """See to it that a process is ready for the next script."""
        if self._closed:
            return
        if self._preparing is not None:
            self._preparing.cancel()
        self._preparing = asyncio.create_task(self._keep_one_ready(), name="process for the next script")

    async def _keep_one_ready(self) -> None:
        if self._spare is None:
            with suppress(Unavailable):  # the next script starts its own, and says what is wrong
                self._spare = await self._start("a script to come")
        await asyncio.sleep(SPARE_SECONDS)
        await self._drop_spare()

    async def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.kill()

    @staticmethod
    async def _post_mortem(process: SandboxProcess, error: LollmsError) -> str:
        """Why the process is gone, if it is; else what the error says."""
        if not process.peer.lost.done() or process.peer.lost.result() != LOST:
            return error.detail
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                how = await process.wait()
                said = f" Its last words: {process.last_words}" if process.last_words else ""
                limits = "It may have used up its memory or processor time." if "SIG" in how else ""
                return f"its process {how}. {limits}{said}".strip()
        return error.detail


def _chunks(results: Results, item: dict[str, Any], stage: str, id: str) -> list[Chunk]:
    """The chunks of one item from the process."""
    tell: Callable[[Any], Any] = results.returned
    if "error" in item:
        log.warning("the script of '%s' failed: %s\n%s", id, item["error"], item.get("trace", ""))
        return list(results.failed(stage + str(item["error"])))
    if "item" in item:
        tell = results.yielded
    return list(tell(item.get("item", item.get("result"))))
