"""What a socket may use, what becomes of clients that take nothing, and of what no client library would send."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lollms_kernel.testing import ServerProcess

from .engineio_by_hand import event, handshake, joined, opened, polling_url, websocket_url
from .socketio_client import connected

LARGE = "x" * 2_500_000
"""A prompt of one word: the echo is one chunk."""

INSTANCES: dict[str, dict[str, Any]] = {
    "echo": {"type": "dummy_binding"},
    "slow": {"type": "dummy_binding", "chunks": ["word "] * 1000, "stream_chunk_delay": 0.02},
    "gpu": {"type": "dummy_binding", "requires_gpu": True},
    "pausing": {
        "type": "dummy_binding",
        "chunks": ["a", "b"],
        "stream_chunk_delay": 60,
        "requires_gpu": True,
    },
}
STRICT = {
    "max_message_size": 3_000_000,
    "events_per_second": 5,
    "event_burst": 20,
    "max_pending_packets": 8,
    "max_pending_bytes": 500_000,
    "slow_client_timeout": 1.0,
    "connect_timeout": 2.0,
    "max_connections": 6,
}


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    config = {"defaults": {"ttt_binding": "echo"}, "transports": {"socketio": STRICT}}
    with ServerProcess(config, INSTANCES) as server:
        yield server


async def closed(connection: ClientConnection) -> tuple[int, str]:
    """How the server ends the connection."""
    with pytest.raises(ConnectionClosed) as caught:
        async with asyncio.timeout(30):
            while True:
                await connection.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def is_fine(url: str) -> None:
    """Others are still served."""
    async with connected(url) as client:
        assert await client.answer("still here") == "still here"


async def logged(server: ServerProcess, words: str, times: int) -> None:
    """Wait until the log says so."""
    async with asyncio.timeout(30):
        while server.log().count(words) < times:  # noqa: ASYNC110 - a file tells nobody that it has grown
            await asyncio.sleep(0.1)


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


# --- rates and sizes --------------------------------------------------------------------------------------


async def test_events_beyond_the_rate_are_refused_and_much_beyond_end_the_connection(
    strict: ServerProcess,
) -> None:
    async with connected(strict.url) as client:
        for _ in range(30):
            await client.send("tokenize", {"prompt": "a"})
        await client.wait_for("tokenized", count=30)
        answers = [payload for name, payload in client.heard if name == "tokenized"]
        assert [answer for answer in answers[:15] if "error" in answer] == []
        assert "5 events a second" in answers[-1]["error"]

        for _ in range(150):
            await client.send("tokenize", {"prompt": "a"})
        async with asyncio.timeout(30):
            await client.gone.wait()
    await is_fine(strict.url)


async def test_cancelling_is_never_refused(strict: ServerProcess) -> None:
    async with connected(strict.url) as client:
        await client.ask("select_binding", {"binding_name": "slow"}, reply="select_binding")
        await client.send("generate_text", {"prompt": "go"})
        for _ in range(40):
            await client.send("tokenize", {"prompt": "a"})
        await client.wait_for("tokenized", count=40)

        assert await client.ask("cancel_generation", reply="generation_canceled")


async def test_a_message_that_is_too_large_ends_the_connection_and_says_so(strict: ServerProcess) -> None:
    async with joined(strict.url) as connection:
        await connection.send(event("generate_text", {"prompt": "a" * 3_100_000}))
        code, reason = await closed(connection)
    assert code == 1009
    assert "at most 3000000 are allowed" in reason

    async with httpx.AsyncClient() as client:
        told = await handshake(client, strict.url)
        assert told["maxPayload"] == 3_000_000
        url = polling_url(strict.url, f"&sid={told['sid']}")
        sized = await client.post(url, content="4" + "a" * 3_100_000)
        chunked = await client.post(url, content=pieces(3_100_000))
    assert sized.status_code == chunked.status_code == 413
    await is_fine(strict.url)


async def pieces(size: int) -> Any:
    for _ in range(size // 10_000):
        yield b"4" * 10_000


async def test_connections_are_bounded(strict: ServerProcess) -> None:
    async with asyncio.timeout(30):
        connections = []
        with pytest.raises(InvalidStatus) as caught:
            while True:
                connections.append(await connect(websocket_url(strict.url)))
        async with httpx.AsyncClient() as client:
            polled = await client.get(polling_url(strict.url))
        for connection in connections:
            await connection.close()

    assert len(connections) <= 6
    assert caught.value.response.status_code == polled.status_code == 503
    assert polled.headers["retry-after"] == "10"
    assert "max_connections" in polled.json()["message"]


# --- clients that take nothing ----------------------------------------------------------------------------


FLOOD = [
    event("select_binding", {"binding_name": "gpu"}),
    *[event("generate_text", {"prompt": LARGE}) for _ in range(5)],
]


def deaf(url: str) -> socket.socket:
    """A client on a bare socket that asks for a flood and never reads what comes."""
    host, port = url.removeprefix("http://").split(":")
    opened = socket.create_connection((host, int(port)), timeout=30)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    told = b""
    while b"pingInterval" not in told:
        told += opened.recv(4096)
    for packet in ("40", *FLOOD):
        data = packet.encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xff" + len(data).to_bytes(8, "big")
        opened.sendall(b"\x81" + size + bytes(4) + data)  # masked with zeros
    return opened


async def test_a_client_that_takes_nothing_is_dropped_and_its_work_stops(strict: ServerProcess) -> None:
    before = resident_mib(strict.pid)
    with deaf(strict.url):
        async with connected(strict.url) as other:
            await other.ask("select_binding", {"binding_name": "gpu"}, reply="select_binding")
            assert await other.answer("my turn") == "my turn", "the flood kept the GPU"
        await logged(strict, "The client has taken nothing for 1 s.", 1)
        used = resident_mib(strict.pid) - before
    assert used < 100, f"{used:.0f} MiB for a client that takes nothing"


async def test_a_polling_client_that_stops_polling_is_dropped_too(strict: ServerProcess) -> None:
    before = strict.log().count("The client has taken nothing")
    async with httpx.AsyncClient() as client:
        told = await handshake(client, strict.url)
        url = polling_url(strict.url, f"&sid={told['sid']}")
        for packet in ("40", *FLOOD):
            await client.post(url, content=packet)
        async with connected(strict.url) as other:
            await other.ask("select_binding", {"binding_name": "gpu"}, reply="select_binding")
            assert await other.answer("my turn") == "my turn"
        await logged(strict, "The client has taken nothing", before + 1)
        async with asyncio.timeout(30):
            while (gone := await client.get(url)).status_code == 200:  # what still waited for it
                pass

    assert gone.status_code == 400


async def test_a_polling_client_that_goes_away_stops_its_work_at_once(strict: ServerProcess) -> None:
    async with httpx.AsyncClient() as client:
        told = await handshake(client, strict.url)
        url = polling_url(strict.url, f"&sid={told['sid']}")
        asked = [
            event("select_binding", {"binding_name": "pausing"}),
            event("generate_text", {"prompt": "go"}),
        ]
        await client.post(url, content="\x1e".join(["40", *asked]))
        heard = ""
        while "text_chunk" not in heard:
            heard = (await client.get(url)).text
        poll = asyncio.create_task(client.get(url))
        async with connected(strict.url) as other:
            await other.ask("select_binding", {"binding_name": "gpu"}, reply="select_binding")
            await other.send("generate_text", {"prompt": "my turn"})
            await other.ask("tokenize", {"prompt": "a"}, reply="tokenized")
            assert "text_chunk" not in [name for name, _ in other.heard]
            poll.cancel()
            assert await other.wait_for("text_generated") == {"text": "my turn"}


# --- what no client library would send --------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    ["", "x", "9", "0{}", "6", "{", "\x00"],
)
async def test_what_is_no_engine_io_ends_the_connection(strict: ServerProcess, packet: str) -> None:
    async with opened(strict.url) as connection:
        await connection.send(packet)
        assert (await closed(connection))[0] == 1002


@pytest.mark.parametrize(
    "packet",
    [
        "4",
        "4x",
        "42",
        "42{}",
        "42[]",
        "42[5]",
        '42["a"',
        "42" + "[" * 5000,
        '451-["a",{"_placeholder":true,"num":0}]',
        '459999999999-["a"]',
        "43[]",
        "431[]",
        "44{}",
        "48",
        '42/elsewhere,["a"]' + "x",
        "42" + "1" * 200 + '["a"]',
        b"binary",
        b"2",
    ],
)
async def test_malformed_packets_end_the_connection_that_sent_them(
    strict: ServerProcess, packet: str | bytes
) -> None:
    async with joined(strict.url) as connection:
        await connection.send(packet)
        code, _ = await closed(connection)
    assert code in (1002, 1008)


@pytest.mark.parametrize("joining", ["40", "40{}", ""])
async def test_nothing_counts_after_the_farewell(strict: ServerProcess, joining: str) -> None:
    async with opened(strict.url) as connection:
        ghost = event("generate_text", {"prompt": "I am a ghost"})
        for packet in filter(None, [joining, "1", "40", ghost]):
            await connection.send(packet)
        heard = [str(packet) async for packet in connection]
    assert connection.close_code == 1000
    assert not [packet for packet in heard if packet.startswith("42") and "ghost" in packet]


async def test_nothing_counts_after_the_farewell_of_a_polling_client(strict: ServerProcess) -> None:
    async with httpx.AsyncClient() as client:
        told = await handshake(client, strict.url)
        url = polling_url(strict.url, f"&sid={told['sid']}")
        poll = asyncio.create_task(client.get(url))
        assert (await client.post(url, content=b"1\x1e40")).status_code == 200
        assert (await client.post(url, content=b"40")).status_code == 400
        async with asyncio.timeout(5):
            await poll
        assert (await client.get(url)).status_code == 400


async def test_posts_that_make_no_sense_are_refused(strict: ServerProcess) -> None:
    async with httpx.AsyncClient() as client:
        told = await handshake(client, strict.url)
        url = polling_url(strict.url, f"&sid={told['sid']}")
        for body in (b"", b"x", b"\xff\xfe", b"4\xff", b"40\x1e", b"\x1e".join([b"2"] * 2000)):
            response = await client.post(url, content=body)
            assert response.status_code == 400, body
        assert (await client.get(polling_url(strict.url, "&j=0"))).status_code == 400
        old = await client.get(f"{strict.url}/socket.io/?EIO=3&transport=polling")
        assert old.status_code == 400
        assert "unsupported version" in old.text
        assert (await client.get(polling_url(strict.url, "&sid=nobody"))).status_code == 400
        assert (await client.put(url, content=b"40")).status_code in (400, 405)


@given(st.text(max_size=60))
@example("1")  # a farewell, and more after it
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_sent_breaks_the_server(strict: ServerProcess, text: str) -> None:
    async def send() -> None:
        async with opened(strict.url) as connection:
            try:
                for prefix in ("", "4", "42", '42["generate_text",', "40"):
                    await connection.send(prefix + text)
            except ConnectionClosed:
                return

    asyncio.run(send())


async def test_after_all_this_the_server_is_fine_and_its_log_has_no_traceback(strict: ServerProcess) -> None:
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while True:
            try:
                await is_fine(strict.url)
                break
            except Exception:  # its few places may be taken until the last test's connections are gone
                await asyncio.sleep(0.2)

    _, traceback, story = strict.log().partition("Traceback")
    assert not traceback, story[:3000]


# --- the end ----------------------------------------------------------------------------------------------


async def test_a_server_that_stops_tells_its_sockets_and_does_not_wait_for_them(lollms_server: Any) -> None:
    config = {"defaults": {"ttt_binding": "slow"}, "server": {"shutdown_grace": 0.5}}
    server = lollms_server(config, INSTANCES)
    async with (
        connected(server.url) as answering,
        connected(server.url, transports=["polling"]) as idle,
        connected(server.url, transports=["polling"]) as polling,
    ):
        for client in (answering, polling):
            await client.send("generate_text", {"prompt": "go"})
            await client.wait_for("text_chunk")
        started = asyncio.get_running_loop().time()
        code = await asyncio.to_thread(server.stop, signal.SIGTERM)
        took = asyncio.get_running_loop().time() - started
        for client in (answering, idle, polling):
            async with asyncio.timeout(20):
                await client.gone.wait()

    assert code == 0
    assert took < 10
    for client in (answering, polling):
        name, payload = client.heard[-1]
        assert name == "generation_error"
        assert "stopping" in payload["error"]
    assert "Traceback" not in server.log()
