"""A server that stops and comes back: files, Redis, answers in the making, and what is stored how."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.errors import ConfigError
from lollms_transport_ws_chat.events import Line, Outgoing
from lollms_transport_ws_chat.settings import WsChatSettings
from lollms_transport_ws_chat.snapshot import FORMAT, Snapshot
from lollms_transport_ws_chat.storage import SessionKey, opened

from .conftest import ChatServer
from .live import connected

SNAPSHOT = Snapshot(
    format=FORMAT,
    client_id="u",
    number="n",
    begun=True,
    replies=3,
    history=[Line("user", "héllo", "n-1")],
    buffer=["more"],
    undelivered=[Outgoing("AI_RESPONSE", {"text": "x"})],
    expires_at=5.0,
)


def settings(**fields: Any) -> WsChatSettings:
    return WsChatSettings(**fields)


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_a_session_goes_on_after_a_restart(tmp_path: Path, redis_url: str, kind: str) -> None:
    store = "file" if kind == "file" else redis_url
    config = {"server": {"shutdown_grace": 0.5}}
    server = ChatServer.make({"store": store, "max_response_timeout": 0.3}, config=config, root=tmp_path)
    with server.process:
        async with (
            connected(server.own, "calm") as calm,
            connected(server.main, "busy", binding="slow") as busy,
        ):
            await calm.heard()
            await busy.heard()
            await calm.say("First.")
            await calm.receive()
            await busy.say("Will you answer?")
            await asyncio.sleep(0.2)
            os.kill(server.process.pid, signal.SIGTERM)
            assert await calm.ended() == (1001, "The server is stopping.")
            assert (await busy.ended())[0] == 1001
        assert await asyncio.to_thread(server.process.stop) == 0
    with server.process:
        async with connected(server.own, "calm") as calm, connected(server.own, "busy") as busy:
            answer = await busy.receive()
            assert (answer["text"], answer["reason"]) == ("Will you answer?", "timeout")
            await calm.say("Second.")
            answer = await calm.receive()
            assert answer["text"] == "Second."
            assert (
                int(answer["response_id"].rpartition("-")[2]) == 3
            )  # after the welcome and the first answer


async def test_a_killed_server_asks_again_what_it_was_asked(tmp_path: Path) -> None:
    server = ChatServer.make({"max_response_timeout": 0.3}, root=tmp_path)
    with server.process:
        async with connected(server.own, "u", binding="slow") as client:
            await client.heard()
            await client.say("Will you answer?")
            await asyncio.sleep(0.6)
            os.kill(server.process.pid, signal.SIGKILL)
    with server.process:
        async with connected(server.own, "u") as client:
            assert (await client.receive())["text"] == "Will you answer?"


async def test_files_belong_to_the_user_alone_and_old_ones_go(tmp_path: Path) -> None:
    async with opened(settings(store_folder="a/b"), tmp_path) as storage:
        key = SessionKey("tenant", "u")
        assert await storage.load(key) is None
        await storage.save(key, SNAPSHOT, 100)
        assert await storage.load(key) == SNAPSHOT
        assert await storage.load(SessionKey("other", "u")) is None
        files = list((tmp_path / "a" / "b").iterdir())
        assert len(files) == 1
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700

        await storage.save(SessionKey("tenant", "short"), SNAPSHOT, 0.5)
        (tmp_path / "a" / "b" / ".x.part").write_bytes(b"half")
        (tmp_path / "a" / "b" / "strange").write_bytes(b"half")
        await asyncio.sleep(1.1)
        await storage.tidy()
        assert len(list((tmp_path / "a" / "b").iterdir())) == 3

        files[0].write_bytes(files[0].read_bytes()[:-20])
        assert await storage.load(key) is None  # half a file is no session
        await storage.delete(key)
        assert await storage.load(key) is None


async def test_a_folder_that_cannot_be_written_is_no_silence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with opened(settings(store_folder="file/below"), tmp_path) as storage:
        with pytest.raises(OSError, match="file"):
            await storage.save(SessionKey("", "u"), SNAPSHOT, 100)
        await storage.tidy()


async def test_redis_keeps_sessions_for_their_time(redis_url: str, tmp_path: Path) -> None:
    async with opened(settings(store=redis_url), tmp_path) as storage:
        key = SessionKey("tenant", "kept")
        await storage.save(key, SNAPSHOT, 100)
        assert await storage.load(key) == SNAPSHOT
        await storage.tidy()
        await storage.delete(key)
        assert await storage.load(key) is None


async def test_a_redis_that_does_not_answer_is_told_with_the_cure(tmp_path: Path) -> None:
    url = "redis://:password-of-redis@127.0.0.1:1/0"
    with pytest.raises(ConfigError) as wrong:
        async with opened(settings(store=url), tmp_path):
            pass
    assert "does not answer" in str(wrong.value)
    assert "store: file" in str(wrong.value.hint)
    assert "password-of-redis" not in str(wrong.value)
