"""Pages for people: the plain front page, and the API's documentation, which works without the internet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Router, get
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath, SkipValidation
from litestar.response import File
from litestar.routes import HTTPRoute

from ..contracts import Kernel
from .listings import server_version
from .wire import ErrorAnswer, StreamChunk

STATIC = Path(__file__).parent / "static"
_STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}

# The pages load nothing from elsewhere, and the browser holds them to it.
_POLICY = ResponseHeader(
    name="Content-Security-Policy",
    value="default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
)
_PAGE = b"""<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>lollms: the API</title>
    <link rel="icon" href="/docs/static/favicon-32x32.png">
    <link rel="stylesheet" href="/docs/static/swagger-ui.css">
  </head>
  <body>
    <div id="api"></div>
    <script src="/docs/static/swagger-ui-bundle.js"></script>
    <script src="/docs/static/show-api.js"></script>
  </body>
</html>
"""


@get("/", media_type=MediaType.TEXT, include_in_schema=False)
async def front_page(kernel: NamedDependency[SkipValidation[Kernel]], request: Request[Any, Any, Any]) -> str:
    """Where to go from here."""
    base = str(request.base_url)
    missing = "This version ships none." if kernel.config.webui.enable_ui else "webui.enable_ui is false."
    return (
        "LOLLMS Server is running.\n"
        f"API Docs: {base}docs\n"
        f"ReDoc: {base}redoc\n"
        f"Web UI is disabled or build files not found. {missing}\n"
        "To talk to it in a terminal: lollms chat\n"
    )


@get("/openapi.json", media_type=MediaType.JSON, include_in_schema=False)
async def openapi_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """The API's description for programs."""
    return describe(request.app)


@get("/redoc", media_type=MediaType.HTML, include_in_schema=False, response_headers=[_POLICY])
async def redoc() -> bytes:
    """The same page as /docs, under the other name that clients of lollms_server know."""
    return _PAGE


@get("/static/{name:str}")
async def static_file(name: FromPath[str]) -> File:
    """A part of the documentation's page."""
    path = STATIC / name
    if path.suffix not in _STATIC_TYPES or path not in STATIC.iterdir():
        raise NotFoundException
    return File(path, media_type=_STATIC_TYPES[path.suffix], content_disposition_type="inline")


class _DocsPage(OpenAPIRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return _PAGE


def openapi_config() -> OpenAPIConfig:
    """For the Litestar application that serves the REST routes: documentation at /docs."""
    return OpenAPIConfig(
        title="lollms",
        version=server_version(),
        description="Text, images, audio and video from local models, for any client.",
        components=Components(
            security_schemes={
                "ApiKey": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header")
            }
        ),
        security=[{"ApiKey": []}],
        use_handler_docstrings=True,
        render_plugins=[_DocsPage(path="/")],
        openapi_router=Router(
            "/docs", route_handlers=[static_file], include_in_schema=False, response_headers=[_POLICY]
        ),
    )


def describe(app: Litestar) -> dict[str, Any]:
    """The OpenAPI document of every route of `app`.

    Litestar's own lacks what handlers decode by themselves: a handler names the Struct of its body as
    `opt={"body": …}`. Errors have one shape, whatever their status.
    """
    document = app.openapi_schema.to_schema()
    bodies = {
        (route.path_format, method.lower()): handler.opt["body"]
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if "body" in handler.opt
    }
    structs = [*dict.fromkeys(bodies.values()), StreamChunk, ErrorAnswer]
    references, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    document["components"].setdefault("schemas", {}).update(schemas)
    reference_of = dict(zip(structs, references, strict=True))
    for path, item in document["paths"].items():
        for method, operation in item.items():
            operation["responses"].pop("400", None)
            operation["responses"]["default"] = _content(
                reference_of[ErrorAnswer], "What is wrong and what cures it."
            )
            if (path, method) in bodies:
                operation["requestBody"] = {"required": True, **_content(reference_of[bodies[path, method]])}
    return document


def _content(schema: dict[str, Any], description: str | None = None) -> dict[str, Any]:
    content = {"content": {"application/json": {"schema": schema}}}
    return content if description is None else {"description": description, **content}
