"""Connection state recovery of Socket.IO 4.6: what a client missed while it was away is sent again.

Every event to such a client carries, as last argument, its number. The client comes back with the id that it got when
it joined and with the last number that it saw.
"""

from __future__ import annotations

import secrets
from collections import deque

import msgspec

from .packets import event_packet

MAX_EVENTS = 2000
MAX_BYTES = 1024 * 1024


class Offer(msgspec.Struct, frozen=True):
    """What a client says that comes back."""

    private_id: str
    offset: str


class EventLog:
    """The last events of one client, numbered; bounded in number and bytes."""

    def __init__(self) -> None:
        self.private_id = secrets.token_urlsafe(18)
        self._number = 0
        self._packets: deque[tuple[int, str]] = deque()
        self._bytes = 0

    def note(self, event: str, payload: object) -> str:
        """The packet of an event, kept in case that it gets lost."""
        self._number += 1
        packet = event_packet(event, payload, str(self._number))
        self._packets.append((self._number, packet))
        self._bytes += len(packet)
        while self._packets and (len(self._packets) > MAX_EVENTS or self._bytes > MAX_BYTES):
            _, oldest = self._packets.popleft()
            self._bytes -= len(oldest)
        return packet

    def since(self, offset: str) -> list[str] | None:
        """The packets after a number, "" standing for none seen; None where some of them are not kept any more."""
        if offset and not (offset.isascii() and offset.isdigit() and len(offset) < 20):
            return None
        seen = int(offset or 0)
        kept_from = self._packets[0][0] if self._packets else self._number + 1
        if seen > self._number or seen < kept_from - 1:
            return None
        return [packet for number, packet in self._packets if number > seen]
