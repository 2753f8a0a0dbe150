"""Frames over a connected stream socket; the same class serves both ends.

Made for many small frames: whatever one turn of the event loop sends leaves in one write, chunks of a stream that
are ready together share a frame, and no task runs per frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from ..types import Chunk
from .frames import MAX_FRAME, Chunks, Frame, FrameDecoder, FrameError, FrameTooLarge, encode, pack

READ_SIZE = 64 * 1024
WRITE_SOON = 64 * 1024
"""Bytes that may gather before they are written without waiting for the end of the turn."""
_CHUNKS_OVERHEAD = 64
"""More than a `Chunks` frame adds to one chunk."""


class Channel(asyncio.BufferedProtocol):
    """Calls `receive(frame)` for each frame and once, at the end, `lost(reason)`; None: the peer closed it.

    `max_total` bounds the bytes that are received in all, where what the other end runs is not trusted.
    """

    def __init__(
        self,
        receive: Callable[[Frame], None],
        lost: Callable[[Exception | None], None],
        *,
        max_frame: int = MAX_FRAME,
        max_total: int | None = None,
    ) -> None:
        self._receive = receive
        self._lost = lost
        self._max_frame = max_frame
        self._max_total = max_total
        self._received = 0
        self._decoder = FrameDecoder(max_frame)
        self._read = memoryview(bytearray(READ_SIZE))
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._batches: dict[int, list[msgspec.Raw]] = {}
        self._frames: list[bytes] = []
        self._gathered = 0
        self._garbage: FrameError | None = None

    def send(self, frame: Frame) -> None:
        """Send a frame with the end of this turn; nothing happens once the connection is lost.

        Raises FrameTooLarge.
        """
        data = encode(frame, self._max_frame)
        self._frames.append(data)
        self._gather(len(data))

    def send_chunk(self, id: int, chunk: Chunk) -> None:
        """Send a chunk of stream `id`, together with its other chunks of this turn. Raises FrameError."""
        item = pack(chunk)
        size = len(memoryview(item))
        if size + _CHUNKS_OVERHEAD > self._max_frame:
            raise FrameTooLarge(size, self._max_frame)
        if self._gathered and self._gathered + size > WRITE_SOON:
            self._flush()
        self._batches.setdefault(id, []).append(item)
        self._gather(size)

    def close(self) -> None:
        """Send what is queued, then end the connection."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection; what is queued is dropped."""
        if self._transport is not None:
            self._transport.abort()

    # --- called by the event loop ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what it reads."""
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on every frame that is complete now."""
        if self._garbage is not None:
            return
        self._received += nbytes
        if self._max_total is not None and self._received > self._max_total:
            self._garbage = FrameError(f"more than {self._max_total:,} bytes in all.")
            self.abort()
            return
        try:
            frames = self._decoder.feed(self._read[:nbytes])
        except FrameError as error:
            self._garbage = error
            self.abort()
            return
        for frame in frames:
            self._receive(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end."""
        self._transport = None
        self._lost(self._garbage or exc)

    # --- writing --------------------------------------------------------------------------------------------

    def _gather(self, size: int) -> None:
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered += size
        if self._gathered > WRITE_SOON:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        # Chunks go first: nothing of a stream follows its Result, and other frames have no order among streams.
        parts = [encode(Chunks(id, pack(items)), self._max_frame) for id, items in self._batches.items()]
        parts += self._frames
        self._batches, self._frames, self._gathered = {}, [], 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(parts))
