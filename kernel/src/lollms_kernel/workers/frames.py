"""What goes between server and worker: a 4-byte big-endian length, then one msgpack array that starts with a tag.

Payloads (arguments, values, chunks) stay encoded inside their frame until the side that knows their type decodes
them, so that each byte is decoded once and a payload of a wrong type spoils one call and not the connection.
Nothing here assumes that both ends run on one machine.
"""

from __future__ import annotations

import struct
from pathlib import PurePath
from typing import Any

import msgspec

from .faults import Fault

MAX_FRAME = 256 * 1024 * 1024
"""Bytes that a frame may have, in both directions."""

PROTOCOL = 2
"""Version of all this; both ends must agree."""

_HEADER = struct.Struct(">I")


class FrameError(Exception):
    """A value cannot be put into a frame, or the bytes received are no frame."""


class FrameTooLarge(FrameError):
    """A frame has more bytes than the limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"A frame of {size} bytes is larger than the limit of {limit} bytes.")
        self.size = size
        self.limit = limit


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """Do `method`; `arguments` is the msgpack array of its positional arguments."""

    id: int
    method: str
    arguments: msgspec.Raw


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Stop this call. It is answered as any other, once nothing of it runs any more."""

    id: int


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """The stream of this call may send `count` more chunks. It begins with none."""

    id: int
    count: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Say that your event loop turns."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """It turns; `pulse` is what the binding says of its engine (`Binding.pulse`)."""

    pulse: int | None = None


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The worker has started and takes calls, the first being `open`."""

    protocol: int


class Chunks(msgspec.Struct, frozen=True, array_like=True, tag="chunks"):
    """The next chunks of a stream, as many as were ready together; `items` is their msgpack array."""

    id: int
    items: msgspec.Raw


class Result(msgspec.Struct, frozen=True, array_like=True, tag="result"):
    """A call has ended well; a stream's `value` is nil."""

    id: int
    value: msgspec.Raw


class Raised(msgspec.Struct, frozen=True, array_like=True, tag="error"):
    """A call has ended with an error."""

    id: int
    fault: Fault


Frame = Call | Cancel | Credit | Ping | Pong | Ready | Chunks | Result | Raised


def as_plain(value: Any) -> Any:
    """`enc_hook` for the types that msgspec does not know: paths."""
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent between processes")


def from_plain(type_: type, value: Any) -> Any:
    """`dec_hook` for the types that msgspec does not know: paths."""
    if issubclass(type_, PurePath) and isinstance(value, str):
        return type_(value)
    raise TypeError(f"cannot make a {type_.__name__} of a {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=as_plain)


def pack(value: Any) -> msgspec.Raw:
    """`value` as a payload. Raises FrameError if it holds something that msgpack cannot say."""
    try:
        return msgspec.Raw(_encoder.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FrameError(f"{type(error).__name__}: {error}") from error


def encode(frame: Frame, limit: int = MAX_FRAME) -> bytes:
    """The frame as it goes over the wire. Raises FrameTooLarge."""
    body = _encoder.encode(frame)
    if len(body) > limit:
        raise FrameTooLarge(len(body), limit)
    return _HEADER.pack(len(body)) + body


class FrameDecoder:
    """Turns received bytes, however split, into frames. After a FrameError the connection is of no more use."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Frame)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames that `data` completes. Raises FrameError; what came before the bad frame is lost too."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > self._limit:
                raise FrameTooLarge(length, self._limit)
            body = start + _HEADER.size
            if len(buffer) - body < length:
                break
            start = body + length
            frames.append(self._decode(buffer, body, start))
        if start:
            del buffer[:start]
        return frames

    def _decode(self, buffer: bytearray, begin: int, end: int) -> Frame:
        with memoryview(buffer) as view:
            body = bytes(view[begin:end])  # payloads stay views into these bytes, so they must not change
        try:
            frame: Frame = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"{len(body)} bytes are no frame: {error}") from error
        return frame
