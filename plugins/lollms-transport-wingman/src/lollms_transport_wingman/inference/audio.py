"""`/v1/audio/speech` and `/v1/audio/transcriptions`, for every instance that speaks or listens."""

from __future__ import annotations

import base64
from typing import Any

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Finished, GenerateRequest, Media, Output, TextDelta

from .bodies import Upload
from .call import Call
from .choice import Choice
from .events import events
from .fields import Fields, as_number
from .media_out import make, media_request
from .merge import answers
from .prompts import media_of
from .target import Target, choose

MAX_INPUT = 1 << 16
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
TRANSCRIPT_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


async def speech(call: Call) -> None:
    """Sound, in the format that the instance made, which the Content-Type tells."""
    fields = await call.json()
    text = fields.text("input", MAX_INPUT)
    if not text:
        raise InvalidRequest("Field 'input': is required.")
    parameters: dict[str, Any] = {}
    for name in ("voice", "instructions"):
        if (value := fields.text(name, MAX_INPUT)) is not None:
            parameters[name] = value
    wanted = fields.choice("response_format", FORMATS)
    if wanted is not None:
        parameters["format"] = wanted
    if (speed := fields.number("speed", 0.25, 4.0)) is not None:
        parameters["speed"] = speed
    as_events = fields.choice("stream_format", ("audio", "sse")) == "sse"
    target = await choose(call, fields, "tts")
    if "audio" not in target.info.output_modalities:
        raise NotSupported(
            f"Binding instance '{target.instance}' (model '{target.info.name}') makes no sound.",
            hint="Set defaults.tts_binding, or name an instance that does as `model`.",
        )
    request = media_request(call, target, "tts", text, parameters)
    if as_events:
        await _speak_events(call, request)
        return
    made = await make(call, [request], "audio")
    sound = b"".join(output.data for output in made.outputs)
    await call.send_bytes(sound, made.outputs[0].mime_type or "audio/wav")


async def _speak_events(call: Call, request: GenerateRequest) -> None:
    async with events(call, call.server.settings.ping_interval, done=False) as told:
        usage: dict[str, int] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        async with answers(call.kernel, [request]) as chunks:
            async for _, chunk in chunks:
                if isinstance(chunk, Output) and chunk.type == "audio":
                    sound = base64.b64encode(chunk.data).decode()
                    await told.send({"type": "speech.audio.delta", "audio": sound})
                elif isinstance(chunk, Finished) and chunk.usage is not None:
                    spent = chunk.usage
                    usage = {
                        "input_tokens": spent.prompt_tokens,
                        "output_tokens": spent.completion_tokens,
                        "total_tokens": spent.total_tokens,
                    }
        await told.send({"type": "speech.audio.done", "usage": usage})


async def transcriptions(call: Call) -> None:
    """What is said in a recording."""
    form = await call.form()
    files = form.files.get("file", [])
    if len(files) != 1:
        raise InvalidRequest("Field 'file': exactly one recording is needed.")
    fields = Fields(form.fields)
    shape = fields.choice("response_format", TRANSCRIPT_FORMATS) or "json"
    parameters: dict[str, Any] = {}
    if (language := fields.text("language", 32)) is not None:
        parameters["language"] = language
    if "temperature" in fields:
        parameters["temperature"] = _temperature(form.fields["temperature"])
    target = await choose(call, fields, "stt")
    if "audio" not in target.info.input_modalities:
        raise NotSupported(
            f"Binding instance '{target.instance}' (model '{target.info.name}') does not listen.",
            hint="Set defaults.stt_binding, or name an instance that does as `model`.",
        )
    request = media_request(
        call, target, "stt", fields.text("prompt", MAX_INPUT) or "", parameters, [_recording(files[0])]
    )
    if form.fields.get("stream", "").lower() == "true":
        await _transcribe_events(call, request)
        return
    heard = Choice(0)
    async with answers(call.kernel, [request]) as chunks:
        async for _, chunk in chunks:
            heard.add(chunk)
    await _send_transcript(call, heard, shape, target)


def _recording(upload: Upload) -> Media:
    if not upload.data:
        raise InvalidRequest("Field 'file': is empty.")
    known = media_of(upload.data)
    told = upload.content_type if upload.content_type.startswith(("audio/", "video/")) else None
    return Media(
        "audio", "input_audio", upload.data, told or (known.mime_type if known.type == "audio" else None)
    )


def _temperature(text: str) -> float:
    try:
        return as_number("temperature", float(text[:40]), 0, 2)
    except ValueError:
        raise InvalidRequest("Field 'temperature': must be a number.") from None


async def _transcribe_events(call: Call, request: GenerateRequest) -> None:
    async with events(call, call.server.settings.ping_interval, done=False) as told:
        texts: list[str] = []
        async with answers(call.kernel, [request]) as chunks:
            async for _, chunk in chunks:
                if isinstance(chunk, TextDelta) and chunk.text:
                    texts.append(chunk.text)
                    await told.send({"type": "transcript.text.delta", "delta": chunk.text})
        await told.send({"type": "transcript.text.done", "text": "".join(texts)})


async def _send_transcript(call: Call, heard: Choice, shape: str, target: Target) -> None:
    text = heard.text
    facts = {} if heard.finished is None else heard.finished.metadata
    segments = facts.get("segments")
    segments = segments if isinstance(segments, list) else []
    if shape == "text":
        await call.send_bytes(f"{text}\n".encode(), "text/plain; charset=utf-8")
    elif shape in ("srt", "vtt"):
        if not segments:
            raise NotSupported(
                f"Binding instance '{target.instance}' does not tell when what was said, which subtitles need.",
                hint="Ask for response_format json or text.",
            )
        await call.send_bytes(_subtitles(segments, shape).encode(), "text/plain; charset=utf-8")
    else:
        usage = heard.usage
        told: dict[str, Any] = {
            "text": text,
            "usage": {
                "type": "tokens",
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
        if shape == "verbose_json":
            told |= {
                "task": "transcribe",
                "language": str(facts.get("language", "")),
                "duration": facts.get("duration", 0.0),
                "segments": segments,
            }
        if heard.notices:
            told["notices"] = heard.told()
        await call.send_json(told)


def _subtitles(segments: list[Any], shape: str) -> str:
    blocks = ["WEBVTT\n"] if shape == "vtt" else []
    for number, segment in enumerate(segments, start=1):
        begin, end = (_clock(float(segment[name]), shape) for name in ("start", "end"))
        head = f"{number}\n" if shape == "srt" else ""
        blocks.append(f"{head}{begin} --> {end}\n{str(segment['text']).strip()}\n")
    return "\n".join(blocks)


def _clock(seconds: float, shape: str) -> str:
    whole = round(seconds * 1000)
    hours, minutes = divmod(whole // 60_000, 60)
    mark = "," if shape == "srt" else "."
    return f"{hours:02}:{minutes:02}:{whole // 1000 % 60:02}{mark}{whole % 1000:03}"
