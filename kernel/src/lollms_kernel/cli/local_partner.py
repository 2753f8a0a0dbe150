"""A kernel in this process as partner: it works in a thread of its own while the terminal waits for keys."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..errors import Unavailable
from ..types import Chunk, GenerateRequest

if TYPE_CHECKING:
    from ..config.load import LoadedConfig
    from ..kernel import LocalKernel
    from ..plugins import PluginSet

Result = TypeVar("Result")

STOP_TIMEOUT = 10.0
"""How long a stopped answer may take to free what it held."""
CLOSE_TIMEOUT = 30.0
"""How long the kernel may take to close its bindings."""


class LocalPartner:
    """The kernel of a configuration, open while inside."""

    def __init__(self, loaded: LoadedConfig, plugins: PluginSet) -> None:
        self._loaded = loaded
        self._plugins = plugins
        self._opened: Future[tuple[LocalKernel, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="lollms-kernel", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._kernel, self._loop, self._closing = self._opened.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CLOSE_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # it is raised in the thread that waits for the opening
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _live(self) -> None:
        """Open the kernel and close it in the same task, as its task groups need."""
        from ..kernel import LocalKernel

        closing = asyncio.Event()
        async with LocalKernel(self._loaded, self._plugins) as kernel:
            self._opened.set_result((kernel, asyncio.get_running_loop(), closing))
            await closing.wait()

    def ask(self, request: GenerateRequest) -> Generator[Chunk, None, None]:
        """Stream the answer; leaving cancels it and waits until everything it held is free."""
        # Unbounded: what waits here is at most one answer, and the kernel limits how long that can be.
        received: SimpleQueue[Chunk | BaseException | None] = SimpleQueue()
        task = self._call(self._start(request, received))
        ended = False
        try:
            while (item := received.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
            ended = True
        finally:
            if not ended:
                self._loop.call_soon_threadsafe(task.cancel)
                _drain(received)

    def personalities(self) -> list[str]:
        """Ids of the enabled personalities."""
        return sorted(self._kernel.personalities)

    def bindings(self) -> list[str]:
        """Names of the instances that did not fail."""
        return sorted(instance.name for instance in self._kernel.instances() if instance.state != "failed")

    def models(self, binding: str | None) -> list[str]:
        """Names of the instance's models."""
        name = binding or self._kernel.default_binding("ttt")
        if name is None:
            return []
        return [model.name for model in self._call(self._kernel.binding(name).list_models())]

    def _call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _start(
        self, request: GenerateRequest, received: SimpleQueue[Chunk | BaseException | None]
    ) -> asyncio.Task[None]:
        """The task that puts every chunk into `received`, then its error if there is one, then None."""

        async def answer() -> None:
            async with self._kernel.stream(request) as chunks:
                async for chunk in chunks:
                    received.put(chunk)

        def end(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                received.put(error)
            received.put(None)

        task = asyncio.create_task(answer(), name=f"answer {request.id}")
        task.add_done_callback(end)
        return task


def _drain(received: SimpleQueue[Chunk | BaseException | None]) -> None:
    """Wait for the end of a cancelled answer."""
    try:
        while received.get(timeout=STOP_TIMEOUT) is not None:
            pass
    except Empty:
        raise Unavailable(
            f"The stopped answer still holds its binding after {STOP_TIMEOUT:.0f} s.",
            hint="Start 'lollms' again.",
        ) from None
