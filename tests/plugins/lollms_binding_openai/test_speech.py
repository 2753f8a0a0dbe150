"""Speech from text, text from speech."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lollms_binding_openai import OpenAIBinding
from lollms_kernel.dummy import short_wav
from lollms_kernel.errors import (
    GenerationFailed,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
    UnsupportedInput,
)
from lollms_kernel.testing.fakes import Fault, dropped, garbage
from lollms_kernel.testing.fakes.forms import Upload, fields_of
from lollms_kernel.testing.fakes.openai import FakeOpenAI, sse
from lollms_kernel.types import Chunk, Finished, Media, Message, Notice, Output, TextDelta, Usage

Open = Callable[..., Awaitable[Any]]
Ask = Callable[..., Awaitable[list[Chunk]]]
TextOf = Callable[[list[Chunk]], str]

WAV = short_wav()


def recording(data: bytes = WAV, mime_type: str | None = "audio/wav", text: str = "") -> tuple[Message, ...]:
    return (Message("user", text, (Media("audio", "input_audio", data, mime_type),)),)


# --- text to speech -----------------------------------------------------------------------------------------


async def test_speech_is_one_output_with_the_instance_s_voice_and_format(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    sound, last = await ask(binding, "Good morning.", generation_type="tts", model="tts-1")

    assert isinstance(sound, Output)
    assert (sound.type, sound.mime_type, len(sound.data)) == ("audio", "audio/mpeg", 1504)
    assert sound.metadata == {"prompt_used": "Good morning.", "model": "tts-1", "voice": "alloy"}
    assert isinstance(last, Finished)
    assert fake.requests_to("/audio/speech")[-1].json == {
        "model": "tts-1",
        "input": "Good morning.",
        "voice": "alloy",
        "response_format": "mp3",
    }


@pytest.mark.parametrize(
    ("name", "mime_type"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm"),
    ],
)
async def test_each_format_has_its_mime_type(
    name: str, mime_type: str, binding: OpenAIBinding, ask: Ask
) -> None:
    sound = (await ask(binding, generation_type="tts", model="tts-1", parameters={"format": name}))[0]

    assert isinstance(sound, Output)
    assert sound.mime_type == mime_type
    assert sound.metadata.get("sample_rate") == (24_000 if name == "pcm" else None)


async def test_the_type_is_what_came_not_what_was_asked_for(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(Fault(status=200, headers={"content-type": "audio/mpeg"}, body=WAV, path="/speech"))

    sound = (await ask(binding, generation_type="tts", model="tts-1"))[0]

    assert isinstance(sound, Output)
    assert sound.mime_type == "audio/wav"


async def test_voice_speed_and_instructions_are_the_request_s(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    given = {
        "voice": "nova",
        "speed": 1.5,
        "instructions": "Whisper.",
        "top_k": 3,
        "extra_body": {"lang": "en"},
    }

    chunks = await ask(binding, generation_type="tts", model="tts-1", parameters=given, system="Be brief.")

    body = fake.requests_to("/audio/speech")[-1].json
    assert (body["voice"], body["speed"], body["instructions"], body["lang"]) == (
        "nova",
        1.5,
        "Whisper.",
        "en",
    )
    assert {chunk.code for chunk in chunks if isinstance(chunk, Notice)} == {
        "parameters_ignored",
        "system_ignored",
    }


@pytest.mark.parametrize(
    "wrong", [{"voice": 3}, {"format": "mid"}, {"speed": 9}, {"speed": "fast"}, {"instructions": 1}]
)
async def test_wrong_values_are_refused_before_they_are_sent(
    wrong: dict[str, Any], binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        await ask(binding, generation_type="tts", model="tts-1", parameters=wrong)
    assert fake.requests_to("/audio") == []


async def test_nothing_to_speak_is_refused(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(InvalidRequest, match="nothing to speak"):
        await ask(binding, "  ", generation_type="tts", model="tts-1")


async def test_a_web_page_is_no_sound(binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI) -> None:
    fake.faults.append(
        Fault(status=200, headers={"content-type": "text/html"}, body=b"<html>", path="/speech")
    )

    with pytest.raises(GenerationFailed):
        await ask(binding, generation_type="tts", model="tts-1")


async def test_half_a_sound_is_an_error_not_an_answer(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(dropped(1, "/speech"))

    with pytest.raises(Unavailable, match="broke"):
        await ask(binding, generation_type="tts", model="tts-1")


# --- speech to text -----------------------------------------------------------------------------------------


async def test_a_recording_goes_as_bytes_and_comes_back_as_text(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI, text_of: TextOf
) -> None:
    chunks = await ask(
        binding,
        messages=recording(text="Names: Zoë."),
        generation_type="stt",
        model="whisper-1",
        parameters={"language": "en", "temperature": 0},
    )

    fields = fields_of(fake.requests_to("/transcriptions")[-1])
    assert fields["file"] == Upload("recording.wav", WAV, "audio/wav")
    assert (fields["model"], fields["language"], fields["prompt"]) == ("whisper-1", "en", "Names: Zoë.")
    assert "stream" not in fields
    assert text_of(chunks) == fake.transcript
    assert isinstance(chunks[-1], Finished)


async def test_newer_models_tell_it_piece_by_piece(binding: OpenAIBinding, ask: Ask) -> None:
    chunks = await ask(binding, messages=recording(), generation_type="stt", model="gpt-4o-transcribe")

    assert [c.text for c in chunks if isinstance(c, TextDelta)] == [
        "The",
        " quick",
        " brown",
        " fox",
        " jumps.",
    ]
    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].usage == Usage(prompt_tokens=14, completion_tokens=5)


@pytest.mark.parametrize(
    ("data", "mime_type", "name"),
    [
        (WAV, None, "recording.wav"),
        (b"OggS....", None, "recording.ogg"),
        (b"\x00\x00\x00\x20ftypM4A ", None, "recording.m4a"),
        (b"fLaC....", "application/octet-stream", "recording.flac"),
        (b"????", "audio/webm;codecs=opus", "recording.webm"),
    ],
)
async def test_the_format_is_told_by_the_first_bytes_or_the_mime_type(
    data: bytes, mime_type: str | None, name: str, binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    await ask(binding, messages=recording(data, mime_type), generation_type="stt", model="whisper-1")

    assert fields_of(fake.received[-1])["file"].name == name


async def test_a_format_that_nothing_tells_is_refused(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(UnsupportedInput, match="no format"):
        await ask(binding, messages=recording(b"????", None), generation_type="stt", model="whisper-1")


async def test_there_must_be_exactly_one_recording(binding: OpenAIBinding, ask: Ask) -> None:
    two = (Message("user", "", recording()[0].media * 2),)
    for messages in ((Message("user", "no sound"),), two):
        with pytest.raises(InvalidRequest, match="recordings"):
            await ask(binding, messages=messages, generation_type="stt", model="whisper-1")


async def test_an_unknown_model_is_model_not_found(binding: OpenAIBinding, ask: Ask) -> None:
    with pytest.raises(ModelNotFound):
        await ask(binding, messages=recording(), generation_type="stt", model="whisper-9")
    with pytest.raises(ModelNotFound):
        await ask(binding, generation_type="tts", model="tts-9")


async def test_a_transcript_that_ends_early_is_an_error(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    fake.faults.append(garbage(2, sse({"type": "transcript.text.delta", "delta": " x"}), "/transcriptions"))

    with pytest.raises(Unavailable):
        await ask(binding, messages=recording(), generation_type="stt", model="gpt-4o-transcribe")


async def test_language_and_duration_are_told_where_the_service_does(
    binding: OpenAIBinding, ask: Ask, fake: FakeOpenAI
) -> None:
    body = b'{"text": "hi", "language": "english", "duration": 1.5, "segments": []}'
    fake.faults.append(
        Fault(status=200, headers={"content-type": "application/json"}, body=body, path="/transcriptions")
    )

    chunks = await ask(binding, messages=recording(), generation_type="stt", model="whisper-1")

    assert isinstance(chunks[-1], Finished)
    assert chunks[-1].metadata == {"language": "english", "duration": 1.5}
