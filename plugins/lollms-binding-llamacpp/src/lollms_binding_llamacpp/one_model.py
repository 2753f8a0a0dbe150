"""Keeps one model in memory for all who use it at once, and changes it when the next in line wants another."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from lollms_kernel.errors import ShuttingDown

from .library import ModelFile

if TYPE_CHECKING:
    from .loading import LoadedModel


class _Wish(msgspec.Struct, frozen=True, eq=False):
    file: ModelFile | None
    """None: nothing shall be loaded."""
    granted: asyncio.Future[None]


class OneModel:
    """Users of the loaded model enter at once, unless somebody waits for another: then all line up behind."""

    def __init__(self, load: Callable[[ModelFile], Awaitable[LoadedModel]]) -> None:
        self._load = load
        self._line: deque[_Wish] = deque()
        self._users = 0
        self._changing = False
        self._closed = False
        self.loaded: LoadedModel | None = None

    @property
    def waiting(self) -> int:
        """How many wait for a change of the model."""
        return len(self._line)

    @asynccontextmanager
    async def using(self, file: ModelFile) -> AsyncIterator[tuple[LoadedModel, float | None, str | None]]:
        """The model of `file`, loaded if need be, which stays while inside; the seconds that loading took; and the name
        of the model that had to go. Raises ModelLoadFailed."""
        changed = await self._enter(file)
        try:
            assert self.loaded is not None
            yield self.loaded, *changed
        finally:
            self._leave()

    async def unload(self) -> None:
        """Give the memory back when nobody uses the model any more."""
        if self._changing or self._users or self._line:
            await self._wait(None)
        self._changing = True
        try:
            await self._drop()
        finally:
            self._changing = False
            self._next()

    async def close(self) -> None:
        """Unload at once, whoever uses it; who waits gets ShuttingDown."""
        self._closed = True
        while self._line:
            wish = self._line.popleft()
            if not wish.granted.done():
                wish.granted.set_exception(_closing())
        await self._drop()

    async def _enter(self, file: ModelFile) -> tuple[float | None, str | None]:
        if self._closed:
            raise _closing()
        if self._changing or self._line or (self._users and not self._is_loaded(file)):
            await self._wait(file)
        if self._is_loaded(file):
            self._users += 1
            self._next()  # those behind may want the same
            return None, None
        self._changing = True
        began, before = time.perf_counter(), self.loaded
        try:
            await self._drop()
            self.loaded = await self._load(file)
            if self._closed:
                await self._drop()
                raise _closing()
            self._users += 1
        finally:
            self._changing = False
            self._next()
        return time.perf_counter() - began, before.file.name if before is not None else None

    async def _wait(self, file: ModelFile | None) -> None:
        wish = _Wish(file, asyncio.get_running_loop().create_future())
        self._line.append(wish)
        self._next()
        try:
            await wish.granted
        except asyncio.CancelledError:
            if wish in self._line:
                self._line.remove(wish)
            else:
                self._changing = False  # it was just its turn
            self._next()
            raise
        self._changing = False

    def _leave(self) -> None:
        self._users -= 1
        self._next()

    def _next(self) -> None:
        """Let the first in line go on if it can; it holds everybody else up until it has looked."""
        if self._changing or not self._line:
            return
        wish = self._line[0]
        if self._users and not (wish.file is not None and self._is_loaded(wish.file)):
            return
        self._line.popleft()
        if wish.granted.done():
            self._next()
            return
        self._changing = True
        wish.granted.set_result(None)

    async def _drop(self) -> None:
        loaded, self.loaded = self.loaded, None
        if loaded is not None:
            await loaded.close()

    def _is_loaded(self, file: ModelFile) -> bool:
        return self.loaded is not None and self.loaded.file == file


def _closing() -> ShuttingDown:
    return ShuttingDown("The binding is being closed.", hint="Send the request again.")
