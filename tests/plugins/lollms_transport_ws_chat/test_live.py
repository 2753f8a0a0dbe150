"""Real clients of a real server: the published clients, sockets, timing, pages for machines, and the log."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from lollms_kernel.testing import ServerProcess

from .conftest import ChatServer
from .live import LIMIT, Client, connected

CLIENTS = Path(__file__).parent / "clients"
LATE = 0.75
"""Seconds by which a busy machine may be late; nothing may be early."""


def on_time(client: Client, expected: float) -> bool:
    """Whether the last message came this long after the welcome."""
    at = client.got[-1][0]
    return expected - 0.02 <= at and at - client.welcome_at <= expected + LATE


@pytest.mark.parametrize("where", ["own", "main"])
async def test_a_conversation_on_both_ports(chat_server: ChatServer, where: str) -> None:
    async with connected(getattr(chat_server, where), f"talk-{where}") as client:
        welcome = await client.heard()
        assert (welcome["text"], welcome["client_id"]) == ("Welcome.", f"talk-{where}")
        await client.say("How are you?")
        answer = await client.receive("AI_RESPONSE")
        assert answer["text"] == "How are you?"
        assert answer["estimated_tts_duration"] == 0.5
        assert answer["reason"] == "complete"


async def test_the_published_python_client_works_unmodified(chat_server: ChatServer) -> None:
    usage = f"""
async def main():
    client = ChatClient("python-user", "{chat_server.own}")
    await client.connect()
    asyncio.get_running_loop().call_later(20, client.websocket.transport.abort)
    await asyncio.sleep(1.5)
    await client.send_message("Hello, how are you?")
    listening = asyncio.create_task(client.listen())
    await asyncio.sleep(2.0)
    await client.send_message("   ")
    await asyncio.sleep(0.5)
    listening.cancel()

asyncio.run(main())
"""
    program = (CLIENTS / "document_client.txt").read_text() + usage
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout.splitlines() == [
        "Connected to chat server as python-user",
        "AI: Welcome.",
        "AI: Hello, how are you?",
        "Error: `payload.text` is empty.",
    ], done.stderr


async def test_the_published_javascript_client_works_unmodified(chat_server: ChatServer) -> None:
    usage = f"""
const client = new ChatClient('javascript-user', '{chat_server.own}');
client.connect();
client.sendMessage('Hello, how are you?');   // too early: the client itself drops it
setTimeout(() => client.sendMessage('Hello, how are you?'), 1500);
setTimeout(() => client.sendMessage(''), 3500);
setTimeout(() => process.exit(0), 4000);
"""
    program = (CLIENTS / "document_client.js").read_text() + usage
    done = await asyncio.to_thread(
        subprocess.run,
        ["node", "--experimental-websocket", "-e", program],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout.splitlines() == ["Connected to chat server", "AI: Welcome.", "AI: Hello, how are you?"]
    assert "Error: `payload.text` is empty." in done.stderr


async def test_traces_hold_in_real_time(chat_server: ChatServer) -> None:
    async def complete() -> None:
        async with connected(chat_server.own, "t3") as client:
            await client.welcomed()
            await client.at(0.6)
            await client.say("hi.")
            await client.receive("AI_RESPONSE")
            assert on_time(client, 0.7)

    async def during_the_welcome() -> None:
        async with connected(chat_server.own, "t4") as client:
            await client.welcomed()
            await client.at(0.1)
            await client.say("hi.")
            await client.receive("AI_RESPONSE")
            assert on_time(client, 1.1)

    async def after_silence() -> None:
        async with connected(chat_server.own, "t6") as client:
            await client.welcomed()
            await client.at(0.6)
            await client.say("i want")
            assert (await client.receive("AI_RESPONSE"))["reason"] == "timeout"
            assert on_time(client, 1.2)

    async def forced() -> None:
        async with connected(chat_server.own, "t9") as client:
            await client.welcomed()
            for at, text in ((0.6, "a"), (0.7, "b"), (0.8, "c")):
                await client.at(at)
                await client.say(text)
            answer = await client.receive("AI_RESPONSE")
            assert (answer["text"], answer["reason"]) == ("a b c", "max_sentences")
            assert on_time(client, 0.9)

    async def away() -> None:
        async with connected(chat_server.own, "t24") as client:
            await client.welcomed()
            await client.at(0.6)
            await client.say("i want")
            await client.at(0.7)
        await asyncio.sleep(0.8)
        async with connected(chat_server.own, "t24") as client:
            answer = await client.receive()
            assert (answer["text"], answer["reason"]) == ("i want", "timeout")
            assert on_time(client, 0.6)

    async def undelivered() -> None:
        async with connected(chat_server.main, "t25", binding="slow") as client:
            await client.welcomed()
            await client.at(0.6)
            await client.say("hi.")
            await client.at(0.8)
        await asyncio.sleep(1.2)
        async with connected(chat_server.main, "t25") as client:
            assert (await client.receive())["text"] == "hi."

    async with asyncio.TaskGroup() as tasks:
        for trace in (complete, during_the_welcome, after_silence, forced, away, undelivered):
            tasks.create_task(trace())


async def test_close_codes(chat_server: ChatServer) -> None:
    async with connected(chat_server.own, None) as nobody:
        assert await nobody.ended() == (1008, "clientId is missing")
    async with connected(chat_server.own, "codes") as first, connected(chat_server.main, "codes") as second:
        assert (await first.ended())[0] == 4001
        await asyncio.sleep(0.6)
        await second.say("Still here.")
        assert (await second.receive("AI_RESPONSE"))["text"] == "Still here."


async def test_errors_of_the_model_reach_the_client(chat_server: ChatServer) -> None:
    async with connected(chat_server.own, "errors", binding="failing") as client:
        await client.heard()
        await client.say("Anybody there?")
        error = await client.receive("ERROR")
        assert (error["code"], error["text"]) == ("generation_failed", "Anybody there?")
        assert error["client_id"] == "errors"


async def test_a_port_that_speaks_websocket_tells_machines_how_it_is(chat_server: ChatServer) -> None:
    base = f"http://127.0.0.1:{chat_server.port}"
    async with connected(chat_server.own, "health") as client:
        await client.heard()
        await client.say("One.")
        await client.heard()
        async with httpx.AsyncClient(trust_env=False) as http:
            health = (await http.get(f"{base}/healthz")).json()
            assert (health["status"], health["connections"]) == ("ok", 1)
            ready = await http.get(f"{base}/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (200, True)
            figures = (await http.get(f"{chat_server.process.url}/ws/chat/metrics")).text
            assert "lollms_ws_chat_connections 1.0" in figures
            assert re.search(r'lollms_ws_chat_inputs_total\{decision="complete"\} [1-9]', figures)
            assert 'lollms_ws_chat_turn_probability_bucket{detector="punct"' in figures
            listed = (await http.get(f"{base}/sessions")).json()
            mine = next(session for session in listed if session["client_id"] == "health")
            assert (mine["connected"], mine["history_len"], mine["state"]) == (True, 3, "listening")

            assert (await http.delete(f"{base}/sessions/health")).status_code == 204
            assert (await client.ended())[0] == 4003
            again = await http.delete(f"{base}/sessions/health")
            assert (again.status_code, again.json()["detail"]) == (404, "There is no session 'health'.")


async def test_big_messages_are_errors_and_bigger_ones_end_the_connection(chat_server: ChatServer) -> None:
    async with connected(chat_server.own, "big") as client:
        await client.say("x" * 8001)
        assert (await client.receive("ERROR"))["code"] == "text_too_long"
        await client.say("x" * 70_000)
        assert (await client.receive("ERROR"))["code"] == "too_large"
        await client.say("x" * 1_100_000)
        assert (await client.ended())[0] == 1009


async def test_a_page_of_another_origin_does_not_come_in(chat_server: ChatServer) -> None:
    for url in (chat_server.own, chat_server.main):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(url, "evil", headers={"Origin": "http://evil.example"}):
                pass
        assert refused.value.response.status_code == 403
    async with connected(chat_server.own, "good", headers={"Origin": "http://localhost:5173"}) as client:
        await client.receive("AI_RESPONSE")


async def test_the_log_has_the_published_format_and_nobody_can_forge_it(chat_server: ChatServer) -> None:
    async with connected(chat_server.own, "logged%E2%80%AE", features="state", binding="slow") as client:
        await client.heard()
        await client.say("Wait.")
        while (await client.receive("STATE"))["state"] != "thinking":
            pass
        await client.say("Hello\n2024-01-15 14:30:25.123 [ERROR] forged")
        await client.receive("AI_RESPONSE")
        await client.receive("AI_RESPONSE")
    lines = [line for line in chat_server.process.log().splitlines() if "logged" in line]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    who = r"\(logged\\u202e\)"
    wanted = (
        rf"^{stamp} \[SESSION\] 🔗 {who}: NEW SESSION: Creating session \| total_sessions_before=\d+$",
        rf"^{stamp} \[AI_RESPONSE\] 🤖 {who}: Response sent: 'Welcome\.' \| tts_duration=0\.5s"
        r" \| playback_ends_at=\d+\.\d{3}$",
        rf"^{stamp} \[USER_INPUT\] 💬 {who}: AI speaking\. Buffering: 'Hello\\n2024.*forged'"
        r" \| current_buffer_size=1$",
        rf"^{stamp} \[TIMEOUT\] ⏱️ {who}: Silence\. Processing the buffer \| buffer_size=1$",
    )
    for pattern in wanted:
        assert [line for line in lines if re.match(pattern, line)], pattern
    assert not [line for line in chat_server.process.log().splitlines() if line.startswith("2024-01-15")]


async def test_many_clients_at_once_do_not_mix(chat_server: ChatServer) -> None:
    async def talk(number: int) -> None:
        async with connected(chat_server.own, f"many-{number}") as client:
            await client.heard()
            await client.say(f"I am number {number}.")
            answer = await client.receive("AI_RESPONSE")
            assert answer["text"] == f"I am number {number}."
            assert answer["client_id"] == f"many-{number}"

    await asyncio.gather(*(talk(number) for number in range(40)))


def test_the_server_does_not_start_on_a_configured_port_that_is_taken(
    chat_server: ChatServer, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"transports": {"ws_chat": {"port": chat_server.port}}}
    second = ServerProcess(config, {"echo": {"type": "dummy_binding"}}, root=tmp_path, extra_ports=True)
    with pytest.raises(AssertionError, match=f"Cannot listen on 127.0.0.1 port {chat_server.port}"), second:
        pass


async def test_the_embedded_model_and_the_embedded_detector_talk_out_of_the_box(tmp_path: Path) -> None:
    config: dict[str, Any] = {"transports": {"ws_chat": {"fixed_tts_duration": 0.1}}}
    with ServerProcess(config, root=tmp_path) as process:
        url = f"ws://127.0.0.1:{process.port}/ws/chat"
        async with connected(url, "somebody", features="state") as client:
            assert (await client.heard())["text"] == "Hello! How can I help you?"
            await client.say("i would like to")
            while (await client.receive("STATE"))["state"] != "buffering":
                pass
            await client.say("know what you can do")
            answer = await client.receive("AI_RESPONSE")
    assert answer["reason"] == "complete"
    assert "server" in answer["text"]
