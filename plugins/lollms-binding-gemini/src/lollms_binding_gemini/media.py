"""Images, sound, video and documents of a request, as parts of the protocol: always bytes, never a name of a file."""

from __future__ import annotations

from typing import Any

from lollms_kernel.errors import UnsupportedInput
from lollms_kernel.types import Media

_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/javascript")
_USUAL = {
    "image/jpg": "image/jpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/mp3": "audio/mpeg",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/m4a",
    "video/quicktime": "video/mov",
}
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"%PDF-", "application/pdf"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/avi"}


def part_of(item: Media) -> dict[str, Any]:
    """The item as a part. Raises UnsupportedInput where nothing says what it is."""
    mime_type = mime_type_of(item)
    if item.type == "document" and _is_text(mime_type):
        return {"text": item.data.decode("utf-8", "replace")}
    return {"inline_data": {"data": bytes(item.data), "mime_type": mime_type}}


def mime_type_of(item: Media) -> str:
    """What the client says it is, under its usual name; else what its first bytes say. Raises UnsupportedInput."""
    given = (item.mime_type or "").partition(";")[0].strip().lower()
    found = _USUAL.get(given, given) or _told_by(item.data)
    if not found and item.type == "document":
        found = "text/plain"
    if not found or "/" not in found:
        raise UnsupportedInput(
            f"Nothing says of which format the input of type '{item.type}' is.",
            hint="Send its mime_type, e.g. image/png.",
        )
    return found


def _told_by(data: bytes) -> str | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:12] in (b"heic", b"heix", b"mif1") else "video/mp4"
    return next((mime_type for start, mime_type in _STARTS if data.startswith(start)), None)


def _is_text(mime_type: str) -> bool:
    return mime_type.startswith(_TEXTUAL) or mime_type.endswith(("+json", "+xml"))
