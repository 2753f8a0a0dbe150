"""A client that costs as little as possible: one socket, no parsing beyond what a figure needs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

TIMEOUT = 60.0
FINAL = b'"type":"final"'


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


@contextmanager
def connection(address: Address) -> Iterator[socket.socket]:
    """A connected socket without Nagle's delay."""
    with socket.create_connection(address, timeout=TIMEOUT) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def send(to: socket.socket, path: str, body: Any, headers: Mapping[str, str] | None = None) -> None:
    """One POST request with a JSON body."""
    content = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n{extra}\r\n"
    )
    to.sendall(head.encode() + content)


def receive_answer(of: socket.socket) -> bytes:
    """The body of an answer that has a Content-Length or one chunk. Raises OSError unless its status is 200."""
    data = receive_until(of, b"\r\n\r\n")
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        while len(body) < int(fields[b"content-length"]):
            body += _some(of)
    else:
        while not body.endswith(b"0\r\n\r\n"):
            body += _some(of)
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(f"the server answered {data!r}")
    return body


def receive_until(of: socket.socket, mark: bytes) -> bytes:
    """Everything up to the piece in which `mark` ends. Raises OSError if the connection ends before."""
    data = bytearray()
    while True:
        start = max(0, len(data) - len(mark))
        data += _some(of)
        if data.find(mark, start) >= 0:
            return bytes(data)


def ask(address: Address, path: str, body: Any) -> bytes:
    """One request over a connection of its own."""
    with connection(address) as opened:
        send(opened, path, body)
        return receive_answer(opened)


def prompt(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a generate request."""
    return {"input_data": [{"type": "text", "role": "user_prompt", "data": text}], **fields}


def _some(of: socket.socket) -> bytes:
    data = of.recv(1 << 16)
    if not data:
        raise OSError("the server closed the connection early")
    return data
