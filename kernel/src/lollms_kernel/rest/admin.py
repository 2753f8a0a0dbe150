"""Instances added, changed, removed and tested while the server runs.

Every change is planned, checked, written to the files and taken over by the kernel; if the last step fails the files
are as they were. Who may call: whoever sends an API key that is not limited to some bindings or personalities; where
no key is configured, programs on this machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, FromQuery
from msgspec import Meta

from ..bodies import read_body
from ..contracts import Kernel
from ..drafts import Draft, folder_id
from ..errors import (
    BindingUnavailable,
    ConfigError,
    LollmsError,
    Problem,
    ValidationFailed,
)
from ..instance import Instance
from ..kernel import RETIRE_GRACE
from ..workers.faults import as_lollms_error
from .administration import Administration, ChangeAnswer, Connection, TheAdministration, check_right
from .running_models import list_running, unload_instance

AnyRequest = Request[Any, Any, Any]
Kind = Literal["ttt", "tti", "tts", "stt", "ttv", "ttm"]

TEST_TIMEOUT = 60.0
"""Seconds that an instance may take to name its models; a worker starts in that time too."""

MAX_GRACE = 86400.0


class InstanceBody(msgspec.Struct, frozen=True, kw_only=True):
    """A binding instance as it shall be."""

    type: Annotated[str, Meta(description="A binding type of `list_bindings`.")]
    settings: Annotated[
        dict[str, Any],
        Meta(
            description="What its file shall hold; the rest has its default. `***` leaves a secret as it is."
        ),
    ] = {}
    default_for: Annotated[list[Kind], Meta(description="Kinds of generation whose default it becomes.")] = []


class AdminInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A binding instance with what its file holds; secrets are `***`."""

    name: str
    type: str
    state: Literal["ready", "starting", "failed"]
    settings: dict[str, Any]
    file: Annotated[
        str | None, Meta(description="Inside the configuration folder; null: it came with a plugin.")
    ]
    pid: Annotated[int | None, Meta(description="The worker process, while there is one.")] = None
    error: str | None = None
    hint: str | None = None


class AdminInstancesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All instances, and which configuration they come from."""

    instances: dict[str, AdminInstance]
    configuration: Annotated[str, Meta(description="The same text for the same configuration folder.")]


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an instance works."""

    name: str
    ok: bool
    seconds: float
    models: Annotated[int | None, Meta(description="How many models it names.")] = None
    error: str | None = None
    hint: str | None = None


DryRun = FromQuery[bool]
Grace = FromQuery[Annotated[float, Meta(ge=0, le=MAX_GRACE)]]


def router(kernel: Kernel) -> Router:
    """The routes of this module, for those who may use them."""
    administration = Administration(kernel)

    def guard(connection: Connection, _: BaseRouteHandler) -> None:
        check_right(connection)

    def provide() -> Administration:
        return administration

    return Router(
        "/admin",
        route_handlers=[
            list_instances,
            get_instance,
            put_instance,
            delete_instance,
            probe_instance,
            reload,
            list_running,
            unload_instance,
        ],
        guards=[guard],
        dependencies={"administration": Provide(provide, sync_to_thread=False)},
    )


@get("/instances", summary="List instances with what is configured", tags=["Administration"])
async def list_instances(administration: TheAdministration) -> AdminInstancesAnswer:
    """As their files say; secrets are `***`."""
    found = await asyncio.to_thread(_describe_all, administration)
    return AdminInstancesAnswer(
        instances=found, configuration=folder_id(administration.kernel.loaded.config_dir)
    )


@get("/instances/{name:str}", summary="Tell what is configured for an instance", tags=["Administration"])
async def get_instance(administration: TheAdministration, name: FromPath[str]) -> AdminInstance:
    """As its file says; secrets are `***`."""
    found = await asyncio.to_thread(_describe_all, administration, name)
    return found[name]


@put(
    "/instances/{name:str}",
    summary="Add an instance or change its settings",
    opt={"body": InstanceBody},
    tags=["Administration"],
)
async def put_instance(
    administration: TheAdministration,
    request: AnyRequest,
    name: FromPath[str],
    dry_run: DryRun = False,
    grace: Grace = RETIRE_GRACE,
) -> ChangeAnswer:
    """The instance is opened before it takes over; the one that it replaces ends its answers first."""
    asked = await asyncio.to_thread(read_body, await request.body(), InstanceBody)
    return await administration.change(lambda draft: _place(draft, name, asked), dry_run=dry_run, grace=grace)


@delete("/instances/{name:str}", status_code=200, summary="Remove an instance", tags=["Administration"])
async def delete_instance(
    administration: TheAdministration,
    name: FromPath[str],
    dry_run: DryRun = False,
    grace: Grace = RETIRE_GRACE,
) -> ChangeAnswer:
    """It ends its answers first. Defaults that name it are unset; its file stays as a backup."""
    return await administration.change(lambda draft: draft.remove(name), dry_run=dry_run, grace=grace)


@post("/instances/{name:str}/test", status_code=200, summary="Test an instance", tags=["Administration"])
async def probe_instance(administration: TheAdministration, name: FromPath[str]) -> ProbeAnswer:
    """Asks it for its models, which shows whether engine, address and key are right."""
    started = time.perf_counter()
    instance = administration.kernel.instance(name)
    try:
        async with asyncio.timeout(TEST_TIMEOUT):
            models = await instance.ready().list_models()
    except Exception as error:  # whatever it is, the answer tells it
        known = _silent(name) if isinstance(error, TimeoutError) else as_lollms_error(error)
        return ProbeAnswer(
            name=name,
            ok=False,
            seconds=time.perf_counter() - started,
            error=known.message,
            hint=known.hint,
        )
    return ProbeAnswer(name=name, ok=True, seconds=time.perf_counter() - started, models=len(models))


@post("/reload", status_code=200, summary="Take over what the files say now", tags=["Administration"])
async def reload(administration: TheAdministration, grace: Grace = RETIRE_GRACE) -> ChangeAnswer:
    """Only what has changed is touched; if anything is wrong everything stays as it is."""
    return await administration.reload(grace)


def _place(draft: Draft, name: str, asked: InstanceBody) -> None:
    try:
        draft.require_type(asked.type)
    except ConfigError as error:
        raise ValidationFailed([Problem("value_error", ("body", "type"), error.detail)]) from None
    try:
        if name in draft.instances:
            draft.place(name, asked.type, asked.settings)
            draft.make_default(name, *asked.default_for)
        else:
            draft.add(name, asked.type, asked.settings, asked.default_for)
    except ConfigError as error:
        raise ValidationFailed([Problem("value_error", ("body",), error.detail)]) from None
    faults = draft.faults(name)
    if faults:
        raise ValidationFailed(
            [Problem("value_error", ("body", "settings", *fault.path), fault.text) for fault in faults]
        )


def _describe_all(administration: Administration, *names: str) -> dict[str, AdminInstance]:
    """The instances of these names, or all."""
    kernel, draft = administration.kernel, administration.draft()
    wanted = names or tuple(status.name for status in kernel.instances())
    return {name: _describe(draft, kernel.instance(name)) for name in wanted}


def _describe(draft: Draft, instance: Instance) -> AdminInstance:
    status = instance.status()
    found = AdminInstance(
        name=status.name,
        type=status.type,
        state=status.state,
        settings=status.settings,
        file=None,
        pid=getattr(instance.binding, "pid", None),
        error=status.error,
        hint=status.hint,
    )
    if status.name not in draft.instances:
        return found
    found = msgspec.structs.replace(found, file=draft.file_of(status.name))
    try:
        return msgspec.structs.replace(found, settings=draft.settings(status.name))
    except ConfigError as error:  # the file is broken by now; what runs is shown
        return msgspec.structs.replace(found, error=error.message, hint=error.hint)


def _silent(name: str) -> LollmsError:
    return BindingUnavailable(
        f"Binding instance '{name}' did not name its models within {TEST_TIMEOUT:.0f} s.",
        hint="`lollms doctor` may know why.",
    )
