"""What Google's service refuses, as errors that say the cure. Its texts are looked at, never passed on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lollms_kernel.errors import (
    BindingUnavailable,
    ContextOverflow,
    InvalidRequest,
    LollmsError,
    NotSupported,
    PayloadTooLarge,
    UnsupportedInput,
)
from lollms_kernel.upstream import Service, retry_after

from .sdk import Refused

_KEY_REASONS = {"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "SERVICE_DISABLED"}
_SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s")

Known = Callable[[Service, str], LollmsError]


def _cannot(what: str, hint: str) -> Known:
    return lambda service, model: UnsupportedInput(f"Model '{model}' of {service} {what}.", hint=hint)


_MEANINGS: tuple[tuple[re.Pattern[str], Known], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), known)
    for pattern, known in (
        (
            r"input token count|exceeds the maximum number of tokens|input context is too long",
            lambda service, model: ContextOverflow(
                f"The prompt does not fit into the context of model '{model}' of {service}.",
                hint="Send less text, fewer earlier turns or fewer media, or use a model with a larger context.",
            ),
        ),
        (
            r"payload size exceeds|request size exceeds",
            lambda service, _: PayloadTooLarge(
                f"{service} refused the request as too large.",
                hint="Send less or smaller media: 20 MB in all.",
            ),
        ),
        (
            r"developer instruction is not enabled|system instruction",
            _cannot("takes no system text", "Put it into the first message, or use another model."),
        ),
        (
            r"function calling is not enabled|tool use is not|function calling with",
            _cannot("cannot call functions", "Leave `functions` out, or use another model."),
        ),
        (
            r"json mode is not enabled|response_?schema|response_?mime_?type",
            _cannot(
                "cannot answer in this form", "Leave the JSON schema out, simplify it, or use another model."
            ),
        ),
        (
            r"thinking",
            lambda service, model: InvalidRequest(
                f"Model '{model}' of {service} cannot think as asked.",
                hint="Leave the parameter `think` out or give another value.",
            ),
        ),
        (
            r"input modality is not enabled|unsupported mime type|unable to process input|mime ?type",
            _cannot("cannot read one of the inputs", "Send it in another format, or use another model."),
        ),
        (
            r"modalit(y|ies)",
            lambda service, model: NotSupported(
                f"Model '{model}' of {service} does not make this.", hint="Use a model that does."
            ),
        ),
        (
            r"location is not supported",
            lambda service, _: BindingUnavailable(
                f"{service} does not serve the country that this server is in.",
                hint="Google lists the countries where its API may be used.",
            ),
        ),
        (
            r"billed users|paid plan|billing",
            lambda service, model: BindingUnavailable(
                f"Model '{model}' of {service} is for accounts with billing.",
                hint="Enable billing for the account's project, or use another model.",
            ),
        ),
    )
)


def explain(service: Service, error: Exception) -> LollmsError | None:
    """The error for a refusal; None for what is none."""
    if not isinstance(error, Refused):
        return None
    return _refused(service, error)


def _refused(service: Service, refusal: Refused) -> LollmsError:
    status, reasons = refusal.status or 500, set(_reasons(refusal.error))
    message = str(refusal.error.get("message", ""))
    if reasons & _KEY_REASONS or "api key" in message.lower():
        return service.wrong_key(status)
    if status == 429:
        return _too_much(service, refusal)
    if status in (400, 413) or (status == 404 and "not supported" in message):
        model = (refusal.model or "?").removeprefix("models/")
        for pattern, known in _MEANINGS:
            if pattern.search(message):
                return known(service, model)
    return service.refused(status, refusal.headers, refusal.model)


def _too_much(service: Service, refusal: Refused) -> LollmsError:
    """Busy for a while, or nothing left for today (or at all, on plans that do not have the model)."""
    quotas = {str(item.get("quotaId", "")) for item in _violations(refusal.error)}
    exhausted = any("PerDay" in quota for quota in quotas) or re.search(
        r"\blimit: 0\b", str(refusal.error.get("message", ""))
    )
    if exhausted:
        return service.quota_exhausted()
    return service.busy(_retry_delay(refusal.error) or retry_after(refusal.headers))


def _details(error: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    yield from (item for item in (details if isinstance(details, list) else ()) if isinstance(item, dict))


def _reasons(error: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(item["reason"]) for item in _details(error) if "reason" in item)


def _violations(error: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in _details(error):
        violations = item.get("violations")
        yield from (
            one for one in (violations if isinstance(violations, list) else ()) if isinstance(one, dict)
        )


def _retry_delay(error: Mapping[str, Any]) -> float | None:
    """Seconds of Google's `RetryInfo`, written as `34.07s`."""
    for item in _details(error):
        found = _SECONDS.fullmatch(str(item.get("retryDelay", "")))
        if found:
            return float(found[1])
    return None


def plain_reason(word: str | None) -> str | None:
    """One of the protocol's words in plain letters; None for anything else that a service may send."""
    return word if word and re.fullmatch(r"[A-Z_]{1,40}", word) else None
