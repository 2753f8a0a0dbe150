"""The REST protocol as a transport: its routes, open pages and error shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Request, Router
from litestar.di import Provide
from litestar.exceptions import NotFoundException

from ..contracts import Kernel, Transport
from ..errors import LollmsError
from . import admin, docs_pages, generate, listings, personalities, tokens
from .errors import error_body

_LISTINGS = (
    listings.list_bindings,
    listings.list_active_bindings,
    personalities.list_personalities,
    personalities.get_personality,
    personalities.get_personality_logo,
    listings.list_functions,
    listings.list_models,
    listings.get_default_bindings,
    listings.get_default_ttt_context_length,
    listings.list_available_models,
    listings.get_model_info,
)
_TOKENS = (tokens.tokenize, tokens.detokenize, tokens.count_tokens)
_PAGES = (
    listings.health,
    listings.api_health,
    docs_pages.front_page,
    docs_pages.openapi_json,
    docs_pages.redoc,
)


class RestTransport(Transport):
    """LoLLMs REST and server-sent events under /api/v1, with /health and the documentation's pages."""

    name = "rest"

    @property
    def prefixes(self) -> Sequence[str]:
        """See `contracts.Transport.prefixes`."""
        return ("/api/v1/", "/health")

    @property
    def open_paths(self) -> Sequence[str]:
        """See `contracts.Transport.open_paths`."""
        return ("/", "/health", "/api/v1/health", "/docs", "/docs/*", "/redoc", "/openapi.json")

    def route_handlers(self) -> Sequence[Any]:
        """See `contracts.Transport.route_handlers`."""
        kernel = self.kernel

        def provide_kernel() -> Kernel:
            return kernel

        return [
            Router(
                "/",
                route_handlers=[
                    *_PAGES,
                    Router(
                        "/api/v1",
                        route_handlers=[*_LISTINGS, *_TOKENS, generate.generate, admin.router(kernel)],
                    ),
                ],
                before_request=_refuse_trailing_slash,
                dependencies={"kernel": Provide(provide_kernel, sync_to_thread=False)},
            )
        ]

    def error_body(self, error: LollmsError) -> tuple[bytes, str]:
        """See `contracts.Transport.error_body`."""
        return error_body(error)


async def _refuse_trailing_slash(request: Request[Any, Any, Any]) -> None:
    """`/api/v1/list_bindings/` is no page of lollms_server; Litestar by itself would serve it."""
    path = request.scope["raw_path"].partition(b"?")[0]
    if path != b"/" and path.endswith(b"/"):
        raise NotFoundException
