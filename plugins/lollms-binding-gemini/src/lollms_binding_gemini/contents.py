"""From a request to the contents that the service reads."""

from __future__ import annotations

from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import GenerateRequest, Message, ModelInfo, Notice
from lollms_kernel.upstream import calls_in, described_functions

from .media import part_of
from .models import takes_system_text
from .parameters import Wishes
from .sdk import Call

Content = dict[str, Any]

_SIGNATURE = b"skip_thought_signature_validator"
"""Models that think sign their calls and want the signatures back, which no client of ours keeps; Google documents
this value for calls that come from elsewhere."""


def build_call(request: GenerateRequest, model: ModelInfo, wishes: Wishes, safety: dict[str, str]) -> Call:
    """The call, with what is to be said about it in `wishes.notices`. Raises InvalidRequest, UnsupportedInput."""
    functions, unknown = described_functions(request)
    wishes.notices.extend(unknown)
    contents = contents_of(request, wishes.notices, signs=bool(model.details.get("thinking")))
    system = system_of(request)
    if system and not takes_system_text(model.name):
        if contents[0]["role"] != "user":
            contents.insert(0, {"role": "user", "parts": []})
        contents[0]["parts"].insert(0, {"text": system})
        message = f"Model '{model.name}' has no place for system text: it reads it in the first message."
        wishes.notices.append(Notice("system_as_message", message))
        system = None
    return Call(
        model=model.name,
        contents=contents,
        system=system,
        config=wishes.config,
        safety=safety,
        functions=tuple(functions),
        function_calling=wishes.function_calling if functions else None,
    )


def system_of(request: GenerateRequest) -> str | None:
    """Everything that has the role of the system."""
    texts = [request.system or "", *(turn.content for turn in request.messages if turn.role == "system")]
    return "\n\n".join(text for text in texts if text.strip()) or None


def contents_of(request: GenerateRequest, notices: list[Notice], signs: bool = False) -> list[Content]:
    """The conversation. Raises InvalidRequest where there is nothing to answer."""
    turns = request.messages
    if request.raw_prompt is not None:
        turns = (Message("user", request.raw_prompt, request.media),)
        notices.append(
            Notice("raw_prompt_as_message", "Gemini continues no text: the prompt was sent as a message.")
        )
    contents: list[Content] = []
    results: list[str] = []
    for turn in turns:
        if turn.role == "tool":
            results.append(turn.content)
            continue
        _add_results(contents, results, signs)
        parts = [part_of(item) for item in turn.media]
        if turn.content.strip():
            parts.append({"text": turn.content})
        if parts and turn.role != "system":
            contents.append({"role": "model" if turn.role == "assistant" else "user", "parts": parts})
    _add_results(contents, results, signs)
    if not any(content["role"] == "user" for content in contents):
        raise InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
    return contents


def _add_results(contents: list[Content], results: list[str], signs: bool) -> None:
    """Add results of functions, and before them the calls that they answer, which the service insists on.

    Where the assistant's text holds its calls, they are taken from it; others are made up, so that a result still
    reads as one.
    """
    if not results:
        return
    last = contents[-1] if contents and contents[-1]["role"] == "model" else None
    found = calls_in(last["parts"][-1].get("text", "")) if last else ()
    if found:
        del contents[-1]
    calls = [(call.name, _object(call.arguments)) for call in found[: len(results)]]
    calls += [("function", {})] * (len(results) - len(calls))
    signature = {"thought_signature": _SIGNATURE} if signs else {}
    asked = [{"function_call": {"name": name, "args": arguments}, **signature} for name, arguments in calls]
    answered = [
        {"function_response": {"name": name, "response": {"output": result}}}
        for (name, _), result in zip(calls, results, strict=True)
    ]
    contents += [{"role": "model", "parts": asked}, {"role": "user", "parts": answered}]
    results.clear()


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return {}
    return value if isinstance(value, dict) else {}
