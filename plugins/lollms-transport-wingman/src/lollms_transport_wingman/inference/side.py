"""The inference side of the transport: the same endpoints on the main port and on a port of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from lollms_kernel.contracts import Cors, ErrorAnswer, Health, Kernel, Listener, PortRules
from lollms_kernel.errors import LollmsError

from ..active import Active
from ..settings import WingmanSettings
from ..side import Side
from .app import InferenceApp
from .call import Call
from .errors import error_answer
from .monitoring import health_facts
from .routes import FOLDERS, OPEN, ROUTES
from .server import Inference

OPEN_PAGES = (*OPEN, "/")
_REST_SERVES = "/health"
"""On the main port this page is the kernel's, which asks `health` for what belongs there too."""


class InferenceSide(Side):
    """llama-server's and OpenAI's endpoints."""

    def __init__(self, kernel: Kernel, settings: WingmanSettings) -> None:
        super().__init__(kernel, settings)
        self.inference = Inference(kernel, settings)

    def follow(self, active: Active) -> None:
        """See `Side.follow`."""
        self.inference.active = active

    @property
    def prefixes(self) -> Sequence[str]:
        """Every path of ours; `/v1/` as a whole, since nobody else is there."""
        own = [path for path in ROUTES if path != _REST_SERVES and not path.startswith("/v1/")]
        return [*own, "/v1/"]

    @property
    def open_paths(self) -> Sequence[str]:
        """Health needs no key."""
        return OPEN

    def route_handlers(self) -> Sequence[Any]:
        """One ASGI handler for all paths of ours."""
        app = InferenceApp(self.inference, main_port=True)
        folders = sorted({folder.split("/")[1] for folder in FOLDERS} | {"v1"})
        single = [path for path in ROUTES if path != _REST_SERVES and path.split("/")[1] not in folders]
        return [_handler(app, single), *(_handler(app, [f"/{folder}"], is_mount=True) for folder in folders)]

    def listeners(self) -> Sequence[Listener]:
        """The inference port."""
        port = self.settings.inference_port
        if port is None:
            return ()
        rules = PortRules(
            error_answer=error_answer,
            open_paths=OPEN_PAGES,
            cors=Cors(origins=self.settings.cors_origins),
        )
        named = (self.kernel.config.transports.get("wingman") or {}).get("inference_port") is not None
        app = InferenceApp(self.inference, main_port=False)
        return [Listener(port, app, required=named, rules=rules)]

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        """llama-server's shape."""
        return error_answer(error, path)

    async def health(self, query: Mapping[str, str]) -> Health:
        """Slots that are free and busy."""
        scope = {"type": "http", "path": "/health", "headers": [], "query_string": b""}
        call = Call(self.inference, scope, _nowhere, b"", main_port=True)
        call.query = dict(query)
        facts, status = await health_facts(call)
        return Health(facts, status)


async def _nowhere(_message: Any) -> None:
    """Nothing is sent: only the facts are asked for."""


def _handler(app: InferenceApp, paths: list[str], *, is_mount: bool = False) -> Any:
    from litestar import asgi
    from litestar.types import Receive, Scope, Send

    @asgi(paths, is_mount=is_mount, copy_scope=False)
    async def inference(scope: Scope, receive: Receive, send: Send) -> None:
        # Litestar cuts the folder off the path and adds a slash
        whole = {**scope, "path": unquote(scope["raw_path"].decode("latin-1"))}
        await app(whole, receive, send)  # type: ignore[arg-type]  # Litestar types ASGI as TypedDicts

    return inference
