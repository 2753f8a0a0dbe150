"""The protocol as a plugin: settings, routes, a port of its own, and everything that lives as long as the server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from litestar import Litestar, Request, Response

from lollms_kernel.contracts import Kernel, Listener, Transport, TransportSettings
from lollms_kernel.errors import LollmsError, PersonalityNotFound

from .backend import Backend, Choice, KernelBackend
from .chat_log import ChatLog, document_style
from .environment import Resolved, resolve
from .metrics import Metrics
from .reception import Reception
from .routes import Inside, open_pages, routes
from .session import Rules
from .sessions import Sessions
from .settings import WsChatSettings
from .speech_duration import spoken_seconds
from .storage import opened
from .turn_detection import DetectorSettings, Judge, create_detector, turn_detection_route

PATH = "/ws/chat"
DEFAULT_PORT = 9000
GREETING = "Hello! How can I help you?"
GREETING_REQUEST = "Greet me in one short, friendly sentence and ask how you can help."


class WsChatTransport(Transport):
    """Voice chat: JSON messages over WebSocket, sessions that outlive connections, and turn detection."""

    name = "ws_chat"
    Settings: ClassVar[type[TransportSettings]] = WsChatSettings
    settings: WsChatSettings

    def __init__(self, kernel: Kernel, settings: WsChatSettings) -> None:
        super().__init__(kernel, settings)
        self._resolved: Resolved = resolve(settings, kernel.root)
        detector = DetectorSettings(
            name=settings.turn_detector,
            threshold=settings.turn_detector_threshold,
            folder=settings.turn_detector_folder,
        )
        self._judge = Judge(create_detector(detector, kernel.root))
        self._inside = Inside()
        self._resources = AsyncExitStack()

    @property
    def prefixes(self) -> Sequence[str]:
        """See `contracts.Transport.prefixes`."""
        return (PATH, "/api/v1/turn_detection")

    @property
    def open_paths(self) -> Sequence[str]:
        """See `contracts.Transport.open_paths`."""
        return (*open_pages(PATH), *open_pages(""))

    @property
    def late_key_paths(self) -> Sequence[str]:
        """See `contracts.Transport.late_key_paths`. A GET of the same paths is the page."""
        return (PATH, "/")

    def route_handlers(self) -> Sequence[Any]:
        """See `contracts.Transport.route_handlers`."""
        return (*routes(self._inside, PATH), turn_detection_route(self._judge))

    def listeners(self) -> Sequence[Listener]:
        """See `contracts.Transport.listeners`."""
        port = self.settings.port
        if port == 0:
            return ()
        app = Litestar(
            route_handlers=routes(self._inside, ""),
            exception_handlers={LollmsError: self._told},
            openapi_config=None,
            logging_config=None,
        )
        return (Listener(port or DEFAULT_PORT, app, required=port is not None),)

    async def open(self) -> None:
        """See `contracts.Transport.open`."""
        async with AsyncExitStack() as resources:
            await self._open(resources)
            self._resources = resources.pop_all()

    async def _open(self, resources: AsyncExitStack) -> None:
        settings = self.settings
        if settings.log_style == "document" and self.kernel.config.logging.format == "text":
            resources.enter_context(document_style())
        resources.callback(self._judge.close)
        backend = self._backend()
        await backend.open()
        resources.push_async_callback(backend.close)
        storage = await resources.enter_async_context(opened(settings, self.kernel.root))
        log, metrics = ChatLog(show_text=settings.log_text), Metrics()
        sessions = Sessions(
            self._rules(),
            backend,
            self._judge,
            storage,
            log,
            metrics,
            language=settings.language,
            reply_timeout=settings.reply_timeout,
            limit=settings.max_sessions,
        )
        metrics.watch(lambda: len(sessions), lambda: sessions.connections)
        sessions.open()
        resources.push_async_callback(sessions.close)
        if backend.host is not None:
            log.write("INFO", "", "Answers come from another service", host=backend.host)
        self._inside.key_required = bool(self.kernel.config.security.allowed_api_keys)
        self._inside.sessions = sessions
        self._inside.reception = Reception(self.kernel, settings, sessions, log)

    async def drain(self, grace: float) -> None:
        """See `contracts.Transport.drain`."""
        if self._inside.reception is not None:
            await self._inside.reception.drain(grace)

    async def close(self) -> None:
        """See `contracts.Transport.close`."""
        self._inside.reception = self._inside.sessions = None
        await self._resources.aclose()

    def _told(self, _request: Request[Any, Any, Any], error: LollmsError) -> Response[bytes]:
        """An error on the protocol's own port."""
        body, content_type = self.error_body(error)
        return Response(body, status_code=error.status, media_type=content_type)

    def _backend(self) -> Backend:
        settings, resolved = self.settings, self._resolved
        own = settings.backend == "kernel" or (settings.backend == "auto" and settings.binding is not None)
        if own or (settings.backend == "auto" and resolved.api_url is None):
            default = Choice(binding=settings.binding, model=settings.model, personality=settings.personality)
            return KernelBackend(self.kernel, default, self.name)
        from .fastgpt import FastGptBackend  # which imports an HTTP client that most servers never need

        return FastGptBackend(
            resolved.api_url or "",
            resolved.api_key,
            resolved.app_id,
            settings.model,
            server_side_history=settings.server_side_history,
        )

    def _rules(self) -> Rules:
        settings, resolved = self.settings, self._resolved

        def duration(text: str) -> float:
            if settings.fixed_tts_duration is not None:
                return settings.fixed_tts_duration
            return spoken_seconds(text, rate=settings.tts_rate, longest=settings.max_tts_duration)

        return Rules(
            duration=duration,
            max_incomplete=resolved.max_incomplete,
            silence=resolved.silence,
            ttl=settings.session_ttl,
            welcome=self._welcome(),
            welcome_from_backend=settings.welcome_from_backend,
            replace=settings.duplicate_policy == "replace",
            evaluate_on_playback_end=settings.evaluate_on_playback_end,
            history_limit=settings.max_history,
        )

    def _welcome(self) -> str:
        settings = self.settings
        if settings.welcome is not None:
            return settings.welcome.strip()
        if settings.welcome_from_backend:
            return GREETING_REQUEST
        if settings.personality is not None:
            try:
                card = self.kernel.find_personality(settings.personality).card
            except PersonalityNotFound:
                return GREETING  # whoever asks for an answer is told what is wrong
            return card.welcome_message.strip() or GREETING
        return GREETING
