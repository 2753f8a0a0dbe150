"""What goes to the service and what comes back from it."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lollms_binding_gemini import GeminiBinding
from lollms_kernel.dummy import small_png
from lollms_kernel.errors import GenerationFailed, InvalidRequest, NotSupported, UnsupportedInput
from lollms_kernel.testing.fakes.gemini import FakeGemini
from lollms_kernel.testing.fakes.gemini_answers import GeminiAnswer, camel
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
Opened = Callable[..., Awaitable[GeminiBinding]]
PNG = small_png(3)
WEATHER = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def sent(fake: FakeGemini) -> dict[str, Any]:
    """The last request, with the protocol's names in one spelling: Google's library mixes two."""
    body: dict[str, Any] = camel(fake.requests_to(":stream")[-1].json)
    return body


def notices(chunks: list[Chunk]) -> list[str]:
    return [chunk.code for chunk in chunks if isinstance(chunk, Notice)]


# --- prompts ------------------------------------------------------------------------------------------------------


async def test_a_conversation_is_sent_turn_by_turn_with_the_system_text_apart(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    await ask(binding, system="Be brief.", messages=turns)

    body = sent(fake)
    assert [(turn["role"], turn["parts"][0]["text"]) for turn in body["contents"]] == [
        ("user", "one"),
        ("model", "two"),
        ("user", "three"),
    ]
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]


async def test_gemma_reads_the_system_text_in_the_first_message_and_the_answer_says_so(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    chunks = await ask(binding, "hello", system="Be brief.", model="gemma-3-27b-it")

    assert "systemInstruction" not in sent(fake)
    assert [part["text"] for part in sent(fake)["contents"][0]["parts"]] == ["Be brief.", "hello"]
    assert notices(chunks) == ["system_as_message"]


async def test_a_raw_prompt_is_sent_as_a_message_and_the_answer_says_so(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    chunks = await ask(binding, messages=(), raw_prompt="Once upon")

    assert text_of(chunks) == "Once upon"
    assert notices(chunks) == ["raw_prompt_as_message"]


@pytest.mark.parametrize("messages", [(), (Message("user", "  "),), (Message("assistant", "only me"),)])
async def test_nothing_to_answer_is_refused_before_the_service_is_asked(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, messages: tuple[Message, ...]
) -> None:
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        await ask(binding, messages=messages)
    assert fake.requests_to(":stream") == []


async def test_the_safety_settings_of_the_instance_are_sent(
    opened: Opened, ask: Ask, fake: FakeGemini
) -> None:
    await ask(await opened(safety_setting_harassment="BLOCK_NONE"))

    settings = {item["category"]: item["threshold"] for item in sent(fake)["safetySettings"]}
    assert settings == {
        "HARM_CATEGORY_HARASSMENT": "BLOCK_NONE",
        "HARM_CATEGORY_HATE_SPEECH": "BLOCK_MEDIUM_AND_ABOVE",
        "HARM_CATEGORY_SEXUALLY_EXPLICIT": "BLOCK_MEDIUM_AND_ABOVE",
        "HARM_CATEGORY_DANGEROUS_CONTENT": "BLOCK_MEDIUM_AND_ABOVE",
    }


# --- media --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "mime_type"),
    [
        (Media("image", "input_image", PNG, "image/png"), "image/png"),
        (Media("image", "input_image", PNG), "image/png"),
        (Media("image", "input_image", b"\xff\xd8\xff", "image/jpg"), "image/jpeg"),
        (Media("audio", "input_audio", b"RIFF....WAVEfmt ", None), "audio/wav"),
        (Media("audio", "input_audio", b"ID3", "audio/mp3"), "audio/mpeg"),
        (Media("video", "input_video", b"....ftypisom", None), "video/mp4"),
        (Media("document", "context", b"%PDF-1.7", "application/pdf"), "application/pdf"),
    ],
)
async def test_media_go_with_their_turn_as_bytes_before_the_text(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, item: Media, mime_type: str
) -> None:
    await ask(binding, messages=(Message("user", "What is this?", (item,)),))

    medium, text = sent(fake)["contents"][0]["parts"]
    assert medium["inlineData"]["mimeType"] == mime_type
    assert base64.urlsafe_b64decode(medium["inlineData"]["data"]) == item.data
    assert text == {"text": "What is this?"}


async def test_what_looks_like_a_path_is_sent_as_the_bytes_that_it_is(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    item = Media("image", "input_image", b"/etc/hostname", "image/png")
    await ask(binding, messages=(Message("user", "?", (item,)),))

    data = sent(fake)["contents"][0]["parts"][0]["inlineData"]["data"]
    assert base64.urlsafe_b64decode(data) == b"/etc/hostname"


@pytest.mark.parametrize("mime_type", [None, "text/plain", "application/json", "application/ld+json"])
async def test_documents_of_text_are_sent_as_text(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, mime_type: str | None
) -> None:
    item = Media("document", "context", "Äpfel".encode(), mime_type)
    await ask(binding, messages=(Message("user", "?", (item,)),), model="gemma-3-27b-it")

    assert sent(fake)["contents"][0]["parts"] == [{"text": "Äpfel"}, {"text": "?"}]


async def test_an_input_of_unknown_format_is_refused(binding: GeminiBinding, ask: Ask) -> None:
    item = Media("audio", "input_audio", b"what is this")
    with pytest.raises(UnsupportedInput, match="audio"):
        await ask(binding, messages=(Message("user", "?", (item,)),))


async def test_an_image_by_its_address_is_refused_unless_the_operator_allows_it(
    binding: GeminiBinding, ask: Ask, opened: Opened
) -> None:
    item = Media("image", "input_image", b"http://127.0.0.1:1/secret.png")
    messages = (Message("user", "?", (item,)),)

    with pytest.raises(UnsupportedInput, match="does not fetch"):
        await ask(binding, messages=messages)
    with pytest.raises(InvalidRequest, match="internet"):
        await ask(await opened(fetch_image_urls=True), messages=messages)


# --- answers ------------------------------------------------------------------------------------------------------


async def test_words_stream_as_they_come_with_usage_at_the_end(binding: GeminiBinding, ask: Ask) -> None:
    chunks = await ask(binding, "one two three")

    assert chunks[:-1] == [TextDelta("one"), TextDelta(" two"), TextDelta(" three")]
    assert chunks[-1] == Finished(reason="stop", usage=Usage(3, 3), metadata={"model": "gemini-2.5-flash"})


async def test_thoughts_are_told_apart_and_counted(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="Blue.", thoughts="it is the sky")
    chunks = await ask(binding)

    thoughts = [chunk for chunk in chunks if isinstance(chunk, ThoughtDelta)]
    assert "".join(chunk.text for chunk in thoughts) == "it is the sky "
    assert [chunk.end for chunk in thoughts] == ["", "", "", "", "closed"]
    assert chunks[-2:] == [
        TextDelta("Blue."),
        Finished(reason="stop", usage=Usage(2, 5), metadata={"model": "gemini-2.5-flash"}),
    ]
    assert sent(fake)["generationConfig"]["thinkingConfig"] == {"includeThoughts": True}


async def test_thoughts_that_take_all_tokens_are_explained(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="never", thoughts="on and on and on")
    chunks = await ask(binding, parameters={"max_tokens": 3})

    ends = [chunk.end for chunk in chunks if isinstance(chunk, ThoughtDelta)]
    assert ends[-1] == "incomplete"
    assert notices(chunks) == ["thoughts_took_all"]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "length"


async def test_an_answer_that_is_too_long_ends_with_length(binding: GeminiBinding, ask: Ask) -> None:
    chunks = await ask(binding, "one two three", parameters={"max_tokens": 2})

    assert chunks[:2] == [TextDelta("one"), TextDelta(" two")]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "length"


# --- functions ----------------------------------------------------------------------------------------------------


async def test_functions_are_described_and_calls_come_back(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    calls = (
        {"name": "weather", "args": {"city": "Oslo", "days": 2}},
        {"name": "weather", "args": {}, "id": "x1"},
    )
    fake.answer = lambda _: GeminiAnswer(calls=calls)
    chunks = await ask(
        binding,
        functions=({"type": "function", "function": WEATHER}, "clock.now"),
        parameters={"tool_choice": "required"},
    )

    (tool,) = sent(fake)["tools"]
    (declared,) = tool["functionDeclarations"]
    assert declared["name"] == "weather"
    assert declared["parametersJsonSchema"] == WEATHER["parameters"]
    assert sent(fake)["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert [chunk for chunk in chunks if isinstance(chunk, ToolCall)] == [
        ToolCall("call_req1_0", "weather", '{"city":"Oslo","days":2}', 0),
        ToolCall("x1", "weather", "{}", 1),
    ]
    assert notices(chunks) == ["functions_ignored"]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "tool_calls"


@pytest.mark.parametrize("model", ["gemini-2.0-flash", "gemini-3-pro-preview"])
async def test_results_of_functions_follow_the_calls_that_the_client_sends_back(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, model: str
) -> None:
    """Gemini 3 refuses a call without its signature, which no client of ours keeps."""
    said = '{"tool_calls": [{"id": "1", "name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}]}'
    turns = (
        Message("user", "?"),
        Message("assistant", said),
        Message("tool", "rain"),
        Message("tool", "wind"),
    )
    await ask(binding, model=model, messages=turns, functions=(WEATHER,))

    _, asked, answered = sent(fake)["contents"]
    assert [part["functionCall"] for part in asked["parts"]] == [
        {"name": "weather", "args": {"city": "Oslo"}},
        {"name": "function", "args": {}},
    ]
    assert [part["functionResponse"]["name"] for part in answered["parts"]] == ["weather", "function"]
    assert answered["parts"][0]["functionResponse"]["response"] == {"output": "rain"}


async def test_a_function_that_is_described_in_another_way_is_refused(
    binding: GeminiBinding, ask: Ask
) -> None:
    with pytest.raises(InvalidRequest, match="not usable at"):
        await ask(binding, functions=({"name": "f", "description": ["a", "b"]},))


async def test_a_call_that_cannot_be_read_is_an_error(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(finish="MALFORMED_FUNCTION_CALL")

    with pytest.raises(GenerationFailed, match="MALFORMED_FUNCTION_CALL"):
        await ask(binding)


# --- safety -------------------------------------------------------------------------------------------------------


async def test_a_prompt_that_is_blocked_is_an_error_that_says_for_what(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(blocked="SAFETY", harm="HARM_CATEGORY_HARASSMENT")

    with pytest.raises(InvalidRequest, match=r"refused the prompt.*HARM_CATEGORY_HARASSMENT"):
        await ask(binding)
    assert len(fake.requests_to(":stream")) == 1


async def test_an_answer_that_is_cut_off_for_safety_says_so(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, text_of: Callable[[list[Chunk]], str]
) -> None:
    fake.answer = lambda _: GeminiAnswer(
        text="It begins", finish="SAFETY", harm="HARM_CATEGORY_DANGEROUS_CONTENT"
    )
    chunks = await ask(binding)

    assert text_of(chunks) == "It begins"
    assert notices(chunks) == ["answer_filtered"]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].reason == "content_filter"


@pytest.mark.parametrize("finish", ["SAFETY", "PROHIBITED_CONTENT", "RECITATION", "SPII"])
async def test_an_answer_of_which_nothing_is_left_is_an_error(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini, finish: str
) -> None:
    fake.answer = lambda _: GeminiAnswer(finish=finish)

    with pytest.raises(InvalidRequest, match=finish):
        await ask(binding)


async def test_an_answer_that_ends_for_another_reason_says_so(
    binding: GeminiBinding, ask: Ask, fake: FakeGemini
) -> None:
    fake.answer = lambda _: GeminiAnswer(text="half", finish="OTHER")

    assert notices(await ask(binding)) == ["ended_early"]


# --- other capabilities -------------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_the_service(binding: GeminiBinding) -> None:
    assert await binding.count_tokens("one two three", None) == 3
    assert await binding.count_tokens("", "gemini-2.0-flash") == 0


async def test_vectors_come_in_batches_that_the_service_takes(
    binding: GeminiBinding, fake: FakeGemini
) -> None:
    texts = [f"text {number}" for number in range(150)]
    vectors = await binding.embed(texts, None)

    assert len(vectors) == 150
    assert vectors[0] != vectors[149]
    assert len(fake.requests_to(":batchEmbedContents")) == 2
    assert await binding.embed([], None) == []


async def test_a_model_without_vectors_says_so(binding: GeminiBinding) -> None:
    with pytest.raises(NotSupported, match="makes no vectors"):
        await binding.embed(["x"], "gemini-2.0-flash")


async def test_only_text_is_generated_here(binding: GeminiBinding, ask: Ask) -> None:
    with pytest.raises(NotSupported, match="tti"):
        await ask(binding, generation_type="tti")
