"""From the body of POST /api/v1/generate to the request that the kernel understands."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec

from ..bodies import Problems, read_body
from ..types import GenerateRequest, Notice
from .conversation import Conversation
from .media import read_media
from .wire import GenerateBody, InputData

IN_THREAD = 1 << 20
"""Bodies from this size on are decoded in a thread, to keep the event loop free."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to generate and how to answer."""

    request: GenerateRequest
    stream: bool
    notices: tuple[Notice, ...]
    """What of the body is not used, said in the answer's metadata."""


async def decode(body: bytes, tenant: str) -> Order:
    """The order that `body` gives. Raises ValidationFailed naming every wrong place."""
    if len(body) < IN_THREAD:
        return decode_now(body, tenant)
    return await asyncio.to_thread(decode_now, body, tenant)


def decode_now(body: bytes, tenant: str = "") -> Order:
    """Like `decode`, in this thread."""
    asked = read_body(body, GenerateBody)
    problems = Problems()
    conversation = _converse(asked, problems)
    parameters, system_message = _read_parameters(asked, problems)
    problems.check()
    messages, notices = conversation.finish()
    request = GenerateRequest(
        id=secrets.token_hex(8),
        generation_type=asked.generation_type,
        messages=messages,
        system=conversation.system,
        system_message=system_message,
        personality=asked.personality or None,
        binding=asked.binding_name or None,
        model=asked.model_name or None,
        parameters=parameters,
        functions=tuple(asked.functions or ()),
        want_progress=asked.stream,
        tenant=tenant,
        source="rest",
    )
    return Order(request=request, stream=asked.stream, notices=notices)


def _converse(asked: GenerateBody, problems: Problems) -> Conversation:
    conversation = Conversation()
    if asked.text_prompt:
        conversation.add_text("user_prompt", asked.text_prompt)
    elif not asked.input_data:
        place = ("body", "input_data")
        problems.add_value(place, "Request must include a non-empty 'input_data' list.", asked.input_data)
    for n, item in enumerate(asked.input_data):
        _add_input(item, n, conversation, problems)
    return conversation


def _add_input(item: InputData, number: int, conversation: Conversation, problems: Problems) -> None:
    place = ("body", "input_data", number)
    if item.type == "text":
        conversation.add_text(item.role, item.data)
        return
    _check_numbers(item.metadata, (*place, "metadata"), problems)
    media = read_media(item, place, problems)
    if media is not None:
        conversation.add_media(media)


def _read_parameters(asked: GenerateBody, problems: Problems) -> tuple[dict[str, Any], str | None]:
    """The generation parameters, and `system_message`, which travels beside them."""
    parameters = dict(asked.parameters or {})
    place = ("body", "parameters")
    _check_numbers(parameters, place, problems)
    _check_numbers(asked.functions, ("body", "functions"), problems)
    system_message = parameters.pop("system_message", None)
    if system_message is not None and not isinstance(system_message, str):
        problems.add(
            "string_type", (*place, "system_message"), "Input should be a valid string", system_message
        )
        return parameters, None
    return parameters, system_message


def _check_numbers(value: Any, location: tuple[str | int, ...], problems: Problems) -> None:
    """JSON's integers are unbounded; what goes to a worker has 64 bits."""
    try:
        msgspec.msgpack.encode(value)
    except OverflowError:
        problems.add_value(location, "integers must fit into 64 bits")
