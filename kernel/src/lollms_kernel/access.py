"""Who may use what: API keys, their limits, and what is left of these.

One `Access` belongs to a kernel. The gate asks it about every request, the kernel about every generation and binding,
so a limit holds whatever protocol is spoken. Keys can be replaced while the server runs.
"""

from __future__ import annotations

import hmac
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import msgspec

from .config.api_keys import digest, entries
from .config.schema import SecurityConfig
from .contracts import PersonalityCard
from .errors import Forbidden, KeyMissing, RateLimited, Unauthorized

WINDOW = 60.0
"""Seconds that `requests_per_minute` counts over."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of a key may do; None means without limit."""

    tenant: str = ""
    """Who asks: an id derived from the key, "" where no key is asked for."""
    name: str = ""
    requests_per_minute: int | None = None
    concurrent_streams: int | None = None
    bindings: frozenset[str] | None = None
    personalities: frozenset[str] | None = None


ANYBODY = Grant()


class Acting(msgspec.Struct, frozen=True):
    """On whose behalf the current task works, and whether the request that it works for was counted."""

    grant: Grant
    counted: bool


class KeyHolder:
    """The `contracts.Caller` of a connection that sends messages of its own, each counted by itself."""

    def __init__(self, grant: Grant, access: Access) -> None:
        self._grant = grant
        self._access = access

    @property
    def tenant(self) -> str:
        """See `contracts.Caller.tenant`."""
        return self._grant.tenant

    @property
    def limited(self) -> bool:
        """See `contracts.Caller.limited`."""
        return self._grant.bindings is not None or self._grant.personalities is not None

    def acting(self) -> AbstractContextManager[None]:
        """See `contracts.Caller.acting`."""
        self._access.check_holds(self._grant.tenant)
        return calling(self._grant, counted=False)


_caller: ContextVar[Acting | None] = ContextVar("caller", default=None)


class Access:
    """The keys that open this server, and what their holders have used."""

    def __init__(self, security: SecurityConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._grants: dict[bytes, Grant] = {}
        self._tenants: dict[str, Grant] = {}
        self._revoked: frozenset[str] = frozenset()
        self._recent: dict[str, deque[float]] = {}
        self.key_required = False
        """Whether to ask for a key even if there is none, so that nobody comes in: where others reach the server."""
        self.replace(security)

    @property
    def needs_key(self) -> bool:
        """Whether requests have to bring a key."""
        return bool(self._grants) or self.key_required

    @property
    def revoked(self) -> frozenset[str]:
        """Tenants whose keys opened this server once and do not any more."""
        return self._revoked

    def replace(self, security: SecurityConfig) -> None:
        """Let these keys count from now on."""
        before = self._tenants
        self._grants = {
            known: Grant(
                tenant=known.hex()[:16],
                name=entry.name,
                requests_per_minute=entry.requests_per_minute,
                concurrent_streams=entry.concurrent_streams,
                bindings=None if entry.bindings is None else frozenset(entry.bindings),
                personalities=None if entry.personalities is None else frozenset(entry.personalities),
            )
            for known, entry in entries(security)
        }
        self._tenants = {grant.tenant: grant for grant in self._grants.values()}
        self._revoked = (self._revoked | before.keys()) - self._tenants.keys()
        self._recent = {tenant: used for tenant, used in self._recent.items() if tenant in self._tenants}

    def authenticate(self, key: str) -> Grant:
        """What the holder of this key may do. Raises Forbidden without a key and Unauthorized for a wrong one."""
        if not self.needs_key:
            return ANYBODY
        if not key:
            raise KeyMissing("API Key required but not provided.")
        asked = digest(key)
        found = None
        # every key is compared, each in constant time, so that time tells nothing about which one came close
        for known, grant in self._grants.items():
            if hmac.compare_digest(asked, known):
                found = grant
        if found is None:
            raise Unauthorized("Invalid API Key provided.")
        return found

    def count(self, grant: Grant) -> None:
        """Note one request. Raises RateLimited if there were too many within the last minute."""
        limit = grant.requests_per_minute
        if limit is None:
            return
        now = self._clock()
        used = self._recent.setdefault(grant.tenant, deque())
        while used and used[0] <= now - WINDOW:
            used.popleft()
        if len(used) >= limit:
            wait = used[0] + WINDOW - now  # rounded, it may miss either end of what is possible
            raise RateLimited(
                f"The API key '{grant.name}' may make {limit} requests per minute.",
                hint="Wait as long as the header Retry-After says.",
                retry_after=min(max(wait, 0.001), WINDOW),
            )
        used.append(now)

    def check_holds(self, tenant: str) -> None:
        """Raise Unauthorized for a revoked key, and Forbidden where nobody had to bring one and now has to."""
        if tenant in self._revoked:
            raise revoked_error()
        if not tenant and self.needs_key:
            raise KeyMissing("API Key required but not provided.", hint="Connect again with a key.")

    def check_stream(self, tenant: str, running: int) -> None:
        """Let a tenant begin one more generation while `running` of its own are under way.

        Raises Unauthorized for a revoked key, Forbidden where a key has become necessary, and RateLimited. A generation
        that belongs to no counted request, such as one of many on a socket, counts as a request itself.
        """
        caller = _caller.get()
        if tenant or caller is not None:
            self.check_holds(tenant)
        grant = self._tenants.get(tenant, ANYBODY)
        limit = grant.concurrent_streams
        if limit is not None and running >= limit:
            raise RateLimited(
                f"The API key '{grant.name}' may run {limit} generation{'s' if limit > 1 else ''} at once.",
                hint="Wait until one of them has ended.",
                retry_after=1,
            )
        if caller is None or not caller.counted:
            self.count(grant)

    def check_binding(self, tenant: str, name: str) -> None:
        """Raise Forbidden if the tenant's key may not use this binding instance."""
        _check_binding(self._tenants.get(tenant, ANYBODY), name)

    def check_personality(self, tenant: str, card: PersonalityCard) -> None:
        """Raise Forbidden if the tenant's key may not use this personality; an empty id stands for none."""
        allowed = self._tenants.get(tenant, ANYBODY).personalities
        if allowed is not None and allowed.isdisjoint({card.id, card.name, card.folder or card.id}):
            known = ", ".join(sorted(name or "none" for name in allowed)) or "none at all"
            raise Forbidden(
                f"This API key may not use the personality '{card.id}'."
                if card.id
                else "This API key may only be used with a personality.",
                hint=f"It may use: {known}.",
            )


@contextmanager
def calling(grant: Grant, *, counted: bool) -> Iterator[None]:
    """Work on behalf of a key's holder inside."""
    token = _caller.set(Acting(grant, counted))
    try:
        yield
    finally:
        _caller.reset(token)


def check_caller_binding(name: str) -> None:
    """Raise Forbidden if the key that the current request brought may not use this binding instance."""
    caller = _caller.get()
    if caller is not None:
        _check_binding(caller.grant, name)


def revoked_error() -> Unauthorized:
    """What a request gets, or a stream ends with, whose key was revoked."""
    return Unauthorized("The API key was revoked.", hint="Ask for a new one.")


def _check_binding(grant: Grant, name: str) -> None:
    if grant.bindings is not None and name not in grant.bindings:
        known = ", ".join(sorted(grant.bindings)) or "none"
        raise Forbidden(
            f"This API key may not use the binding instance '{name}'.", hint=f"It may use: {known}."
        )
