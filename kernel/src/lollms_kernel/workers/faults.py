"""Exceptions of bindings as errors that a client can understand, and as values that travel between processes.

The mapping is the published one (400 for ValueError, 501 for NotImplementedError, 408 for TimeoutError, else
500), and it is the same whether a binding runs in the server or in a worker.
"""

from __future__ import annotations

import msgspec

from ..errors import (
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    NotSupported,
    QueueTimeout,
    ValidationFailed,
    error_from_code,
)


def as_lollms_error(error: BaseException) -> LollmsError:
    """The error to show for whatever a binding raised; a LollmsError stays what it is."""
    match error:
        case LollmsError():
            return error
        case NotImplementedError():
            return NotSupported(str(error) or "The binding does not support this.")
        case TimeoutError():
            return QueueTimeout(f"Operation timed out: {str(error) or 'the binding gave no reason.'}")
        case ValueError():
            return InvalidRequest(f"Bad request: {error}")
        case _:
            text = str(error)
            name = type(error).__name__
            return GenerationFailed(
                f"{name}: {text}" if text else name, hint="The server's log has the traceback."
            )


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """What an error says, as a value: each `error()` is a fresh exception of the same kind."""

    code: str
    message: str
    hint: str | None = None
    retry_after: float | None = None
    overflow: tuple[int | None, int | None] | None = None
    """`n_prompt_tokens` and `n_ctx` of a ContextOverflow."""

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """The fault that describes `error`."""
        known = as_lollms_error(error)
        # The list of problems of ValidationFailed stays behind; its text says the same.
        code = InvalidRequest.code if isinstance(known, ValidationFailed) else known.code
        overflow = (known.n_prompt_tokens, known.n_ctx) if isinstance(known, ContextOverflow) else None
        hint = _sendable(known.hint or "") or None
        return cls(code, _sendable(known.message), hint, known.retry_after, overflow)

    def error(self) -> LollmsError:
        """An exception to raise."""
        error = error_from_code(self.code, self.message, hint=self.hint, retry_after=self.retry_after)
        if isinstance(error, ContextOverflow) and self.overflow is not None:
            error.n_prompt_tokens, error.n_ctx = self.overflow
        return error


def _sendable(text: str) -> str:
    """`text` without the lone surrogates that file names in messages may hold and UTF-8 may not."""
    return text.encode(errors="replace").decode()
