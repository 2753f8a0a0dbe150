"""A conversation as one text, for models that continue texts and know no turns."""

from __future__ import annotations

import msgspec

from .types import GenerateRequest, Message, ModelInfo, Speakers


def fitted(request: GenerateRequest, info: ModelInfo) -> GenerateRequest:
    """The request as this model can read it: unchanged, or with its turns as `raw_prompt`.

    The markers of the speakers then end the answer too: such a model would go on and speak for the user.
    """
    speakers = request.speakers
    chats = not info.capabilities or "chat" in info.capabilities
    if speakers is None or chats or not request.messages or request.media:
        return request
    marks = [mark for mark in (speakers.user.strip(), speakers.assistant.strip()) if len(mark) > 1]
    stop = dict.fromkeys([*request.parameters.get("stop", ()), *marks])
    return msgspec.structs.replace(
        request,
        raw_prompt=as_text(request.system, request.messages, speakers),
        messages=(),
        system=None,
        public_prefix=0,
        parameters={**request.parameters, "stop": list(stop)},
        ends_at=tuple(dict.fromkeys([*request.ends_at, *marks])),
    )


def as_text(system: str | None, messages: tuple[Message, ...], speakers: Speakers) -> str:
    """The system text and every turn behind its speaker's marker, ending where the assistant is to speak."""
    turns = [_turn(message, speakers) for message in messages]
    return speakers.between.join([*([system] if system else []), *turns, speakers.assistant.rstrip(" ")])


def _turn(message: Message, speakers: Speakers) -> str:
    match message.role:
        case "assistant":
            return speakers.assistant + message.content
        case "system":
            return message.content
        case _:
            return speakers.user + message.content
