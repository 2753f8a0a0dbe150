"""Changes of a running server's configuration, one after the other, and who may make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from msgspec import Meta

from ..access import ANYBODY, Grant
from ..config.exposure import is_loopback
from ..config.load import load_config
from ..contracts import Kernel
from ..drafts import Draft, FileChange
from ..errors import ConfigError, Forbidden, NotSupported, Problem, ValidationFailed
from ..kernel import RETIRE_GRACE, LocalKernel, Reloaded

Connection = ASGIConnection[Any, Any, Any, Any]

_FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip")


class ChangeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What changes in the files, and what the server did about it."""

    applied: Annotated[bool, Meta(description="False: it was a dry run, nothing has changed.")]
    diff: list[FileChange]
    result: Annotated[Reloaded | None, Meta(description="Null for a dry run.")] = None


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
