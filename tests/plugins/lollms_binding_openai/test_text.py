"""What a text request becomes on the wire, and what comes back."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from lollms_binding_openai import OpenAIBinding
from lollms_kernel.dummy import short_wav, small_png
from lollms_kernel.errors import ContextOverflow, InvalidRequest, NotSupported, UnsupportedInput
from lollms_kernel.testing.fakes import Fault, garbage
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIAnswer, OpenAIModel, sse
from lollms_kernel.types import (
    Chunk,
    Finished,
    GenerateRequest,
    Media,
    Message,
    Notice,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    Usage,
)

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]
TextOf = Callable[[list[Chunk]], str]

PNG = small_png(0x112233)


def sent(fake: FakeOpenAI) -> dict[str, Any]:
    """The body of the last request for an answer."""
    found: dict[str, Any] = fake.requests_to("/completions")[-1].json
    return found


def finished(chunks: list[Chunk]) -> Finished:
    last = chunks[-1]
    assert isinstance(last, Finished)
    return last


def notices(chunks: list[Chunk]) -> dict[str, Notice]:
    return {chunk.code: chunk for chunk in chunks if isinstance(chunk, Notice)}


# --- answers ------------------------------------------------------------------------------------------------


async def test_an_answer_streams_piece_by_piece_with_usage_and_reason(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    chunks = await ask(binding, "one two three")

    assert [c.text for c in chunks if isinstance(c, TextDelta)] == ["one", " two", " three"]
    assert finished(chunks).reason == "stop"
    assert finished(chunks).usage == Usage(prompt_tokens=3, completion_tokens=3)
    assert sent(fake)["stream_options"] == {"include_usage": True}


async def test_the_first_piece_is_there_before_the_answer_is_complete(
    binding: OpenAIBinding, fake: FakeOpenAI
) -> None:
    fake.frame_delay = 0.05
    request = GenerateRequest(id="1", model="gpt-4o-mini", messages=(Message("user", "word " * 40),))

    async with aclosing(binding.generate(request)) as chunks:
        await anext(chunks)
        frames = fake.requests_to("/chat")[-1].frames

    assert frames < 40


async def test_the_limit_of_tokens_ends_it_with_length(
    binding: OpenAIBinding, ask: Ask, text_of: TextOf
) -> None:
    chunks = await ask(binding, "one two three", parameters={"max_tokens": 2})

    assert text_of(chunks) == "one two"
    assert finished(chunks).reason == "length"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_becomes_thoughts_that_close_before_the_text(
    field: Any, ask: Ask, open_binding: Open, text_of: TextOf
) -> None:
    with FakeOpenAI(
        answer=lambda _: OpenAIAnswer(content="It is 4.", reasoning="two and two"), reasoning_field=field
    ) as fake:
        chunks = await ask(await open_binding(OpenAIBinding, fake))

    assert chunks[:4] == [
        ThoughtDelta("two"),
        ThoughtDelta(" and"),
        ThoughtDelta(" two"),
        ThoughtDelta("", end="closed"),
    ]
    assert text_of(chunks) == "It is 4."


async def test_reasoning_that_the_limit_cuts_is_incomplete(ask: Ask, open_binding: Open) -> None:
    with FakeOpenAI(answer=lambda _: OpenAIAnswer(content="x", reasoning="a b c")) as fake:
        chunks = await ask(await open_binding(OpenAIBinding, fake), parameters={"max_tokens": 2})

    assert chunks[-2] == ThoughtDelta("", end="incomplete")
    assert finished(chunks).reason == "length"


async def test_thoughts_between_texts_are_blocks_of_their_own(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    deltas = [{"reasoning": "a"}, {"content": "b"}, {"reasoning": "c"}, {"content": "d"}]
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    fake.faults.append(garbage(0, b"".join(map(sse, [*events, end])), "/chat"))

    assert (await ask(binding))[:-1] == [
        ThoughtDelta("a", 0),
        ThoughtDelta("", 0, "closed"),
        TextDelta("b"),
        ThoughtDelta("c", 1),
        ThoughtDelta("", 1, "closed"),
        TextDelta("d"),
    ]


async def test_parts_of_magistral_are_told_apart(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    thinking = b'{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}'
    insert = (
        b'data: {"choices":[{"index":0,"delta":{"content":[' + thinking + b"]}}]}\n\n"
        b'data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"ok"}]}}]}\n\n'
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    fake.faults.append(Fault(insert=insert, ending="end", path="/chat"))

    chunks = await ask(binding)

    assert chunks[:3] == [ThoughtDelta("hm"), ThoughtDelta("", end="closed"), TextDelta("ok")]


async def test_an_answer_in_one_piece_is_taken_too(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: TextOf
) -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"all at once"},"finish_reason":"stop"}]}'
    fake.faults.append(
        Fault(status=200, headers={"content-type": "application/json"}, body=body, path="/chat")
    )

    assert text_of(await ask(binding)) == "all at once"


async def test_an_end_without_a_reason_is_noticed(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    fake.faults.append(Fault(after=3, ending="end", path="/chat"))

    chunks = await ask(binding, "one two three")

    assert "end_unmarked" in notices(chunks)


async def test_characters_may_be_cut_anywhere_between_packets(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: TextOf
) -> None:
    fake.faults.append(Fault(piece=1, path="/chat"))

    assert text_of(await ask(binding, "größer 漢字 😀")) == "größer 漢字 😀"


async def test_the_service_s_own_name_of_the_model_is_told(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    event = {
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    }
    fake.faults.append(garbage(3, sse(event), "/chat"))

    chunks = await ask(binding, "one two three")

    assert finished(chunks).metadata == {"service_model": "gpt-4o-mini-2024-07-18"}


async def test_cached_and_reasoning_tokens_and_timings_are_told(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    timings = {"choices": [], "timings": {"prompt_ms": 250, "predicted_ms": 1500.0}}
    fake.faults.append(garbage(3, sse(end) + sse(timings), "/chat"))

    last = finished(await ask(binding, "one two three"))

    assert last.usage == Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=8)
    assert last.metadata == {"reasoning_tokens": 3}
    assert (last.timings.prompt, last.timings.generate) == (0.25, 1.5)


# --- requests -----------------------------------------------------------------------------------------------


async def test_system_and_turns_go_in_order(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))

    await ask(binding, system="Be brief.", messages=turns)

    assert sent(fake)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


async def test_images_go_as_data_urls_made_of_their_bytes(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    image = Media("image", "input_image", PNG, "image/png", {"detail": "low"})

    await ask(binding, messages=(Message("user", "What is it?", (image,)),))

    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert sent(fake)["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]


async def test_a_large_image_arrives_whole(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    data = PNG + bytes(3 << 20)

    await ask(binding, messages=(Message("user", "?", (Media("image", "input_image", data),)),))

    part = sent(fake)["messages"][0]["content"][1]
    assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == data


async def test_text_that_is_no_unicode_is_refused(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="half a character"):
        await ask(binding, "\ud800")


async def test_bytes_that_look_like_a_path_are_never_one(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    image = Media("image", "input_image", b"/etc/hostname", "image/png")

    await ask(binding, messages=(Message("user", "?", (image,)),))

    part = sent(fake)["messages"][0]["content"][1]
    assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == b"/etc/hostname"


async def test_what_is_no_image_at_all_is_refused_before_it_is_sent(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    with pytest.raises(UnsupportedInput, match="no image"):
        await ask(binding, messages=(Message("user", "?", (Media("image", "input_image", b"x"),)),))
    assert fake.requests_to("/chat") == []


async def test_addresses_of_images_are_not_fetched_unless_allowed(binding: OpenAIBinding, ask: Ask) -> None:
    image = Media("image", "input_image", b"http://169.254.169.254/latest/meta-data")

    with pytest.raises(UnsupportedInput, match="does not fetch"):
        await ask(binding, messages=(Message("user", "?", (image,)),))


async def test_where_addresses_are_allowed_private_ones_are_refused(
    fake: FakeOpenAI, open_binding: Open, ask: Ask
) -> None:
    binding = await open_binding(OpenAIBinding, fake, fetch_image_urls=True)
    image = Media("image", "input_image", f"{fake.url}/secret.png".encode())

    with pytest.raises(InvalidRequest, match="only addresses on the internet"):
        await ask(binding, messages=(Message("user", "?", (image,)),))
    assert fake.requests_to("/secret.png") == []


@pytest.mark.parametrize(
    ("data", "mime_type", "expected"),
    [
        (short_wav(), None, {"type": "input_audio", "format": "wav"}),
        (b"ID3\x04mp3", "audio/mpeg", {"type": "input_audio", "format": "mp3"}),
    ],
)
async def test_sound_goes_as_input_audio(
    data: bytes,
    mime_type: str | None,
    expected: dict[str, str],
    binding: OpenAIBinding,
    ask: Ask,
    fake: FakeOpenAI,
) -> None:
    await ask(binding, messages=(Message("user", "", (Media("audio", "input_audio", data, mime_type),)),))

    (part,) = sent(fake)["messages"][0]["content"]
    assert part["type"] == expected["type"]
    assert part["input_audio"] == {"data": base64.b64encode(data).decode(), "format": expected["format"]}


async def test_sound_of_another_format_is_refused_with_the_cure(binding: OpenAIBinding, ask: Ask) -> None:
    sound = Media("audio", "input_audio", b"OggS", "audio/ogg")

    with pytest.raises(UnsupportedInput) as caught:
        await ask(binding, messages=(Message("user", "", (sound,)),))
    assert caught.value.hint == "Send it as WAV or MP3."


async def test_documents_go_as_text_or_as_pdf(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    note = Media("document", "context", "Größe: 3".encode(), "text/markdown")
    paper = Media("document", "context", b"%PDF-1.7", "application/pdf")

    await ask(binding, messages=(Message("user", "Sum up.", (note, paper)),))

    _, first, second = sent(fake)["messages"][0]["content"]
    assert first == {"type": "text", "text": "Größe: 3"}
    assert (
        second["file"]["file_data"] == "data:application/pdf;base64," + base64.b64encode(b"%PDF-1.7").decode()
    )
    with pytest.raises(UnsupportedInput):
        zipped = Media("document", "context", b"PK", "application/zip")
        await ask(binding, messages=(Message("user", "?", (zipped,)),))


async def test_a_raw_prompt_is_continued_without_a_template(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: TextOf
) -> None:
    chunks = await ask(
        binding, messages=(), raw_prompt="Once upon a", system="Be brief.", model="gpt-3.5-turbo-instruct"
    )

    assert fake.requests_to("/v1/completions")[-1].json["prompt"] == "Once upon a"
    assert text_of(chunks) == "Once upon a"
    assert finished(chunks).usage == Usage(prompt_tokens=3, completion_tokens=3)
    assert "system_ignored" in notices(chunks)


async def test_a_model_that_cannot_chat_continues_the_prompt(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    await ask(binding, "Once", model="gpt-3.5-turbo-instruct")

    assert fake.requests_to("/v1/completions")[-1].json["prompt"] == "Once"


async def test_a_prompt_that_does_not_fit_is_a_context_overflow(ask: Ask, open_binding: Open) -> None:
    with FakeOpenAI([OpenAIModel(id="gpt-4o-mini", context_size=3)]) as fake:
        binding = await open_binding(OpenAIBinding, fake)
        with pytest.raises(ContextOverflow) as caught:
            await ask(binding, "one two three four")
    assert caught.value.hint


async def test_an_empty_request_is_refused(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        await ask(binding, messages=())


async def test_images_are_not_made_here(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(NotSupported) as caught:
        await ask(binding, generation_type="tti")
    assert "dalle_binding" in str(caught.value.hint)


# --- functions ----------------------------------------------------------------------------------------------

WEATHER = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}


async def test_functions_are_offered_and_calls_come_back_whole(ask: Ask, open_binding: Open) -> None:
    calls = ({"name": "weather", "arguments": '{"city": "Paris"}'}, {"name": "time", "arguments": "{}"})
    with FakeOpenAI(answer=lambda _: OpenAIAnswer(content="Wait.", tool_calls=calls)) as fake:
        chunks = await ask(
            await open_binding(OpenAIBinding, fake),
            functions=(WEATHER, {"type": "function", "function": {"name": "time"}}, "just_a_name"),
            parameters={"tool_choice": "auto"},
        )
        body = sent(fake)

    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "time"]
    assert body["tool_choice"] == "auto"
    assert [chunk for chunk in chunks if isinstance(chunk, ToolCall)] == [
        ToolCall("call_fake0", "weather", '{"city": "Paris"}', 0),
        ToolCall("call_fake1", "time", "{}", 1),
    ]
    assert finished(chunks).reason == "tool_calls"
    assert notices(chunks)["functions_ignored"].details == {"names": ["just_a_name"]}


async def test_calls_without_index_or_id_are_told_apart(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    def call(name: str, arguments: str) -> bytes:
        return (
            b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"%s","arguments":%s}}]}}]}\n\n'
            % (name.encode(), arguments.encode())
        )

    insert = (
        call("a", '"{}"')
        + call("b", '{"x": 1}')
        + b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    )
    fake.faults.append(Fault(insert=insert, ending="end", path="/chat"))

    chunks = await ask(binding)

    assert [c for c in chunks if isinstance(c, ToolCall)] == [
        ToolCall("call_0", "a", "{}", 0),
        ToolCall("call_1", "b", '{"x":1}', 1),
    ]
    assert finished(chunks).reason == "tool_calls"


async def test_results_follow_the_calls_that_the_assistant_made(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    made = [
        {"id": "c1", "name": "weather", "arguments": "{}"},
        {"id": "c2", "name": "time", "arguments": "{}"},
    ]
    calls = msgspec.json.encode({"tool_calls": made}).decode()
    turns = (
        Message("user", "Weather and time?"),
        Message("assistant", calls),
        Message("tool", "Rain."),
        Message("tool", "Noon."),
        Message("user", "Thanks. And now?"),
    )

    await ask(binding, messages=turns)

    asked, called, rain, noon, _ = sent(fake)["messages"]
    assert asked["role"] == "user"
    assert [call["function"]["name"] for call in called["tool_calls"]] == ["weather", "time"]
    assert rain == {"role": "tool", "tool_call_id": "c1", "content": "Rain."}
    assert noon == {"role": "tool", "tool_call_id": "c2", "content": "Noon."}


async def test_a_result_without_a_call_gets_one_that_the_service_accepts(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    turns = (Message("user", "Weather?"), Message("assistant", "I look."), Message("tool", "Rain."))

    await ask(binding, messages=turns)

    _, text, called, result = sent(fake)["messages"]
    assert text["content"] == "I look."
    assert result["tool_call_id"] == called["tool_calls"][0]["id"]


async def test_a_refusal_is_text_that_ends_as_filtered(ask: Ask, open_binding: Open, text_of: TextOf) -> None:
    with FakeOpenAI(answer=lambda _: OpenAIAnswer(refusal="I cannot help with that.")) as fake:
        chunks = await ask(await open_binding(OpenAIBinding, fake))

    assert text_of(chunks) == "I cannot help with that."
    assert finished(chunks).reason == "content_filter"


async def test_fastgpt_answers_with_its_variables_and_its_workflow_is_skipped(
    ask: Ask, open_binding: Open, text_of: TextOf
) -> None:
    with FakeOpenAI([OpenAIModel(id="app")], flavour="fastgpt", api_key="fastgpt-1") as fake:
        binding = await open_binding(OpenAIBinding, fake, api_key="fastgpt-1", extra_body={"detail": True})
        info = await binding.get_model_info()
        chunks = await ask(
            binding,
            "hello world",
            model=info.name,
            parameters={"extra_body": {"chatId": "c1", "variables": {"a": 1}}},
        )
        body = sent(fake)

    assert text_of(chunks) == "hello world"
    assert finished(chunks).reason == "stop"
    assert (body["detail"], body["chatId"], body["variables"]) == (True, "c1", {"a": 1})
