"""From the fields of a personality file to the card that requests and listings use."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lollms_kernel.contracts import PersonalityCard
from lollms_kernel.types import Parameters

from .fields import Fields, Range
from .folders import PersonalityFolder

MAX_COUNT = 2**31 - 1
"""What engines hold token counts in."""

PARAMETERS = {
    "model_temperature": ("temperature", Range(0, 2)),
    "model_n_predicts": ("max_tokens", Range(1, MAX_COUNT, whole=True)),
    "model_top_k": ("top_k", Range(1, MAX_COUNT, whole=True)),
    "model_top_p": ("top_p", Range(0, 1)),
    "model_repeat_penalty": ("repeat_penalty", Range(0.01, 100)),
    "model_repeat_last_n": ("repeat_last_n", Range(0, MAX_COUNT, whole=True)),
}
"""Key in the file → request parameter and what it may be."""

DEFAULT_WELCOME = "Welcome! How can I help you today?"
DEFAULT_ICON = "default.png"

_LOGOS = tuple(f"logo.{suffix}" for suffix in ("gif", "webp", "png", "jpg", "jpeg", "bmp"))

_LANGUAGES = {
    "en": "english",
    "fr": "french",
    "de": "german",
    "es": "spanish",
    "it": "italian",
    "ja": "japanese",
}


def build_card(folder: PersonalityFolder, fields: Fields) -> PersonalityCard:
    """The card of the personality in `folder`; what cannot be used goes to `fields.problems`."""
    return PersonalityCard(
        id=folder.id,
        folder=folder.name,
        name=fields.text("name", "").strip() or folder.name,
        author=fields.text("author", "Unknown"),
        version=fields.text("version", "1.0"),
        description=fields.text("personality_description", ""),
        # In two thirds of the published files the category is not the folder they lie in; the folder counts.
        category=folder.category or fields.first("category", "generic"),
        language=_language(fields.first("language", "english")),
        tags=fields.texts("tags"),
        icon=_icon(folder.path / "assets", fields),
        is_scripted=bool(fields.text("script_path", "")),
        conditioning=fields.text("personality_conditioning", ""),
        welcome_message=fields.text("welcome_message", DEFAULT_WELCOME),
        disclaimer=fields.text("disclaimer", ""),
        user_name=fields.text("user_name", "user"),
        user_message_prefix=fields.text("user_message_prefix", "User"),
        ai_message_prefix=fields.text("ai_message_prefix", "Assistant"),
        # Often written in single quotes, where YAML keeps the backslash and the n.
        link_text=fields.text("link_text", "\n").replace("\\n", "\n"),
        anti_prompts=fields.texts("anti_prompts"),
        prompts_list=fields.texts("prompts_list"),
        parameters=_parameters(fields),
    )


def _parameters(fields: Fields) -> Parameters:
    found = {name: fields.number(key, allowed) for key, (name, allowed) in PARAMETERS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _language(text: str) -> str:
    """`English`, `en` and `en_US` are one language; a whole sentence, as in some files, is none."""
    word = text.strip().lower()
    code = re.split(r"[-_]", word)[0]
    if code in _LANGUAGES:
        return _LANGUAGES[code]
    return word if word.isalpha() else "english"


def _icon(assets: Path, fields: Fields) -> str:
    """The name of the picture in `assets`: the one that is asked for, else its logo."""
    wanted = fields.text("icon", "")
    if wanted and _lies_in(assets, wanted):
        return wanted
    if wanted and wanted != DEFAULT_ICON:
        fields.problems.append("`icon` must name a file in the folder `assets`; it is left out.")
    return next((logo for logo in _LOGOS if _lies_in(assets, logo)), DEFAULT_ICON)


def _lies_in(folder: Path, name: str) -> bool:
    if "\0" in name:
        return False
    target = os.path.realpath(folder / name)
    return os.path.isfile(target) and Path(target).is_relative_to(os.path.realpath(folder))
