"""What there is: bindings, models, personalities."""

from __future__ import annotations

import asyncio
from typing import Any

from lollms_kernel.contracts import Binding, InstanceStatus, Kernel, PersonalityCard
from lollms_kernel.errors import BindingUnavailable, Forbidden, InvalidRequest, LollmsError, NotFound
from lollms_kernel.types import ModelInfo

from .wire import Place

LIST_TIMEOUT = 10.0
"""Seconds that a binding has to say which models it has."""

DEFAULT_ICON = "default.png"
DEFAULT_MODEL_ICON = "/images/default_model.png"
UNKNOWN = "unknown"


async def list_bindings(kernel: Kernel) -> list[dict[str, Any]]:
    """Every configured instance that the caller may use, as the binding folders of lollms were listed."""
    async with asyncio.TaskGroup() as tasks:
        entries = [tasks.create_task(_binding(kernel, status)) for status in kernel.instances()]
    return [entry for task in entries if (entry := task.result()) is not None]


async def _binding(kernel: Kernel, status: InstanceStatus) -> dict[str, Any] | None:
    kind = kernel.binding_types.get(status.type)
    card: dict[str, Any] = {"name": status.name, "type": status.type}
    if kind is not None:
        card = {
            "name": kind.card.display_name,
            "author": kind.card.author,
            "version": kind.card.version,
            "link": kind.card.documentation_url or "",
            "description": kind.card.description,
            "type": status.type,
        }
    try:
        binding = kernel.binding(status.name)
        models = await models_of(binding)
    except Forbidden:
        return None
    except LollmsError as error:
        return {"name": status.name, "card": {**card, "error": error.detail}, "models": []}
    return {
        "name": status.name,
        "card": card,
        "models": [_model_of_binding(info, binding) for info in models],
    }


def _model_of_binding(info: ModelInfo, binding: Binding) -> dict[str, Any]:
    """An entry of a binding's `models.yaml`."""
    return {
        "filename": info.name,
        "description": _description(info),
        "license": info.license or UNKNOWN,
        "owner": UNKNOWN,
        "owner_link": info.homepage or "",
        "server": "",
        "sha256": "",
        "filesize": info.size or 0,
        "model_type": _model_type(binding),
    }


async def list_models(binding: Binding) -> list[dict[str, Any]]:
    """The models of a binding, as lollms showed them; `path` and `title` are what `select_model` takes."""
    return [
        {
            "title": info.name,
            "icon": DEFAULT_MODEL_ICON,
            "license": info.license or UNKNOWN,
            "owner": UNKNOWN,
            "owner_link": info.homepage or "",
            "description": _description(info),
            "isInstalled": True,
            "path": info.name,
            "filesize": info.size or 0,
            "model_type": _model_type(binding),
        }
        for info in await models_of(binding)
    ]


async def models_of(binding: Binding) -> list[ModelInfo]:
    """What the binding has. Raises BindingUnavailable where it does not say so in time."""
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            return await binding.list_models()
    except TimeoutError:
        raise BindingUnavailable(
            f"Binding instance '{binding.name}' did not list its models within {LIST_TIMEOUT:g} s."
        ) from None


def list_personalities(kernel: Kernel) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Language → category → personalities."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for card in _cards(kernel):
        found.setdefault(card.language, {}).setdefault(card.category, []).append(_personality(card))
    return found


def list_languages(kernel: Kernel) -> list[str]:
    """Languages that personalities are in."""
    return sorted({card.language for card in _cards(kernel)})


def list_categories(kernel: Kernel, place: Place) -> list[str]:
    """Categories of personalities, of one language if one is named. Raises NotFound for one that there is not."""
    return sorted({card.category for card in _at(kernel, Place(place.language))})


def list_names(kernel: Kernel, place: Place) -> list[str]:
    """Folder names of personalities. Raises NotFound for a language or category that there is not."""
    return sorted({folder_of(card) for card in _at(kernel, place)})


def folder_of(card: PersonalityCard) -> str:
    """The name of a personality's own folder."""
    return card.folder or card.id.rpartition("/")[2]


def find_by_place(kernel: Kernel, parts: list[str]) -> PersonalityCard | None:
    """The personality of `[language,] category, folder`, as the listings name them."""
    if len(parts) not in (2, 3):
        return None
    for card in _cards(kernel):
        if [card.language, card.category, folder_of(card)][-len(parts) :] == parts:
            return card
    return None


def _at(kernel: Kernel, place: Place) -> list[PersonalityCard]:
    cards = _cards(kernel)
    for what, wanted in (("language", place.language), ("category", place.category)):
        if not wanted:
            continue
        known = sorted({getattr(card, what) for card in cards})
        cards = [card for card in cards if getattr(card, what) == wanted]
        if not cards:
            raise NotFound(
                f"No personality has the {what} '{wanted[:100]}'.", hint=f"Known: {', '.join(known[:20])}."
            )
    return cards


def _cards(kernel: Kernel) -> list[PersonalityCard]:
    return [personality.card for _, personality in sorted(kernel.personalities.items())]


def _personality(card: PersonalityCard) -> dict[str, Any]:
    has_logo = card.icon != DEFAULT_ICON
    return {
        "id": card.id,
        "folder": folder_of(card),
        "name": card.name,
        "description": card.description,
        "author": card.author,
        "version": card.version,
        "has_scripts": card.is_scripted,
        "has_logo": has_logo,
        # lollms gave the path on its own disk, which is nothing that a client could use or should know
        "avatar": f"{card.id}/assets/{card.icon}" if has_logo else "",
    }


def _description(info: ModelInfo) -> str:
    facts = [info.family, info.parameter_size, info.quantization_level]
    context = f"context of {info.context_size} tokens" if info.context_size else None
    return ", ".join(fact for fact in [*facts, context] if fact)


def _model_type(binding: Binding) -> str:
    return "file" if binding.isolation == "process" else "api"


def no_binding() -> InvalidRequest:
    """What listings say where neither client nor configuration has chosen a binding."""
    return InvalidRequest("No binding selected")
