"""The yardstick: a bare ASGI application on the same uvicorn, uvloop and httptools.

POST /answer gives one small JSON body, POST /stream as many server-sent events as the header `x-chunks` says.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn

from lollms_kernel.testing.server_process import free_port

from .client import Address, ask

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_encode = msgspec.json.Encoder().encode


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Read the body as JSON, then answer as the path says."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    request = msgspec.json.decode(body)
    streams = scope["path"] == "/stream"
    kind = b"text/event-stream" if streams else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if streams:
        for _ in range(int(dict(scope["headers"])[b"x-chunks"])):
            event: dict[str, Any] = {"type": "chunk", "content": "token ", "thoughts": None, "metadata": {}}
            await send({"type": "http.response.body", "body": _sse(event), "more_body": True})
        await send({"type": "http.response.body", "body": _sse({"type": "final", "content": []})})
    else:
        await send({"type": "http.response.body", "body": _encode({"output": request["input_data"]})})


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + _encode(event) + b"\n\n"


@contextmanager
def running() -> Iterator[tuple[Address, int]]:
    """Address and process id of the bare server."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.baseline", str(port)])
    address = Address("127.0.0.1", port)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                ask(address, "/answer", {"input_data": []})
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
