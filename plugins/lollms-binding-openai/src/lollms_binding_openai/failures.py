"""What OpenAI's library raises, as errors of ours; what the service wrote is read for its codes and never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lollms_kernel.errors import ContextOverflow, InvalidRequest, LollmsError
from lollms_kernel.upstream import Service

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")
_BLOCKED = ("content_policy_violation", "content_filter", "moderation_blocked", "safety_violation")
_OUT_OF_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


def explain(service: Service, error: Exception, sent: dict[str, Any]) -> LollmsError | None:
    """The error of ours for one of the library's; None for those that the network's own errors explain.

    `sent` is the request's body: a parameter is named in the error only if it is one of ours.
    """
    from openai import APIConnectionError, APIError, APIStatusError

    if isinstance(error, APIConnectionError):
        return service.explain(error.__cause__ or error)
    if isinstance(error, APIStatusError):
        return _refusal(service, error, sent)
    if isinstance(error, APIError):
        return _said_in_the_stream(service, error, sent)
    return None


def _refusal(service: Service, error: APIStatusError, sent: dict[str, Any]) -> LollmsError:
    status, model = error.status_code, str(sent.get("model") or "")
    known = _by_code(service, error, sent)
    if known is not None:
        return known
    if status == 404:
        about_model = error.code == "model_not_found" or error.param == "model" or "model" in _text(error)
        return service.refused(404, model=model if model and about_model else None)
    if status in (400, 422) and isinstance(error.param, str) and error.param in sent:
        return InvalidRequest(
            f"{service} refused the parameter '{error.param}' (HTTP {status}).",
            hint=f"Leave it out or give it another value; it may not suit model '{model}'.",
        )
    return service.refused(status, error.response.headers, model=None)


def _said_in_the_stream(service: Service, error: APIError, sent: dict[str, Any]) -> LollmsError:
    """An error inside an answer that began with 200: its code may be a status in digits."""
    known = _by_code(service, error, sent)
    if known is not None:
        return known
    code = error.code or ""
    if code.isdecimal() and 400 <= int(code) < 600:
        return service.refused(int(code))
    if "rate_limit" in f"{code} {error.type}":
        return service.busy()
    return service.refused(500)


def _by_code(service: Service, error: APIError, sent: dict[str, Any]) -> LollmsError | None:
    codes = {str(error.code), str(error.type)}
    text = _text(error)
    if codes & set(_TOO_LONG) or "maximum context length" in text or "exceeds the available context" in text:
        return ContextOverflow(
            f"The request is too long for model '{sent.get('model')}' of {service}.",
            hint="Send less text or fewer earlier turns, ask for fewer tokens, or use a model with a larger context.",
        )
    if codes & set(_BLOCKED):
        return service.blocked()
    if codes & set(_OUT_OF_CREDIT):
        return service.quota_exhausted()
    return None


def _text(error: APIError) -> str:
    """The service's words in lower case: to look for known phrases in, never to show."""
    return str(error.message).lower()[:2000]
