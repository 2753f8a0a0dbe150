"""Blocking HTTP calls in threads, with connections that can be broken from outside.

google-generativeai blocks while it reads, and a thread cannot be stopped. But the connection that it waits for can be
shut down, which ends the wait at once and tells the service that nobody listens any more.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

THREADS = 32
"""How many calls of one instance run at once."""

T = TypeVar("T")

_here = threading.local()


class Line:
    """The connection that one call uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    def use(self, connected: socket.socket) -> None:
        """Note the socket. Raises ConnectionAbortedError if the line was cut already."""
        with self._lock:
            if self._cut:
                raise ConnectionAbortedError
            self._socket = connected

    def cut(self) -> None:
        """Break the connection, now or when it comes about."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with suppress(OSError):  # the other end may have gone already
                    self._socket.shutdown(socket.SHUT_RDWR)


class Threads:
    """Runs the calls of one instance."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="generativeai")

    async def run(
        self, line: Line, call: Callable[[], T], *, give_up: Callable[[T], None] | None = None
    ) -> T:
        """What the call gives. Being cancelled cuts its line; what it gives nevertheless is handed to `give_up`."""

        def work() -> T:
            _here.line = line
            try:
                return call()
            finally:
                _here.line = None

        def forget(future: asyncio.Future[T]) -> None:
            if not future.cancelled() and future.exception() is None and give_up is not None:
                give_up(future.result())

        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            line.cut()
            future.add_done_callback(forget)
            raise

    def close(self) -> None:
        """Take no more calls; those that run end with their lines."""
        self._pool.shutdown(wait=False, cancel_futures=True)


# --- connections that tell their line of their socket ---------------------------------------------------------------


class _Noted:
    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _note(self.sock)

    def request(self, *arguments: Any, **named: Any) -> None:
        if self.sock is not None:  # kept from an earlier call
            _note(self.sock)
        super().request(*arguments, **named)  # type: ignore[misc]


def _note(connected: socket.socket) -> None:
    line: Line | None = getattr(_here, "line", None)
    if line is not None:
        line.use(connected)


class _NotedHTTP(_Noted, HTTPConnection):
    pass


class _NotedHTTPS(_Noted, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _NotedHTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _NotedHTTPS


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class LineAdapter(HTTPAdapter):
    """What `requests` sends through where lines can be cut, with limits for connecting and for reading."""

    def __init__(self, connect: float, read: float) -> None:
        self._limits = (connect, read)
        super().__init__(pool_maxsize=THREADS)

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        """As the base class, with connections that are noted."""
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **named: Any) -> Any:
        """As the base class, with connections that are noted."""
        manager = super().proxy_manager_for(*arguments, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
        """As the base class, with the instance's limits."""
        named["timeout"] = self._limits
        return super().send(request, *arguments, **named)
