"""A binding in one file: it answers with the prompt in capitals.

Copy this folder, search for "change:" and put your engine behind it. Nothing else has to know of it: the entry
point in pyproject.toml is how the server finds the hook at the end of this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, ClassVar

import msgspec

from lollms_kernel.contracts import Binding, BindingCard, InstanceSettings, Register
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.types import Chunk, Finished, GenerateRequest, ModelInfo, TextDelta, Usage


class ShoutSettings(InstanceSettings, frozen=True, kw_only=True):
    """What `bindings/<instance>.yaml` may hold; unknown keys and wrong types are refused before you see them."""

    # change: your settings, each with a default. An API key: `api_key: contracts.Secret = ""`; no listing shows it.
    mark: str = "!"
    delay: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    """Seconds between two words."""


class ShoutBinding(Binding):
    """Streams the prompt in capitals, word by word."""

    type_name: ClassVar[str] = "shout_binding"  # change: what `type:` and `bindings_map` name
    card: ClassVar[BindingCard] = BindingCard(  # change: what `lollms bindings` shows
        display_name="Shout",
        version="0.1.0",
        author="You",
        description="Answers with the prompt in capitals.",
    )
    Settings: ClassVar[type[InstanceSettings]] = ShoutSettings
    settings: ShoutSettings

    # change: connect in `async def open(self)`, load in `async def load(self, model)`, never at import, and give
    # everything back in `async def close(self)`. An engine that computes, or may crash, runs in a process of its
    # own when the property `isolation` is "process" (here it is "inline").

    async def list_models(self) -> list[ModelInfo]:
        """The models that `generate` accepts; requests for others are refused with this list."""
        return [ModelInfo(name="loud", context_size=self.context.default_context_size)]  # change

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """The answer in pieces, ended by Finished. Raise a LollmsError with a `hint` when it cannot be made."""
        # change: `request` also holds `messages` (the conversation), `system` (the whole system text), `model`,
        # `parameters` (temperature, max_tokens, stop …) and `media`. When the client goes away, this generator is
        # closed at its `yield` or `await`: stop the engine in a `finally`.
        await self.get_model_info(request.model)  # raises ModelNotFound for a model that it has not
        words = request.prompt.split()
        for word in words:
            yield TextDelta(f"{word.upper()} ")
            await asyncio.sleep(self.settings.delay)
        if self.settings.mark:
            yield TextDelta(self.settings.mark)
        yield Finished(usage=Usage(len(words), len(words) + 1))


@hookimpl
def register_bindings(register: Register) -> None:
    """Called once at the start of the server."""
    register(ShoutBinding)
