"""Connections whose API key comes in their first message: what the gate lets through, and what it still refuses."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from lollms_kernel.access import Access
from lollms_kernel.config.schema import ApiKeyEntry, MainConfig, SecurityConfig
from lollms_kernel.contracts import Transport
from lollms_kernel.errors import Forbidden, RateLimited, Unauthorized
from lollms_kernel.gate import Gate

KEY = "a-key-of-the-tests"


class Late(Transport):
    name = "late"

    @property
    def late_key_paths(self) -> tuple[str, ...]:
        return ("/chat", "/events/*")


class Reached:
    """An application that notes who reached it, and whether it could generate there."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.callers: list[Any] = []
        self.refused: list[Forbidden] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.callers.append(scope["state"]["caller"])
        try:
            self._access.check_stream(scope["state"]["tenant"], 0)
        except Forbidden as error:
            self.refused.append(error)


async def connect(
    path: str,
    headers: dict[str, str] | None = None,
    keys: tuple[str, ...] = (KEY,),
    access: Access | None = None,
) -> tuple[Reached, list[Any]]:
    access = access or Access(SecurityConfig(allowed_api_keys=keys))
    reached, sent = Reached(access), list[Any]()
    gate = Gate(reached, MainConfig(), access, "127.0.0.1", [Late(None, None)])  # type: ignore[arg-type]
    pairs = {"host": "127.0.0.1:9601", **(headers or {})}
    scope = {
        "type": "websocket",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
    }

    async def send(message: Any) -> None:
        sent.append(message)

    await gate(scope, None, send)  # type: ignore[arg-type]
    return reached, sent


@pytest.mark.parametrize("path", ["/chat", "/events/", "/events/a"])
async def test_a_late_path_is_reached_without_a_key_but_generates_nothing(path: str) -> None:
    reached, _ = await connect(path)

    assert reached.callers == [None]
    assert len(reached.refused) == 1


@pytest.mark.parametrize("path", ["/chats", "/chat/", "/event", "/"])
async def test_other_paths_are_not(path: str) -> None:
    reached, sent = await connect(path)

    assert reached.callers == []
    assert sent[0]["type"] == "websocket.close"


async def test_a_key_in_the_header_counts_at_once_and_a_wrong_one_is_refused() -> None:
    right, _ = await connect("/chat", {"x-api-key": KEY})
    wrong, sent = await connect("/chat", {"x-api-key": "wrong"})

    assert right.callers[0].tenant
    assert right.refused == []
    assert wrong.callers == []
    assert sent[0]["type"] == "websocket.close"


async def test_a_foreign_page_is_refused_and_without_keys_everybody_is_a_caller() -> None:
    foreign, _ = await connect("/chat", {"origin": "http://elsewhere.example"})
    anybody, _ = await connect("/chat", keys=())

    assert foreign.callers == []
    assert anybody.callers[0].tenant == ""
    assert anybody.refused == []


async def test_requests_of_a_late_path_do_not_count_but_what_they_generate_does() -> None:
    entry = ApiKeyEntry(name="one", key=KEY, requests_per_minute=3)
    access = Access(SecurityConfig(allowed_api_keys=(entry,)))

    for _ in range(3):  # each connects and generates once
        reached, _ = await connect("/events/", {"x-api-key": KEY}, access=access)
    (caller,) = reached.callers
    with caller.acting(), pytest.raises(RateLimited):
        access.check_stream(caller.tenant, 0)


async def test_the_holder_of_a_revoked_key_cannot_act_any_more() -> None:
    access = Access(SecurityConfig(allowed_api_keys=(KEY,)))
    reached, _ = await connect("/chat", {"x-api-key": KEY}, access=access)
    (holder,) = reached.callers
    with holder.acting():
        pass

    access.replace(SecurityConfig(allowed_api_keys=("another-key",)))

    with pytest.raises(Unauthorized, match="revoked"):
        holder.acting()


async def test_where_a_key_has_become_necessary_nobody_acts_without_one() -> None:
    access = Access(SecurityConfig())
    reached, _ = await connect("/chat", access=access)
    (anybody,) = reached.callers

    access.replace(SecurityConfig(allowed_api_keys=(KEY,)))

    with pytest.raises(Forbidden):
        anybody.acting()
