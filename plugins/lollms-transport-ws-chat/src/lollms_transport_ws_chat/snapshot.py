"""What of a session outlasts the server. Times become seconds since 1970, since no other clock does."""

from __future__ import annotations

import math

import msgspec

from .events import Line, Outgoing
from .session import Rules, Session

FORMAT = 1


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A stored session."""

    format: int
    client_id: str
    number: str
    begun: bool
    replies: int
    history: list[Line]
    buffer: list[str]
    undelivered: list[Outgoing]
    playback_ends_at: float | None = None
    expires_at: float | None = None
    """None while somebody was connected."""


def taken(session: Session, now: float, wall: float) -> Snapshot:
    """The session as it is, `now` on its own clock and `wall` in seconds since 1970."""
    ends, expires = session.playback_ends_at, session.expires_at
    begun, history, waiting = session.settled  # a question that is being answered will be asked again
    return Snapshot(
        format=FORMAT,
        client_id=session.client_id,
        number=session.number,
        begun=begun,
        replies=session.replies,
        history=history,
        buffer=waiting,
        undelivered=list(session.undelivered),
        playback_ends_at=wall + ends - now if ends > now else None,
        expires_at=None if expires is None else wall + expires - now,
    )


def restored(snapshot: Snapshot, rules: Rules, now: float, wall: float) -> Session | None:
    """The session as it was, disconnected; None if its time is over."""
    if snapshot.format != FORMAT or (snapshot.expires_at is not None and snapshot.expires_at <= wall):
        return None
    session = Session(snapshot.client_id, snapshot.number, rules)
    session.begun, session.replies = snapshot.begun, snapshot.replies
    session.history, session.buffer = list(snapshot.history), list(snapshot.buffer)
    session.undelivered = list(snapshot.undelivered)
    ends = snapshot.playback_ends_at
    session.playback_ends_at = -math.inf if ends is None else now + ends - wall
    return session


def encoded(snapshot: Snapshot) -> bytes:
    """For a store."""
    return msgspec.msgpack.encode(snapshot)


def decoded(data: bytes) -> Snapshot:
    """From a store. Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(data, type=Snapshot)
