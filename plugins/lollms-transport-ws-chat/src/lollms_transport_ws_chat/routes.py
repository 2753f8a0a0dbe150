"""What the protocol answers over HTTP: its page, health, figures, and the sessions of a key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, WebSocket, delete, get, websocket
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import File

from lollms_kernel.errors import NotFound

from .reception import Reception
from .sessions import Sessions
from .storage import SessionKey

PAGE = Path(__file__).parent / "page"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

# The page loads nothing from elsewhere, and the browser holds it to it.
_POLICY = ResponseHeader(
    name="Content-Security-Policy",
    value="default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_FRESH = ResponseHeader(name="Cache-Control", value="no-cache")


class Health(msgspec.Struct, frozen=True):
    """Whether the voice chat works."""

    status: str
    sessions: int
    connections: int
    key_required: bool = False
    """Whether connections need an API key."""


class Readiness(msgspec.Struct, frozen=True):
    """Whether it could answer somebody now, and what keeps it from that."""

    ready: bool
    detector: str
    backend: str


class SessionInfo(msgspec.Struct, frozen=True):
    """A session in memory."""

    client_id: str
    connected: bool
    state: str
    history_len: int
    buffer_size: int


class Inside:
    """What the routes show; nothing while the server is starting or stopping."""

    key_required = False
    reception: Reception | None = None
    sessions: Sessions | None = None


def routes(inside: Inside, base: str) -> Sequence[Any]:
    """All of them below `base`, which is "" on a port of the protocol's own."""
    whole = (PAGE / "index.html").read_bytes().replace(b"BASE/", f"{base}/".encode())

    @websocket(base or "/")
    async def chat(socket: WebSocket[Any, Any, Any]) -> None:
        if inside.reception is None:
            await socket.accept()
            await socket.close(1013, "The server is not ready.")
            return
        await inside.reception.serve(socket)

    @get(base or "/", include_in_schema=False, media_type=MediaType.HTML, response_headers=[_POLICY, _FRESH])
    async def page() -> bytes:
        return whole

    @get(
        f"{base}/page/{{name:str}}",
        include_in_schema=False,
        response_headers=[_POLICY, _FRESH],
    )
    async def part(name: FromPath[str]) -> File:
        path = PAGE / name
        if path.suffix not in _TYPES or path.parent != PAGE or not path.is_file():
            raise NotFoundException
        return File(path, media_type=_TYPES[path.suffix], content_disposition_type="inline")

    @get(f"{base}/healthz", summary="Tell that the voice chat works", security=[{}], tags=["Voice chat"])
    async def healthz() -> Health:
        """Needs no API key."""
        sessions = inside.sessions
        if sessions is None:
            return Health("starting", 0, 0, inside.key_required)
        return Health("ok", len(sessions), sessions.connections, inside.key_required)

    @get(
        f"{base}/readyz",
        summary="Tell whether the voice chat could answer now",
        security=[{}],
        tags=["Voice chat"],
    )
    async def readyz() -> Response[Readiness]:
        """200, or 503 with what is missing. Needs no API key."""
        sessions = inside.sessions
        if sessions is None:
            return Response(Readiness(False, "", "starting"), status_code=503)
        fault = sessions.backend.fault()
        readiness = Readiness(fault is None, sessions.judge.detector.name, fault or "ready")
        return Response(readiness, status_code=200 if readiness.ready else 503)

    @get(
        f"{base}/metrics",
        summary="Figures for Prometheus",
        tags=["Voice chat"],
        media_type=MediaType.TEXT,
    )
    async def metrics() -> Response[bytes]:
        """Counters and times of the voice chat; no names, no texts."""
        text = b"" if inside.sessions is None else inside.sessions.metrics.text()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @get(f"{base}/sessions", summary="List sessions in memory", tags=["Voice chat"])
    async def list_sessions(request: Request[Any, Any, Any]) -> list[SessionInfo]:
        """Those of the API key that asks."""
        actors = [] if inside.sessions is None else inside.sessions.actors(_tenant(request))
        return [
            SessionInfo(
                client_id=actor.key.client_id,
                connected=actor.session.link is not None,
                state=actor.state,
                history_len=len(actor.session.history),
                buffer_size=len(actor.session.buffer),
            )
            for actor in actors
        ]

    @delete(f"{base}/sessions/{{client_id:str}}", summary="Forget a session", tags=["Voice chat"])
    async def delete_session(request: Request[Any, Any, Any], client_id: FromPath[str]) -> None:
        """Close its connection and forget the conversation, stored or not. 404 where there is none."""
        key = SessionKey(_tenant(request), client_id)
        if inside.sessions is None or not await inside.sessions.delete(key):
            raise NotFound(f"There is no session '{client_id[:128]}'.")

    return [chat, page, part, healthz, readyz, metrics, list_sessions, delete_session]


def open_pages(base: str) -> Sequence[str]:
    """The pages that need no API key."""
    return [f"{base}/page/*", f"{base}/healthz", f"{base}/readyz"]


def _tenant(request: Request[Any, Any, Any]) -> str:
    return str(request.scope["state"].get("tenant", ""))
