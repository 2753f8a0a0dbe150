"""The control side of the transport: `/api` and the WebSocket on a port of their own, and below `/wingman`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from lollms_kernel.contracts import Cors, ErrorAnswer, Kernel, Listener, PortRules
from lollms_kernel.downloads import Download
from lollms_kernel.errors import LollmsError

from ..active import Active
from ..settings import WingmanSettings
from ..side import Side
from .answers import Receive, Reply, Request, Scope, Send, send_reply
from .api import Api
from .hardware import Probe
from .home import Home
from .inference import Inference, extra_listener
from .live import Live
from .loading import Loader
from .metrics import Metrics
from .objects import Json, WingmanItem, download_item, download_service, wingman_service
from .permission import Visitor

logger = logging.getLogger(__name__)

PREFIX = "/wingman"
DEFAULT_PORT = 6567
WATCH = 1.0
"""Seconds after which a file that asks the server to stop is seen."""


class ControlSide(Side):
    """Wingman's control API."""

    def __init__(self, kernel: Kernel, settings: WingmanSettings) -> None:
        super().__init__(kernel, settings)
        self._active = Active()
        self._home = Home(Path(settings.home).expanduser(), kernel.downloads.places.folder)
        self._probe = Probe()
        self._inference_listener: Listener | None = None
        default_port = settings.inference_port or DEFAULT_PORT
        self._default_port = default_port
        self.inference = Inference(
            self._home, kernel.downloads, Loader(kernel), self._active, self._serve_at, self._item_changed
        )
        self._metrics = Metrics(kernel, kernel.downloads, self._probe)
        self._live = Live(self._frames)
        self._api = Api(kernel, kernel.downloads, self.inference, default_port, self._probe)
        self._watching: list[asyncio.Task[None]] = []
        self._origins = kernel.config.server.allowed_origins

    # --- where it answers ---

    @property
    def prefixes(self) -> Sequence[str]:
        """See `Side.prefixes`."""
        return (PREFIX,)

    def route_handlers(self) -> Sequence[Any]:
        """See `Side.route_handlers`."""
        from litestar import asgi

        @asgi(PREFIX, is_mount=True, copy_scope=False)
        async def wingman(scope: Any, receive: Any, send: Any) -> None:
            # Litestar cuts the folder off the path and adds a slash
            await self._serve({**scope, "path": unquote(scope["raw_path"].decode("latin-1"))}, receive, send)

        return [wingman]

    def listeners(self) -> Sequence[Listener]:
        """See `Side.listeners`."""
        port = self.settings.control_port
        if port is None:
            return ()
        section = self.kernel.config.transports.get("wingman") or {}
        return [
            Listener(
                port,
                self._serve,
                required="control_port" in section,
                rules=PortRules(
                    error_answer=self.error_answer,
                    open_paths=("/health", "/api/health"),
                    cors=Cors(origins=("localhost",), methods="GET, POST, OPTIONS", headers="Content-Type"),
                ),
            )
        ]

    def meet(self, others: Sequence[Side]) -> None:
        """Tell the inference side what is active, and learn how it serves a port, so that a model can have its own."""
        for side in others:
            side.follow(self._active)
            self._inference_listener = next(iter(side.listeners()), self._inference_listener)

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        """What the gate refuses."""
        body = msgspec.json.encode({"error": error.detail})
        return ErrorAnswer(error.status, body, "application/json; charset=utf-8")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.lower().startswith(PREFIX):
            path = path[len(PREFIX) :] or "/"
        if scope["type"] == "websocket":
            await self._live.serve(receive, send, lambda: self._stop_for(scope))
            return
        request = Request(scope, path, self._origins)
        try:
            reply = await self._api.answer(request, receive)
        except Exception:  # whatever it is, the client gets an answer, and the log the reason
            logger.exception("%s could not be answered", path)
            reply = Reply(500)
        await send_reply(reply, request, send)

    def _stop_for(self, scope: Scope) -> bool:
        """Stop the server for a WebSocket client that may ask for it."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        client = scope.get("client")
        caller = scope.get("state", {}).get("caller")
        if not Visitor(headers, client[0] if client else "", caller, self._origins).may_stop:
            return False
        # not before the client has been told: connections are closed as soon as the server stops
        asyncio.get_running_loop().call_later(0.1, self.kernel.stop)
        return True

    # --- lifetime ---

    async def open(self) -> None:
        """See `Side.open`."""
        await self._live.open()
        await self.inference.open()
        self._watching = [
            asyncio.create_task(self._watch_files(), name="wingman files"),
            asyncio.create_task(self._watch_downloads(), name="wingman downloads"),
        ]

    async def drain(self, grace: float) -> None:
        """Tell everybody who listens that the server stops, and let them go."""
        now = int(time.time())
        for service in (wingman_service(self.inference.items, now), download_service([], now)):
            self._live.tell("status", {**service, "status": "stopping"})
        await self._live.leave(min(grace, 1.0))

    async def close(self) -> None:
        """See `Side.close`."""
        for task in self._watching:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._live.close()
        await self.inference.close()

    def _serve_at(self, address: str, port: int) -> AbstractAsyncContextManager[str] | None:
        listener = extra_listener(self._inference_listener, self._default_port, address, port)
        return None if listener is None else self.kernel.listen(listener)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(WATCH)
            if self._home.owned:
                asked, now = await asyncio.to_thread(self._home.asked_to_stop)
                if asked:
                    logger.info("A file in %s asks the server to stop.", self._home.folder)
                    self.kernel.stop(now=now)
                    return

    # --- what is told ---

    async def _watch_downloads(self) -> None:
        known: dict[tuple[str, str], Download] = {}
        while True:
            await self.kernel.downloads.changes()
            if not self._live.count:
                known.clear()
                continue
            rows = await self.kernel.downloads.all()
            for row in rows:
                before = known.get(row.key)
                if before is not None and before != row:
                    self._live.tell("download_status", download_item(row))
                    if before.status != row.status:
                        self._live.tell("status", download_service(rows, int(time.time())))
            known = {row.key: row for row in rows}

    def _item_changed(self, item: WingmanItem) -> None:
        if not item.active:
            self._metrics.forget()
        self._live.tell("inference_status", item.shown())
        self._live.tell("status", wingman_service(self.inference.items, int(time.time())))

    async def _frames(self) -> list[Json]:
        now = int(time.time())
        items = self.inference.items
        rows = await self.kernel.downloads.all()
        current = self.inference.current
        frames: list[Json] = [
            {"WingmanService": wingman_service(items, now)},
            {"DownloadService": download_service(rows, now)},
            {"WingmanItems": [item.shown() for item in items]},
            {"DownloadItems": [download_item(row) for row in rows]},
            {"currentWingmanInferenceItem": current.shown() if current is not None else {}},
        ]
        instance = self.inference.instance
        if current is not None and current.status == "inferring" and instance is not None:
            frames.append(await self._metrics.frame(current, instance))
        return frames
