"""What is sent to Ollama and what comes back."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from lollms_binding_ollama import OllamaBinding
from lollms_kernel.dummy import small_png
from lollms_kernel.errors import InvalidRequest, NotSupported, UnsupportedInput
from lollms_kernel.testing.fakes.ollama import FakeOllama, OllamaAnswer
from lollms_kernel.types import (
    Chunk,
    Finished,
    Media,
    Message,
    Notice,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    Usage,
)

Ask = Callable[..., Awaitable[list[Chunk]]]
Opened = Callable[..., Awaitable[OllamaBinding]]

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def sent(fake: FakeOllama, path: str = "/api/chat") -> dict[str, Any]:
    body = fake.requests_to(path)[-1].json
    assert isinstance(body, dict)
    return body


async def test_an_answer_streams_with_usage_timings_and_reason(binding: OllamaBinding, ask: Ask) -> None:
    *deltas, finished = await ask(binding, "one two three")

    assert deltas == [TextDelta("one"), TextDelta(" two"), TextDelta(" three")]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage) == ("stop", Usage(3, 3))
    assert (finished.timings.load, finished.timings.prompt, finished.timings.generate) == (0.5, 0.5, 2.0)
    assert finished.metadata == {"model": "llama3.2:latest", "tokens_per_second": 1.5}


async def test_chunks_come_one_by_one_and_not_at_the_end(binding: OllamaBinding, fake: FakeOllama) -> None:
    from lollms_kernel.testing.binding_contract import ask as request_of
    from lollms_kernel.testing.fakes import stalled

    fake.faults.append(stalled(after=1, path="/api/chat"))
    stream = binding.generate(request_of("one two", model="llama3.2:latest"))

    assert await anext(stream) == TextDelta("one")
    await stream.aclose()


async def test_the_conversation_keeps_its_roles_and_the_system_text_comes_first(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    turns = (
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("tool", "21"),
        Message("user", "And?"),
    )

    await ask(binding, messages=turns, system="Be kind.")

    roles = [(turn["role"], turn["content"]) for turn in sent(fake)["messages"]]
    assert roles == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("tool", "21"),
        ("user", "And?"),
    ]


async def test_thinking_is_told_apart_and_closed(binding: OllamaBinding, ask: Ask, fake: FakeOllama) -> None:
    fake.answer = lambda _: OllamaAnswer(thinking="Let me", content="Done now")

    *deltas, _ = await ask(binding, model="qwen3:4b", parameters={"think": True})

    assert deltas == [
        ThoughtDelta("Let"),
        ThoughtDelta(" me"),
        ThoughtDelta("", 0, "closed"),
        TextDelta("Done"),
        TextDelta(" now"),
    ]
    assert sent(fake)["think"] is True


async def test_a_thought_that_the_token_limit_cuts_is_incomplete(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    fake.answer = lambda _: OllamaAnswer(thinking="Let me think about", content="never said")

    *_, end, finished = await ask(binding, model="qwen3:4b", parameters={"max_tokens": 2})

    assert end == ThoughtDelta("", 0, "incomplete")
    assert isinstance(finished, Finished)
    assert finished.reason == "length"


async def test_function_calls_have_ids_of_their_own_and_json_arguments(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    call = {"name": "weather", "arguments": {"city": "Köln"}}
    fake.answer = lambda _: OllamaAnswer(tool_calls=(call, call))

    first, second, finished = await ask(binding, functions=(WEATHER,))

    assert first == ToolCall("call_req1_0", "weather", '{"city":"Köln"}', 0)
    assert isinstance(second, ToolCall)
    assert (second.id, second.index) == ("call_req1_1", 1)
    assert isinstance(finished, Finished)
    assert finished.reason == "tool_calls"
    assert sent(fake)["tools"] == [WEATHER]


async def test_what_is_not_told_of_functions_is_reported(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    nested = {
        "type": "object",
        "properties": {"place": {"type": "object", "properties": {"x": {"type": "number"}}}},
    }
    functions = ("clock.now", {"name": "go", "parameters": nested})

    chunks = await ask(binding, functions=functions)

    assert [(n.code, n.details["names"]) for n in chunks if isinstance(n, Notice)] == [
        ("functions_ignored", ["clock.now"]),
        ("tool_schema_simplified", ["go"]),
    ]


async def test_functions_for_a_model_that_has_none_are_refused(binding: OllamaBinding, ask: Ask) -> None:
    with pytest.raises(UnsupportedInput, match="cannot call functions"):
        await ask(binding, model="llava:7b", functions=(WEATHER,))
    with pytest.raises(InvalidRequest, match="not usable at 'function"):
        await ask(binding, functions=({"name": "x", "parameters": {"type": "array"}},))


async def test_a_raw_prompt_goes_through_generate_as_it_is(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, text_of: Callable[[list[Chunk]], str]
) -> None:
    chunks = await ask(binding, messages=(), raw_prompt="[INST] once upon [/INST]", system="Be kind.")

    body = sent(fake, "/api/generate")
    assert (body["prompt"], body["raw"]) == ("[INST] once upon [/INST]", True)
    assert "system" not in body
    assert text_of(chunks) == "[INST] once upon [/INST]"
    assert [n.code for n in chunks if isinstance(n, Notice)] == ["system_ignored"]


async def test_images_are_sent_as_base64_of_their_bytes_with_their_turn(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    first, second = small_png(1), small_png(2)
    turns = (
        Message("user", "What is this?", (Media("image", "input_image", first, "image/png"),)),
        Message("assistant", "A square."),
        Message("user", "And this?", (Media("image", "user_prompt_image", second),)),
    )

    await ask(binding, messages=turns, model="llava:7b")

    messages = sent(fake)["messages"]
    assert [base64.b64decode(messages[n]["images"][0]) for n in (0, 2)] == [first, second]
    assert "images" not in messages[1]


@pytest.mark.parametrize("path", [b"/etc/hostname", b"http.py", b"~/.ssh/id_rsa"])
async def test_an_image_that_reads_like_a_path_is_never_opened(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama, path: bytes
) -> None:
    """The library opens files that are named by a text; bytes it sends as they are."""
    await ask(
        binding, messages=(Message("user", "?", (Media("image", "input_image", path),)),), model="llava:7b"
    )

    assert base64.b64decode(sent(fake)["messages"][0]["images"][0]) == path


async def test_an_image_by_address_is_refused_unless_the_instance_allows_it(
    binding: OllamaBinding, opened: Opened, ask: Ask, fake: FakeOllama
) -> None:
    media = (Media("image", "input_image", f"{fake.url}/secret.png".encode()),)
    turns = (Message("user", "?", media),)

    with pytest.raises(UnsupportedInput, match="does not fetch"):
        await ask(binding, messages=turns, model="llava:7b")
    with pytest.raises(InvalidRequest, match="only addresses on the internet"):
        await ask(await opened(fetch_image_urls=True), messages=turns, model="llava:7b")
    assert fake.requests_to("secret") == []


async def test_json_is_asked_for_in_every_known_way(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    wishes: list[tuple[dict[str, Any], Any]] = [
        ({"format": "json"}, "json"),
        ({"format": schema}, schema),
        ({"json_schema": schema}, schema),
        ({"json_schema": msgspec.json.encode(schema).decode()}, schema),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}, schema),
    ]
    for parameters, expected in wishes:
        await ask(binding, parameters=parameters)
        assert sent(fake)["format"] == expected
    await ask(binding, parameters={"response_format": {"type": "text"}})
    assert "format" not in sent(fake)


async def test_nothing_to_answer_is_said_before_anything_is_sent(
    binding: OllamaBinding, ask: Ask, fake: FakeOllama
) -> None:
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        await ask(binding, messages=())
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        await ask(binding, messages=(), raw_prompt="")
    with pytest.raises(NotSupported, match="not 'tti'"):
        await ask(binding, generation_type="tti")
    assert fake.requests_to("/api/chat") == fake.requests_to("/api/generate") == []


async def test_embeddings_come_in_order_and_text_models_make_none(binding: OllamaBinding) -> None:
    both = await binding.embed(["one", "two"], None)
    again = await binding.embed(["two"], "all-minilm")

    assert len(both) == 2
    assert both[1] == again[0]
    with pytest.raises(NotSupported):
        await binding.embed(["one"], "llama3.2")


async def test_load_and_unload_touch_only_models_of_this_instance(
    opened: Opened, ask: Ask, fake: FakeOllama
) -> None:
    binding = await opened(keep_alive="30m", num_ctx=2048)
    fake.loaded["llava:7b"] = 4096  # somebody else's

    await binding.load("llama3.2")
    assert fake.loaded == {"llava:7b": 4096, "llama3.2:latest": 2048}
    assert sent(fake, "/api/generate")["keep_alive"] == "30m"
    await ask(binding, model="qwen3:4b")
    await binding.unload()

    assert fake.loaded == {"llava:7b": 4096}
