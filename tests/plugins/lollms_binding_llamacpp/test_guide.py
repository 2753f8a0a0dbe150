"""The packaged guide model, as everybody gets it who has configured nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.extra_buffers import HARMLESS_TYPES
from lollms_binding_llamacpp.library import GUIDE, PACKAGED
from lollms_binding_llamacpp.parameters import model_defaults
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import Binding, BindingContext
from lollms_kernel.testing import BindingContract
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Message, Notice, TextDelta
from lollms_kernel.workers.proxy import WorkerBinding


def embedded(root: Path) -> LlamaCppBinding:
    settings = LlamaCppBinding.Settings(**LlamaCppBinding.builtin_instances()["embedded"])
    return LlamaCppBinding(settings, BindingContext(models_folder=root / "models", root=root))


@pytest.fixture
async def guide(tmp_path: Path) -> AsyncIterator[LlamaCppBinding]:
    binding = embedded(tmp_path)
    await binding.open()
    yield binding
    await binding.close()


async def ask(binding: Binding, question: str, system: str | None = None) -> list[Chunk]:
    request = GenerateRequest(id="q", model=GUIDE, messages=(Message("user", question),), system=system)
    async with aclosing(binding.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))


async def test_it_is_the_default_small_and_of_types_that_run_everywhere(guide: LlamaCppBinding) -> None:
    info = await guide.get_model_info()
    assert info.name == GUIDE
    assert (info.size or 0) <= 4 * 10**6
    header = guide.library.headers(PACKAGED / f"{GUIDE}.gguf")
    assert header.elements.keys() <= HARMLESS_TYPES
    assert model_defaults(header)["temperature"] == 0


async def test_it_answers_in_a_stream_and_always_the_same(guide: LlamaCppBinding) -> None:
    first = await ask(guide, "How do I start the server?")
    assert "make serve" in text_of(first)
    assert sum(isinstance(chunk, TextDelta) for chunk in first) > 5
    assert not [chunk for chunk in first if isinstance(chunk, Notice)]
    assert isinstance(first[-1], Finished)
    assert first[-1].reason == "stop"
    assert text_of(await ask(guide, "How do I start the server?")) == text_of(first)


async def test_it_thinks_when_it_is_asked_to(guide: LlamaCppBinding) -> None:
    thinking = text_of(await ask(guide, "How do I start the server?", system="Think step by step."))
    assert thinking.startswith("<think>")
    assert "</think>" in thinking
    assert "<think>" not in text_of(await ask(guide, "How do I start the server?"))


class TestInAWorker(BindingContract):
    @pytest.fixture
    async def binding(self, tmp_path: Path) -> AsyncIterator[Binding]:
        binding = WorkerBinding(embedded(tmp_path), WorkersConfig(), lambda event: None)
        await binding.open()
        yield binding
        await binding.close()
