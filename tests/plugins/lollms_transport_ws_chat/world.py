"""A whole voice chat without a network: real reception, sessions and state machine; fake sockets, model and clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import msgspec
from litestar.exceptions import WebSocketDisconnect

from lollms_kernel.errors import GenerationFailed, ShuttingDown
from lollms_transport_ws_chat.backend import Backend, Question
from lollms_transport_ws_chat.chat_log import ChatLog
from lollms_transport_ws_chat.events import Line
from lollms_transport_ws_chat.metrics import Metrics
from lollms_transport_ws_chat.reception import Reception
from lollms_transport_ws_chat.session import Rules
from lollms_transport_ws_chat.sessions import Sessions
from lollms_transport_ws_chat.settings import WsChatSettings
from lollms_transport_ws_chat.storage import NoStorage, SessionKey, Storage
from lollms_transport_ws_chat.turn_detection import Judge, Turn, TurnDetector

WELCOME = "welcome"


class EndsWithDot(TurnDetector):
    """A turn is complete if its text ends with a full stop."""

    name = "ends_with_dot"
    instant = True

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        return 1.0 if turns[-1].content.endswith(".") else 0.0


class NeverEnds(EndsWithDot):
    """No turn is complete."""

    def probability(self, turns: Sequence[Turn], language: str | None = None) -> float:
        return 0.0


class Anybody:
    """The caller of a server without keys."""

    tenant = ""
    limited = False

    def acting(self) -> nullcontext[None]:
        return nullcontext()


class FakeBackend(Backend):
    """Answers `reply N` after `latency` seconds, the first `failures` times with an error; keeps what it was asked."""

    def __init__(self, latency: float = 1.0, failures: int = 0) -> None:
        self.latency = latency
        self.failures = failures
        self.asked: list[tuple[float, str]] = []
        self.histories: list[list[str]] = []
        self.running: dict[str, int] = {}
        self.most_at_once = 0
        self.pieces = ["reply "]
        self.stopping = False

    async def reply(self, question: Question) -> AsyncGenerator[str, None]:
        self.asked.append((asyncio.get_running_loop().time(), question.lines[-1].content))
        self.histories.append([line.content for line in question.lines])
        who = question.client_id
        self.running[who] = self.running.get(who, 0) + 1
        self.most_at_once = max(self.most_at_once, self.running[who])
        number = len(self.asked)
        try:
            if self.stopping:
                raise ShuttingDown("The server is stopping.")
            for piece in self.pieces[:-1]:
                yield piece
                await asyncio.sleep(self.latency / len(self.pieces))
            await asyncio.sleep(self.latency / len(self.pieces))
            if self.failures:
                self.failures -= 1
                raise GenerationFailed("The backend failed.")
            yield f"{self.pieces[-1]}{number}"
        finally:
            self.running[who] -= 1

    def fault(self) -> str | None:
        return None


class FakeSocket:
    """What a reception sees of a WebSocket, with the client's side beside it."""

    def __init__(self, world: World, name: str, query: dict[str, str]) -> None:
        self.name = name
        self.scope: dict[str, Any] = {
            "client": ("test", 1),
            "state": {"caller": Anybody()},
            "subprotocols": [],
        }
        self.query_params = query
        self.headers: dict[str, str] = {}
        self.got: list[tuple[float, str, dict[str, Any]]] = []
        self.closed: tuple[float, int, str] | None = None
        self._world = world
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = False
        self.stuck: asyncio.Event | None = None

    # --- the server's side ---

    async def accept(self, subprotocols: str | None = None) -> None:
        pass

    async def receive(self) -> dict[str, Any]:
        return await self._incoming.get()

    async def send_data(self, text: str, mode: str) -> None:
        if self.stuck is not None:
            await self.stuck.wait()
        if self._gone:
            raise WebSocketDisconnect(detail="gone")
        message = json.loads(text)
        self.got.append((self._world.now, message["type"], message["payload"]))

    async def close(self, code: int, reason: str) -> None:
        if self._gone:
            raise WebSocketDisconnect(detail="gone")
        self.closed = (self._world.now, code, reason)
        self.drop()

    # --- the client's side ---

    def send(self, frame: Any) -> None:
        if isinstance(frame, bytes):
            self._incoming.put_nowait({"type": "websocket.receive", "bytes": frame, "text": None})
        else:
            text = frame if isinstance(frame, str) else json.dumps(frame)
            self._incoming.put_nowait({"type": "websocket.receive", "text": text})

    def say(self, text: str, **payload: Any) -> None:
        self.send({"type": "USER_INPUT", "payload": {"text": text, **payload}})

    def drop(self) -> None:
        self._gone = True
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def times(self, kind: str) -> list[float]:
        return [round(at, 3) for at, type_, _ in self.got if type_ == kind]

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        return [payload for _, type_, payload in self.got if type_ == kind]


class World:
    """Use `World.open`; `at` waits for a time, `connect` opens a socket."""

    def __init__(self, sessions: Sessions, reception: Reception, backend: FakeBackend) -> None:
        self.sessions = sessions
        self.reception = reception
        self.backend = backend
        self._loop = asyncio.get_running_loop()
        self._visits: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> float:
        return self._loop.time()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        backend: FakeBackend | None = None,
        detector: TurnDetector | None = None,
        storage: Storage | None = None,
        settings: dict[str, Any] | None = None,
        limit: int = 100,
        **rules: Any,
    ) -> AsyncIterator[World]:
        backend = backend or FakeBackend()
        known = {"welcome": WELCOME, "max_incomplete": 3, "silence": 5.0, **rules}
        sessions = Sessions(
            Rules(duration=lambda text: 2.5 if text == WELCOME else 3.0, **known),
            backend,
            Judge(detector or EndsWithDot()),
            storage or NoStorage(),
            ChatLog(),
            Metrics(),
            limit=limit,
            wall=lambda: 1_000_000 + asyncio.get_running_loop().time(),
        )
        sessions.open()
        reception = Reception(
            None,  # type: ignore[arg-type]  # no key is asked for
            msgspec.convert(settings or {}, WsChatSettings),
            sessions,
            ChatLog(),
        )
        world = cls(sessions, reception, backend)
        try:
            yield world
        finally:
            for visit in world._visits:
                visit.cancel()
            if world._visits:
                await asyncio.wait(world._visits)
            await sessions.close()

    async def at(self, time: float) -> None:
        """Go on at this time, after everything else that happens at it."""
        await asyncio.sleep(time - self.now)
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def connect(self, client_id: str | None = "u", name: str = "a", **query: str) -> FakeSocket:
        asked = query if client_id is None else {"clientId": client_id, **query}
        socket = FakeSocket(self, name, asked)
        visit = self._loop.create_task(self.reception.serve(socket))  # type: ignore[arg-type]  # it looks like one
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)
        await self.settle()
        return socket

    def session(self, client_id: str = "u") -> Any:
        return self.sessions._actors[SessionKey("", client_id)].session

    def history(self, client_id: str = "u") -> list[str]:
        lines: list[Line] = self.session(client_id).history
        return [line.content for line in lines]

    @property
    def asked(self) -> list[tuple[float, str]]:
        return [(round(at, 3), text) for at, text in self.backend.asked]
