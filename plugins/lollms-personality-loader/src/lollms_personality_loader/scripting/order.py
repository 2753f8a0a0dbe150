"""What the process of a script is told of its request: the context keys of lollms_server, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.contracts import PersonalityCard, PersonalityContext
from lollms_kernel.types import GenerateRequest, Media

from ..scripts import Script


class Input(msgspec.Struct, frozen=True):
    """One item of `input_data`; bytes become base64 in the process."""

    type: str
    role: str
    data: Any
    """Text, or bytes of media."""
    mime_type: str | None = None
    metadata: dict[str, Any] = {}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a script."""

    kind: str
    folder: str
    file: str
    prompt: str
    params: dict[str, Any]
    inputs: list[Input]
    turns: list[tuple[str, str]]
    personality: dict[str, Any]
    request: dict[str, Any]
    request_info: dict[str, Any]
    binding: str | None
    model: str | None
    config: dict[str, Any]
    functions: list[str]


ROLES = {"user": "user_prompt", "assistant": "assistant_reply", "system": "system_context", "tool": "tool"}


def order_of(
    script: Script,
    folder: Path,
    card: PersonalityCard,
    conditioned: GenerateRequest,
    context: PersonalityContext,
) -> Order:
    """The order for a conditioned request."""
    kernel = context.kernel
    defaults = kernel.config.defaults
    params = {
        "max_tokens": defaults.default_max_output_tokens,
        "context_size": defaults.default_context_size,
        **conditioned.parameters,
    }
    if conditioned.system:
        params["system_message"] = conditioned.system
    functions = [item for item in conditioned.functions if isinstance(item, str)]
    return Order(
        kind=script.kind,
        folder=str(folder),
        file=script.file,
        prompt=conditioned.prompt,
        params=params,
        inputs=_inputs(conditioned),
        turns=[(turn.role, turn.content) for turn in conditioned.messages],
        personality=msgspec.to_builtins(card),
        request={
            "personality": card.id,
            "binding_name": conditioned.binding,
            "model_name": conditioned.model,
            "generation_type": conditioned.generation_type,
            "parameters": conditioned.parameters,
            "functions": list(conditioned.functions),
        },
        request_info={
            "personality": card.name,
            "functions": list(conditioned.functions),
            "generation_type": conditioned.generation_type,
            "request_id": conditioned.id,
        },
        binding=conditioned.binding or kernel.default_binding(conditioned.generation_type),
        model=conditioned.model,
        # Nothing here may be a secret: a script may send it anywhere.
        config={
            "defaults": msgspec.to_builtins(defaults),
            "logging": {"log_level": kernel.config.logging.log_level},
            "resource_manager": msgspec.to_builtins(kernel.config.resource_manager),
        },
        functions=functions,
    )


def _inputs(request: GenerateRequest) -> list[Input]:
    if request.raw_prompt is not None:
        return [Input("text", "user_prompt", request.raw_prompt), *map(_medium, request.raw_media)]
    inputs: list[Input] = []
    for turn in request.messages:
        if turn.content or not turn.media:
            inputs.append(Input("text", ROLES[turn.role], turn.content))
        inputs += map(_medium, turn.media)
    return inputs


def _medium(item: Media) -> Input:
    return Input(item.type, item.role, item.data, item.mime_type, item.metadata)
