"""The fake speaks the vendor's protocol: its own client library, with all its models, understands it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from lollms_kernel.dummy import short_wav, small_png
from lollms_kernel.testing.fakes.openai import FakeOpenAI, OpenAIAnswer, refused, stream_error

HELLO: Any = [{"role": "user", "content": "one two three"}]


@pytest.fixture
async def client(fake: FakeOpenAI) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=fake.base_url, api_key="sk-1", max_retries=0) as opened:
        yield opened


async def test_chat_whole_and_streamed_say_the_same(client: AsyncOpenAI, fake: FakeOpenAI) -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    fake.answer = lambda _: OpenAIAnswer(content="Well then.", tool_calls=(call,))

    whole: Any = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    async with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as events:
        streamed: Any = await events.get_final_completion()

    for completion in (whole, streamed):
        choice = completion.choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Well then.", "tool_calls")
        assert choice.message.tool_calls[0].function.arguments == '{"a": 1}'


async def test_completions_models_and_vectors(client: AsyncOpenAI, fake: FakeOpenAI) -> None:
    continued = await client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once")
    assert continued.choices[0].text == "Once"
    assert [model.id async for model in client.models.list()] == list(fake.models)
    vectors = await client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert {item.index: len(item.embedding) for item in vectors.data} == {0: 4, 1: 4}


async def test_images_whole_streamed_and_edited(client: AsyncOpenAI) -> None:
    model = "gpt-image-2.5-flare"
    drawn = await client.images.generate(model=model, prompt="A fox", n=2)
    assert len(drawn.data or ()) == 2
    events = await client.images.generate(model=model, prompt="A fox", stream=True, partial_images=1)
    assert [event.type async for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    edited = await client.images.edit(model=model, prompt="Red", image=("a.png", small_png(1), "image/png"))
    assert len(edited.data or ()) == 1


async def test_speech_and_transcripts(client: AsyncOpenAI, fake: FakeOpenAI) -> None:
    spoken = await client.audio.speech.create(model="tts-1", voice="nova", input="Hi", response_format="wav")
    assert spoken.content == short_wav()
    file = ("a.wav", short_wav(), "audio/wav")
    heard = await client.audio.transcriptions.create(model="whisper-1", file=file)
    assert heard.text == fake.transcript
    events = await client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    assert [event.type async for event in events][-1] == "transcript.text.done"


async def test_errors_are_the_library_s_own(client: AsyncOpenAI, fake: FakeOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-99", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unknown:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO, extra_body={"top_k": 1})
    assert unknown.value.param == "top_k"
    fake.faults.append(refused(429, "Slow down.", "/chat", retry_after="3"))
    with pytest.raises(openai.RateLimitError) as busy:
        await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert busy.value.response.headers["retry-after"] == "3"
    fake.faults.append(stream_error(2, "It broke."))
    events: Any = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="It broke"):
        [event async for event in events]
