"""Which instance, model and personality serve a request.

`model` of a request may be, in this order: empty or `default`; an instance; `personality:<id>`; `<instance>/<model>`; a
model that an instance lists, looked for in the default instance first. What is none of these gets the default instance
on the inference port, as with llama-server, which has one model and ignores the name; on the main port, where many
models are, it is a 404 that lists them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from lollms_kernel.contracts import Binding, HasEngine, Kernel
from lollms_kernel.errors import LollmsError, ModelNotFound, NoBindingConfigured, NotSupported
from lollms_kernel.types import ModelInfo

if TYPE_CHECKING:
    from .call import Call
    from .fields import Fields

PERSONALITY = "personality:"
PERSONALITY_HEADER = "x-lollms-personality"
LIST_TIMEOUT = 10.0
"""Seconds that an instance gets to list its models; a service that does not answer shall not hide the others."""
MAX_NAME = 512
SHOWN = 20

WHAT = {
    "ttt": "text",
    "tti": "images",
    "i2i": "images",
    "tts": "speech",
    "stt": "transcripts",
}


class Target(msgspec.Struct, frozen=True):
    """Who serves a request. `model` None: the instance's own."""

    instance: str
    model: str | None
    personality: str | None
    shown: str
    """The model's name in answers."""
    info: ModelInfo
    binding: Binding
    is_default: bool
    """Whether nobody named it, so that a `select_binding` hook may choose another one."""

    @property
    def has_engine(self) -> bool:
        """Whether it is an engine of llama-server's kind, which knows all of its parameters."""
        return isinstance(self.binding, HasEngine)


async def choose(call: Call, fields: Fields, kind: str = "ttt") -> Target:
    """The target of a body. Raises ModelNotFound, NoBindingConfigured, NotSupported or what is wrong with it."""
    wanted = fields.text("model", MAX_NAME) or ""
    personality = fields.text("personality", MAX_NAME) or call.headers.get(PERSONALITY_HEADER) or None
    return await choose_named(call, wanted, kind, personality)


async def choose_named(call: Call, wanted: str, kind: str = "ttt", personality: str | None = None) -> Target:
    """As `choose`, for a name."""
    if wanted.startswith(PERSONALITY):
        personality, wanted = wanted.removeprefix(PERSONALITY), ""
    if personality is not None:
        call.kernel.find_personality(personality)
    instance, model = await _find(call, wanted, kind)
    binding = call.kernel.binding(instance)
    info = await binding.get_model_info(model)
    alias = call.server.alias
    default = call.server.default_instance(kind, call)
    own = not call.main_port and instance == default and model is None
    chosen_by_hooks = wanted in ("", "default") and default == call.kernel.default_binding(kind)
    return Target(
        instance, model, personality, alias or info.name if own else info.name, info, binding, chosen_by_hooks
    )


async def _find(call: Call, wanted: str, kind: str) -> tuple[str, str | None]:
    kernel = call.kernel
    default = call.server.default_instance(kind, call)
    if call.server.single_model:
        return _needed(default, kind), None
    names = [status.name for status in kernel.instances()]
    if wanted in names:
        return wanted, None
    if wanted in ("", "default", call.server.alias):
        return _needed(default, kind), None
    instance, slash, model = wanted.partition("/")
    if slash and instance in names:
        return instance, model or None
    known = call.server.places.find(call.tenant, wanted)
    if known in names:
        return str(known), wanted
    order = sorted(names, key=lambda name: name != default)
    for name, models in zip(order, await listed(kernel, order), strict=True):
        if any(info.name == wanted for info in models):
            call.server.places.note(call.tenant, wanted, name)
            return name, wanted
    if not call.main_port and default is not None:
        return default, None
    raise await _unknown(call, wanted)


def _needed(default: str | None, kind: str) -> str:
    if default is not None:
        return default
    if kind == "ttt":
        raise NoBindingConfigured(
            "No text model is configured.", hint="Set defaults.ttt_binding, or name an instance as `model`."
        )
    raise NotSupported(
        f"No instance that makes {WHAT[kind]} is configured.",
        hint=f"Set defaults.{'tti' if kind == 'i2i' else kind}_binding, or name an instance as `model`.",
    )


async def _unknown(call: Call, wanted: str) -> ModelNotFound:
    known = [entry for entry, _, _ in await model_names(call.kernel)]
    shown = ", ".join(known[:SHOWN]) + (" and others" if len(known) > SHOWN else "")
    return ModelNotFound(
        f"The model '{wanted[:100]}' does not exist.",
        hint=f"GET /v1/models lists: {shown or 'nothing'}. Or name an instance, or leave `model` empty.",
    )


async def listed(kernel: Kernel, names: list[str]) -> list[list[ModelInfo]]:
    """The models of each instance; none of one that is not ready, may not be used, or does not answer in time."""
    return await asyncio.gather(*(_models_of(kernel, name) for name in names))


async def _models_of(kernel: Kernel, name: str) -> list[ModelInfo]:
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            return await kernel.binding(name).list_models()
    except (LollmsError, TimeoutError):
        return []  # /api/v1/list_bindings says what is wrong with it


async def model_names(kernel: Kernel) -> list[tuple[str, str, ModelInfo]]:
    """Every model: the name that chooses it, its instance, and what is known of it.

    The name is the model's own where only one instance has it, else `<instance>/<model>`.
    """
    names = [status.name for status in kernel.instances()]
    pairs = [
        (name, info)
        for name, models in zip(names, await listed(kernel, names), strict=True)
        for info in models
    ]
    count: dict[str, int] = {}
    for _, info in pairs:
        count[info.name] = count.get(info.name, 0) + 1
    taken = {*names, "default"}
    return [
        (info.name if count[info.name] == 1 and info.name not in taken else f"{name}/{info.name}", name, info)
        for name, info in pairs
    ]


def fetches_images(binding: Binding) -> bool:
    """Whether the instance takes images by their address."""
    return bool(getattr(binding.settings, "fetch_image_urls", False))
