"""What every protocol promises, kept by this one too."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from lollms_kernel.testing.transport_contract import KEY, LIMIT, Reply, TransportContract


class TestVoiceChat(TransportContract):
    """Each question is a session of its own. A client that leaves for good interrupts: otherwise its answer is kept."""

    transports: ClassVar[dict[str, Any]] = {
        "ws_chat": {"turn_detector": "always", "welcome": "", "store": "memory"}
    }

    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        try:
            with opened(url, binding, key) as socket:
                send(socket, "USER_INPUT", text=prompt)
                message = receive(socket)
        except WebSocketException as error:
            return Reply(error=str(error))
        if message["type"] == "ERROR":
            return Reply(error=message["payload"]["message"])
        return Reply(text=message["payload"]["text"])

    @contextmanager
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> Iterator[Iterator[str]]:
        with opened(url, binding, key, features="stream,interrupt") as socket:
            send(socket, "USER_INPUT", text=prompt)
            yield pieces(socket)
            with contextlib.suppress(WebSocketException):
                send(socket, "INTERRUPT")


@contextmanager
def opened(url: str, binding: str | None, key: str | None, features: str = "") -> Iterator[ClientConnection]:
    address = f"{url.replace('http', 'ws', 1)}/ws/chat?clientId={uuid.uuid4().hex}&features={features}"
    if binding is not None:
        address += f"&binding={binding}"
    headers = {} if key is None else {"X-API-Key": key}
    with connect(address, additional_headers=headers, proxy=None, open_timeout=LIMIT) as socket:
        yield socket


def send(socket: ClientConnection, kind: str, **payload: Any) -> None:
    socket.send(msgspec.json.encode({"type": kind, "payload": payload}).decode())


def receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = msgspec.json.decode(socket.recv(timeout=LIMIT))
    return message


def pieces(socket: ClientConnection) -> Iterator[str]:
    while True:
        message = receive(socket)
        if message["type"] == "AI_RESPONSE":
            return
        if message["type"] == "ERROR":
            raise RuntimeError(message["payload"]["message"])
        yield message["payload"]["text"]
