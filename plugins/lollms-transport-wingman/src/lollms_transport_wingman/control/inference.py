"""Which model runs: one at a time, from the start that somebody asks for to its end, also over restarts.

start → queued → preparing → inferring → (stop) cancelling → complete
                     └→ error, kept until it is reset
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress

import msgspec

from lollms_kernel.config.exposure import is_loopback
from lollms_kernel.contracts import Listener
from lollms_kernel.downloads import Download, Downloads
from lollms_kernel.errors import ConfigError, InvalidRequest, LollmsError

from ..active import Active
from .home import Home
from .loading import Loader
from .objects import WingmanItem

logger = logging.getLogger(__name__)

WAIT = 30.0
"""Seconds that a model gets to stop."""
WATCH = 1.0
"""Seconds after which it is seen that somebody else has taken the instance away."""

LOAD_FAILED = "Wingman exited with error code 1024. There was an error loading the model."
OUT_OF_MEMORY = "The system ran out of memory while running the AI."
OUT_OF_MEMORY_MODEL = "The system ran out of memory while running the AI model."
NO_MEMORY_TO_LOAD = "There is not enough available memory to load the AI model."
FAILED_TO_LOAD = "The AI failed to load."

ServeAt = Callable[[str, int], AbstractAsyncContextManager[str] | None]
"""Opens the inference API at an address and port; None where it is served there already."""


class Answer(msgspec.Struct, frozen=True):
    """An HTTP status and the item that goes with it."""

    status: int
    item: WingmanItem | None = None


class Inference:
    """The models that were started. `changed` is called with every new state of an item."""

    def __init__(
        self,
        home: Home,
        downloads: Downloads,
        loader: Loader,
        active: Active,
        serve_at: ServeAt,
        changed: Callable[[WingmanItem], None],
    ) -> None:
        self._home = home
        self._downloads = downloads
        self._loader = loader
        self._active = active
        self._serve_at = serve_at
        self._changed = changed
        self._starting = False
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._closing = False

    # --- lifetime ---

    async def open(self) -> None:
        """Take up what the last run left: the newest model that was active is started again, unless it was its end."""
        unclean, died, left = await self._home.open()
        for item in self._home.items:
            if item.status == "complete":
                await self._home.delete(item.alias)
            elif not item.ended:
                reason = _reason_of_end(item, unclean=unclean, died=died, left=left)
                if reason:
                    await self._put(item, status="error", error=reason)
        active = [item for item in self._home.items if not item.ended]
        for item in active[:-1]:
            await self._home.delete(item.alias)
        if active:
            resumed = await self._put(active[-1], status="queued", error="")
            self._launch(resumed)

    async def close(self) -> None:
        """Stop what runs; it is started again by the next `open`."""
        self._closing = True
        if self._running is not None:
            _, task = self._running
            task.cancel()
            await asyncio.wait([task])
        await self._home.close()

    # --- what there is ---

    @property
    def items(self) -> list[WingmanItem]:
        """Every item, the oldest first."""
        return self._home.items

    @property
    def current(self) -> WingmanItem | None:
        """The active item."""
        return next((item for item in self.items if item.active), None)

    @property
    def instance(self) -> str | None:
        """The binding instance that serves it."""
        return self._active.instance

    # --- what may be asked for ---

    async def start(self, wanted: WingmanItem) -> Answer:
        """202 and the new item; 208 where it is active already; 404 without a complete download; 503 while another
        start is worked on; 500 where what ran before does not stop."""
        if self._starting or self._closing:
            return Answer(503)
        self._starting = True
        try:
            there = self._home.get(wanted.alias)
            if there is not None and there.active:
                return Answer(208, there)
            if await self._download(wanted) is None:
                return Answer(404)
            if self._running is not None and not await self._stop_running():
                return Answer(500)
            item = await self._put(msgspec.structs.replace(wanted, created=there.created if there else 0))
            self._launch(item)
            return Answer(202, item)
        finally:
            self._starting = False

    async def stop(self, alias: str) -> Answer:
        """200 and the item, now complete (or in error, if it was); 404; 500 where it does not stop in time."""
        item = self._home.get(alias)
        if item is None:
            return Answer(404)
        if self._running is not None and self._running[0] == alias and not await self._stop_running():
            return Answer(500, self._home.get(alias))
        return Answer(200, self._home.get(alias) or item)

    async def reset(self, alias: str) -> Answer:
        """As `stop`, and the item is forgotten; as it was before."""
        before = self._home.get(alias)
        answer = await self.stop(alias)
        if answer.status != 200:
            return answer
        await self._home.delete(alias)
        return Answer(200, before)

    async def restart(self, alias: str) -> Answer:
        """Stop a model and start it again."""
        item = self._home.get(alias)
        if item is None:
            return Answer(404)
        answer = await self.stop(alias)
        return (
            answer
            if answer.status != 200
            else await self.start(msgspec.structs.replace(item, status="queued"))
        )

    # --- one run ---

    def _launch(self, item: WingmanItem) -> None:
        task = asyncio.create_task(self._run(item), name=f"wingman {item.alias}")
        self._running = (item.alias, task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._running is not None and self._running[1] is task:
            self._running = None
        if not task.cancelled() and task.exception() is not None:
            logger.error("a model's run ended badly", exc_info=task.exception())

    async def _stop_running(self) -> bool:
        """Whether what runs has ended in time."""
        assert self._running is not None, "the caller has looked"
        alias, task = self._running
        item = self._home.get(alias)
        if item is not None and not item.ended:
            await self._put(item, status="cancelling")
        task.cancel()
        _, late = await asyncio.wait([task], timeout=WAIT)
        return not late

    async def _run(self, item: WingmanItem) -> None:
        """Load, serve, unload; told in the item."""
        try:
            async with AsyncExitStack() as stack:
                item = await self._put(item, status="preparing")
                download = await self._download(item)
                if download is None:
                    raise _Missing
                path = self._downloads.path(*download.key)
                name, layers = await self._loader.load(item, download, path)
                try:
                    if layers != item.gpuLayers:
                        item = await self._put(item, gpuLayers=layers)
                    extra = self._serve_at(item.address, item.port)
                    if extra is not None:
                        await stack.enter_async_context(extra)
                finally:  # before the port is closed, so that nobody there waits for a model that goes
                    stack.push_async_callback(self._unload, name)
                self._active.instance, self._active.alias = name, item.alias
                stack.callback(self._inactive)
                item = await self._put(item, status="inferring")
                while self._loader.is_there(name):  # noqa: ASYNC110 - nobody tells when it is taken away
                    await asyncio.sleep(WATCH)
        except _Missing:
            await self._fail(item, f"Model file does not exist: {item.modelRepo}: {item.filePath}")
        except LollmsError as error:
            await self._fail(item, f"{LOAD_FAILED} {error.detail}")
        except asyncio.CancelledError:
            if self._closing:
                raise  # the item stays as it is, so that the next start takes it up
            await self._finish(item)
        else:
            await self._finish(item)

    async def _finish(self, item: WingmanItem) -> None:
        current = self._home.get(item.alias)
        if current is not None and current.status != "error":
            await self._put(current, status="complete")

    async def _fail(self, item: WingmanItem, reason: str) -> None:
        logger.error("%s: %s", item.alias, reason)
        await self._put(self._home.get(item.alias) or item, status="error", error=reason)

    async def _unload(self, name: str) -> None:
        if self._loader.is_there(name):
            with suppress(LollmsError):
                await self._loader.unload(name)

    def _inactive(self) -> None:
        self._active.instance = self._active.alias = None

    async def _download(self, item: WingmanItem) -> Download | None:
        """The complete download of an item whose file is there."""
        try:
            download = await self._downloads.get(item.modelRepo, item.filePath)
            whole = download is not None and await self._downloads.is_here(download)
        except InvalidRequest:
            return None
        return download if whole else None

    async def _put(self, item: WingmanItem, **changes: object) -> WingmanItem:
        kept = await self._home.put(item, **changes)
        self._changed(kept)
        return kept


class _Missing(Exception):
    """The model's file is not there."""


def _reason_of_end(item: WingmanItem, *, unclean: bool, died: bool, left: bool) -> str:
    """Why an item that was active must not be started again; "" if it may."""
    if died:
        return OUT_OF_MEMORY
    if left:
        return FAILED_TO_LOAD if item.status == "preparing" else ""
    if unclean and item.status == "inferring":
        return OUT_OF_MEMORY_MODEL
    if unclean and item.status == "preparing":
        return NO_MEMORY_TO_LOAD
    return ""


def extra_listener(own: Listener | None, default: int, address: str, port: int) -> Listener | None:
    """The listener that an item's address and port need beside `own`, the inference port of the configuration.

    Raises ConfigError where there is none to copy.
    """
    host = "127.0.0.1" if address in ("", "localhost") else address
    if port == default and is_loopback(host):
        return None
    if own is None:
        raise ConfigError(
            f"The inference API cannot be served on {host} port {port}: transports.wingman.inference_port is null.",
            hint="Set it, or leave the port out.",
        )
    return msgspec.structs.replace(own, port=port, host=host, required=True)
