"""Who may join: keys in the auth payload, in a header, in the address; origins; limits of a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import socketio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lollms_kernel.testing import ServerProcess

from .engineio_by_hand import handshake, joined, opened, polling_url, websocket_url
from .socketio_client import Client, connected, unconnected

KEY, LIMITED = "key-of-the-socketio-tests", "limited-key-of-the-tests"
PAGE = "http://page.example"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ServerProcess]:
    limited = {
        "name": "limited",
        "key": LIMITED,
        "requests_per_minute": 2,
        "bindings": ["echo"],
        "personalities": ["", "lollms"],
    }
    config = {
        "server": {"allowed_origins": [PAGE]},
        "defaults": {"ttt_binding": "echo"},
        "security": {"allowed_api_keys": [KEY, limited]},
        "transports": {"socketio": {"connect_timeout": 1.0, "max_connections_per_key": 3}},
    }
    instances = {name: {"type": "dummy_binding"} for name in ("echo", "other")}
    with ServerProcess(config, instances) as server:
        yield server


@pytest.fixture
async def limited(guarded: ServerProcess) -> AsyncIterator[Client]:
    async with connected(guarded.url, auth={"api_key": LIMITED}) as client:
        yield client


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("way", ["api_key", "key", "token"])
async def test_a_key_in_the_auth_payload_opens(guarded: ServerProcess, way: str, transport: str) -> None:
    async with connected(guarded.url, transports=[transport], auth={way: KEY}) as client:
        assert await client.answer("hello") == "hello"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("header", [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}])
async def test_a_key_in_a_header_opens(
    guarded: ServerProcess, header: dict[str, str], transport: str
) -> None:
    async with connected(guarded.url, transports=[transport], headers=header) as client:
        assert await client.answer("hello") == "hello"


@pytest.mark.parametrize(
    ("auth", "code", "message"),
    [
        (None, "key_missing", "API Key required but not provided."),
        ({}, "key_missing", "API Key required but not provided."),
        ({"api_key": "wrong"}, "unauthorized", "Invalid API Key provided."),
        ({"api_key": 5}, "invalid_request", "The auth payload is not valid"),
        ("text", "invalid_request", "The auth payload is not valid"),
        ({"api_key": KEY, "session": "short"}, "invalid_request", "The `session` of the auth payload"),
    ],
)
async def test_others_are_told_why_not(guarded: ServerProcess, auth: Any, code: str, message: str) -> None:
    async with unconnected() as client:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.wire.connect(guarded.url, transports=["websocket"], auth=auth)

    assert client.refused[0]["message"].startswith(message)
    assert client.refused[0]["data"]["code"] == code


async def test_a_wrong_key_in_a_header_is_refused_before_anything_else(guarded: ServerProcess) -> None:
    headers = {"X-API-Key": "wrong"}

    async with httpx.AsyncClient() as client:
        response = await client.get(polling_url(guarded.url), headers=headers)
    with pytest.raises(InvalidStatus) as caught:
        await connect(websocket_url(guarded.url), additional_headers=headers)

    assert response.status_code == 401
    assert response.json()["message"] == "Invalid API Key provided."
    assert caught.value.response.status_code == 401


async def test_a_key_in_the_address_opens_only_where_that_is_allowed(
    guarded: ServerProcess, lollms_server: Any
) -> None:
    query = f"?api_key={KEY}"
    with pytest.raises(socketio.exceptions.ConnectionError):
        async with connected(guarded.url + query):
            pass

    settings = {"socketio": {"allow_query_key": True}}
    config = {
        "defaults": {"ttt_binding": "echo"},
        "security": {"allowed_api_keys": [KEY]},
        "transports": settings,
    }
    allowed = lollms_server(config, {"echo": {"type": "dummy_binding"}})
    async with connected(allowed.url + query) as client:
        assert await client.answer("hello") == "hello"
    assert KEY not in allowed.log()


async def test_whoever_brings_no_key_in_time_is_disconnected_and_cannot_do_anything_before(
    guarded: ServerProcess,
) -> None:
    async with opened(guarded.url) as socket:
        await socket.send('42["list_available_bindings"]')
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(20):
                await socket.recv()

    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "It did not join within 1 s.")


async def test_keys_cannot_be_tried_without_end_on_one_connection(guarded: ServerProcess) -> None:
    async with opened(guarded.url) as socket:
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(20):
                for number in range(50):
                    await socket.send("40" + json.dumps({"api_key": f"guess {number}"}))
                    assert "Invalid API Key" in str(await socket.recv())


async def test_a_limited_key_is_held_to_its_limits(limited: Client, guarded: ServerProcess) -> None:
    for _ in range(5):  # listings do not use up what it may generate
        listed = await limited.ask("list_available_bindings", reply="bindings_list")
    chosen = await limited.ask("select_binding", {"binding_name": "other"}, reply="select_binding")
    answers = [await limited.generate("hello") for _ in range(3)]

    assert [entry["name"] for entry in listed["bindings"]] == ["echo"]
    assert chosen["success"] is False
    assert "may not use the binding instance 'other'" in chosen["error"]
    assert [answer[-1][0] for answer in answers] == ["text_generated", "text_generated", "generation_error"]
    assert "2 requests per minute" in answers[-1][-1][1]["error"]


async def test_sockets_of_one_key_are_bounded(guarded: ServerProcess) -> None:
    async with (
        joined(guarded.url, {"api_key": KEY}),
        joined(guarded.url, {"api_key": KEY}),
        joined(guarded.url, {"api_key": KEY}) as third,
    ):
        with pytest.raises(socketio.exceptions.ConnectionError):
            async with connected(guarded.url, auth={"api_key": KEY}):
                pass
        await third.send("41")
        await third.send("1")
        await third.wait_closed()
        async with connected(guarded.url, auth={"api_key": KEY}) as client:
            assert await client.answer("room again") == "room again"


async def test_a_revoked_key_is_worth_nothing_on_sockets_that_are_open(lollms_server: Any) -> None:
    config = {"defaults": {"ttt_binding": "echo"}, "security": {"allowed_api_keys": [KEY]}}
    server = lollms_server(config, {"echo": {"type": "dummy_binding"}})
    async with connected(server.url, auth={"api_key": KEY}) as client:
        assert await client.answer("hello") == "hello"

        path = server.config_dir / "main_config.yaml"
        path.write_text(path.read_text().replace(KEY, "another-key-of-the-tests"))
        async with asyncio.timeout(30):
            revoked = False
            while not revoked:
                await asyncio.sleep(0.1)  # the file is looked at now and then
                listed = await client.ask("list_available_models", reply="available_models_list")
                revoked = "revoked" in listed.get("error", "")
        *_, last = await client.generate("hello")

    assert last[0] == "generation_error"
    assert "revoked" in last[1]["error"]


# --- pages ----------------------------------------------------------------------------------------------------


async def test_pages_of_allowed_origins_poll_and_others_do_not(
    guarded: ServerProcess, server: ServerProcess
) -> None:
    async with httpx.AsyncClient() as client:
        allowed = await client.get(polling_url(guarded.url), headers={"Origin": PAGE})
        preflight = await client.options(
            polling_url(guarded.url), headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        )
        told = await handshake(client, server.url)
        foreign = await client.get(polling_url(server.url), headers={"Origin": "http://foreign.example"})
        posted = await client.post(
            polling_url(server.url, f"&sid={told['sid']}"),
            content="40",
            headers={"Origin": "http://foreign.example"},
        )

    assert allowed.headers.get_list("access-control-allow-origin") == [PAGE]
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-origin" not in foreign.headers
    assert posted.status_code == 403
    with pytest.raises(InvalidStatus):
        await connect(websocket_url(server.url), origin="http://foreign.example")  # type: ignore[arg-type]


async def test_the_key_is_in_no_log(guarded: ServerProcess) -> None:
    async with connected(guarded.url, auth={"api_key": KEY}) as client:
        await client.answer("hello")

    assert KEY not in guarded.log()
