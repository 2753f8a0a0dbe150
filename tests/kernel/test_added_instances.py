"""Instances and ports that are added while the server runs, and a stop that does not come from a signal."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import ErrorAnswer, Listener, PortRules
from lollms_kernel.errors import BindingNotFound, BindingUnavailable, ConfigError, LollmsError, NotSupported
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.server import serve
from lollms_kernel.testing.server_process import free_port

from .test_reload import WatchedBinding, World, ask

WATCHED = {"type": "watched_binding", "reply": "added"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    WatchedBinding.log.clear()
    made = World(tmp_path)
    made.configure({"a": {}})
    return made


async def test_an_added_instance_answers_at_once(world: World) -> None:
    async with world.running() as kernel:
        status = await kernel.add_instance("extra", WATCHED)

        assert (status.name, status.type, status.state) == ("extra", "watched_binding", "ready")
        async with kernel.stream(ask("extra")) as chunks:
            assert "added" in "".join([getattr(chunk, "text", "") async for chunk in chunks])
        assert [one.name for one in kernel.instances()] == ["a", "extra"]
        await kernel.remove_instance("extra")
        assert [one.name for one in kernel.instances()] == ["a"]
    assert WatchedBinding.log == [("open", "extra"), ("close", "extra")]


async def test_it_stays_the_same_through_a_reload_and_is_closed_at_the_end(world: World) -> None:
    async with world.running() as kernel:
        await kernel.add_instance("extra", WATCHED)
        before = world.binding("extra")
        world.configure({"a": {}, "b": {}})

        changes = (await world.reload()).instances

        assert world.binding("extra") is before
        assert (changes.added, changes.untouched) == (("b",), ("a", "extra"))
        world.configure({"a": {}, "extra": {}})
        with pytest.raises(ConfigError, match="added while the server runs"):
            await world.reload()
        assert world.binding("extra") is before
    assert WatchedBinding.log[-1] == ("close", "extra")


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("a", WATCHED, "already"),
        ("x", {}, "no binding type"),
        ("x", {"type": "none_such"}, "no installed plugin"),
        ("x", {**WATCHED, "tempo": 1}, "tempo"),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    world: World, name: str, settings: dict[str, Any], error: str
) -> None:
    async with world.running() as kernel:
        with pytest.raises(ConfigError, match=error):
            await kernel.add_instance(name, settings)
        assert [one.name for one in kernel.instances()] == ["a"]


async def test_one_that_does_not_open_is_not_there(world: World) -> None:
    async with world.running() as kernel:
        with pytest.raises(BindingUnavailable, match="does not open"):
            await kernel.add_instance("x", {**WATCHED, "opens": False})
        assert [one.name for one in kernel.instances()] == ["a"]
        await kernel.add_instance("x", WATCHED)


async def test_only_what_was_added_can_be_removed(world: World) -> None:
    async with world.running() as kernel:
        for name in ("a", "nobody"):
            with pytest.raises(BindingNotFound, match="not added"):
                await kernel.remove_instance(name)


async def test_without_a_server_there_are_no_ports(world: World) -> None:
    async with world.running() as kernel:
        with pytest.raises(NotSupported):
            kernel.listen(Listener(free_port(), None))
        kernel.stop()


# --- with a server --------------------------------------------------------------------------------------------


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says hello."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def told(error: LollmsError, _path: str) -> ErrorAnswer:
    return ErrorAnswer(error.status, error.code.encode(), "text/plain")


async def test_a_port_is_served_behind_the_gate_while_inside_and_the_server_stops_when_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels: list[LocalKernel] = []
    enter = LocalKernel.__aenter__

    async def entering(kernel: LocalKernel) -> LocalKernel:
        kernels.append(kernel)
        return await enter(kernel)

    monkeypatch.setattr(LocalKernel, "__aenter__", entering)
    ready = asyncio.Event()
    plugins = load_plugins([], {"LOLLMS_LOAD_PLUGINS": ""})
    loaded = load_config(world.folder)
    serving = asyncio.create_task(serve(loaded, plugins, "127.0.0.1", free_port(), lambda _: ready.set()))
    await ready.wait()
    (kernel,) = kernels
    port = free_port()
    rules = PortRules(error_answer=told)

    async with kernel.listen(Listener(port, app, rules=rules)) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "hello"
        wrong = await client.get(url, headers={"host": "evil.example"})
        assert (wrong.status_code, wrong.text) == (400, "invalid_request")
        with pytest.raises(ConfigError, match="Cannot listen"):
            async with kernel.listen(Listener(port, app, rules=rules)):
                pass
        with pytest.raises(ConfigError, match="no API key is set"):
            async with kernel.listen(Listener(port, app, "0.0.0.0", rules=rules)):
                pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the port is closed"
    kernel.stop()
    async with asyncio.timeout(30):
        assert await serving == 0
