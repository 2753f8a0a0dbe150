"""Packets of Socket.IO as this server takes and sends them, and the queue in which they wait for their client.

This file and `engine` are the only ones that know python-socketio; both are imported when the first client comes.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import msgspec
from engineio.payload import Payload
from socketio import packet

from .posts import MAX_PACKETS

MALFORMED = object()
"""In place of an event's name it stands for a packet which no client of this protocol sends."""

PACKETS_PER_POLL = 16
"""What python-socketio's own client takes in one answer to a poll; it gives up the connection beyond that."""

Payload.max_decode_packets = MAX_PACKETS

_RESERVED = frozenset({"connect", "disconnect", "*"})
"""Names that python-socketio would take for its own handlers; as events of a client they mean nothing."""


class MsgspecJson:
    """What python-socketio wants of a JSON module, by msgspec."""

    _encoder = msgspec.json.Encoder()
    _decoder = msgspec.json.Decoder()

    @classmethod
    def dumps(cls, value: Any, **_options: Any) -> str:
        """JSON text."""
        return cls._encoder.encode(value).decode()

    @classmethod
    def loads(cls, text: str | bytes, **_options: Any) -> Any:
        """The value of JSON text. Raises ValueError."""
        try:
            return cls._decoder.decode(text)
        except RecursionError:
            raise ValueError("too deeply nested") from None


class ServerPacket(packet.Packet):  # type: ignore[misc]  # python-socketio has no types
    """Takes only what this protocol knows: no binary events, whose attachments could pile up, and no acknowledgements,
    for which nobody asks. Subclass it for each server: `private_ids` belongs to one."""

    json = MsgspecJson
    data: Any
    id: int | None
    namespace: str | None
    private_ids: ClassVar[dict[str, str]] = {}
    """Socket id to the id by which its client may recover it, said in the answer to its CONNECT."""

    def __init__(self, *arguments: Any, encoded_packet: Any = None, **options: Any) -> None:
        if encoded_packet is not None:
            encoded_packet = encoded_packet or " "  # python-socketio would not even decode an empty one
        super().__init__(*arguments, encoded_packet=encoded_packet, **options)

    def encode(self) -> Any:
        """The text to send."""
        if self.packet_type == packet.CONNECT and isinstance(self.data, dict):
            private_id = self.private_ids.pop(self.data.get("sid", ""), None)
            if private_id is not None:
                self.data = {**self.data, "pid": private_id}
        return super().encode()

    def decode(self, encoded_packet: Any) -> int:
        """Read what a client sent; what makes no sense becomes the event MALFORMED."""
        try:
            super().decode(encoded_packet)
            problem = self._problem()
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            problem = str(error) or "not a Socket.IO packet"
        if problem is not None:
            self.packet_type, self.id, self.namespace = packet.EVENT, None, None
            self.data = [MALFORMED, problem]
        elif self.packet_type == packet.EVENT and self.data[0] in _RESERVED:
            self.data[0] = f" {self.data[0]}"
        return 0

    def _problem(self) -> str | None:
        if self.packet_type in (packet.CONNECT, packet.DISCONNECT):
            return None
        if self.packet_type != packet.EVENT:
            return f"packets of type {self.packet_type} are not taken"
        named = isinstance(self.data, list) and self.data and isinstance(self.data[0], str)
        return None if named else "an event is a list that begins with its name"


def event_packet(event: str, *arguments: Any) -> str:
    """The text of an event."""
    return f"{packet.EVENT}{MsgspecJson.dumps([event, *arguments])}"


class PacketQueue(asyncio.Queue[Any]):
    """Packets that wait for their client, counted and measured; gives them to a poll in portions."""

    def __init__(self, max_packets: int, max_bytes: int) -> None:
        super().__init__()
        self._max_packets = max_packets
        self._max_bytes = max_bytes
        self._bytes = 0
        self._portion = 0
        self._waiters: list[asyncio.Future[None]] = []

    def has_room(self, times: int = 1) -> bool:
        """Whether the limits, or so many times these, are not reached."""
        return self.qsize() < times * self._max_packets and self._bytes < times * self._max_bytes

    async def room(self) -> None:
        """Wait until there is room."""
        while not self.has_room():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def get(self) -> Any:
        """The next packet, which begins a portion."""
        self._portion = 0
        return await super().get()

    def get_nowait(self) -> Any:
        """The next packet of the portion. Raises QueueEmpty at its end."""
        if self._portion >= PACKETS_PER_POLL:
            raise asyncio.QueueEmpty
        item = super().get_nowait()
        self._portion += 1
        return item

    def _put(self, item: Any) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= _size(item)
        if self._waiters and self.has_room():
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        return item


def _size(item: Any) -> int:
    data = getattr(item, "data", None)
    return len(data) if isinstance(data, str | bytes) else 0
