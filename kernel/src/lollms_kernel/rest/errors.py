"""Errors as REST clients get them: `{"detail": …}`, and plain text for pages that do not exist."""

from __future__ import annotations

import logging
import math
import secrets
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.types import ExceptionHandlersMap

from ..errors import LollmsError, QueueTimeout, ValidationFailed

logger = logging.getLogger(__name__)

JSON = "application/json"
TEXT = "text/plain"

AnyRequest = Request[Any, Any, Any]


def error_body(error: LollmsError) -> tuple[bytes, str]:
    """The body that tells of `error`, and its content type."""
    detail: Any = error.detail
    if isinstance(error, ValidationFailed):
        detail = error.problems
    elif isinstance(error, QueueTimeout):
        detail = f"Operation timed out: {detail}"
    return _detail(detail), JSON


def error_headers(error: LollmsError) -> dict[str, str]:
    """Retry-After, where another try makes sense."""
    if error.retry_after is None and not (error.retryable and error.status == 503):
        return {}
    return {"Retry-After": str(max(1, math.ceil(error.retry_after or 1)))}


def report(error: Exception, log: logging.Logger) -> str:
    """Log an error that nobody foresaw; what to tell the client, which leads an operator to the log line."""
    number = secrets.token_hex(4)
    log.error("unexpected error %s", number, exc_info=error)
    return f"Internal server error {number}. The server's log has the details."


def _detail(detail: object) -> bytes:
    return msgspec.json.encode({"detail": detail})


def _on_lollms_error(request: AnyRequest, error: LollmsError) -> Response[bytes]:
    body, content_type = error_body(error)
    return Response(body, status_code=error.status, media_type=content_type, headers=error_headers(error))


def _on_not_found(request: AnyRequest, error: NotFoundException) -> Response[bytes]:
    if request.method == "GET":
        return Response(b"Not Found", status_code=404, media_type=TEXT)
    return Response(_detail("Not Found"), status_code=404, media_type=JSON)


def _on_wrong_method(request: AnyRequest, error: MethodNotAllowedException) -> Response[bytes]:
    if request.method == "GET":
        return Response(b"Not Found", status_code=404, media_type=TEXT)
    headers = {"Allow": (error.headers or {}).get("allow", "")}
    return Response(_detail("Method Not Allowed"), status_code=405, media_type=JSON, headers=headers)


def _on_http_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    return Response(_detail(error.detail), status_code=error.status_code, media_type=JSON)


def _on_unexpected(request: AnyRequest, error: Exception) -> Response[bytes]:
    return Response(_detail(report(error, logger)), status_code=500, media_type=JSON)


exception_handlers: ExceptionHandlersMap = {
    LollmsError: _on_lollms_error,
    NotFoundException: _on_not_found,
    MethodNotAllowedException: _on_wrong_method,
    HTTPException: _on_http_error,
    Exception: _on_unexpected,
}
"""For a Litestar application or router."""
