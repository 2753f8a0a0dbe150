"""The engine alone, driven as the application that it is: what it keeps of clients that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from lollms_kernel.errors import Unauthorized
from lollms_transport_socketio.engine import Connection, Engine
from lollms_transport_socketio.settings import SocketioSettings

from .engineio_by_hand import handshake, polling_url

URL = "http://engine"


class Told:
    """What the engine told. A client that joins waits for `may_join`."""

    def __init__(self) -> None:
        self.joining = asyncio.Event()
        self.may_join = asyncio.Event()
        self.refusal: Exception | None = None
        self.joined: list[str] = []
        self.left: list[tuple[str, bool]] = []

    async def connected(self, connection: Connection, scope: Any, auth: Any) -> None:
        self.joining.set()
        await self.may_join.wait()
        if self.refusal is not None:
            raise self.refusal
        self.joined.append(connection.sid)

    async def event(self, connection: Connection, name: str, arguments: tuple[Any, ...]) -> None:
        raise AssertionError("no client of these tests sends an event")

    async def disconnected(self, connection: Connection, *, lost: bool) -> None:
        self.left.append((connection.sid, lost))


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[Engine, Told, httpx.AsyncClient]]:
    told = Told()
    engine = Engine(SocketioSettings(**settings), told)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.handle)) as client:
        yield engine, told, client
    await engine.close()


def traces(engine: Engine) -> list[object]:
    """What the engine and the library below it still know of any client."""
    kept: list[object] = [engine._connections, engine._refusals, engine._private_ids, engine._server.environ]
    manager = engine._manager
    kept += [manager.rooms, manager.pending_connect, manager.pending_disconnect, manager.callbacks]
    return [each for each in kept if each]


async def test_who_leaves_while_joining_leaves_no_trace() -> None:
    async with running() as (engine, told, client):
        sid = (await handshake(client, URL))["sid"]
        url = polling_url(URL, f"&sid={sid}")
        joining = asyncio.create_task(client.post(url, content=b"40"))
        await told.joining.wait()
        assert (await client.post(url, content=b"1")).status_code == 200

        told.may_join.set()
        async with asyncio.timeout(10):
            await joining

        [joined] = told.joined
        assert told.left == [(joined, True)]
        assert traces(engine) == []


async def test_who_joins_after_the_farewell_leaves_no_trace() -> None:
    async with running() as (engine, told, client):
        told.may_join.set()
        sid = (await handshake(client, URL))["sid"]
        response = await client.post(polling_url(URL, f"&sid={sid}"), content=b"40\x1e1\x1e40")

        assert response.status_code == 200

        [joined] = told.joined
        assert told.left == [(joined, False)]
        assert traces(engine) == []


async def test_who_was_refused_and_leaves_is_forgotten() -> None:
    async with running(connect_timeout=0.2) as (engine, told, client):
        told.may_join.set()
        told.refusal = Unauthorized("Not you.")
        sid = (await handshake(client, URL))["sid"]
        url = polling_url(URL, f"&sid={sid}")
        assert (await client.post(url, content=b"40")).status_code == 200
        assert engine._refusals == {sid: 1}
        assert (await client.post(url, content=b"1")).status_code == 200
        engine.forget_ended(sid)

        async with asyncio.timeout(10):
            while traces(engine):  # noqa: ASYNC110 - it is swept now and then, and tells nobody
                await asyncio.sleep(0.02)
