"""Images, speech and transcripts of a fake OpenAI."""

from __future__ import annotations

import base64
from typing import Any

from ...dummy import short_wav, small_png
from .forms import Upload
from .openai_answers import CREATED, SSE, Refused, count_words, split_words, sse
from .server import Reply

_WAV = short_wav()
_SOUNDS = {
    "mp3": (b"\xff\xfb\x90\x00" + bytes(1500), "audio/mpeg"),
    "opus": (b"OggS" + bytes(1500), "audio/ogg"),
    "aac": (b"\xff\xf1" + bytes(1500), "audio/aac"),
    "flac": (b"fLaC" + bytes(1500), "audio/flac"),
    "wav": (_WAV, "audio/wav"),
    "pcm": (_WAV[44:], "audio/pcm"),
}
"""Enough of each format to be told from the others; the WAV is a real one."""


def images(body: dict[str, Any], model: str, event: str, url: str) -> Reply:
    """`n` pictures, or previews and one picture as events; each family of models refuses what it does not know."""
    is_gpt = model.startswith("gpt-image")
    if event == "image_edit":
        if model == "dall-e-3":
            raise Refused(400, "Invalid value: 'dall-e-3'.", param="model", code="invalid_value")
        if not any(isinstance(value, Upload) and name != "mask" for name, value in body.items()):
            raise Refused(400, "Missing required parameter: 'image'.", param="image")
    for name in ("response_format", "style") if is_gpt else ("output_format", "background", "partial_images"):
        if name in body:
            raise Refused(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    count = int(body.get("n") or 1)
    if model == "dall-e-3" and count > 1:
        raise Refused(400, "Invalid 'n': integer above maximum value.", param="n")
    if "forbidden" in body["prompt"]:
        code = "moderation_blocked" if is_gpt else "content_policy_violation"
        raise Refused(400, "Your request was rejected by the safety system.", code=code)
    if not is_gpt and body.get("response_format") != "b64_json":
        data = [{"url": f"{url}/files/{number}.png"} for number in range(count)]
        return Reply.of({"created": CREATED, "data": data})
    usage = {"input_tokens": count_words(body["prompt"]), "output_tokens": 272, "total_tokens": 272}
    pictures = [base64.b64encode(small_png(0x336699 + n)).decode() for n in range(count)]
    if str(body.get("stream")).lower() == "true":
        preview = f"{event}.partial_image"
        frames = [
            sse({"type": preview, "partial_image_index": n, "b64_json": pictures[0]}, preview)
            for n in range(int(body.get("partial_images") or 0))
        ]
        done = f"{event}.completed"
        frames.append(sse({"type": done, "b64_json": pictures[0], "usage": usage}, done))
        return Reply(headers=SSE, frames=frames)
    found: list[dict[str, Any]] = [{"b64_json": picture} for picture in pictures]
    if model == "dall-e-3":
        found[0]["revised_prompt"] = f"A fine picture: {body['prompt']}"
    return Reply.of({"created": CREATED, "data": found, **({"usage": usage} if is_gpt else {})})


def speech(body: dict[str, Any]) -> Reply:
    """A sound in the wanted format, in several writes."""
    if len(body["input"]) > 4096:
        raise Refused(400, "Invalid 'input': too long.", param="input", code="string_above_max_length")
    content, mime_type = _SOUNDS[body.get("response_format", "mp3")]
    frames = [content[start : start + 512] for start in range(0, len(content), 512)]
    return Reply(headers={"content-type": mime_type}, frames=frames)


def transcription(body: dict[str, Any], model: str, transcript: str) -> Reply:
    """The transcript of whatever sound was sent; whisper does not stream it, whatever it is asked."""
    file = body.get("file")
    if not isinstance(file, Upload) or "." not in file.name:
        raise Refused(400, "Unrecognized file format.", param="file")
    if model == "whisper-1":
        return Reply.of({"text": transcript, "usage": {"type": "duration", "seconds": 2}})
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": count_words(transcript)}
    if str(body.get("stream")).lower() != "true":
        return Reply.of({"text": transcript, "usage": usage})
    delta, done = "transcript.text.delta", "transcript.text.done"
    frames = [sse({"type": delta, "delta": word}, delta) for word in split_words(transcript)]
    return Reply(headers=SSE, frames=[*frames, sse({"type": done, "text": transcript, "usage": usage}, done)])
