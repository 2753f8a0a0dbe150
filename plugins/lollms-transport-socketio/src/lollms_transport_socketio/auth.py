"""What a client brings when it joins: its key, the session that it resumes, the connection that it recovers."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec

from lollms_kernel.contracts import Caller, Kernel
from lollms_kernel.errors import InvalidRequest

from .recovery import Offer


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """The `auth` payload; every field is optional and others are not used."""

    api_key: str | None = None
    key: str | None = None
    token: str | None = None
    session: str | None = None
    """An id under which the client finds its conversation again."""
    recovery: bool = False
    """Whether the client takes part in connection state recovery, as socket.io-client does since 4.6."""
    pid: str | None = None
    offset: str | None = None
    """Added by socket.io-client when it comes back."""

    @property
    def secret(self) -> str:
        """The API key, "" for none."""
        return self.api_key or self.key or self.token or ""

    @property
    def offer(self) -> Offer | None:
        """The connection that the client wants back."""
        return Offer(self.pid, self.offset or "") if self.pid else None


def read_auth(payload: Any) -> Auth:
    """The `auth` payload. Raises InvalidRequest."""
    if payload is None:
        return Auth()
    try:
        return msgspec.convert(payload, Auth)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The auth payload is not valid: {error}.") from error


def identify(kernel: Kernel, scope: Any, auth: Auth, *, query_key: bool) -> Caller:
    """Who it is: by a key in a header, which the gate has checked, in `auth`, or in the address where that is allowed.

    Raises Forbidden without a key where one is needed, and Unauthorized for a wrong one."""
    known: Caller | None = scope["state"].get("caller")
    if known is not None:
        return known
    secret = auth.secret
    if not secret and query_key:
        secret = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("api_key", [""])[0]
    return kernel.caller(secret)
