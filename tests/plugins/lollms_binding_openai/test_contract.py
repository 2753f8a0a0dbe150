"""The contract that every binding keeps, whoever the service is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from lollms_binding_openai import DalleBinding, OpenAIBinding
from lollms_kernel.contracts import Binding
from lollms_kernel.errors import NotSupported
from lollms_kernel.testing import BindingContract
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIModel
from lollms_kernel.types import GenerateRequest

Open = Callable[..., Awaitable[Any]]


class TestOpenAI(BindingContract):
    @pytest.fixture
    async def binding(self, fake: FakeOpenAI, open_binding: Open) -> AsyncIterator[Binding]:
        yield await open_binding(OpenAIBinding, fake)

    async def test_tokens_round_trip_where_there_is_a_tokenizer(self, binding: Binding) -> None:
        assert isinstance(binding, OpenAIBinding)
        with pytest.raises(NotSupported):
            await binding.tokenize("Hello", None, False, False)
        with pytest.raises(NotSupported):
            await binding.detokenize([1], None)


class TestVllm(BindingContract):
    @pytest.fixture
    async def binding(self, open_binding: Open) -> AsyncIterator[Binding]:
        with FakeOpenAI([OpenAIModel(id="Qwen/Qwen3-8B")], flavour="vllm") as fake:
            yield await open_binding(OpenAIBinding, fake)


class TestLlamaServer(BindingContract):
    @pytest.fixture
    async def binding(self, open_binding: Open) -> AsyncIterator[Binding]:
        with FakeOpenAI([OpenAIModel(id="qwen.gguf")], flavour="llama-server") as fake:
            yield await open_binding(OpenAIBinding, fake)


class TestDalle(BindingContract):
    @pytest.fixture
    async def binding(self, fake: FakeOpenAI, open_binding: Open) -> AsyncIterator[Binding]:
        yield await open_binding(DalleBinding, fake)

    async def request_for(self, binding: Binding) -> GenerateRequest:
        request = await super().request_for(binding)
        return msgspec.structs.replace(request, generation_type="tti")


class TestDalleWithPreviews(TestDalle):
    parameters = {**BindingContract.parameters, "partial_images": 2}

    @pytest.fixture
    async def binding(self, fake: FakeOpenAI, open_binding: Open) -> AsyncIterator[Binding]:
        yield await open_binding(DalleBinding, fake, default_model="gpt-image-2.5-flare")
