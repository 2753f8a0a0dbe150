"""Speech from text and text from speech: what goes into the requests and what comes out of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.errors import InvalidRequest, UnsupportedInput
from lollms_kernel.types import GenerateRequest, Media, Usage

from .formats import AUDIO_MIME_TYPES, audio_extension
from .parameters import extra_fields, wrong

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_AUDIO = 512 << 20
"""Bytes of speech after which a service is taken to be mad."""
PCM_RATE = 24_000

SPEECH_PARAMETERS = frozenset(
    (
        "voice",
        "format",
        "response_format",
        "speed",
        "instructions",
        "extra_body",
        "max_tokens",
        "context_size",
    )
)
TRANSCRIPT_PARAMETERS = frozenset(
    ("language", "temperature", "prompt", "extra_body", "max_tokens", "context_size")
)


# --- text to speech ---------------------------------------------------------------------------------------------


def speech_body(request: GenerateRequest, voice: str, audio_format: str) -> dict[str, Any]:
    """The body of `/audio/speech`; voice and format are those of the instance, for requests that name none."""
    given = {name: value for name, value in request.parameters.items() if value is not None}
    if not request.prompt.strip():
        raise InvalidRequest("There is nothing to speak.", hint="Send the text as the prompt.")
    body: dict[str, Any] = {
        "model": request.model,
        "input": request.prompt,
        "voice": given.get("voice", voice),
        "response_format": given.get("format", given.get("response_format", audio_format)),
    }
    if not isinstance(body["voice"], str) or not body["voice"]:
        raise wrong("voice", body["voice"], "the name of a voice")
    if body["response_format"] not in AUDIO_MIME_TYPES:
        raise wrong("format", body["response_format"], f"one of {', '.join(AUDIO_MIME_TYPES)}")
    if "speed" in given:
        speed = given["speed"]
        if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
            raise wrong("speed", speed, "a number from 0.25 to 4")
        body["speed"] = speed
    instructions = given.get("instructions")
    if instructions is not None:
        if not isinstance(instructions, str):
            raise wrong("instructions", instructions, "a text")
        body["instructions"] = instructions
    return {**body, "extra_body": extra_fields(given.get("extra_body", {}))}


async def speech(client: AsyncOpenAI, body: dict[str, Any]) -> AsyncIterator[bytes]:
    """The sound as it arrives; closing this closes the connection. Raises ValueError for what is no sound."""
    async with client.audio.speech.with_streaming_response.create(**body) as response:
        kind = response.headers.get("content-type", "")
        if "json" in kind or kind.startswith("text/"):
            raise ValueError("not a sound")
        async for data in response.iter_bytes():
            if data:
                yield data


def sound_type(data: bytes, audio_format: str) -> str:
    """The MIME type of what came, which need not be the format that was asked for."""
    found = audio_extension(Media("audio", "", data[:16]))
    return AUDIO_MIME_TYPES.get("opus" if found == "ogg" else found or "", AUDIO_MIME_TYPES[audio_format])


# --- speech to text ---------------------------------------------------------------------------------------------


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class Heard(msgspec.Struct):
    """A transcript, or an event of one that is streamed."""

    type: str = ""
    text: str | None = None
    delta: str | None = None
    language: str | None = None
    duration: float | None = None
    usage: _Usage | None = None

    def counted(self) -> Usage | None:
        """The tokens that it took; None where the service bills by duration."""
        usage = self.usage
        if usage is None or usage.input_tokens is None:
            return None
        return Usage(usage.input_tokens, usage.output_tokens or 0)

    def facts(self) -> dict[str, Any]:
        """Language and seconds of the recording, where the service tells them."""
        told = {"language": self.language, "duration": self.duration}
        return {name: value for name, value in told.items() if value is not None}


def recording(request: GenerateRequest) -> Media:
    """The one sound of the request."""
    sounds = [item for item in request.media if item.type == "audio"]
    if len(sounds) != 1:
        raise InvalidRequest(
            f"The request has {len(sounds)} recordings.", hint="Send exactly one input of the type audio."
        )
    return sounds[0]


def transcript_body(request: GenerateRequest) -> dict[str, Any]:
    """The fields of `/audio/transcriptions` beside the file. The prompt's text is a hint for names and spelling."""
    given = {name: value for name, value in request.parameters.items() if value is not None}
    body: dict[str, Any] = {"model": request.model}
    for name in ("language", "prompt"):
        value = given.get(name, request.prompt or None if name == "prompt" else None)
        if value is not None:
            if not isinstance(value, str):
                raise wrong(name, value, "a text")
            body[name] = value
    if "temperature" in given:
        body["temperature"] = given["temperature"]
    if "transcribe" in (request.model or "").lower():
        body["stream"] = True  # OpenAI's newer models tell it piece by piece, whisper does not
    body["response_format"] = "json"
    return {**body, **extra_fields(given.get("extra_body", {}))}


def file_of(sound: Media) -> tuple[str, bytes, str]:
    """Name, content and type of the upload; services tell the format by the name's extension."""
    extension = audio_extension(sound)
    if extension is None:
        raise UnsupportedInput(
            "The recording is in no format that can be told.", hint="Send WAV, MP3, M4A, OGG, FLAC or WebM."
        )
    return f"recording.{extension}", sound.data, sound.mime_type or "application/octet-stream"
