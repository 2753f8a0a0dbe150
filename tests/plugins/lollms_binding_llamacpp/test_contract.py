"""The contract that every binding keeps: in this process, and in a worker as the server runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import (
    AppliesTemplate,
    Binding,
    BindingContext,
    Embeds,
    EmbedsInputs,
    HasAdapters,
    HasEngine,
    HasSlots,
    Reranks,
    TellsPieces,
    Tokenizes,
)
from lollms_kernel.errors import ContextOverflow, NotSupported, WorkerCrashed
from lollms_kernel.testing import BindingContract
from lollms_kernel.types import (
    EmbeddingOptions,
    Finished,
    GenerateRequest,
    Message,
    TemplateOptions,
    TextDelta,
)
from lollms_kernel.workers.proxy import WorkerBinding


class TestInThisProcess(BindingContract):
    @pytest.fixture
    async def binding(
        self, make_model: Any, make_binding: Callable[..., Awaitable[LlamaCppBinding]]
    ) -> AsyncIterator[Binding]:
        make_model()
        yield await make_binding(default_model="alphabet")


@pytest.fixture
async def in_worker(make_model: Any, tmp_path: Path) -> AsyncIterator[WorkerBinding]:
    make_model()
    settings = LlamaCppBinding.Settings(
        type="llamacpp_binding", binding_instance_name="in_worker", default_model="alphabet"
    )
    context = BindingContext(models_folder=tmp_path / "models", root=tmp_path)
    binding = WorkerBinding(LlamaCppBinding(settings, context), WorkersConfig(), lambda event: None)
    await binding.open()
    yield binding
    await binding.close()


class TestInAWorker(BindingContract):
    @pytest.fixture
    async def binding(self, in_worker: WorkerBinding) -> AsyncIterator[Binding]:
        yield in_worker


async def test_an_answer_errors_and_tokens_come_through_the_worker(in_worker: WorkerBinding) -> None:
    request = GenerateRequest(id="1", model="alphabet.gguf", messages=(Message("user", "hello"),))
    async with aclosing(in_worker.generate(request)) as stream:
        chunks = [chunk async for chunk in stream]
    assert (
        "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta))
        == "abcdefghijklmnopqrstuvwxyz"
    )
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].usage is not None
    assert await in_worker.tokenize("ab", None, False, False) == [97, 98]  # type: ignore[attr-defined]

    long = GenerateRequest(id="2", model="alphabet.gguf", raw_prompt="a" * 600)
    with pytest.raises(ContextOverflow) as caught:
        await anext(in_worker.generate(long))
    assert caught.value.hint


async def test_all_that_the_binding_can_do_comes_through_the_worker(in_worker: WorkerBinding) -> None:
    for capability in (
        Tokenizes, TellsPieces, Embeds, EmbedsInputs, Reranks, AppliesTemplate, HasSlots, HasAdapters, HasEngine,
    ):  # fmt: skip
        assert isinstance(in_worker, capability)
    binding: Any = in_worker
    assert in_worker.endless
    assert in_worker.parallel is None
    text = await binding.apply_template([Message("user", "hi")], None, TemplateOptions())
    assert text.startswith("<|im_start|>user\nhi")
    assert (await binding.properties(None))["total_slots"] == 4
    assert len(await binding.slots(None)) == 4
    assert await binding.adapters(None) == []
    assert (await binding.engine_metrics(None))["requests_processing"] == 0
    assert (await binding.slot_action(0, "erase", None, None, ""))["n_erased"] == 0
    for call in (
        binding.embed_inputs([["a"]], None, EmbeddingOptions()),
        binding.rerank("a", ["b"], None, ""),
        binding.slot_action(0, "save", "x", None, ""),
    ):
        with pytest.raises(NotSupported):
            await call
    request = GenerateRequest(
        id="1",
        model="alphabet.gguf",
        raw_prompt="x",
        want_tokens=True,
        parameters={"n_probs": 1, "return_progress": True},
    )
    async with aclosing(in_worker.generate(request)) as stream:
        chunks = [chunk async for chunk in stream]
    deltas = [chunk for chunk in chunks if isinstance(chunk, TextDelta)]
    assert [token for delta in deltas for token in delta.tokens][:2] == list(b"yz")
    assert deltas[0].probabilities[0].piece == b"y"
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].metadata["engine"]["timings"]["predicted_n"] == 3
    shared = {in_worker.gpu_need(request).share, in_worker.gpu_need(request).share}
    assert len(shared) == 1
    assert shared != {None}


async def test_who_waits_for_a_slot_longer_than_a_hang_may_last_is_answered(
    make_model: Any, tmp_path: Path
) -> None:
    make_model()
    settings = LlamaCppBinding.Settings(
        type="llamacpp_binding", binding_instance_name="busy", default_model="alphabet", parallel=1,
        context_shift=True,
    )  # fmt: skip
    context = BindingContext(models_folder=tmp_path / "models", root=tmp_path)
    limits = WorkersConfig(heartbeat_interval=0.1, heartbeat_timeout=60, stall_timeout=1)
    binding = WorkerBinding(LlamaCppBinding(settings, context), limits, lambda event: None)
    await binding.open()
    endless = GenerateRequest(id="1", raw_prompt="?", parameters={"ignore_eos": True, "max_tokens": -1})
    waiting = GenerateRequest(id="2", raw_prompt="y", parameters={"max_tokens": 1})

    async def answer() -> list[str]:
        async with aclosing(binding.generate(waiting)) as stream:
            return [chunk.text async for chunk in stream if isinstance(chunk, TextDelta)]

    try:
        async with aclosing(binding.generate(endless)) as stream:
            await anext(stream)
            pid, asked = binding.pid, asyncio.create_task(answer())
            async with asyncio.timeout(60):
                until = time.monotonic() + 3 * limits.stall_timeout
                while time.monotonic() < until:
                    await anext(stream)
            assert not asked.done()
        assert await asyncio.wait_for(asked, 60) == ["z"]
        assert binding.pid == pid
    finally:
        await binding.close()


async def test_after_a_crash_the_next_request_loads_the_model_again(in_worker: WorkerBinding) -> None:
    endless = GenerateRequest(id="1", model="alphabet.gguf", raw_prompt="?", parameters={"ignore_eos": True})
    with pytest.raises(WorkerCrashed):
        async with aclosing(in_worker.generate(endless)) as stream:
            await anext(stream)
            assert in_worker.pid is not None
            os.kill(in_worker.pid, signal.SIGSEGV)
            async for _ in stream:
                pass
    async with aclosing(
        in_worker.generate(GenerateRequest(id="2", model="alphabet.gguf", raw_prompt="y"))
    ) as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)] == ["z"]
