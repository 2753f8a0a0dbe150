"""From a request to the contents that the service reads."""

from __future__ import annotations

from typing import Any

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import GenerateRequest, Message, ModelInfo, Notice
from lollms_kernel.upstream import arguments_of, calls_in, described_functions

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
    results: list[Message] = []
    for turn in turns:
        if turn.role == "tool":
            results.append(turn)
            continue
        _add_results(contents, results, signs)
        parts = [part_of(item) for item in turn.media]
        if turn.content.strip():
            parts.append({"text": turn.content})
        parts += (_asked(call.name, arguments_of(call), signs) for call in turn.tool_calls)
        if parts and turn.role != "system":
            contents.append({"role": "model" if turn.role == "assistant" else "user", "parts": parts})
    _add_results(contents, results, signs)
    if not any(content["role"] == "user" for content in contents):
        raise InvalidRequest("There is nothing to answer.", hint="Send a message or a raw prompt.")
    return contents


def _add_results(contents: list[Content], results: list[Message], signs: bool) -> None:
    """Add results of functions, and before them the calls that they answer, which the service insists on.

    The calls are those of the assistant's turn. Where its text holds them, they are taken from it; others are made up,
    so that a result still reads as one.
    """
    if not results:
        return
    last = contents[-1] if contents and contents[-1]["role"] == "model" else None
    names = (
        [part["function_call"]["name"] for part in last["parts"] if "function_call" in part] if last else []
    )
    if not names:
        found = calls_in(last["parts"][-1].get("text", "")) if last else ()
        if found:
            del contents[-1]
        calls = [(call.name, arguments_of(call)) for call in found[: len(results)]]
        calls += [(result.name or "function", {}) for result in results[len(calls) :]]
        contents.append({"role": "model", "parts": [_asked(name, given, signs) for name, given in calls]})
        names = [name for name, _ in calls]
    names += [result.name or "function" for result in results[len(names) :]]
    answered = [
        {"function_response": {"name": result.name or name, "response": {"output": result.content}}}
        for name, result in zip(names, results, strict=False)
    ]
    contents.append({"role": "user", "parts": answered})
    results.clear()


def _asked(name: str, arguments: dict[str, Any], signs: bool) -> dict[str, Any]:
    signature = {"thought_signature": _SIGNATURE} if signs else {}
    return {"function_call": {"name": name, "args": arguments}, **signature}
