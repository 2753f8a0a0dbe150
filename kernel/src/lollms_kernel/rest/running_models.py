"""Which models are in memory, and giving their memory back."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from litestar import get, post
from litestar.params import FromPath
from msgspec import Meta

from ..errors import BindingNotFound, LollmsError
from ..instance import Instance
from .administration import TheAdministration

LIST_TIMEOUT = 10.0
"""Seconds that an instance may take to say what it has loaded."""


class RunningModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory."""

    instance: str
    type: str
    model: str
    size: Annotated[int | None, Meta(description="Bytes of its files.")] = None
    context_size: int | None = None
    pid: Annotated[int | None, Meta(description="The worker process that has it.")] = None


class RunningModelsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All models that are in memory."""

    models: list[RunningModel]


class UnloadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was given back."""

    instance: str
    removed: Annotated[
        bool, Meta(description="Whether the instance is gone too: it was added while the server runs.")
    ]


@get("/running", summary="List the models in memory", tags=["Administration"])
async def list_running(administration: TheAdministration) -> RunningModelsAnswer:
    """Of every instance that says what it has loaded."""
    kernel = administration.kernel
    instances = [kernel.instance(status.name) for status in kernel.instances() if status.state == "ready"]
    found = await asyncio.gather(*map(_loaded, instances))
    return RunningModelsAnswer(models=[model for models in found for model in models])


@post(
    "/instances/{name:str}/unload",
    status_code=200,
    summary="Unload an instance's model",
    tags=["Administration"],
)
async def unload_instance(administration: TheAdministration, name: FromPath[str]) -> UnloadAnswer:
    """Gives its memory back; the next request loads it again. One that was added while the server runs goes."""
    kernel = administration.kernel
    try:
        await kernel.remove_instance(name)
    except BindingNotFound:
        await kernel.instance(name).ready().unload()
        return UnloadAnswer(instance=name, removed=False)
    return UnloadAnswer(instance=name, removed=True)


async def _loaded(instance: Instance) -> list[RunningModel]:
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            models = await instance.ready().list_models()
    except (LollmsError, TimeoutError):
        return []  # what is wrong with it is in the listing of instances
    return [
        RunningModel(
            instance=instance.name,
            type=instance.type_name,
            model=model.name,
            size=model.size,
            context_size=model.context_size,
            pid=getattr(instance.binding, "pid", None),
        )
        for model in models
        if model.details.get("loaded") is True
    ]
