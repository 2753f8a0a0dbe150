"""`/slots`: what each slot does, and saving, restoring and erasing their state."""

from __future__ import annotations

import re
from typing import Any

from lollms_kernel.contracts import HasSlots
from lollms_kernel.errors import InvalidRequest, NotSupported, Unavailable

from .call import Call
from .fields import INT32
from .target import Target, choose_named

_NUMBER = re.compile(r"\d{1,10}")
_BAD_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|\.\.|\A[ .]|[ .]\Z')
ACTIONS = ("save", "restore", "erase")
PRIVATE = ("prompt", "generated")
"""What slots tell of other people's requests: left out where keys tell people apart."""


async def list_slots(call: Call) -> None:
    """`GET /slots`."""
    if not call.server.settings.slots:
        raise NotSupported("This server does not support slots endpoint. Start it with `--slots`")
    target = await choose_named(call, call.query.get("model", ""))
    slots = await described(has_slots(target), target.model, shared=bool(call.tenant))
    if is_on(call.query, "fail_on_no_slot") and all(slot.get("is_processing") for slot in slots):
        raise Unavailable("no slot available")
    await call.send_json(slots)


async def described(binding: HasSlots, model: str | None, *, shared: bool) -> list[dict[str, Any]]:
    """The slots, with the keys of older versions."""
    slots = []
    for slot in await binding.slots(model):
        told = {**slot, "state": int(bool(slot.get("is_processing")))}
        if shared:
            told = {name: value for name, value in told.items() if name not in PRIVATE}
        else:
            told.setdefault("prompt", "")
        slots.append(told)
    return slots


async def slot_action(call: Call) -> None:
    """`POST /slots/{id}?action=save|restore|erase`."""
    number = call.scope["path"].rpartition("/")[2]
    if not _NUMBER.fullmatch(number) or int(number) > INT32:
        raise InvalidRequest("Invalid slot ID")
    action = call.query.get("action", "")
    if action not in ACTIONS:
        raise InvalidRequest("Invalid action")
    target = await choose_named(call, call.query.get("model", ""))
    binding = has_slots(target)
    filename = None
    if action != "erase":
        filename = (await call.json()).get("filename")
        if not is_file_name(filename):
            raise InvalidRequest("Invalid filename")
    await call.send_json(await binding.slot_action(int(number), action, filename, target.model, call.tenant))


def is_file_name(name: object) -> bool:
    """Whether it names a file in a folder on every system, and leads nowhere else."""
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "surrogatepass")) <= 255:
        return False
    return not _BAD_IN_NAMES.search(name) and not any(
        0xD800 <= ord(character) <= 0xDFFF for character in name
    )


def has_slots(target: Target) -> HasSlots:
    """The target's slots. Raises NotSupported."""
    if not isinstance(target.binding, HasSlots):
        raise NotSupported(f"Binding instance '{target.instance}' has no slots.")
    return target.binding


def is_on(query: dict[str, str], name: str) -> bool:
    """Whether a switch of the query is there and not switched off."""
    return query.get(name, "0").lower() not in ("0", "false", "off", "no")
