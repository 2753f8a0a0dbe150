"""Clients of a live server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

LIMIT = 30.0


class Client:
    """One open connection, and when what came over it, in seconds since it was begun."""

    def __init__(self, socket: ClientConnection, began: float) -> None:
        self.socket = socket
        self._began = began
        self.welcome_at = 0.0
        """When the welcome was there: the server counts from a moment between the beginning and this."""
        self.got: list[tuple[float, dict[str, Any]]] = []

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    async def welcomed(self) -> dict[str, Any]:
        """The payload of the welcome."""
        payload = await self.receive("AI_RESPONSE")
        self.welcome_at = self.now
        return payload

    async def at(self, seconds: float) -> None:
        """Wait until so long after the welcome."""
        await asyncio.sleep(max(0.0, self.welcome_at + seconds - self.now))

    async def heard(self) -> dict[str, Any]:
        """The payload of the next answer, once its playback is over."""
        payload = await self.receive("AI_RESPONSE")
        await asyncio.sleep(payload["estimated_tts_duration"] + 0.05)
        return payload

    async def send(self, kind: str, **payload: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, "payload": payload}))

    async def say(self, text: str, **payload: Any) -> None:
        await self.send("USER_INPUT", text=text, **payload)

    async def receive(self, kind: str | None = None) -> dict[str, Any]:
        """The payload of the next message, or of the next one of a kind."""
        async with asyncio.timeout(LIMIT):
            while True:
                message = json.loads(await self.socket.recv())
                self.got.append((self.now, message))
                if kind in (None, message["type"]):
                    payload: dict[str, Any] = message["payload"]
                    return payload

    async def ended(self) -> tuple[int | None, str | None]:
        """Code and reason of the close, once it is closed."""
        await asyncio.wait_for(self.socket.wait_closed(), LIMIT)
        return self.socket.close_code, self.socket.close_reason


class connected:
    """`async with connected(url, "u", features="state") as client`."""

    def __init__(self, url: str, client_id: str | None, *, headers: Any = None, **options: Any) -> None:
        query = {} if client_id is None else {"clientId": client_id}
        subprotocols = options.pop("subprotocols", None)
        query |= options
        text = "&".join(f"{key}={value}" for key, value in query.items())
        self._opening = websockets.connect(
            f"{url}?{text}",
            proxy=None,
            additional_headers=headers,
            subprotocols=subprotocols,
            max_size=None,
            open_timeout=LIMIT,
        )

    async def __aenter__(self) -> Client:
        began = time.monotonic()
        return Client(await self._opening.__aenter__(), began)

    async def __aexit__(self, *error: Any) -> None:
        await self._opening.__aexit__(*error)
