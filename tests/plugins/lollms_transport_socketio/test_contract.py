"""What every protocol promises, with python-socketio's synchronous client."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import socketio

from lollms_kernel.testing import TransportContract
from lollms_kernel.testing.transport_contract import KEY, LIMIT, Reply

LAST = ("text_generated", "generation_error", "buzzy")


class TestSocketio(TransportContract):
    def ask(self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY) -> Reply:
        try:
            with self.stream(url, prompt, binding=binding, key=key) as pieces:
                return Reply(text="".join(pieces))
        except (RuntimeError, socketio.exceptions.ConnectionError) as error:
            return Reply(error=str(error))

    @contextmanager
    def stream(
        self, url: str, prompt: str, *, binding: str | None = None, key: str | None = KEY
    ) -> Iterator[Iterator[str]]:
        heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        client = socketio.Client(reconnection=False)
        client.on("*", lambda event, payload=None: heard.put((event, payload)))
        client.connect(url, transports=["websocket"], auth=None if key is None else {"api_key": key})
        try:
            if binding is not None:
                client.emit("select_binding", {"binding_name": binding})
                _, chosen = heard.get(timeout=LIMIT)
                if not chosen["success"]:
                    raise RuntimeError(chosen["error"])
            client.emit("generate_text", {"prompt": prompt})
            yield pieces(heard)
        finally:
            client.disconnect()


def pieces(heard: queue.Queue[tuple[str, Any]]) -> Iterator[str]:
    while True:
        event, payload = heard.get(timeout=LIMIT)
        if event == "text_chunk":
            yield payload["chunk"]
        elif event == "text_generated":
            return
        elif event in LAST:
            raise RuntimeError(payload)
