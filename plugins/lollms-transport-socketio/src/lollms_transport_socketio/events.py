"""Every event of the protocol: what answers it, and what a client hears where that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.errors import LollmsError

from . import choosing, listings, tokens
from .choosing import Reply, chosen_binding
from .wire import GenerateText, Place, read

if TYPE_CHECKING:
    from .session import Session

Handler = Callable[["Session", Any], Awaitable[Reply | None]]
Failure = Callable[[LollmsError, Any], Reply]

CANCEL = frozenset({"cancel_generation", "cancel_text_generation"})
"""Both names of the event; it never waits behind others."""


class Event(msgspec.Struct, frozen=True):
    """How an event is answered."""

    handle: Handler
    failed: Failure


def _failing(
    event: str, echo: str | None = None, say: Callable[[LollmsError], str] = lambda error: error.detail
) -> Failure:
    def failed(error: LollmsError, payload: Any) -> Reply:
        echoed = {} if echo is None else {echo: payload.get(echo) if isinstance(payload, dict) else None}
        return event, {"success": False, **echoed, "error": say(error)}

    return failed


async def _bindings(session: Session, payload: Any) -> Reply:
    return "bindings_list", {"success": True, "bindings": await listings.list_bindings(session.kernel)}


async def _models(session: Session, payload: Any) -> Reply:
    binding = chosen_binding(session.kernel, await session.selection())
    return "available_models_list", {"success": True, "available_models": await listings.list_models(binding)}


async def _personalities(session: Session, payload: Any) -> Reply:
    return "personalities_list", {"personalities": listings.list_personalities(session.kernel)}


async def _languages(session: Session, payload: Any) -> Reply:
    found = listings.list_languages(session.kernel)
    return "available_personalities_languages_list", {
        "success": True,
        "available_personalities_languages": found,
    }


async def _categories(session: Session, payload: Any) -> Reply:
    found = listings.list_categories(session.kernel, _place(payload))
    return "available_personalities_categories_list", {
        "success": True,
        "available_personalities_categories": found,
    }


async def _names(session: Session, payload: Any) -> Reply:
    found = listings.list_names(session.kernel, _place(payload))
    return "list_available_personalities_names_list", {
        "success": True,
        "list_available_personalities_names": found,
    }


def _place(payload: Any) -> Place:
    return read(payload, Place) if isinstance(payload, dict) else Place()


async def _generate(session: Session, payload: Any) -> None:
    await session.submit(read(payload, GenerateText))


def _generation_failed(error: LollmsError, payload: Any) -> Reply:
    return "generation_error", {"error": error.detail}


EVENTS: Mapping[str, Event] = {
    "list_available_bindings": Event(_bindings, _failing("bindings_list")),
    "list_available_models": Event(_models, _failing("available_models_list")),
    "list_available_personalities": Event(_personalities, _failing("personalities_list")),
    "list_available_personalities_languages": Event(
        _languages, _failing("available_personalities_languages_list")
    ),
    "list_available_personalities_categories": Event(
        _categories, _failing("available_personalities_categories_list")
    ),
    "list_available_personalities_names": Event(_names, _failing("list_available_personalities_names_list")),
    "select_binding": Event(
        choosing.select_binding,
        _failing("select_binding", "binding_name", lambda error: f"Couldn't load binding:\n{error.detail}"),
    ),
    "select_model": Event(choosing.select_model, _failing("select_model", "model_name")),
    "add_personality": Event(choosing.add_personality, _failing("personality_add_failed")),
    "activate_personality": Event(
        choosing.activate_personality,
        _failing("personality_add_failed", say=lambda error: error.message),
    ),
    "list_active_personalities": Event(
        choosing.list_active_personalities, _failing("active_personalities_list")
    ),
    "tokenize": Event(tokens.tokenize, _failing("tokenized")),
    "detokenize": Event(tokens.detokenize, _failing("detokenized")),
    "embed": Event(tokens.embed, _failing("embeded")),
    "generate_text": Event(_generate, _generation_failed),
}
"""By the name under which clients send them. Others are not answered, as in lollms."""
