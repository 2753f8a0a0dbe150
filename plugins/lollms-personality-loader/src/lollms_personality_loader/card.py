"""From the fields of a personality file to the card that requests and listings use."""

from __future__ import annotations

from lollms_kernel.contracts import DEFAULT_WELCOME, PersonalityCard
from lollms_kernel.types import Parameters

from .fields import Fields, Range
from .folders import PersonalityFolder
from .languages import normalise, translations
from .pictures import DEFAULT_ICON, find_icon

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

_MARKED = ("personality_conditioning", "user_message_prefix", "ai_message_prefix", "link_text")
SEPARATOR = "!@>"
"""Stands before a speaker's name in texts of the desktop program, which ends an answer at it."""


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
        language=normalise(fields.first("language", "english")),
        languages=tuple(sorted(translations(folder.path))),
        tags=fields.texts("tags"),
        icon=_icon(folder, fields),
        conditioning=fields.text("personality_conditioning", ""),
        welcome_message=fields.text("welcome_message", DEFAULT_WELCOME),
        greets_in_history=_greets(fields),
        disclaimer=fields.text("disclaimer", ""),
        user_name=fields.text("user_name", "user"),
        user_message_prefix=fields.text("user_message_prefix", "User"),
        ai_message_prefix=fields.text("ai_message_prefix", "Assistant"),
        # Often written in single quotes, where YAML keeps the backslash and the n.
        link_text=fields.text("link_text", "\n").replace("\\n", "\n"),
        anti_prompts=_anti_prompts(fields),
        prompts_list=fields.texts("prompts_list"),
        functions=fields.texts("functions"),
        parameters=_parameters(fields),
    )


def _parameters(fields: Fields) -> Parameters:
    found = {name: fields.number(key, allowed) for key, (name, allowed) in PARAMETERS.items()}
    return {name: value for name, value in found.items() if value is not None}


def _anti_prompts(fields: Fields) -> tuple[str, ...]:
    """The texts that end an answer. Blanks or a single letter would end any: they are left out."""
    own = fields.texts("anti_prompts")
    fitting = [text for text in own if text.strip() and (len(text) > 1 or not text.isalnum())]
    if len(fitting) < len(own):
        fields.problems.append("`anti_prompts` has blank texts or single letters; they are left out.")
    marked = any(SEPARATOR in fields.peek(key) for key in _MARKED)
    return tuple(dict.fromkeys([*fitting, *([SEPARATOR] if marked else [])]))


def _greets(fields: Fields) -> bool:
    keys = ("include_welcome_message_in_discussion", "include_welcome_message_in_disucssion")
    return any(fields.flag(key) for key in keys if fields.has(key))


def _icon(folder: PersonalityFolder, fields: Fields) -> str:
    wanted = fields.text("icon", "")
    found = find_icon(folder.path, wanted)
    if wanted and wanted not in (found, DEFAULT_ICON):
        fields.problems.append("`icon` must name a file in the folder `assets`; it is left out.")
    return found or DEFAULT_ICON
