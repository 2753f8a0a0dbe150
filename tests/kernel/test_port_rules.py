"""Ports of single protocols with rules of their own: open pages, CORS, error shapes."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest

from lollms_kernel.access import Access
from lollms_kernel.config.schema import MainConfig, SecurityConfig
from lollms_kernel.contracts import Cors, ErrorAnswer, PortRules, Transport
from lollms_kernel.errors import ContextOverflow, Forbidden, LollmsError, error_from_code
from lollms_kernel.gate import Gate
from lollms_kernel.workers.faults import Fault

KEY = "a-key-of-the-tests"
EVIL, OWN = "https://evil.example", "http://localhost:1234"


class Odd(Transport):
    """Its gate errors have an odd status on the main port."""

    name = "odd"

    @property
    def prefixes(self) -> tuple[str, ...]:
        return ("/odd/",)

    @property
    def open_paths(self) -> tuple[str, ...]:
        return ("/odd/open",)

    def error_answer(self, error: LollmsError, path: str) -> ErrorAnswer:
        return ErrorAnswer(418, f"{path}: {error.code}".encode(), "text/plain")


def told(error: LollmsError, path: str) -> ErrorAnswer:
    return ErrorAnswer(401, b"mine", "text/plain")


RULES = PortRules(error_answer=told, open_paths=("/open",), cors=Cors(origins=("localhost",)))


async def ask(
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    *,
    keys: tuple[str, ...] = (KEY,),
    rules: PortRules | None = RULES,
) -> tuple[int, dict[str, str], bytes]:
    """What the gate answers, or 200 "reached" from behind it."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    access = Access(SecurityConfig(allowed_api_keys=keys))
    gate = Gate(app, MainConfig(), access, "127.0.0.1", [Odd(None, None)], rules)  # type: ignore[arg-type]
    pairs = {"host": "127.0.0.1:1", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
    }
    await gate(scope, None, send)  # type: ignore[arg-type]
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"]


async def test_a_port_has_its_own_open_pages_and_error_shape() -> None:
    assert (await ask("/open"))[2] == b"reached"
    status, _, body = await ask("/odd/open")
    assert (status, body) == (401, b"mine")


async def test_the_main_port_asks_the_transport_of_the_prefix() -> None:
    assert (await ask("/odd/open", rules=None))[2] == b"reached"
    status, _, body = await ask("/odd/x", rules=None)
    assert (status, body) == (418, b"/odd/x: key_missing")
    assert (await ask("/x", rules=None))[0] == 403


@pytest.mark.parametrize(
    "header", [{"authorization": KEY}, {"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}]
)
async def test_a_key_may_come_bare(header: dict[str, str]) -> None:
    assert (await ask("/x", headers=header))[2] == b"reached"


async def test_other_schemes_than_bearer_are_no_keys() -> None:
    assert (await ask("/x", headers={"authorization": f"Basic {KEY}"}))[0] == 401


async def test_every_options_is_answered_whoever_asks() -> None:
    for headers in ({}, {"origin": EVIL}, {"origin": EVIL, "access-control-request-method": "POST"}):
        status, found, body = await ask("/x", "OPTIONS", headers)
        assert (status, body) == (200, b"")
        assert found["access-control-allow-origin"] == headers.get("origin", "")
        assert found["access-control-allow-headers"] == "*"


@pytest.mark.parametrize(
    "origin", [OWN, "http://127.0.0.1", "tauri://localhost", "http://[::1]:5", "localhost"]
)
async def test_pages_of_this_machine_are_let_in_without_a_key(origin: str) -> None:
    status, found, _ = await ask("/x", "POST", {"origin": origin}, keys=())
    assert (status, found["access-control-allow-origin"]) == (200, origin)


async def test_other_pages_are_not_and_a_made_up_key_does_not_help_them_to_read() -> None:
    status, found, _ = await ask("/x", "POST", {"origin": EVIL}, keys=())
    assert (status, found["access-control-allow-origin"]) == (401, EVIL)
    for headers in ({}, {"authorization": "Bearer x"}, {"x-api-key": "x"}):
        _, found, body = await ask("/x", "GET", {"origin": EVIL, **headers}, keys=())
        assert body == b"reached"
        assert "access-control-allow-origin" not in found


async def test_other_pages_may_read_with_a_valid_key_and_what_is_open() -> None:
    for path, headers in (("/x", {"x-api-key": KEY}), ("/open", {})):
        _, found, body = await ask(path, "GET", {"origin": EVIL, **headers})
        assert (body, found["access-control-allow-origin"]) == (b"reached", EVIL)


async def test_all_pages_are_let_in_where_the_port_says_so() -> None:
    rules = PortRules(error_answer=told, cors=Cors(origins=("*",)))
    assert (await ask("/x", "POST", {"origin": EVIL}, keys=(), rules=rules))[2] == b"reached"


def test_a_missing_key_is_forbidden_and_nothing_else() -> None:
    error = error_from_code("key_missing", "No key.")
    assert isinstance(error, Forbidden)
    assert error.status == 403
    assert type(error_from_code("forbidden", "No.")) is Forbidden


def test_by_how_much_a_prompt_is_too_long_travels_between_processes() -> None:
    error = Fault.of(ContextOverflow("Too long.", n_prompt_tokens=602, n_ctx=256)).error()
    assert isinstance(error, ContextOverflow)
    assert (error.n_prompt_tokens, error.n_ctx, error.status) == (602, 256, 400)
    plain = Fault.of(ContextOverflow("Too long.")).error()
    assert isinstance(plain, ContextOverflow)
    assert plain.n_ctx is None
