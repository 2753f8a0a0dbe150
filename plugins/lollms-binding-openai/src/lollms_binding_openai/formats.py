"""Formats of sounds and images: told by their first bytes, or else by the MIME type that the client gave."""

from __future__ import annotations

from lollms_kernel.errors import UnsupportedInput
from lollms_kernel.types import Media

AUDIO_MIME_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""What `/audio/speech` makes. Opus comes in an Ogg container; pcm is 24 kHz, 16 bits, mono."""

_AUDIO_EXTENSIONS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "audio/m4a": "m4a",
    "audio/ogg": "ogg",
    "audio/opus": "ogg",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/webm": "webm",
    "video/webm": "webm",
    "video/mp4": "mp4",
}
_IMAGE_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def audio_extension(item: Media) -> str | None:
    """The file extension of a sound, by which services tell its format; None where nothing tells it."""
    data = item.data
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    for start, extension in (
        (b"ID3", "mp3"),
        (b"OggS", "ogg"),
        (b"fLaC", "flac"),
        (b"\x1aE\xdf\xa3", "webm"),
    ):
        if data.startswith(start):
            return extension
    if data[4:8] == b"ftyp":
        return "m4a"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "mp3" if data[1] & 0x06 else "aac"  # both begin with a row of ones; AAC has no layer
    return _AUDIO_EXTENSIONS.get((item.mime_type or "").partition(";")[0].strip().lower())


def image_type(data: bytes) -> str | None:
    """The MIME type of an image by its first bytes; None if it is none of the usual ones."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime_type for start, mime_type in _IMAGE_STARTS if data.startswith(start)), None)


def image_mime_type(item: Media) -> str:
    """The MIME type to send an image with. Raises UnsupportedInput for what is none."""
    found = image_type(item.data)
    given = (item.mime_type or "").lower()
    if found is None and not given.startswith("image/"):
        raise UnsupportedInput(
            "What was sent as an image is no image that can be told.", hint="Send PNG, JPEG, GIF or WebP."
        )
    return found or given
