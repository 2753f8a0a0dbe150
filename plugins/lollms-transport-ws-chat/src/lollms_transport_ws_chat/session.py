"""One conversation as a state machine: events in, commands out.

It reads no clock, waits for nothing and sends nothing: whoever drives it says what time it is and carries the commands
out. So a session behaves the same on a virtual clock, in a test of random events, and behind a socket.

The rules, in short. While an answer is being made or spoken, what the user says is only collected. Otherwise the turn
detector looks at everything collected: a complete turn is answered at once, and so are `max_incomplete` pieces; an
incomplete one is answered after `silence` seconds without more. There is never more than one answer in the making.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from .events import (
    CancelTimer,
    Command,
    Connected,
    Count,
    Detach,
    Detect,
    Detected,
    Disconnected,
    EndOfTurn,
    Event,
    Forget,
    Generate,
    Interrupt,
    Level,
    Line,
    Log,
    Outgoing,
    PlaybackFinished,
    PlaybackStarted,
    Reason,
    Refuse,
    Replied,
    ReplyFailed,
    ReplyGrew,
    Save,
    Send,
    SetTimer,
    StopGenerating,
    Suspended,
    TimerFired,
    TimerKind,
    UserInput,
    UserSpeaks,
)
from .fragments import joined
from .speech_duration import said_within

DETECTOR_LINES = 6
"""How much of a conversation the turn detector sees."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a session goes by. Times are seconds."""

    duration: Callable[[str], float]
    """How long it takes to say a text."""
    max_incomplete: int = 3
    silence: float = 5.0
    ttl: float = 3600.0
    welcome: str = ""
    welcome_from_backend: bool = False
    replace: bool = True
    """Whether a second connection takes a session over; else it is refused."""
    evaluate_on_playback_end: bool = False
    buffer_limit: int = 50
    history_limit: int = 200
    undelivered_limit: int = 16
    playback_slack: float = 60.0
    """How much longer than estimated a client may say that playback takes."""


class Spoken(msgspec.Struct):
    """The answer that is or was spoken last."""

    response: str
    text: str
    duration: float
    started: float


class Refused(msgspec.Struct, frozen=True):
    """Why a message was not taken."""

    code: str
    message: str


class Session:
    """The state of one conversation. `handle` is the only thing that changes it."""

    def __init__(self, client_id: str, number: str, rules: Rules) -> None:
        self.client_id = client_id
        self.number = number
        """Tells this session from earlier ones of the same client."""
        self.rules = rules
        self.begun = False
        self.history: list[Line] = []
        self.buffer: list[str] = []
        self.undelivered: list[Outgoing] = []
        self.link: int | None = None
        self.features: frozenset[str] = frozenset()
        self.generating: str | None = None
        self.playback_ends_at = -math.inf
        self.last_input_at = -math.inf
        self.expires_at: float | None = None
        self.spoken: Spoken | None = None
        self.replies = 0
        self._asked: list[str] = []
        self._reason: Reason = "complete"
        self._partial = ""
        self._detecting: int | None = None
        self._end_of_turn = False
        self._timers: dict[TimerKind, int] = {}
        self._count = 0
        self._told: tuple[str, int] | None = None
        self._now = 0.0
        self._out: list[Command] = []

    def state(self, now: float) -> str:
        """What a client shows: `thinking`, `speaking`, `buffering` or `listening`."""
        if self.generating is not None:
            return "thinking"
        if now < self.playback_ends_at:
            return "speaking"
        return "buffering" if self.buffer else "listening"

    @property
    def settled(self) -> tuple[bool, list[Line], list[str]]:
        """Whether it has begun, its history and what waits for an answer, as if no answer were in the making."""
        if self.generating is None:
            return self.begun, list(self.history), list(self.buffer)
        return self._reason != "welcome", self._without_question(), [*self._asked, *self.buffer]

    @property
    def timers(self) -> frozenset[TimerKind]:
        """The timers that are set."""
        return frozenset(self._timers)

    @property
    def detecting(self) -> bool:
        """Whether an answer of the turn detector is awaited."""
        return self._detecting is not None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take an event at a time, which never goes back; what has to be done now, in order."""
        self._now, self._out = now, []
        match event:
            case UserInput():
                self._user_input(event)
            case Detected():
                self._detected(event)
            case TimerFired():
                self._timer_fired(event)
            case ReplyGrew():
                self._reply_grew(event)
            case Replied():
                self._replied(event)
            case ReplyFailed():
                self._reply_failed(event)
            case Connected():
                self._connected(event)
            case Disconnected():
                self._disconnected(event)
            case PlaybackStarted():
                self._playback_started(event)
            case PlaybackFinished():
                self._playback_finished(event)
            case Interrupt():
                self._interrupted(event)
            case EndOfTurn():
                self._turn_ended(event)
            case UserSpeaks():
                self._user_speaks(event)
            case Suspended():
                self._suspended()
        self._tell_state()
        return self._out

    # --- connections ---

    def _connected(self, event: Connected) -> None:
        if self.link is not None and self.link != event.link:
            if not self.rules.replace:
                self._do(Refuse(event.link))
                return
            self._do(Detach(self.link))
            self._log("SESSION", "TAKEOVER: another connection takes the session over")
        resumed = self.begun
        self._attach(event.link, event.features)
        if "session" in self.features:
            facts = {
                "resumed": resumed,
                "history_len": len(self.history),
                "features": sorted(self.features),
            }
            self._send("SESSION", facts)
        if not resumed:
            self._welcome()
        self._deliver_what_waited()
        self._arm(self._now)
        self._do(Save())

    def _attach(self, link: int, features: frozenset[str]) -> None:
        self.link, self.features, self._told = link, features, None
        self.begun = True
        self.expires_at = None
        self._cancel("expiry")

    def _welcome(self) -> None:
        if not self.rules.welcome:
            return
        response = self._next_response()
        if self.rules.welcome_from_backend:
            self._reason, self._asked = "welcome", []
            self.generating = response
            request = Line("user", self.rules.welcome, response)
            self._do(Generate(response, (request,), "welcome"))
            return
        self._remember(Line("assistant", self.rules.welcome, response))
        self._deliver(self._response(response, self.rules.welcome, "welcome"))

    def _deliver_what_waited(self) -> None:
        waiting, self.undelivered = self.undelivered, []
        for message in waiting:
            self._deliver(message)

    def _disconnected(self, event: Disconnected) -> None:
        current = event.link == self.link
        if current:
            self.link, self.features = None, frozenset()
            self._cancel("silence")
            self._cancel("playback")
            self.expires_at = self._now + self.rules.ttl
            self._set("expiry", self.expires_at)
            self._log("SESSION", "DISCONNECTED: session kept", expires_in=f"{self.rules.ttl:g}s")
        for message in event.unsent:
            self._deliver(message)
        if current or event.unsent:
            self._do(Save())

    # --- what the user says ---

    def _user_input(self, event: UserInput) -> None:
        if self.link is None:  # another connection speaks for a session that nobody is attached to
            self._attach(event.link, event.features)
            self._deliver_what_waited()
            self._arm(self._now)
        if event.link != self.link:
            self._refuse(
                event, Refused("session_taken", "This client_id belongs to another live connection.")
            )
            return
        if len(self.buffer) >= self.rules.buffer_limit:
            text = f"Too much unanswered input: at most {self.rules.buffer_limit} messages wait."
            self._refuse(event, Refused("buffer_full", text))
            return
        self.buffer.append(event.text)
        self.last_input_at = self._now
        self._detecting = None
        self._do(Save())
        if self.generating is not None or self._now < self.playback_ends_at:
            self._do(Count("inputs", "buffered"))
            self._log(
                "USER_INPUT", "AI speaking. Buffering", event.text, current_buffer_size=len(self.buffer)
            )
            self._arm(self._now)
        elif len(self.buffer) >= self.rules.max_incomplete:
            self._do(Count("inputs", "max_sentences"))
            self._log(
                "USER_INPUT", "Enough pieces. Processing", event.text, current_buffer_size=len(self.buffer)
            )
            self._dispatch("max_sentences")
        else:
            self._detect()

    def _refuse(self, event: UserInput, refused: Refused) -> None:
        error = {"message": refused.message, "client_id": event.origin, "code": refused.code}
        self._do(Send(event.link, Outgoing("ERROR", {**error, "retryable": True, "text": event.text})))
        self._log("WARNING", f"Input refused: {refused.message}", code=refused.code, connection=event.origin)

    def _detect(self) -> None:
        self._cancel("silence")
        self._cancel("playback")
        self._count += 1
        self._detecting = self._count
        said = Line("user", joined(self.buffer), "")
        before = self.history[-(DETECTOR_LINES - 1) :]
        self._do(Detect(self._count, (*before, said)))

    def _detected(self, event: Detected) -> None:
        if event.number != self._detecting:
            return
        self._detecting = None
        said = joined(self.buffer)
        facts: dict[str, Any] = {"current_buffer_size": len(self.buffer)}
        if event.probability is not None:
            facts |= {"probability": f"{event.probability:.4g}", "threshold": event.threshold}
        if event.complete and self._now >= self.playback_ends_at:
            self._do(Count("inputs", "complete"))
            self._log("USER_INPUT", "Complete turn. Processing", said, **facts)
            self._dispatch("complete")
        else:
            self._do(Count("inputs", "incomplete"))
            self._log("USER_INPUT", "Incomplete turn. Waiting for more", said, **facts)
            self._arm(self.last_input_at)

    def _turn_ended(self, event: EndOfTurn) -> None:
        if event.link != self.link or not self.buffer:
            return
        if self.generating is None:
            self._dispatch("end_of_turn")
        else:
            self._end_of_turn = True

    def _user_speaks(self, event: UserSpeaks) -> None:
        if event.link == self.link:
            self.last_input_at = self._now
            self._arm(self._now)

    # --- waiting ---

    def _arm(self, since: float) -> None:
        """Wait for the user to be silent, from a time or from the end of playback on."""
        self._cancel("silence")
        self._cancel("playback")
        if self.link is None:
            return
        speaking = self._now < self.playback_ends_at
        evaluate = bool(self.buffer) and self.rules.evaluate_on_playback_end
        if speaking and self.generating is None and (evaluate or "state" in self.features):
            self._set("playback", self.playback_ends_at)
        if self.generating is None and self.buffer and self._detecting is None:
            silence = 0.0 if self._end_of_turn else self.rules.silence
            self._set("silence", max(self._now, max(since, self.playback_ends_at) + silence))

    def _timer_fired(self, event: TimerFired) -> None:
        if self._timers.get(event.kind) != event.number:
            return
        del self._timers[event.kind]
        if event.kind == "expiry":
            self._expire()
        elif event.kind == "silence":
            if self.buffer and self.generating is None:
                ended = self._end_of_turn
                size = len(self.buffer)
                self._log("TIMEOUT", "Silence. Processing the buffer", buffer_size=size)
                self._dispatch("end_of_turn" if ended else "timeout")
        elif self.buffer and self.rules.evaluate_on_playback_end and self.generating is None:
            if len(self.buffer) >= self.rules.max_incomplete:
                self._dispatch("max_sentences")
            else:
                self.last_input_at = self._now
                self._detect()

    def _expire(self) -> None:
        if self.generating is not None:
            self._do(StopGenerating(self.generating))
            self.generating = None
        self._log("SESSION", "EXPIRED: session dropped", history=len(self.history))
        self._do(Forget())

    # --- answers ---

    def _dispatch(self, reason: Reason) -> None:
        """Ask for an answer to what was collected."""
        self._cancel("silence")
        self._cancel("playback")
        self._detecting, self._end_of_turn = None, False
        self.begun = True  # whoever has spoken needs no welcome, even if that once had to wait for the server
        response = self._next_response()
        self._asked, self.buffer = self.buffer, []
        self._reason, self._partial = reason, ""
        self.generating = response
        self._remember(Line("user", joined(self._asked), response))
        self._do(Generate(response, tuple(self.history), reason, "stream" in self.features))
        self._do(Save())

    def _reply_grew(self, event: ReplyGrew) -> None:
        if event.response != self.generating:
            return
        self._partial += event.text
        if "stream" in self.features and self._reason != "welcome":
            self._send("AI_RESPONSE_DELTA", {"response_id": event.response, "text": event.text})

    def _replied(self, event: Replied) -> None:
        if event.response != self.generating:
            return
        text = event.text.strip()
        if not text:
            self._reply_failed(ReplyFailed(event.response, "empty_reply", "The answer was empty.", True))
            return
        self.generating = None
        self._remember(Line("assistant", text, event.response))
        self._deliver(self._response(event.response, text, self._reason))
        self._arm(self._now)
        self._do(Save())

    def _reply_failed(self, event: ReplyFailed) -> None:
        if event.response != self.generating:
            return
        if event.code == "shutting_down":  # no new try before the server is back
            self._postpone()
            self._do(Save())
            return
        asked = self._take_back()
        error: dict[str, Any] = {"message": event.message, "client_id": self.client_id}
        error |= {"code": event.code, "retryable": event.retryable, "response_id": event.response}
        if asked:
            error["text"] = joined(asked)
        self._log("ERROR", f"No answer: {event.message}", code=event.code)
        self._deliver(Outgoing("ERROR", error))
        self._arm(self._now)
        self._do(Save())

    def _take_back(self) -> list[str]:
        """Make the question that is being answered unasked; its pieces."""
        self.history, asked = self._without_question(), self._asked
        self.generating, self._asked = None, []
        return asked

    def _without_question(self) -> list[Line]:
        question = ("user", self.generating)
        return [line for line in self.history if (line.role, line.response) != question]

    def _postpone(self) -> None:
        """Ask again when the server is back and the client with it."""
        if self._reason == "welcome":
            self.begun = False
        self.buffer[:0] = self._take_back()

    def _suspended(self) -> None:
        if self.generating is not None:
            self._do(StopGenerating(self.generating))
            self._postpone()
        self._detecting = None
        for kind in self.timers:
            self._cancel(kind)
        self.link, self.features = None, frozenset()
        if self.expires_at is None:
            self.expires_at = self._now + self.rules.ttl
        self._do(Save())

    def _deliver(self, message: Outgoing) -> None:
        """Send a message that must not be lost, or keep it for the next connection."""
        if self.link is None:
            self.undelivered.append(message)
            if len(self.undelivered) > self.rules.undelivered_limit:
                del self.undelivered[0]
                self._do(Count("dropped", "undelivered"))
                self._log("WARNING", "Too many undelivered replies: the oldest is dropped")
            return
        if message.type == "AI_RESPONSE":
            payload = message.payload
            duration = float(payload["estimated_tts_duration"])
            started = max(self._now, self.playback_ends_at)
            self.playback_ends_at = started + duration
            self.spoken = Spoken(str(payload["response_id"]), str(payload["text"]), duration, started)
            self._log(
                "AI_RESPONSE",
                "Response sent",
                self.spoken.text,
                tts_duration=f"{duration:g}s",
                playback_ends_at=self.playback_ends_at,
            )
        self._do(Send(self.link, message))

    def _response(self, response: str, text: str, reason: Reason) -> Outgoing:
        payload: dict[str, Any] = {"text": text, "client_id": self.client_id}
        payload["estimated_tts_duration"] = self.rules.duration(text)
        return Outgoing("AI_RESPONSE", {**payload, "response_id": response, "reason": reason})

    # --- playback ---

    def _playback_started(self, event: PlaybackStarted) -> None:
        spoken = self.spoken
        if event.link != self.link or spoken is None or spoken.response != event.response:
            return
        if self.generating is not None or self._now > self.playback_ends_at + self.rules.playback_slack:
            return
        latest = spoken.started + spoken.duration + self.rules.playback_slack
        takes = spoken.duration if event.duration is None else max(0.0, event.duration)
        spoken.started, spoken.duration = self._now, takes
        self.playback_ends_at = min(self._now + takes, latest)
        self._arm(max(self._now, self.last_input_at))

    def _playback_finished(self, event: PlaybackFinished) -> None:
        spoken = self.spoken
        if event.link != self.link or spoken is None or spoken.response != event.response:
            return
        if self._now < self.playback_ends_at:
            self.playback_ends_at = self._now
            if self.buffer and self.rules.evaluate_on_playback_end and self.generating is None:
                self._set("playback", self._now)
            else:
                self._arm(self._now)

    def _interrupted(self, event: Interrupt) -> None:
        if event.link != self.link:
            return
        if self.generating is not None and event.response in (None, self.generating):
            response = self.generating
            self._do(StopGenerating(response))
            whole = self.rules.duration(self._partial)
            heard = said_within(self._partial, event.played or 0.0, whole=whole).strip()
            self.generating, self._asked = None, []
            if heard:
                self._remember(Line("assistant", heard, response))
        elif self.spoken is not None and event.response in (None, self.spoken.response):
            response, heard = self._cut(self.spoken, event.played)
        else:
            error = {"message": "There is no such response to interrupt.", "client_id": self.client_id}
            self._send("ERROR", {**error, "code": "nothing_to_interrupt", "retryable": False})
            return
        self.playback_ends_at = min(self.playback_ends_at, self._now)
        self._log("AI_RESPONSE", "Response interrupted", heard, response_id=response)
        self._send("INTERRUPTED", {"client_id": self.client_id, "response_id": response, "text": heard})
        self._arm(self._now)
        self._do(Save())

    def _cut(self, spoken: Spoken, played: float | None) -> tuple[str, str]:
        """Leave of an answer in the history what was heard of it; its id and what is left."""
        seconds = self._now - spoken.started if played is None else played
        heard = said_within(spoken.text, seconds, whole=spoken.duration).strip()
        kept = []
        for line in self.history:
            if (line.role, line.response) == ("assistant", spoken.response):
                if heard:
                    kept.append(Line("assistant", heard, line.response))
            else:
                kept.append(line)
        self.history = kept
        spoken.text, spoken.duration = heard, min(spoken.duration, max(0.0, seconds))
        return spoken.response, heard

    # --- small things ---

    def _next_response(self) -> str:
        self.replies += 1
        return f"{self.number}-{self.replies}"

    def _remember(self, line: Line) -> None:
        self.history.append(line)
        del self.history[: -self.rules.history_limit]

    def _set(self, kind: TimerKind, at: float) -> None:
        self._count += 1
        self._timers[kind] = self._count
        self._do(SetTimer(kind, self._count, at))

    def _cancel(self, kind: TimerKind) -> None:
        if self._timers.pop(kind, None) is not None:
            self._do(CancelTimer(kind))

    def _send(self, kind: str, payload: dict[str, Any]) -> None:
        if self.link is not None:
            self._do(Send(self.link, Outgoing(kind, payload)))

    def _tell_state(self) -> None:
        now = (self.state(self._now), len(self.buffer))
        if self.link is not None and "state" in self.features and now != self._told:
            self._told = now
            facts = {"client_id": self.client_id, "state": now[0], "buffer_size": now[1]}
            self._send("STATE", facts)

    def _log(self, level: Level, message: str, text: str | None = None, **facts: Any) -> None:
        self._do(Log(level, message, facts, text))

    def _do(self, command: Command) -> None:
        self._out.append(command)
