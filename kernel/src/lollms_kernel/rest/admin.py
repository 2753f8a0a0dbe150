"""Instances added, changed, removed and tested while the server runs.

Every change is planned, checked, written to the files and taken over by the kernel; if the last step fails the files
are as they were. Who may call: whoever sends an API key that is not limited to some bindings or personalities; where
no key is configured, programs on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, FromQuery, SkipValidation
from msgspec import Meta

from ..access import ANYBODY, Grant
from ..config.exposure import is_loopback
from ..config.load import load_config
from ..contracts import Kernel
from ..drafts import Draft, FileChange, folder_id
from ..errors import (
    BindingUnavailable,
    ConfigError,
    Forbidden,
    LollmsError,
    NotSupported,
    Problem,
    ValidationFailed,
)
from ..instances import Instance
from ..kernel import RETIRE_GRACE, LocalKernel, Reloaded
from ..workers.faults import as_lollms_error
from .bodies import read_body

AnyRequest = Request[Any, Any, Any]
Connection = ASGIConnection[Any, Any, Any, Any]
Kind = Literal["ttt", "tti", "tts", "stt", "ttv", "ttm"]

TEST_TIMEOUT = 60.0
"""Seconds that an instance may take to name its models; a worker starts in that time too."""

MAX_GRACE = 86400.0

_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip")


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


class ChangeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in the files, and what the server did about it."""

    applied: Annotated[bool, Meta(description="False: it was a dry run, nothing has changed.")]
    diff: list[FileChange]
    result: Annotated[Reloaded | None, Meta(description="Null for a dry run.")] = None


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an instance works."""

    name: str
    ok: bool
    seconds: float
    models: Annotated[int | None, Meta(description="How many models it names.")] = None
    error: str | None = None
    hint: str | None = None


class Administration:
    """Changes of one kernel's instances, one after the other."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._turn = asyncio.Lock()

    @property
    def kernel(self) -> LocalKernel:
        """The kernel. Raises NotSupported for one whose instances are not configured here."""
        if not isinstance(self._kernel, LocalKernel):
            raise NotSupported("The instances of this server are not configured here.")
        return self._kernel

    def draft(self) -> Draft:
        """A draft of the kernel's configuration."""
        loaded = self.kernel.loaded
        return Draft(loaded.config_dir, self.kernel.binding_types)

    async def change(
        self, plan: Callable[[Draft], None], *, dry_run: bool = False, grace: float = RETIRE_GRACE
    ) -> ChangeAnswer:
        """Plan, check, write and take over; or plan and check alone. Whatever is raised, nothing has changed."""
        async with self._turn:
            draft = await asyncio.to_thread(self._planned, plan)
            diff = draft.diff()
            if dry_run:
                return ChangeAnswer(applied=False, diff=diff)
            take_back = await asyncio.to_thread(draft.write)
            try:
                result = await self._reload(grace)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(take_back))
                raise
            return ChangeAnswer(applied=True, diff=diff, result=result)

    async def reload(self, grace: float) -> ChangeAnswer:
        """Take over what the files say now."""
        async with self._turn:
            return ChangeAnswer(applied=True, diff=[], result=await self._reload(grace))

    def _planned(self, plan: Callable[[Draft], None]) -> Draft:
        draft = self.draft()
        plan(draft)
        draft.check()
        return draft

    async def _reload(self, grace: float) -> Reloaded:
        try:
            loaded = await asyncio.to_thread(load_config, self.kernel.loaded.config_dir)
            return await self.kernel.reload(loaded, grace)
        except ConfigError as error:
            raise ValidationFailed([Problem("value_error", ("configuration",), error.detail)]) from None


TheAdministration = NamedDependency[SkipValidation[Administration]]
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
        route_handlers=[list_instances, get_instance, put_instance, delete_instance, probe_instance, reload],
        guards=[guard],
        dependencies={"administration": Provide(provide, sync_to_thread=False)},
    )


def check_right(connection: Connection) -> None:
    """Raise Forbidden unless the client may change the server; the gate has checked its key."""
    grant: Grant = connection.scope.get("state", {}).get("grant", ANYBODY)
    if grant.tenant:
        if grant.bindings is not None or grant.personalities is not None:
            raise Forbidden(
                "This API key may not administer the server.",
                hint="Use one that is not limited to some bindings or personalities.",
            )
        return
    client = connection.client.host if connection.client else ""
    headers = connection.headers
    if not is_loopback(client) or any(name in headers for name in _FORWARDING) or _from_a_page(connection):
        raise Forbidden(
            "Without an API key only programs on the server's own machine may administer it.",
            hint="Add a key to security.allowed_api_keys and send it as X-API-Key.",
        )


def _from_a_page(connection: Connection) -> bool:
    """Whether a web page of another origin asks, which the gate allows for ordinary requests."""
    origin = connection.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != connection.headers.get("host", "")


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
