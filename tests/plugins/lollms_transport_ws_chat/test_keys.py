"""API keys in a header, a subprotocol or the first message; whose session is whose."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import httpx
import pytest
import websockets

from .conftest import ChatServer
from .live import connected

KEY = "key-of-the-test-1"
LIMITED = "key-of-the-test-3"
ODD = "key with blanks, and more=2"


@pytest.fixture(scope="module")
def locked() -> Iterator[ChatServer]:
    entries = [KEY, ODD, {"name": "limited", "key": LIMITED, "requests_per_minute": 2}]
    server = ChatServer.make(
        {"auth_timeout": 1.0, "allowed_origins": ["http://app.example"]},
        config={
            "security": {"allowed_api_keys": entries},
            "server": {"allowed_origins": ["http://app.example", "http://other.example"]},
        },
    )
    with server.process:
        yield server


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}], ids=["bearer", "x-api-key"]
)
async def test_a_key_in_a_header(locked: ChatServer, headers: dict[str, str]) -> None:
    async with connected(locked.own, "-".join(headers), headers=headers) as client:
        await client.heard()
        await client.say("Hello.")
        assert (await client.receive("AI_RESPONSE"))["text"] == "Hello."


async def test_a_key_in_a_subprotocol_is_not_what_the_answer_names(locked: ChatServer) -> None:
    offered = [f"bearer.{KEY}", "chat"]
    async with connected(locked.main, "sub", subprotocols=offered) as client:
        assert client.socket.subprotocol == "chat"
        assert (await client.receive())["text"] == "Welcome."
    encoded = base64.urlsafe_b64encode(ODD.encode()).decode().rstrip("=")
    async with connected(locked.own, "sub", subprotocols=[f"bearer64.{encoded}"]) as client:
        assert (await client.receive())["text"] == "Welcome."


async def test_a_key_in_the_first_message(locked: ChatServer) -> None:
    async with connected(locked.own, "first") as client:
        await client.send("AUTH", api_key=KEY)
        assert (await client.heard())["text"] == "Welcome."
        await client.send("AUTH", api_key=KEY)  # changes nothing
        await client.say("Hello.")
        assert (await client.receive())["text"] == "Hello."


async def test_without_a_key_nothing_happens(locked: ChatServer) -> None:
    async with connected(locked.own, "none") as client:
        await client.say("Hello.")
        error = await client.receive()
        assert error["code"] == "key_missing"
        assert "AUTH" in error["message"]
        assert await client.ended() == (1008, "A valid API key is needed.")
    async with connected(locked.main, "wrong") as client:
        await client.send("AUTH", api_key="wrong")
        assert (await client.receive())["code"] == "unauthorized"
        assert (await client.ended())[0] == 1008
    async with connected(locked.own, "strange") as client:
        await client.send("AUTH", api_key=5)
        assert (await client.receive())["code"] == "invalid_payload"
        assert (await client.ended())[0] == 1008
    async with connected(locked.own, "wrong-sub", subprotocols=["bearer64.***"]) as client:
        await client.send("AUTH", api_key="wrong")
        assert (await client.receive())["code"] == "unauthorized"
    async with connected(locked.own, "silent") as client:
        assert (await client.receive())["message"] == "No API key came in time."
        assert (await client.ended())[0] == 1008
    with pytest.raises(websockets.InvalidStatus):
        async with connected(locked.own, "bad-header", headers={"X-API-Key": "wrong"}):
            pass


async def test_the_same_client_id_of_two_keys_is_two_sessions(locked: ChatServer) -> None:
    async with (
        connected(locked.own, "same", headers={"X-API-Key": KEY}) as one,
        connected(locked.own, "same", headers={"X-API-Key": ODD}) as other,
        connected(locked.own, "third", headers={"X-API-Key": ODD}) as third,
    ):
        for client in (one, other, third):
            assert (await client.heard())["text"] == "Welcome."
        await third.say("Hello.", client_id="same")
        assert (await third.receive())["code"] == "session_taken"
        await one.say("Mine.")
        assert (await one.receive())["text"] == "Mine."
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"{locked.process.url}/ws/chat/sessions"
            listed = (await http.get(url, headers={"X-API-Key": ODD})).json()
            known = {session["client_id"]: session["history_len"] for session in listed}
            assert (known["same"], known["third"]) == (1, 1)
            assert (await http.get(url)).status_code == 403
            assert (await http.get(f"http://127.0.0.1:{locked.port}/metrics")).status_code == 403
            assert (await http.get(f"http://127.0.0.1:{locked.port}/healthz")).status_code == 200


async def test_the_limits_of_a_key_hold(locked: ChatServer) -> None:
    async with connected(locked.main, "limited") as client:
        await client.send("AUTH", api_key=LIMITED)
        await client.heard()
        codes = []
        for number in range(3):
            await client.say(f"{number}.")
            answer = await client.receive()
            codes.append(answer.get("code", "ok"))
            await asyncio.sleep(0.55)
        assert codes[-1] == "rate_limited"


async def test_of_the_origins_that_the_server_allows_only_the_named_ones_come_in(locked: ChatServer) -> None:
    key = [f"bearer.{KEY}", "chat"]
    app, other = {"Origin": "http://app.example"}, {"Origin": "http://other.example"}
    async with connected(locked.own, "app", subprotocols=key, headers=app) as client:
        assert (await client.receive())["text"] == "Welcome."
    async with connected(locked.own, "other", subprotocols=key, headers=other) as client:
        assert await client.ended() == (1008, "This origin is not allowed.")


def test_no_key_is_ever_logged(locked: ChatServer) -> None:
    assert KEY not in locked.process.log()
    assert ODD not in locked.process.log()
