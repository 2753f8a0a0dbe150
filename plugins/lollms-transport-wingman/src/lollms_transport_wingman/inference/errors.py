"""Errors as llama-server tells them: `{"error": {"code", "message", "type"}}`."""

from __future__ import annotations

import logging
import math
import secrets
from typing import Any

import msgspec

from lollms_kernel.contracts import ErrorAnswer
from lollms_kernel.errors import (
    ContextOverflow,
    Forbidden,
    KeyMissing,
    LollmsError,
    Unauthorized,
    ValidationFailed,
)

logger = logging.getLogger(__name__)

JSON = "application/json; charset=utf-8"

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}

FILE_NOT_FOUND = "File Not Found"


def error_object(error: LollmsError) -> dict[str, Any]:
    """What stands under `error`."""
    status = status_of(error)
    if isinstance(error, Unauthorized | KeyMissing):
        return {"code": status, "message": "Invalid API Key", "type": _TYPES[401]}
    if isinstance(error, ContextOverflow):
        return _overflow(error)
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"code": status, "message": error.detail, "type": kind}


def status_of(error: LollmsError) -> int:
    """The HTTP status."""
    if isinstance(error, Unauthorized | KeyMissing):
        return 401
    if isinstance(error, Forbidden):
        return 403
    return 400 if isinstance(error, ValidationFailed) else error.status


def error_answer(error: LollmsError, path: str = "") -> ErrorAnswer:
    """The whole answer."""
    return ErrorAnswer(status_of(error), msgspec.json.encode({"error": error_object(error)}), JSON)


def known(error: Exception) -> LollmsError:
    """The error to tell a client; one that nobody foresaw is logged and told by the number of its log line."""
    if isinstance(error, LollmsError):
        return error
    number = secrets.token_hex(4)
    logger.error("unexpected error %s", number, exc_info=error)
    return LollmsError(f"Internal server error {number}. The server's log has the details.")


def error_headers(error: LollmsError) -> list[tuple[bytes, bytes]]:
    """Retry-After, where another try makes sense."""
    if error.retry_after is None:
        return []
    return [(b"retry-after", str(max(1, math.ceil(error.retry_after))).encode())]


def _overflow(error: ContextOverflow) -> dict[str, Any]:
    told = {"code": 400, "message": error.detail, "type": "exceed_context_size_error"}
    if error.n_prompt_tokens is None or error.n_ctx is None:
        return told
    message = (
        f"request ({error.n_prompt_tokens} tokens) exceeds the available context size ({error.n_ctx} tokens),"
        " try increasing it"
    )
    return {**told, "message": message, "n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx}
