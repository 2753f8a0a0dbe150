"""A session among its surroundings: carries the commands of one `Session` out.

Everything that happens to a session goes through `post`, one event at a time, on the event loop. Timers, the turn
detector and the backend only post events, so nothing that arrives can cancel or overtake an answer in the making.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

from lollms_kernel.errors import LollmsError

from .backend import Backend, Choice, Question
from .chat_log import ChatLog
from .events import (
    CancelTimer,
    Command,
    Count,
    Detach,
    Detect,
    Detected,
    Event,
    Forget,
    Generate,
    Log,
    Outgoing,
    Refuse,
    Replied,
    ReplyFailed,
    ReplyGrew,
    Save,
    Send,
    SetTimer,
    StopGenerating,
    TimerFired,
    TimerKind,
)
from .metrics import Metrics
from .session import Session
from .storage import SessionKey
from .turn_detection import Judge, Turn

TAKEN_OVER = 4001
REJECTED = 4002


class Link(Protocol):
    """A connection, as a session sees it. None of its methods waits."""

    client_id: str
    choice: Choice
    caller: Any

    def send(self, message: Outgoing) -> None:
        """Send a message as soon as the client takes it."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection once what was sent before is out."""


class Surroundings(Protocol):
    """What a session needs of the server."""

    backend: Backend
    judge: Judge
    log: ChatLog
    metrics: Metrics
    language: str | None
    reply_timeout: float

    def link(self, number: int) -> Link | None:
        """The open connection of this number."""

    def changed(self, actor: Actor) -> None:
        """Store the session soon."""

    def ended(self, actor: Actor) -> None:
        """Forget the session."""


class Actor:
    """Owns a session's timers and tasks. `close` ends them all."""

    def __init__(
        self, key: SessionKey, session: Session, around: Surroundings, clock: Callable[[], float]
    ) -> None:
        self.key = key
        self.session = session
        self._around = around
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._mailbox: deque[Event] = deque()
        self._working = False
        self._timers: dict[TimerKind, asyncio.TimerHandle] = {}
        self._replying: dict[str, asyncio.Task[None]] = {}
        self._detecting: set[asyncio.Task[None]] = set()
        self._asker: tuple[Any, Choice] | None = None
        self.closed = False

    @property
    def state(self) -> str:
        """See `Session.state`."""
        return self.session.state(self._clock())

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What runs for this session."""
        return [*self._replying.values(), *self._detecting]

    def post(self, event: Event) -> None:
        """Let an event happen, now or, where another one is just happening, right after it."""
        self._mailbox.append(event)
        if self._working:
            return
        self._working = True
        try:
            while self._mailbox and not self.closed:
                for command in self.session.handle(self._mailbox.popleft(), self._clock()):
                    self._carry_out(command)
                self._know_asker()
        finally:
            self._working = False

    async def close(self) -> None:
        """End timers and tasks. Idempotent."""
        self.closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = self.tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _carry_out(self, command: Command) -> None:
        around = self._around
        match command:
            case Send(link, message):
                if message.type == "ERROR":
                    around.metrics.errors.labels(message.payload["code"]).inc()
                if (open_link := around.link(link)) is not None:
                    open_link.send(message)
            case SetTimer(kind, number, at):
                self._set_timer(kind, number, at)
            case CancelTimer(kind):
                self._timers.pop(kind).cancel()
            case Detect():
                self._start(self._detecting, self._detect(command))
            case Generate():
                self._generate(command)
            case StopGenerating(response):
                around.metrics.replies.labels("stopped").inc()
                if (task := self._replying.get(response)) is not None:
                    task.cancel()
            case Save():
                around.changed(self)
            case Detach(link):
                self._close_link(link, TAKEN_OVER, "Another connection has taken this session over.")
            case Refuse(link):
                self._close_link(link, REJECTED, "This session belongs to another live connection.")
            case Count(metric, label):
                getattr(around.metrics, metric).labels(label).inc()
            case Log(level, message, facts, text):
                around.log.write(level, self.key.client_id, message, text, **self._shown(facts))
            case Forget():
                self.closed = True
                around.ended(self)

    def _close_link(self, number: int, code: int, reason: str) -> None:
        link = self._around.link(number)
        if link is None:
            return
        if link.client_id == self.key.client_id:
            link.close(code, reason)
        else:  # it spoke for this session beside its own, which it keeps
            facts = {"message": reason, "client_id": self.key.client_id, "code": "session_taken"}
            link.send(Outgoing("ERROR", {**facts, "retryable": False}))

    def _shown(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts of a log line, with times as seconds since 1970."""
        ends = facts.get("playback_ends_at")
        if ends is None:
            return facts
        return {**facts, "playback_ends_at": f"{time.time() + ends - self._clock():.3f}"}

    # --- timers ---

    def _set_timer(self, kind: TimerKind, number: int, at: float) -> None:
        if (old := self._timers.pop(kind, None)) is not None:
            old.cancel()
        delay = max(0.0, at - self._clock())
        self._timers[kind] = self._loop.call_later(delay, self._timer_over, kind, number)

    def _timer_over(self, kind: TimerKind, number: int) -> None:
        self._timers.pop(kind, None)
        self.post(TimerFired(kind, number))

    # --- the turn detector ---

    async def _detect(self, command: Detect) -> None:
        started = time.perf_counter()
        turns = [Turn(line.role, line.content) for line in command.lines]
        language = self._asker[1].language if self._asker is not None else None
        verdict = await self._around.judge.judge(turns, language or self._around.language)
        metrics = self._around.metrics
        metrics.detecting.labels(verdict.detector).observe(time.perf_counter() - started)
        metrics.probability.labels(verdict.detector).observe(verdict.probability)
        self.post(Detected(command.number, verdict.complete, verdict.probability, verdict.threshold))

    # --- answers ---

    def _generate(self, command: Generate) -> None:
        self._around.metrics.turns.labels(command.reason).inc()
        self._know_asker()
        assert self._asker is not None, "somebody has been connected"
        caller, choice = self._asker
        question = Question(
            lines=command.lines,
            client_id=self.key.client_id,
            session=self.session.number,
            caller=caller,
            choice=choice,
        )
        task = self._loop.create_task(self._reply(command, question))
        self._replying[command.response] = task
        task.add_done_callback(lambda _: self._replying.pop(command.response, None))

    def _know_asker(self) -> None:
        """Remember for whom to ask: the user may leave between saying something and being understood."""
        link = None if self.session.link is None else self._around.link(self.session.link)
        if link is not None:
            self._asker = (link.caller, link.choice)

    async def _reply(self, command: Generate, question: Question) -> None:
        metrics, started = self._around.metrics, time.perf_counter()
        outcome: Replied | ReplyFailed
        try:
            async with asyncio.timeout(self._around.reply_timeout):
                pieces = []
                async with aclosing(self._around.backend.reply(question)) as answer:
                    async for raw in answer:
                        piece = raw.encode(errors="replace").decode()  # half a character cannot be sent
                        pieces.append(piece)
                        self.post(ReplyGrew(command.response, piece))
            outcome = Replied(command.response, "".join(pieces))
        except TimeoutError:
            message = f"The answer took longer than {self._around.reply_timeout:g} seconds."
            outcome = ReplyFailed(command.response, "timeout", message, True)
        except LollmsError as error:
            outcome = ReplyFailed(command.response, error.code, error.detail, error.retryable)
        except Exception as error:  # whatever a backend does, the conversation goes on
            self._around.log.write("ERROR", self.key.client_id, "The backend failed", trace=error)
            outcome = ReplyFailed(command.response, "internal_error", "The answer could not be made.")
        metrics.replying.observe(time.perf_counter() - started)
        metrics.replies.labels("ok" if isinstance(outcome, Replied) else "failed").inc()
        self._replying.pop(command.response, None)
        self.post(outcome)

    def _start(self, owner: set[asyncio.Task[None]], work: Any) -> None:
        task = self._loop.create_task(work)
        owner.add(task)
        task.add_done_callback(owner.discard)
