"""The bindings through google-generativeai. Not collected with the others: `test_generativeai.py` makes an environment
that has the library, and runs this file there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from typing import Any

import pytest

from lollms_binding_gemini import GeminiBinding
from lollms_binding_gemini.threads import THREADS
from lollms_kernel.contracts import Binding
from lollms_kernel.dummy import small_png
from lollms_kernel.errors import (
    BindingUnavailable,
    ConfigError,
    GenerationFailed,
    InvalidRequest,
    LollmsError,
    ModelNotFound,
    Unavailable,
)
from lollms_kernel.testing import BindingContract, make_binding
from lollms_kernel.testing.fakes import Fault, dropped, garbage, refusal, silence, stalled
from lollms_kernel.testing.fakes.gemini import FakeGemini, refused
from lollms_kernel.testing.fakes.gemini_answers import GeminiAnswer, camel
from lollms_kernel.types import (
    Chunk,
    Finished,
    GenerateRequest,
    Media,
    Message,
    Notice,
    TextDelta,
    ToolCall,
    Usage,
)

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[GeminiBinding]]
STREAM = ":streamGenerateContent"
SECRET = "AIza-very-secret"
OLD = {"sdk": "google-generativeai"}
TRIES = 5


class TestGeminiThroughTheOldLibrary(BindingContract):
    @pytest.fixture
    async def binding(self, fake: FakeGemini) -> AsyncIterator[Binding]:
        binding = make_binding(GeminiBinding, {"base_url": fake.url, **OLD})
        await binding.open()
        yield binding
        await binding.close()


@pytest.fixture
async def binding(opened: Opened) -> GeminiBinding:
    """An open binding through the old library."""
    return await opened(**OLD)


def sent(fake: FakeGemini) -> dict[str, Any]:
    body: dict[str, Any] = camel(fake.requests_to(STREAM)[-1].json)
    return body


def codes(chunks: list[Chunk]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


def request(prompt: str) -> GenerateRequest:
    return GenerateRequest(id="r", model="gemini-2.0-flash", messages=(Message("user", prompt),))


# --- what goes and comes ------------------------------------------------------------------------------------------


async def test_a_conversation_with_an_image_and_parameters(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    image = Media("image", "input_image", small_png(2), "image/png")
    chunks = await ask(
        binding,
        system="Be brief.",
        messages=(
            Message("user", "one"),
            Message("assistant", "two"),
            Message("user", "three four", (image,)),
        ),
        parameters={"max_tokens": 50, "temperature": 0.5, "stop": ["x"], "json_schema": {"type": "object"}},
    )

    body = sent(fake)
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert body["generationConfig"] == {
        "maxOutputTokens": 50,
        "temperature": 0.5,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": 6},
    }
    assert len(body["safetySettings"]) == 4
    assert chunks == [
        TextDelta("three"),
        TextDelta(" four"),
        Finished(usage=Usage(264, 2), metadata={"model": "gemini-2.5-flash"}),
    ]


async def test_what_is_newer_than_the_library_is_said(binding: GeminiBinding, ask: Ask) -> None:
    chunks = await ask(binding, parameters={"seed": 3, "think": "high"})

    assert codes(chunks) == ["think_ignored", "parameters_ignored"]
    assert isinstance(chunks[-1], Finished)


async def test_functions_their_calls_and_results(binding: GeminiBinding, ask: Ask, fake: FakeGemini) -> None:
    weather = {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": ["string", "null"]}, "day": {"anyOf": [{"type": "string"}]}},
            "required": ["city"],
        },
    }
    fake.answer = lambda _: GeminiAnswer(calls=({"name": "weather", "args": {"city": "Oslo", "days": 2}},))
    said = '{"tool_calls": [{"id": "1", "name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}]}'
    turns = (Message("user", "?"), Message("assistant", said), Message("tool", "sun"))
    chunks = await ask(binding, messages=turns, functions=(weather,), parameters={"tool_choice": "required"})

    _, asked, answered = sent(fake)["contents"]
    assert asked["parts"] == [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]
    assert answered["parts"][0]["functionResponse"]["response"] == {"output": "sun"}
    (declared,) = sent(fake)["tools"][0]["functionDeclarations"]
    assert declared["parameters"]["properties"]["city"] == {"type": 1, "nullable": True}
    assert [chunk for chunk in chunks if isinstance(chunk, ToolCall)] == [
        ToolCall("call_req1_0", "weather", '{"city":"Oslo","days":2}')
    ]
    assert codes(chunks) == ["schema_simplified"]


async def test_a_function_that_is_described_in_another_way_is_refused(
    binding: GeminiBinding, ask: Ask
) -> None:
    with pytest.raises(InvalidRequest, match="not usable at"):
        await ask(binding, functions=({"name": "f", "description": ["a", "b"]},))


async def test_a_blocked_prompt(binding: GeminiBinding, ask: Ask, fake: FakeGemini) -> None:
    fake.answer = lambda _: GeminiAnswer(blocked="SAFETY", harm="HARM_CATEGORY_HARASSMENT")

    with pytest.raises(InvalidRequest, match=r"refused the prompt.*HARM_CATEGORY_HARASSMENT"):
        await ask(binding)


async def test_a_reason_that_is_newer_than_the_library(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="half", finish="NEWEST_REASON")

    with pytest.raises(Unavailable, match="broke"):
        await ask(binding)


async def test_models_tokens_and_vectors(binding: GeminiBinding, fake: FakeGemini) -> None:
    info = await binding.get_model_info("gemini-2.5-flash")

    assert (info.context_size, info.max_output_tokens) == (1_048_576, 65_536)
    assert await binding.count_tokens("one two three", None) == 3
    assert len(await binding.embed([f"text {number}" for number in range(150)], None)) == 150
    with pytest.raises(ModelNotFound):
        await binding.get_model_info("nothing")


async def test_pieces_come_as_they_are_sent(binding: GeminiBinding, fake: FakeGemini) -> None:
    """The library itself would read one ahead."""
    fake.faults.append(stalled(1, STREAM))
    async with asyncio.timeout(30), aclosing(binding.generate(request("one two"))) as chunks:
        assert await anext(chunks) == TextDelta("one")


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (refused(400, "API key not valid.", STREAM, reason="API_KEY_INVALID"), BindingUnavailable, "key"),
        (refused(404, "models/x is not found", STREAM), ModelNotFound, "gemini-2.5-flash"),
        (refused(429, "slow down", STREAM), Unavailable, "429"),
        (refused(503, "overloaded", STREAM), Unavailable, "503"),
        (refusal(502, b"<html>", STREAM), Unavailable, "502"),
        (refusal(301, b"", STREAM, location="/elsewhere"), BindingUnavailable, "something else"),
        (dropped(1, STREAM), Unavailable, "broke"),
        (garbage(1, b"", STREAM), Unavailable, "broke"),
        (garbage(1, b',{"candidates": 5}', STREAM), GenerationFailed, "cannot be read"),
        (garbage(0, b"<html>", STREAM), GenerationFailed, "cannot be read"),
    ],
)
async def test_faults(
    opened: Opened, ask: Ask, fake: FakeGemini, fault: Fault, kind: type[LollmsError], message: str
) -> None:
    binding = await opened(max_retries=0, **OLD)
    fake.faults.append(fault)

    with pytest.raises(kind, match=message) as raised:
        await ask(binding, "one two three")
    assert fake.url not in raised.value.detail


async def test_how_long_to_wait_and_trying_again(opened: Opened, ask: Ask, fake: FakeGemini) -> None:
    binding = await opened(**OLD)
    fake.faults += [refused(503, "overloaded", STREAM), refused(429, "slow", STREAM, retry_delay="0.1s")]
    assert isinstance((await ask(binding))[-1], Finished)

    once = await opened(max_retries=0, **OLD)
    fake.faults.append(refused(429, "slow", STREAM, retry_delay="9s"))
    with pytest.raises(Unavailable) as raised:
        await ask(once)
    assert raised.value.retry_after == 9


async def test_characters_cut_by_the_network_arrive_whole(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.faults.append(Fault(path=STREAM, piece=1))

    assert text_of(await ask(binding, 'Ä €uro 🦙 "lama" {x}')) == 'Ä €uro 🦙 "lama" {x}'


async def test_silence_ends_at_the_limits_and_closes_the_connection(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    binding = await opened(first_token_timeout=0.5, idle_timeout=0.5, **OLD)
    for fault, message in ((silence(STREAM), "did not begin"), (stalled(1, STREAM), "in the middle")):
        fake.received.clear()
        fake.faults.append(fault)
        with pytest.raises(Unavailable, match=message):
            await ask(binding, "one two")
        await fake.until(fake.requests_to(STREAM)[0].left)


async def test_nobody_there() -> None:
    binding = make_binding(GeminiBinding, {"base_url": "http://127.0.0.1:9", **OLD})
    await binding.open()
    with pytest.raises(BindingUnavailable, match="cannot be reached"):
        await binding.list_models()
    await binding.close()


async def test_a_connection_that_does_not_come_about_ends_at_its_limit() -> None:
    """Somebody listens and never takes anybody in: further requests to connect get no answer at all."""
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        binding = make_binding(
            GeminiBinding, {"base_url": url, "connect_timeout": 0.3, "max_retries": 0, **OLD}
        )
        await binding.open()
        async with asyncio.timeout(20):
            with pytest.raises(BindingUnavailable, match="cannot be reached"):
                await binding.list_models()
        await binding.close()


async def test_the_key_of_each_instance_is_its_own_and_nowhere_shown(
    opened: Opened,
    ask: Ask,
    fake: FakeGemini,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "from-outside")
    caplog.set_level("DEBUG")
    one, other = await opened(google_api_key=SECRET, **OLD), await opened(google_api_key="other", **OLD)
    for binding, key in ((one, SECRET), (other, "other"), (one, SECRET)):
        await ask(binding)
        assert fake.received[-1].headers["x-goog-api-key"] == key

    fake.api_key = "another"
    with pytest.raises(BindingUnavailable, match="refused the key") as raised:
        await ask(one)
    assert SECRET not in raised.value.detail + caplog.text
    assert "from-outside" not in str([request.headers for request in fake.received])


async def test_an_address_with_a_path_is_for_the_other_library(fake: FakeGemini) -> None:
    with pytest.raises(ConfigError, match="path"):
        await make_binding(GeminiBinding, {"base_url": f"{fake.url}/gemini", **OLD}).open()


# --- streams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1])
async def test_cancelling_closes_the_request_at_the_service_within_200_ms(
    binding: GeminiBinding, fake: FakeGemini, frames: int
) -> None:
    """Also while the thread waits for a first byte. The best of a few tries counts."""
    took = []
    for number in range(TRIES):
        fake.faults.append(stalled(frames, STREAM) if frames else silence(STREAM))
        begun = asyncio.Event()

        async def consume(begun: asyncio.Event = begun) -> None:
            async with aclosing(binding.generate(request("one two"))) as chunks:
                async for _ in chunks:
                    begun.set()

        task = asyncio.create_task(consume())
        received = await fake.request_to(STREAM, number)
        if frames:
            await asyncio.wait_for(begun.wait(), 30)
        cancelled = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        await fake.until(received.left)
        assert received.left_at is not None
        took.append(received.left_at - cancelled)

    assert min(took) < 0.2


async def test_closing_a_stream_between_two_pieces_closes_the_request(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    fake.faults.append(stalled(2, STREAM))
    chunks = binding.generate(request("one two three"))
    await anext(chunks)
    await chunks.aclose()

    await fake.until(fake.requests_to(STREAM)[-1].left)


async def test_fifty_streams_at_once_do_not_mix(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    assert binding.parallel == THREADS
    fake.frame_delay = 0.001
    prompts = [f"stream {number}" + f" n{number}" * 20 for number in range(50)]

    answers = await asyncio.gather(*(ask(binding, prompt) for prompt in prompts))

    assert [text_of(chunks) for chunks in answers] == prompts
