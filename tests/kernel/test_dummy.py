"""The dummy binding keeps the contract, in the server and in a worker, and does what its settings say."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lollms_kernel.config.schema import WorkersConfig
from lollms_kernel.contracts import Binding
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.errors import GenerationFailed, InvalidRequest, NotSupported
from lollms_kernel.testing import BindingContract
from lollms_kernel.testing.binding_contract import ask, make_binding
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Media, Message, Output, TextDelta
from lollms_kernel.workers.proxy import WorkerBinding


class TestInTheServer(BindingContract):
    @pytest.fixture
    async def binding(self) -> AsyncIterator[Binding]:
        binding = make_binding(DummyBinding)
        await binding.open()
        yield binding
        await binding.close()


class TestInAWorker(BindingContract):
    @pytest.fixture
    async def binding(self) -> AsyncIterator[Binding]:
        binding = WorkerBinding(make_binding(DummyBinding), WorkersConfig(), lambda event: None)
        await binding.open()
        yield binding
        await binding.close()


async def run(settings: dict[str, Any], request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in make_binding(DummyBinding, settings).generate(request)]


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]


async def test_it_echoes_the_last_user_prompt_word_by_word() -> None:
    turns = (Message("user", "first"), Message("assistant", "ok"), Message("user", "say this  again\n"))
    chunks = await run({}, GenerateRequest(id="r", messages=turns))
    assert texts(chunks) == ["say", " this", "  again", "\n"]


async def test_it_streams_exactly_the_configured_strings() -> None:
    assert texts(await run({"chunks": ["a", " ", "b"], "reply": "unused"}, ask("x"))) == ["a", " ", "b"]


async def test_without_streaming_the_answer_is_one_piece() -> None:
    assert texts(await run({"reply": "one two three", "streaming": False}, ask("x"))) == ["one two three"]


async def test_echo_system_tells_what_reached_it() -> None:
    message = Message("user", "look", (Media("image", "input_image", b"12345", "image/png"),))
    request = GenerateRequest(id="r", messages=(message,), system="Be kind.", parameters={"top_k": 3})
    assert json.loads("".join(texts(await run({"echo_system": True}, request)))) == {
        "system": "Be kind.",
        "messages": [{"role": "user", "content": "look"}],
        "prompt": "look",
        "parameters": {"top_k": 3},
        "media": [{"type": "image", "role": "input_image", "mime_type": "image/png", "bytes": 5}],
    }


async def test_one_token_is_one_byte() -> None:
    binding = make_binding(DummyBinding)
    assert isinstance(binding, DummyBinding)
    assert await binding.tokenize("é", None, True, True) == [256, 0xC3, 0xA9, 257]
    assert await binding.detokenize([256, 0xC3, 0xA9, 257], None) == "é"
    with pytest.raises(InvalidRequest, match="300"):
        await binding.detokenize([300], None)
    with pytest.raises(NotSupported):
        silent = make_binding(DummyBinding, {"tokenizer": False})
        assert isinstance(silent, DummyBinding)
        await silent.tokenize("x", None, False, False)


async def test_it_fails_after_so_many_chunks() -> None:
    got: list[Chunk] = []
    with pytest.raises(GenerationFailed):
        async for chunk in make_binding(DummyBinding, {"chunks": ["a", "b", "c"], "fail_after": 2}).generate(
            ask("x")
        ):
            got.append(chunk)
    assert texts(got) == ["a", "b"]


def test_it_isolates_itself_when_it_is_told_to_crash_or_hang() -> None:
    assert make_binding(DummyBinding).isolation == "inline"
    assert make_binding(DummyBinding, {"crash_after": 0}).isolation == "process"
    assert make_binding(DummyBinding, {"hang_after": 3}).isolation == "process"
    assert make_binding(DummyBinding, {"isolation": "process"}).isolation == "process"


async def test_an_image_is_a_valid_png() -> None:
    chunks = await run({"output_modalities": ["image"]}, ask("a cat", generation_type="tti"))
    assert isinstance(chunks[0], Output)
    png = chunks[0].data
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    start = png.index(b"IDAT")
    size = int.from_bytes(png[start - 4 : start], "big")
    assert len(zlib.decompress(png[start + 4 : start + 4 + size])) == 8 * (1 + 3 * 8)
    assert isinstance(chunks[-1], Finished)
