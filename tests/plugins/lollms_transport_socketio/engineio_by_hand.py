"""Engine.IO by hand: what no client library would send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

QUERY = "EIO=4&transport="


def websocket_url(url: str, query: str = "") -> str:
    return f"{url.replace('http', 'ws', 1)}/socket.io/?{QUERY}websocket{query}"


def polling_url(url: str, query: str = "") -> str:
    return f"{url}/socket.io/?{QUERY}polling{query}"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A WebSocket that has received its handshake and sent nothing."""
    async with connect(websocket_url(url), max_size=None, **options) as socket:
        assert json.loads(str(await socket.recv())[1:])["upgrades"] == []
        yield socket


@asynccontextmanager
async def welcomed(url: str, auth: Any = None) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """A WebSocket that has joined, and what it was told then."""
    async with opened(url) as socket:
        await socket.send("40" + ("" if auth is None else json.dumps(auth)))
        answer = str(await socket.recv())
        assert answer.startswith("40{"), answer
        yield socket, json.loads(answer[2:])


@asynccontextmanager
async def joined(url: str, auth: Any = None) -> AsyncIterator[ClientConnection]:
    """A WebSocket that has joined."""
    async with welcomed(url, auth) as (socket, _):
        yield socket


def event(name: str, *payload: Any) -> str:
    return "42" + json.dumps([name, *payload])


async def handshake(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """What a polling client is told first."""
    response = await client.get(polling_url(url))
    assert response.status_code == 200, response.text
    told: dict[str, Any] = json.loads(response.text[1:])
    return told
