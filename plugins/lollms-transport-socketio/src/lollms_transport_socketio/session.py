"""One socket: its caller, its choice, its conversation, and all work that is under way for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lollms_kernel.contracts import Caller, Kernel
from lollms_kernel.errors import LollmsError, QueueFull, RateLimited
from lollms_kernel.pace import TokenBucket

from .conversation import Conversation
from .events import CANCEL, EVENTS, Event
from .failures import ClientGone, report
from .generation import Generation
from .packets import event_packet
from .prompt_line import PromptLine
from .recovery import EventLog
from .selection import Selection, Selections
from .settings import SocketioSettings
from .wire import GenerateText

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .engine import Connection

logger = logging.getLogger(__name__)

MAX_INBOX = 64
"""Events of one socket that may wait while one is being answered."""

MAX_STRIKES = 100
"""Events in a row beyond the rate after which a client is disconnected."""

BUSY = (("buzzy", "I am buzzy. Come back later."), ("busy", "I am busy. Come back later."))
"""lollms changed the spelling in August 2023; clients of both times listen."""

CANCELED = {"message": "Generation is canceled."}

Keep = Callable[["Session"], "Awaitable[None]"]


class Session:
    """Lives as long as its socket, or longer where its client may recover it. `close` ends all that belongs to it."""

    def __init__(
        self,
        kernel: Kernel,
        caller: Caller,
        settings: SocketioSettings,
        selections: Selections,
        conversation: Conversation,
        *,
        log: EventLog | None,
        key: str | None,
        keep: Keep,
    ) -> None:
        self.kernel = kernel
        self.caller = caller
        self.conversation = conversation
        self.selections = selections
        self.log = log
        self.key = key
        """Under which it is stored, None where its client resumes nothing."""
        self.connection: Connection | None = None
        self._keep = keep
        self._settings = settings
        self._backlog: list[str] = []
        self._allowance = TokenBucket(settings.events_per_second, settings.event_burst)
        self._strikes = 0
        self._inbox: deque[tuple[Event, Any]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._line = PromptLine(settings.max_waiting_prompts)

    # --- the connection ---

    def attach(self, connection: Connection, backlog: list[str]) -> None:
        """Send to this connection from now on, the backlog first, as soon as the client is told that it has joined."""
        self.connection = connection
        self._backlog = backlog
        self._flushing = asyncio.create_task(self._flush())

    def detach(self) -> None:
        """The client is away; what is told meanwhile is only kept."""
        self.connection = None

    async def emit(self, event: str, payload: dict[str, Any]) -> None:
        """Tell the client when it can take it. Raises ClientGone where it will never hear it."""
        if self.connection is not None:
            try:
                await self.connection.room()
            except ClientGone:
                if self.log is None:
                    raise
        await self.emit_now(event, payload)

    async def emit_now(self, event: str, payload: dict[str, Any]) -> None:
        """Tell the client without waiting for it. Raises ClientGone where it will never hear it."""
        if self._backlog:
            await self._flush()
        packet = event_packet(event, payload) if self.log is None else self.log.note(event, payload)
        try:
            if self.connection is None:
                raise ClientGone
            await self.connection.put(packet)
        except ClientGone:
            if self.log is None:
                raise  # else the client may come back and hear it then

    async def _flush(self) -> None:
        backlog, self._backlog = self._backlog, []
        try:
            for packet in backlog:
                if self.connection is not None:
                    await self.connection.put(packet)
        except ClientGone:
            return

    # --- what the client asks ---

    async def accept(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Take an event, to be answered in order; cancelling is done at once."""
        payload = arguments[0] if arguments else None
        try:
            if name in CANCEL:
                await self._cancel()
            elif name in EVENTS:
                await self._line_up(EVENTS[name], payload)
        except ClientGone:
            return

    async def _line_up(self, event: Event, payload: Any) -> None:
        if not self._allowance.take():
            rate = f"A socket may send {self._settings.events_per_second:g} events a second."
            await self._refuse(event, payload, rate, "Send them more slowly.")
            return
        if len(self._inbox) >= MAX_INBOX:
            waiting = f"{MAX_INBOX} events of this socket wait already."
            await self._refuse(event, payload, waiting, "Wait for their answers first.")
            return
        self._strikes = 0
        self._inbox.append((event, payload))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    async def _refuse(self, event: Event, payload: Any, why: str, cure: str) -> None:
        self._strikes += 1
        if self._strikes > MAX_STRIKES and self.connection is not None:
            self.connection.drop(f"Again and again: {why}")
            return
        await self.emit_now(*event.failed(RateLimited(why, hint=cure), payload))

    async def _work(self) -> None:
        while self._inbox:
            event, payload = self._inbox.popleft()
            try:
                reply = await self._answer(event, payload)
                if reply is not None:
                    await self.emit(*reply)
            except ClientGone:
                return

    async def _answer(self, event: Event, payload: Any) -> tuple[str, dict[str, Any]] | None:
        try:
            with self.caller.acting():
                return await event.handle(self, payload)
        except LollmsError as error:
            return event.failed(error, payload)
        except ClientGone:
            raise
        except Exception as error:  # one event that fails must not silence the socket
            return event.failed(LollmsError(report(error)), payload)

    async def submit(self, asked: GenerateText) -> None:
        """Answer a prompt after those before it, by what is chosen now."""
        generation = Generation(self, asked, await self.selection())
        try:
            self._line.submit(generation)
        except QueueFull as error:
            await self.tell_busy(error)

    async def tell_busy(self, error: QueueFull) -> None:
        """Both spellings of the event, with the place that the prompt would have had in the queue."""
        facts = {"position": error.position, "retry_after": error.retry_after}
        for event, message in BUSY:
            await self.emit(event, {"message": message, **facts})

    async def _cancel(self) -> None:
        """Every prompt that had not ended ends with its own event; where there is none, the client is told so once."""
        for _ in range(max(1, self._line.cancel())):
            await self.emit_now("generation_canceled", CANCELED)

    # --- what is kept ---

    async def selection(self) -> Selection:
        """What is chosen now."""
        return await self.selections.read()

    async def choose(self, change: Callable[[Selection], Selection]) -> Selection:
        """Choose anew."""
        selection = await self.selections.change(change)
        await self.keep()
        return selection

    async def remember(self, prompt: str, answer: str) -> None:
        """Add an exchange to the conversation."""
        self.conversation.add(prompt, answer)
        await self.keep()

    async def keep(self) -> None:
        """Save what may be resumed; that the store fails now is no reason to withhold an answer."""
        if self.key is None:
            return
        try:
            await self._keep(self)
        except LollmsError as error:
            logger.warning("a Socket.IO session was not saved: %s", error.detail)

    async def idle(self) -> None:
        """Wait until no prompt is being answered."""
        await self._line.idle()

    async def close(self) -> None:
        """Stop all work of this socket, and wait until it has stopped."""
        self._inbox.clear()
        for task in (self._working, self._flushing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self._line.close()
