"""The one gate in front of every route, for HTTP and WebSocket alike.

In this order: Host (against DNS rebinding), CORS preflight, body size, API key, Origin, requests per minute. A request
that carries a valid key may come from any origin, since no browser adds a key by itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .access import ANYBODY, Access, Grant, KeyHolder, calling
from .config.exposure import is_loopback
from .config.schema import MainConfig
from .contracts import Cors, ErrorAnswer, PortRules, Transport
from .errors import Forbidden, InvalidRequest, LollmsError, PayloadTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PREFLIGHT_MAX_AGE = 600
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Wraps an ASGI application; what it refuses never reaches a route."""

    def __init__(
        self,
        app: AsgiApp,
        config: MainConfig,
        access: Access,
        host: str,
        transports: Sequence[Transport],
        rules: PortRules | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._rules = rules
        self._cors = None if rules is None else rules.cors
        self._origins = frozenset(config.server.allowed_origins)
        self._max_body = config.server.max_body_size
        self._hosts = _allowed_hosts(host, config.server.allowed_hosts)
        opened = [path for transport in transports for path in transport.open_paths]
        self._open = _Paths(opened if rules is None else rules.open_paths)
        self._late = _Paths(path for transport in transports for path in transport.late_key_paths)
        pairs = [(prefix, transport) for transport in transports for prefix in transport.prefixes]
        self._shapes = sorted(pairs, key=lambda pair: -len(pair[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        origin = headers.get("origin")
        preflight = scope["type"] == "http" and scope["method"] == "OPTIONS"
        if preflight and self._cors is not None:
            await _respond(send, 200, b"", "text/plain", _cors_headers(self._cors, origin or ""))
            return
        if preflight and origin is not None and "access-control-request-method" in headers:
            await self._preflight(origin, headers, send)
            return
        try:
            grant = self._check(scope, headers)
        except LollmsError as error:
            told = self._cors is not None or self._allows(origin)
            await self._refuse(error, scope, _with_cors(send, origin) if origin and told else send)
            return
        holder = grant or ANYBODY
        if origin is not None and scope["type"] == "http" and self._may_read(origin, grant):
            send = _with_cors(send, origin)
        caller = None if grant is None else KeyHolder(grant, self._access)
        scope.setdefault("state", {}).update(tenant=holder.tenant, grant=holder, caller=caller)
        if grant is None and not self._comes_late(scope, headers):
            await self._app(scope, receive, send)
            return
        with calling(holder, counted=scope["type"] == "http"):
            await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[str, str]) -> Grant | None:
        """What the caller may do, None on pages that are open to everybody. Raises what is wrong."""
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise InvalidRequest(
                f"Host '{headers.get('host', '')[:100]}' is not this server.",
                hint="Add the name to server.allowed_hosts.",
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_body:
            raise PayloadTooLarge(
                f"The body has {length} bytes; at most {self._max_body} are allowed.",
                hint="Send less or raise server.max_body_size.",
            )
        keyless = scope["path"] in self._open or self._comes_late(scope, headers)
        grant = None if keyless else self._access.authenticate(_key(headers))
        if grant is None or not grant.tenant:
            self._check_origin(scope, headers)
        if grant is not None and scope["path"] not in self._late:  # where each message counts by itself
            self._access.count(grant)
        return grant

    def _may_read(self, origin: str, grant: Grant | None) -> bool:
        """Whether a page of this origin may read the answer."""
        # with CORS of its own, a port also tells pages that bring a valid key, and what is open to everybody
        return self._allows(origin) or (self._cors is not None and (grant is None or grant.tenant != ""))

    def _allows(self, origin: str | None) -> bool:
        """Whether pages of this origin may use the server without a key."""
        if origin in self._origins:
            return True
        if self._cors is None or origin is None:
            return False
        return any(
            allowed in ("*", origin) or (allowed == "localhost" and _is_of_this_machine(origin))
            for allowed in self._cors.origins
        )

    def _comes_late(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Whether the key of this connection is still to come in a message."""
        return self._access.needs_key and scope["path"] in self._late and not _key(headers)

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Keep web pages of other origins from using a server without keys: CORS alone would let them post."""
        origin = headers.get("origin")
        if (
            origin is None
            or self._allows(origin)
            or (scope["type"] == "http" and scope["method"] in _SAFE_METHODS)
        ):
            return
        if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise Forbidden(
                f"Origin '{origin[:100]}' is not allowed.",
                hint="Add it to server.allowed_origins, or send an API key.",
            )

    async def _preflight(self, origin: str, headers: dict[str, str], send: Send) -> None:
        allowed = origin in self._origins
        answer = [
            ("access-control-allow-methods", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
            ("access-control-max-age", str(PREFLIGHT_MAX_AGE)),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", headers.get("access-control-request-headers", "")),
            ("vary", "Origin"),
        ]
        if allowed:
            answer.append(("access-control-allow-origin", origin))
        body = b"OK" if allowed else b"Disallowed CORS origin"
        await _respond(send, 200 if allowed else 400, body, "text/plain; charset=utf-8", answer)

    async def _refuse(self, error: LollmsError, scope: Scope, send: Send) -> None:
        answer = self._shape(error, scope["path"])
        status, body, content_type = answer.status, answer.body, answer.content_type
        wait = error.retry_after
        extra = [] if wait is None else [("retry-after", str(max(1, math.ceil(wait))))]
        if scope["type"] == "http":
            await _respond(send, status, body, content_type, [*extra, ("connection", "close")])
        elif "websocket.http.response" in scope.get("extensions", {}):
            await _respond(send, status, body, content_type, extra, kind="websocket.http.response")
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})

    def _shape(self, error: LollmsError, path: str) -> ErrorAnswer:
        if self._rules is not None:
            return self._rules.error_answer(error, path)
        for prefix, transport in self._shapes:
            if path.startswith(prefix):
                return transport.error_answer(error, path)
        # the default shape needs no transport
        return ErrorAnswer(error.status, *Transport.error_body(None, error))  # type: ignore[arg-type]


class _Paths:
    """Exact paths, and folders with all that is below them (`/folder/*`)."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._exact = frozenset(paths)
        self._folders = tuple(path[:-1] for path in self._exact if path.endswith("/*"))

    def __contains__(self, path: str) -> bool:
        return path in self._exact or path.startswith(self._folders)


def _allowed_hosts(host: str, configured: Sequence[str]) -> frozenset[str] | None:
    """Names that may stand in the Host header; None: any, for servers that others reach by names we cannot know."""
    loopback = is_loopback(host)
    if not loopback and not configured:
        return None
    return LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in configured}


def _host_name(header: str) -> str:
    return (urlsplit(f"//{header}").hostname or "").lower() if _is_plausible(header) else ""


def _is_plausible(header: str) -> bool:
    return bool(header) and header.count("[") == header.count("]") <= 1 and header.isprintable()


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _key(headers: dict[str, str]) -> str:
    """The API key that a request brings, "" if none."""
    given = headers.get("authorization", "").strip()
    scheme, blank, bearer = given.partition(" ")
    bare = "" if blank else given
    return headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else bare)


def _is_of_this_machine(origin: str) -> bool:
    return origin in LOOPBACK_NAMES or (urlsplit(origin).hostname or "").lower() in LOOPBACK_NAMES


def _cors_headers(cors: Cors, origin: str) -> list[tuple[str, str]]:
    """The answer to a preflight: it promises nothing that the request itself would not be held to."""
    return [
        ("access-control-allow-origin", origin),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", cors.methods),
        ("access-control-allow-headers", cors.headers),
        ("vary", "Origin"),
    ]


def _with_cors(send: Send, origin: str) -> Send:
    added = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
    ]

    async def with_cors(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)

    return with_cors


async def _respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: str,
    extra: Sequence[tuple[str, str]],
    kind: str = "http.response",
) -> None:
    pairs = [("content-type", content_type), ("content-length", str(len(body))), *extra]
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
