"""Runs requests whose answers are media: the finished pieces, with what is to be said about them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from lollms_kernel.errors import GenerationFailed
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Media, Message, Notice, Output, Usage

from .call import Call
from .merge import answers
from .order import SOURCE
from .target import Target


class Made(msgspec.Struct):
    """What some generations made."""

    outputs: list[Output] = []
    notices: list[Notice] = []
    usage: Usage = Usage()
    facts: dict[str, Any] = {}

    def add(self, chunk: Chunk) -> None:
        """Take one more chunk."""
        if isinstance(chunk, Output):
            self.outputs.append(chunk)
        elif isinstance(chunk, Notice):
            self.notices.append(chunk)
        elif isinstance(chunk, Finished):
            self.facts |= chunk.metadata
            if chunk.usage is not None:
                self.usage = Usage(
                    self.usage.prompt_tokens + chunk.usage.prompt_tokens,
                    self.usage.completion_tokens + chunk.usage.completion_tokens,
                )

    def told(self) -> dict[str, Any]:
        """What the server did differently from what was asked, for the answer."""
        if not self.notices:
            return {}
        unique = {notice.code + notice.message: notice for notice in self.notices}
        return {"notices": [msgspec.to_builtins(notice) for notice in unique.values()]}


def media_request(
    call: Call,
    target: Target,
    kind: str,
    prompt: str,
    parameters: dict[str, Any],
    media: Sequence[Media] = (),
) -> GenerateRequest:
    """A request to make `kind` of a prompt and media."""
    return GenerateRequest(
        id=secrets.token_hex(8),
        generation_type=kind,
        messages=(Message("user", prompt, tuple(media)),),
        binding=None if target.is_default else target.instance,
        model=target.model,
        personality=target.personality,
        parameters=parameters,
        tenant=call.tenant,
        source=SOURCE,
    )


async def make(call: Call, requests: Sequence[GenerateRequest], kind: str, at_once: int = 4) -> Made:
    """Run the requests. Raises GenerationFailed where nothing of this kind came."""
    made = Made()
    requests = [msgspec.structs.replace(request, want_progress=False) for request in requests]
    async with answers(call.kernel, requests, at_once) as chunks:
        async for _, chunk in chunks:
            made.add(chunk)
    made.outputs = [
        output for output in made.outputs if output.type == kind and isinstance(output.data, bytes)
    ]
    if not made.outputs:
        raise GenerationFailed(f"The model made no {kind}.")
    return made
