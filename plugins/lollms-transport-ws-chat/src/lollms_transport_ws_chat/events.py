"""What can happen to a session, and what the session then wants done. Plain values: the session itself does nothing.

`link` is the number of a connection, `number` tells the timer, the question or the reply that was meant from older
ones. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

TimerKind = Literal["silence", "playback", "expiry"]
Reason = Literal["welcome", "complete", "max_sentences", "timeout", "end_of_turn"]
Decision = Literal["buffered", "complete", "incomplete", "max_sentences"]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "USER_INPUT", "AI_RESPONSE", "SESSION", "TIMEOUT"]


class Outgoing(msgspec.Struct, frozen=True):
    """A message to a client: a type of the protocol and its payload."""

    type: str
    payload: dict[str, Any]


class Line(msgspec.Struct, frozen=True):
    """One entry of a conversation; `response` is the id of the answer, or of the answer that a user's text asks for."""

    role: Literal["user", "assistant"]
    content: str
    response: str


# --- events --------------------------------------------------------------------------------------------------------


class Connected(msgspec.Struct, frozen=True):
    """A connection for this session is open."""

    link: int
    features: frozenset[str] = frozenset()


class Disconnected(msgspec.Struct, frozen=True):
    """A connection is gone; `unsent` are messages that never left."""

    link: int
    unsent: tuple[Outgoing, ...] = ()


class UserInput(msgspec.Struct, frozen=True):
    """A valid text of the user. `origin` is the client id of the connection itself."""

    link: int
    text: str
    origin: str
    features: frozenset[str] = frozenset()


class Detected(msgspec.Struct, frozen=True):
    """The turn detector has looked at what was said so far."""

    number: int
    complete: bool
    probability: float | None = None
    threshold: float | None = None


class TimerFired(msgspec.Struct, frozen=True):
    """A timer that the session had set is over."""

    kind: TimerKind
    number: int


class ReplyGrew(msgspec.Struct, frozen=True):
    """The next piece of a reply that is being made."""

    response: str
    text: str


class Replied(msgspec.Struct, frozen=True):
    """A reply is complete."""

    response: str
    text: str


class ReplyFailed(msgspec.Struct, frozen=True):
    """There will be no reply; `message` may be shown to the client."""

    response: str
    code: str
    message: str
    retryable: bool = False


class PlaybackStarted(msgspec.Struct, frozen=True):
    """The client begins to speak a reply; it may know how long it takes."""

    link: int
    response: str
    duration: float | None = None


class PlaybackFinished(msgspec.Struct, frozen=True):
    """The client has spoken a reply to its end."""

    link: int
    response: str


class Interrupt(msgspec.Struct, frozen=True):
    """The user wants the reply to stop; `played` seconds of it were heard."""

    link: int
    response: str | None = None
    played: float | None = None


class EndOfTurn(msgspec.Struct, frozen=True):
    """The user says that nothing more follows."""

    link: int


class UserSpeaks(msgspec.Struct, frozen=True):
    """The user is in the middle of a sentence that is not complete yet."""

    link: int


class Suspended(msgspec.Struct, frozen=True):
    """The server stops: what is under way has to wait until it is back."""


Event = (
    Connected
    | Disconnected
    | UserInput
    | Detected
    | TimerFired
    | ReplyGrew
    | Replied
    | ReplyFailed
    | PlaybackStarted
    | PlaybackFinished
    | Interrupt
    | EndOfTurn
    | UserSpeaks
    | Suspended
)


# --- commands ------------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Send a message."""

    link: int
    message: Outgoing


class Detach(msgspec.Struct, frozen=True):
    """This connection has lost the session to another one."""

    link: int


class Refuse(msgspec.Struct, frozen=True):
    """This connection may not have the session: another one has it."""

    link: int


class Detect(msgspec.Struct, frozen=True):
    """Ask the turn detector about a conversation whose last line is what the user has said so far."""

    number: int
    lines: tuple[Line, ...]


class SetTimer(msgspec.Struct, frozen=True):
    """Let `TimerFired` happen at a time; replaces a timer of the same kind."""

    kind: TimerKind
    number: int
    at: float


class CancelTimer(msgspec.Struct, frozen=True):
    """This timer is not needed any more."""

    kind: TimerKind


class Generate(msgspec.Struct, frozen=True):
    """Ask for a reply to a conversation."""

    response: str
    lines: tuple[Line, ...]
    reason: Reason
    stream: bool = False


class StopGenerating(msgspec.Struct, frozen=True):
    """Nobody waits for this reply any more."""

    response: str


class Save(msgspec.Struct, frozen=True):
    """What lasts has changed."""


class Forget(msgspec.Struct, frozen=True):
    """The session is over."""


class Count(msgspec.Struct, frozen=True):
    """A figure for the metrics."""

    metric: Literal["inputs", "dropped"]
    label: str


class Log(msgspec.Struct, frozen=True):
    """A line of the log; `text` is what a person said, which may be left out of logs."""

    level: Level
    message: str
    facts: dict[str, Any] = {}
    text: str | None = None


Command = (
    Send
    | Detach
    | Refuse
    | Detect
    | SetTimer
    | CancelTimer
    | Generate
    | StopGenerating
    | Save
    | Forget
    | Count
    | Log
)
