"""The functions of a request, as models are told of them."""

from __future__ import annotations

from typing import Any

from ..types import GenerateRequest, Notice


def described_functions(request: GenerateRequest) -> tuple[list[dict[str, Any]], list[Notice]]:
    """Each function as `{"name", "description"?, "parameters"?}`, and what is to be said of the others.

    Clients describe functions as OpenAI does: `{"type": "function", "function": {…}}`, or the inner part alone. Names
    alone describe nothing, and a service knows no functions of this server.
    """
    described: list[dict[str, Any]] = []
    unknown: list[str] = []
    for function in request.functions:
        inner = function.get("function", function) if isinstance(function, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            described.append(inner)
        else:
            unknown.append(str(function)[:80])
    if not unknown:
        return described, []
    message = f"Functions without a description, which the model was not told of: {', '.join(unknown)}."
    return described, [Notice("functions_ignored", message, {"names": unknown})]
