"""Every error that the kernel, a plugin or a transport may raise on purpose.

    LollmsError                    500 internal_error
     ├ ConfigError                 500 config_error           (at start: exit code 2)
     ├ InvalidRequest              400 invalid_request
     │  ├ ValidationFailed         422 validation_failed
     │  ├ NoBindingConfigured      400 no_binding_configured
     │  ├ UnsupportedInput         400 unsupported_input
     │  └ ContextOverflow          400 context_overflow
     ├ Unauthorized                401 unauthorized
     ├ Forbidden                   403 forbidden
     │  └ KeyMissing               403 key_missing
     ├ NotFound                    404 not_found
     │  ├ BindingNotFound          404 binding_not_found
     │  ├ ModelNotFound            404 model_not_found
     │  └ PersonalityNotFound      404 personality_not_found
     ├ QueueTimeout                408 queue_timeout          retryable
     ├ RateLimited                 429 rate_limited           retryable
     ├ Cancelled                   499 cancelled
     ├ PayloadTooLarge             413 payload_too_large
     ├ NotSupported                501 not_supported
     ├ Unavailable                 503 unavailable            retryable
     │  ├ BindingUnavailable       503 binding_unavailable
     │  ├ ModelLoadFailed          503 model_load_failed
     │  ├ QueueFull                503 queue_full             retryable
     │  └ ShuttingDown             503 shutting_down          retryable
     ├ DownloadFailed              502 download_failed
     └ GenerationFailed            500 generation_failed
        ├ WorkerCrashed            500 worker_crashed         retryable
        └ WorkerHung               500 worker_hung            retryable

A message says what happened and where; `hint` says what cures it. Neither ever holds a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import msgspec

_conceal: Callable[[str], str] = str


def conceal_with(conceal: Callable[[str], str]) -> None:
    """Let every text of an error pass through this, so that what knows the secrets can take them out."""
    global _conceal
    _conceal = conceal


class LollmsError(Exception):
    """Something went wrong that a caller can understand and often cure."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        self.message = _conceal(message)
        self.hint = None if hint is None else _conceal(hint)
        super().__init__(self.message)
        self.retry_after = retry_after
        """Seconds after which another try makes sense; transports send it as Retry-After."""

    @property
    def detail(self) -> str:
        """Message and cure in one line, for protocols that have room for one text only."""
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigError(LollmsError):
    """A configuration file, value or plugin set cannot be used as it is."""

    code = "config_error"


class InvalidRequest(LollmsError):
    """The request itself is wrong; sending it again unchanged fails again."""

    code = "invalid_request"
    status = 400


class Problem(msgspec.Struct, frozen=True):
    """One place of a body that is wrong: `loc` leads there from the root, e.g. ("body", "input_data", 0, "role")."""

    type: str
    loc: tuple[str | int, ...]
    msg: str
    input: object = None


class ValidationFailed(InvalidRequest):
    """The body does not have the documented shape; `problems` names each wrong place."""

    code = "validation_failed"
    status = 422

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        where = "; ".join(f"{'.'.join(str(part) for part in p.loc)}: {p.msg}" for p in problems)
        super().__init__(where or "The body is not valid.", hint=hint)
        self.problems = tuple(problems)


class NoBindingConfigured(InvalidRequest):
    """No binding was asked for and the configuration names no default for this kind of generation."""

    code = "no_binding_configured"


class UnsupportedInput(InvalidRequest):
    """The chosen binding or model cannot take an input of this type or role."""

    code = "unsupported_input"


class ContextOverflow(InvalidRequest):
    """The prompt does not fit into the model's context; the numbers say by how much, where they are known."""

    code = "context_overflow"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        n_prompt_tokens: int | None = None,
        n_ctx: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.n_prompt_tokens = n_prompt_tokens
        self.n_ctx = n_ctx


class Unauthorized(LollmsError):
    """A key was sent and it is wrong."""

    code = "unauthorized"
    status = 401


class Forbidden(LollmsError):
    """The key, or the lack of one, does not allow this, or the origin is not allowed."""

    code = "forbidden"
    status = 403


class KeyMissing(Forbidden):
    """A key is needed and none was sent."""

    code = "key_missing"


class NotFound(LollmsError):
    """What the request names does not exist."""

    code = "not_found"
    status = 404


class BindingNotFound(NotFound):
    """No binding instance has this name."""

    code = "binding_not_found"


class ModelNotFound(NotFound):
    """The binding does not know this model."""

    code = "model_not_found"


class PersonalityNotFound(NotFound):
    """No enabled personality has this id, name or folder."""

    code = "personality_not_found"


class QueueTimeout(LollmsError):
    """The request waited longer than `resource_manager.queue_timeout` for its turn."""

    code = "queue_timeout"
    status = 408
    retryable = True


class RateLimited(LollmsError):
    """The API key has used up what it may use for now; `retry_after` says when there is more."""

    code = "rate_limited"
    status = 429
    retryable = True


class Cancelled(LollmsError):
    """Somebody with the right to do so stopped the request."""

    code = "cancelled"
    status = 499


class PayloadTooLarge(LollmsError):
    """The body is larger than `server.max_body_size`."""

    code = "payload_too_large"
    status = 413


class NotSupported(LollmsError):
    """The binding has no such capability."""

    code = "not_supported"
    status = 501


class Unavailable(LollmsError):
    """What is needed exists but cannot serve now."""

    code = "unavailable"
    status = 503
    retryable = True


class BindingUnavailable(Unavailable):
    """The binding instance is configured but did not start, or its engine is missing."""

    code = "binding_unavailable"
    retryable = False


class ModelLoadFailed(Unavailable):
    """The binding knows the model but could not load it."""

    code = "model_load_failed"
    retryable = False


class QueueFull(Unavailable):
    """As many requests wait as the configuration allows; `position` is the place that this one would have had, the next
    to have its turn being 1."""

    code = "queue_full"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.position = position


class ShuttingDown(Unavailable):
    """The server is stopping and takes or finishes no more work."""

    code = "shutting_down"


class DownloadFailed(LollmsError):
    """A file could not be fetched from a hub, or is not what the hub says; what is kept can be gone on with."""

    code = "download_failed"
    status = 502


class GenerationFailed(LollmsError):
    """The binding failed while it generated."""

    code = "generation_failed"


class WorkerCrashed(GenerationFailed):
    """The worker process died while it worked for this request."""

    code = "worker_crashed"
    retryable = True


class WorkerHung(GenerationFailed):
    """The worker process stopped answering and was killed."""

    code = "worker_hung"
    retryable = True


def _tree(root: type[LollmsError]) -> Iterator[type[LollmsError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def error_from_code(
    code: str, message: str, *, hint: str | None = None, retry_after: float | None = None
) -> LollmsError:
    """The error that `code` names, e.g. as received from a worker; unknown codes become GenerationFailed."""
    for kind in _tree(LollmsError):
        if kind.code == code and kind is not ValidationFailed:
            return kind(message, hint=hint, retry_after=retry_after)
    return GenerationFailed(message, hint=hint, retry_after=retry_after)
