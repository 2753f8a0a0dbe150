"""A prompt that does not fit is never cut in silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.errors import ContextOverflow
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer
from lollms_kernel.types import Chunk, Finished, Message, Notice, Usage

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[OllamaBinding]]

TINY = "tiny-context:1b"
"""Its Modelfile says 32 tokens; a word is a token."""
LONG = "word " * 100


def notices(chunks: list[Chunk]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


async def test_too_long_a_prompt_is_an_error_with_its_cure(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    with pytest.raises(ContextOverflow) as raised:
        await ask(binding, LONG, model=TINY)

    assert "`num_ctx`" in str(raised.value.hint)
    body = fake.requests_to("/api/chat")[-1].json
    assert (body["truncate"], body["shift"]) == (False, False)


async def test_so_is_too_long_a_raw_prompt_and_a_text_to_embed(binding: OllamaBinding, ask: Ask) -> None:
    with pytest.raises(ContextOverflow):
        await ask(binding, messages=(), raw_prompt=LONG, model=TINY)
    with pytest.raises(ContextOverflow):
        await binding.embed(["word " * 300], "all-minilm")


async def test_a_larger_context_of_the_request_lets_it_in(binding: OllamaBinding, ask: Ask) -> None:
    chunks = await ask(binding, LONG, model=TINY, parameters={"context_size": 512})

    assert isinstance(chunks[-1], Finished)
    assert notices(chunks) == []


async def test_so_does_one_of_the_instance(opened: Opened, ask: Ask) -> None:
    binding = await opened(num_ctx=512)

    assert notices(await ask(binding, LONG, model=TINY)) == []
    assert (await binding.get_model_info(TINY)).context_size == 512


async def test_an_instance_may_let_ollama_cut_and_is_told(opened: Opened, ask: Ask, fake: FakeOllama) -> None:
    chunks = await ask(await opened(truncate=True), LONG, model=TINY)

    assert "truncate" not in fake.requests_to("/api/chat")[-1].json
    (notice,) = [chunk for chunk in chunks if isinstance(chunk, Notice)]
    assert notice.code == "context_truncated"
    assert notice.details == {"prompt_tokens": 18, "at_least": 100}


async def test_older_versions_that_cut_all_the_same_are_found_out(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    fake.honours_truncate = False
    turns = (Message("user", "word " * 30), Message("assistant", "Yes."), Message("user", "word " * 20))

    assert notices(await ask(binding, messages=turns, model=TINY)) == ["context_truncated"]
    assert notices(await ask(binding, "short", model=TINY)) == []


async def test_an_answer_that_fills_the_context_is_told(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    fake.answer = lambda _: OllamaAnswer(content="word " * 50)

    within_limit = await ask(binding, "word " * 20, model=TINY, parameters={"max_tokens": 12})
    full = await ask(binding, "word " * 20, model=TINY, parameters={"max_tokens": 1000})

    assert notices(within_limit) == []
    assert notices(full) == ["context_full"]
    for chunks in (within_limit, full):
        assert isinstance(chunks[-1], Finished)
        assert (chunks[-1].reason, chunks[-1].usage) == ("length", Usage(20, 12))
