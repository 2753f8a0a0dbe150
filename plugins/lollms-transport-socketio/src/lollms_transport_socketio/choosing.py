"""Events that choose: binding, model and personalities. Nothing is chosen that would not work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lollms_kernel.contracts import Binding, Kernel
from lollms_kernel.errors import BindingNotFound, InvalidRequest, LollmsError

from .listings import no_binding
from .personality_paths import find_by_path
from .selection import Selection
from .wire import ActivatePersonality, AddPersonality, SelectBinding, SelectModel, read

if TYPE_CHECKING:
    from .session import Session

Reply = tuple[str, dict[str, Any]]


def chosen_binding(kernel: Kernel, selection: Selection) -> Binding:
    """The binding that answers. Raises InvalidRequest where none is chosen, and what is wrong with it."""
    name = selection.binding or kernel.default_binding("ttt")
    if name is None:
        raise no_binding()
    return kernel.binding(name)


async def select_binding(session: Session, payload: Any) -> Reply:
    """By the name of an instance, or of a type that one is of; the model is the binding's own again."""
    asked = read(payload, SelectBinding)
    name = _instance_name(session.kernel, asked.binding_name)
    session.kernel.binding(name)
    await session.choose(lambda chosen: msgspec.structs.replace(chosen, binding=name, model=None))
    return "select_binding", {"success": True, "binding_name": asked.binding_name}


async def select_model(session: Session, payload: Any) -> Reply:
    """By its name, which the selected binding must know."""
    asked = read(payload, SelectModel)
    try:
        binding = chosen_binding(session.kernel, await session.selection())
    except InvalidRequest as error:
        raise InvalidRequest("Please select a binding first") from error
    if not asked.model_name:
        raise InvalidRequest("`model_name` is empty.", hint="`list_available_models` lists what there is.")
    info = await binding.get_model_info(asked.model_name)
    await session.choose(
        lambda chosen: msgspec.structs.replace(chosen, binding=binding.name, model=info.name)
    )
    return "select_model", {"success": True, "model_name": asked.model_name}


async def add_personality(session: Session, payload: Any) -> Reply:
    """A loaded personality, by id, name or path; once only, however often it is added."""
    card = find_by_path(session.kernel, read(payload, AddPersonality).path)

    def add(chosen: Selection) -> Selection:
        if card.id in chosen.personalities:
            return chosen
        return msgspec.structs.replace(chosen, personalities=(*chosen.personalities, card.id))

    chosen = await session.choose(add)
    return "personality_added", {
        "success": True,
        "name": card.name,
        "id": chosen.personalities.index(card.id),
    }


async def activate_personality(session: Session, payload: Any) -> Reply:
    """By its number: it answers prompts that name no personality."""
    number = read(payload, ActivatePersonality).id
    card = (await session.selection()).at(session.kernel, number).card
    await session.choose(lambda chosen: msgspec.structs.replace(chosen, active=number))
    return "activate_personality", {"success": True, "name": card.name, "id": number}


async def list_active_personalities(session: Session, payload: Any) -> Reply:
    """Names by number."""
    selection = await session.selection()
    names = [
        personality.card.name if personality else name
        for name, personality in zip(selection.personalities, selection.mounted(session.kernel), strict=True)
    ]
    return "active_personalities_list", {"success": True, "personalities": names}


def _instance_name(kernel: Kernel, asked: str) -> str:
    """The instance that a name stands for: its own, or that of a type, whose first ready instance it is then."""
    instances = kernel.instances()
    if any(status.name == asked for status in instances):
        return asked
    of_type = sorted((status.state != "ready", status.name) for status in instances if status.type == asked)
    if of_type:
        return of_type[0][1]
    known = ", ".join(_usable(kernel)) or "none"
    raise BindingNotFound(f"Binding instance '{asked[:100]}' not found.", hint=f"There is: {known}.")


def _usable(kernel: Kernel) -> list[str]:
    names = []
    for status in kernel.instances():
        try:
            kernel.binding(status.name)
        except LollmsError:
            continue  # it is not the caller's to use, or it does not work
        names.append(status.name)
    return names
