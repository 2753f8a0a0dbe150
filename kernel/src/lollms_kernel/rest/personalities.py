"""Personalities: all of them, one by id, name or folder, and its picture."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, SkipValidation
from msgspec import UNSET

from ..contracts import DEFAULT_WELCOME, Kernel, PersonalityCard
from ..errors import NotFound
from .wire import ListPersonalitiesAnswer, PersonalityAnswer, PersonalityInfo

TheKernel = NamedDependency[SkipValidation[Kernel]]

MAX_LOGO = 8 * 1024 * 1024

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
_SVG = "image/svg+xml"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # An SVG may hold scripts: as a page of its own it would run them with the rights of this origin.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "Cache-Control": "private, max-age=300",
}


@get("/list_personalities", summary="List enabled personalities", tags=["Personalities"])
async def list_personalities(kernel: TheKernel) -> ListPersonalitiesAnswer:
    """The keys are what `personality` of a request may name."""
    found = sorted(kernel.personalities.items())
    return ListPersonalitiesAnswer(
        {name: PersonalityInfo(**_facts(personality.card)) for name, personality in found}
    )


@get("/get_personality/{name:path}", summary="Tell all about one personality", tags=["Personalities"])
async def get_personality(kernel: TheKernel, name: FromPath[str]) -> PersonalityAnswer:
    """By id, name or folder, as requests name it."""
    personality = kernel.find_personality(name.removeprefix("/"))
    card = personality.card
    return PersonalityAnswer(
        **{**_facts(card), "welcome_message": card.greeting, "disclaimer": card.disclaimer},
        id=card.id,
        has_logo=await asyncio.to_thread(lambda: personality.logo) is not None,
        greets_in_history=card.greets_in_history,
        user_name=card.user_name,
        user_message_prefix=card.user_message_prefix,
        ai_message_prefix=card.ai_message_prefix,
        link_text=card.link_text,
        anti_prompts=card.anti_prompts,
        prompts_list=card.prompts_list,
        functions=card.functions,
        parameters=card.parameters,
        binding_name=card.binding,
        model_name=card.model,
    )


@get(
    "/get_personality_logo/{name:path}",
    summary="Give the picture of a personality",
    media_type="image/png",
    tags=["Personalities"],
)
async def get_personality_logo(kernel: TheKernel, name: FromPath[str]) -> Response[bytes]:
    """PNG, JPEG, GIF, WebP, BMP or SVG, told by its content; 404 where there is none."""
    personality = kernel.find_personality(name.removeprefix("/"))
    data, kind = await asyncio.to_thread(_read_logo, personality.card.id, lambda: personality.logo)
    return Response(data, media_type=kind, headers=_HEADERS)


def _facts(card: PersonalityCard) -> dict[str, Any]:
    scripted = card.is_scripted or card.legacy_script
    return {
        "name": card.name,
        "author": card.author,
        "version": card.version,
        "description": card.description,
        "category": card.category,
        "language": card.language,
        "tags": card.tags,
        "icon": card.icon,
        "is_scripted": card.is_scripted,
        "path": card.folder or card.id,
        "welcome_message": card.greeting if card.welcome_message != DEFAULT_WELCOME else UNSET,
        "disclaimer": card.disclaimer or UNSET,
        "script_enabled": card.script_enabled if scripted else UNSET,
        "legacy_script": True if card.legacy_script else UNSET,
        "languages": card.languages or UNSET,
        "problems": card.problems or UNSET,
    }


def _read_logo(id: str, find: Any) -> tuple[bytes, str]:
    """The bytes and their type. Raises NotFound."""
    path: Path | None = find()
    if path is None:
        raise NotFound(f"Personality '{id}' has no picture.", hint="It would be assets/logo.png.")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_LOGO + 1)
    except OSError as error:
        raise NotFound(f"The picture of '{id}' cannot be read: {error.strerror}.") from error
    kind = _type_of(data, path.suffix)
    if kind is None or len(data) > MAX_LOGO:
        what = "is no picture" if kind is None else f"is larger than {MAX_LOGO} bytes"
        raise NotFound(f"The file that is the picture of '{id}' {what}.", hint="Replace it by a small PNG.")
    return data, kind


def _type_of(data: bytes, suffix: str) -> str | None:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return _SVG if suffix.lower() == ".svg" and b"<svg" in data[:4096] else None
