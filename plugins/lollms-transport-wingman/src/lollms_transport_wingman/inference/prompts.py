"""The forms of `prompt`: text, token ids, a mixture, text with media, or several of these."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Media

from .fields import INT32, as_integer

MAX_PROMPTS = 256
MAX_MEDIA = 64


class Prompt(msgspec.Struct, frozen=True):
    """One prompt: its text alone, or ids and texts as `parts`; `media` are what markers in the text stand for."""

    text: str | None = None
    parts: tuple[int | str, ...] | None = None
    media: tuple[Media, ...] = ()


def read_prompts(value: object, name: str = "prompt") -> tuple[list[Prompt], bool]:
    """All prompts of a field, and whether it was an array of them. Raises InvalidRequest."""
    if value is None:
        raise InvalidRequest(f'Either "{name}" or "messages" must be provided')
    if isinstance(value, list) and not _is_one(value):
        if not value:
            raise InvalidRequest(f'"{name}" must not be empty')
        if len(value) > MAX_PROMPTS:
            raise InvalidRequest(
                f'"{name}" has {len(value)} prompts; at most {MAX_PROMPTS} are taken at once.'
            )
        return [_read_one(item, name) for item in value], True
    return [_read_one(value, name)], False


def _is_one(value: list[Any]) -> bool:
    """Whether an array is a single prompt: it holds nothing but ids and texts, with an id among them."""
    return any(_is_id(item) for item in value) and all(
        _is_id(item) or isinstance(item, str) for item in value
    )


def _is_id(item: object) -> bool:
    return isinstance(item, int | float) and not isinstance(item, bool)


def _read_one(value: object, name: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(text=value)
    if isinstance(value, dict):
        return _with_media(value, name)
    if isinstance(value, list):
        if not value:
            raise InvalidRequest(f'"{name}" must not be empty')
        return Prompt(parts=read_parts(value, name))
    raise InvalidRequest(f'"{name}" must be a string, token ids, a mixture of both, or a list of these.')


def read_parts(value: list[Any], name: str) -> tuple[int | str, ...]:
    """Token ids and texts. Raises InvalidRequest."""
    return tuple(item if isinstance(item, str) else as_integer(name, item, 0, INT32) for item in value)


def _with_media(value: dict[str, Any], name: str) -> Prompt:
    text, data = value.get("prompt_string"), value.get("multimodal_data") or []
    if not isinstance(text, str) or not isinstance(data, list) or len(data) > MAX_MEDIA:
        raise InvalidRequest(
            f'"{name}": an object has "prompt_string", a string, and "multimodal_data", at most {MAX_MEDIA} files.'
        )
    return Prompt(text=text, media=tuple(media_of(decode_base64(item, "multimodal_data")) for item in data))


def decode_base64(value: object, name: str) -> bytes:
    """The bytes of a base64 text, or of a `data:` URL. Raises InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(f"Field '{name}': must be base64.")
    text = value.partition(",")[2] if value[:5].lower() == "data:" else value
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"Field '{name}': is no valid base64.") from None
    if not data:
        raise InvalidRequest(f"Field '{name}': is empty.")
    return data


_SOUNDS = {b"RIFF": "audio/wav", b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg", b"fLaC": "audio/flac"}
_IMAGES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"BM": "image/bmp"}


def media_of(data: bytes) -> Media:
    """A file whose kind its first bytes tell; an image where they do not."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Media("image", "input_image", data, "image/webp")
    for start, mime_type in _SOUNDS.items():
        if data.startswith(start):
            return Media("audio", "input_audio", data, mime_type)
    kind = next((kind for start, kind in _IMAGES.items() if data.startswith(start)), None)
    return Media("image", "input_image", data, kind)
