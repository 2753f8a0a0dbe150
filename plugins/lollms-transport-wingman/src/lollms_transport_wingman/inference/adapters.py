"""`/lora-adapters`."""

from __future__ import annotations

from lollms_kernel.contracts import HasAdapters
from lollms_kernel.errors import InvalidRequest, NotSupported

from .call import Call
from .sampling import adapter_scale
from .target import Target, choose_named

MAX_ADAPTERS = 256


async def list_adapters(call: Call) -> None:
    """`GET`: the adapters and their scales."""
    target = await choose_named(call, call.query.get("model", ""))
    await call.send_json(await _adapters(target).adapters(target.model))


async def set_adapters(call: Call) -> None:
    """`POST`: the scales of adapters by id; those left out get 0."""
    value = await call.any_json()
    target = await choose_named(call, call.query.get("model", ""))
    binding = _adapters(target)
    if (
        not isinstance(value, list)
        or len(value) > MAX_ADAPTERS
        or not all(isinstance(item, dict) for item in value)
    ):
        raise InvalidRequest("Request body must be an array")
    scales = [adapter_scale(item) for item in value]
    await binding.set_adapters([(entry["id"], entry["scale"]) for entry in scales], target.model)
    await call.send_json({"success": True})


def _adapters(target: Target) -> HasAdapters:
    if not isinstance(target.binding, HasAdapters):
        raise NotSupported(f"Binding instance '{target.instance}' has no LoRA adapters.")
    return target.binding
