"""What every binding promises, as a pytest class: subclass it, give it a `binding` fixture, and run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec
import pytest

from ..contracts import Binding, BindingCard, BindingContext, CountsTokens, InstanceSettings, Tokenizes
from ..errors import ModelNotFound
from ..types import Chunk, Failed, Finished, GenerateRequest, GpuNeed, Message, TextDelta

LIMIT = 60.0
"""Seconds that nothing in this suite may take."""


def make_binding(
    kind: type[Binding], settings: dict[str, Any] | None = None, context: BindingContext | None = None
) -> Binding:
    """A binding from plain settings, not opened."""
    from pathlib import Path

    raw = {"type": kind.type_name, "binding_instance_name": "under_test", **(settings or {})}
    context = context or BindingContext(models_folder=Path("models"), root=Path())
    return kind(msgspec.convert(raw, kind.Settings), context)


def ask(prompt: str, **fields: Any) -> GenerateRequest:
    """A request with one user turn."""
    return GenerateRequest(id="contract", messages=(Message("user", prompt),), **fields)


class BindingContract:
    """Subclass it as `class TestMine(BindingContract)` with an async `binding` fixture that gives an open binding."""

    parameters: ClassVar[dict[str, Any]] = {"max_tokens": 24, "context_size": 4096}
    prompt: ClassVar[str] = "Hello there, how are you today?"

    @pytest.fixture
    async def binding(self) -> AsyncIterator[Binding]:
        """An open binding; closed afterwards."""
        raise NotImplementedError("give the suite a binding fixture")
        yield

    async def request_for(self, binding: Binding) -> GenerateRequest:
        """What the suite asks; the default is a short text prompt to the default model."""
        info = await binding.get_model_info()
        return ask(self.prompt, binding=binding.name, model=info.name, parameters=dict(self.parameters))

    async def collect(self, binding: Binding, request: GenerateRequest) -> list[Chunk]:
        """The whole stream, within the time limit."""
        async with asyncio.timeout(LIMIT), aclosing(binding.generate(request)) as chunks:
            return [chunk async for chunk in chunks]

    async def test_card_and_settings_describe_the_type(self, binding: Binding) -> None:
        assert isinstance(binding.card, BindingCard)
        assert binding.type_name
        assert issubclass(binding.Settings, InstanceSettings)
        assert isinstance(binding.settings, binding.Settings)

    async def test_list_models_names_each_model_once_and_describes_it(self, binding: Binding) -> None:
        names = [info.name for info in await binding.list_models()]
        assert names, "a binding that is open has at least one model"
        assert len(names) == len(set(names))
        for name in names:
            assert (await binding.get_model_info(name)).name == name

    async def test_get_model_info_without_a_name_describes_the_default(self, binding: Binding) -> None:
        info = await binding.get_model_info()
        assert info.name in {known.name for known in await binding.list_models()}

    async def test_unknown_model_is_model_not_found(self, binding: Binding) -> None:
        with pytest.raises(ModelNotFound):
            await binding.get_model_info("no such model")
        request = msgspec.structs.replace(await self.request_for(binding), model="no such model")
        with pytest.raises(ModelNotFound):
            await self.collect(binding, request)

    async def test_generate_ends_with_exactly_one_finished(self, binding: Binding) -> None:
        chunks = await self.collect(binding, await self.request_for(binding))
        terminal = [chunk for chunk in chunks if isinstance(chunk, Finished | Failed)]
        assert len(terminal) == 1
        assert terminal[0] is chunks[-1]
        assert isinstance(terminal[0], Finished)
        assert terminal[0].reason in ("stop", "length", "tool_calls", "content_filter")
        if terminal[0].usage is not None:
            assert terminal[0].usage.prompt_tokens >= 0
            assert terminal[0].usage.completion_tokens >= 0

    async def test_text_deltas_are_never_empty(self, binding: Binding) -> None:
        chunks = await self.collect(binding, await self.request_for(binding))
        assert all(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))

    async def test_leaving_a_stream_stops_it_and_the_binding_serves_on(self, binding: Binding) -> None:
        request = await self.request_for(binding)
        async with asyncio.timeout(LIMIT):
            async with aclosing(binding.generate(request)) as chunks:
                await anext(chunks)
            again = await self.collect(binding, request)
        assert isinstance(again[-1], Finished)

    async def test_cancelling_the_consumer_stops_the_stream(self, binding: Binding) -> None:
        request = await self.request_for(binding)
        task = asyncio.create_task(self.collect(binding, request))
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(LIMIT):
            await asyncio.wait([task])
            again = await self.collect(binding, request)
        assert isinstance(again[-1], Finished)

    async def test_requests_at_the_same_time_do_not_mix(self, binding: Binding) -> None:
        request = await self.request_for(binding)
        alone = await self.collect(binding, request)
        width = min(binding.parallel or 4, 4)
        together = await asyncio.gather(*(self.collect(binding, request) for _ in range(width)))
        for chunks in together:
            assert isinstance(chunks[-1], Finished)
            assert [c for c in chunks if isinstance(c, Failed)] == [c for c in alone if isinstance(c, Failed)]

    async def test_gpu_need_is_a_pure_question(self, binding: Binding) -> None:
        request = await self.request_for(binding)
        need = binding.gpu_need(request)
        assert isinstance(need, GpuNeed)
        assert binding.gpu_need(request) == need

    async def test_tokens_round_trip_where_there_is_a_tokenizer(self, binding: Binding) -> None:
        if not isinstance(binding, Tokenizes):
            return
        text = "Hello world"
        tokens = await binding.tokenize(text, None, False, False)
        assert tokens
        assert (await binding.detokenize(tokens, None)).strip() == text

    async def test_longer_texts_have_more_tokens_where_they_are_counted(self, binding: Binding) -> None:
        if not isinstance(binding, CountsTokens):
            return
        short, long = [await binding.count_tokens("Hello world. " * n, None) for n in (1, 20)]
        assert 0 < short < long

    async def test_unload_gives_back_and_the_next_request_works(self, binding: Binding) -> None:
        request = await self.request_for(binding)
        await self.collect(binding, request)
        await binding.unload()
        assert isinstance((await self.collect(binding, request))[-1], Finished)
