"""A kernel takes another configuration: what stays the same object, what is proved first, what is closed when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import Binding, BindingCard, Register
from lollms_kernel.dummy import DummyBinding, DummySettings
from lollms_kernel.errors import BindingUnavailable, ConfigError, LollmsError
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import Event, Failed, Finished, GenerateRequest, Message

SLOW = {"chunks": ["a"] * 200, "stream_chunk_delay": 0.01}
LIMIT = 20.0


class WatchedSettings(DummySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    opens: bool = True


class WatchedBinding(DummyBinding):
    """Notes what is done to it, and opens only if its settings say so."""

    type_name = "watched_binding"
    card = BindingCard(display_name="W", version="1", author="t", description="")
    Settings = WatchedSettings
    log: ClassVar[list[tuple[str, str]]] = []

    settings: WatchedSettings

    async def open(self) -> None:
        self.log.append(("open", self.name))
        if not self.settings.opens:
            raise BindingUnavailable("It does not open.", hint="Set opens.")

    async def close(self) -> None:
        self.log.append(("close", self.name))


class World:
    """A configuration folder and the kernel that runs with it."""

    kernel: LocalKernel

    def __init__(self, root: Path) -> None:
        self.folder = root / "lollms_configs"
        (self.folder / "bindings").mkdir(parents=True)

    def configure(self, instances: dict[str, dict[str, Any]], **main: Any) -> None:
        """Write the files."""
        for name, settings in instances.items():
            (self.folder / "bindings" / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        types = {name: settings.get("type", "dummy_binding") for name, settings in instances.items()}
        (self.folder / "main_config.yaml").write_text(yaml.safe_dump({"bindings_map": types, **main}))

    async def reload(self, grace: float = LIMIT) -> Any:
        """Let the kernel take what the files say."""
        return await self.kernel.reload(load_config(self.folder), grace)

    def binding(self, name: str) -> Binding:
        return self.kernel.binding(name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LocalKernel]:
        """The open kernel."""

        @hookimpl
        def register_bindings(register: Register) -> None:
            register(WatchedBinding)

        plugin = SimpleNamespace(register_bindings=register_bindings)
        plugins = load_plugins([("watched", plugin)], {"LOLLMS_LOAD_PLUGINS": ""})
        async with LocalKernel(load_config(self.folder), plugins) as self.kernel:
            yield self.kernel


@pytest.fixture
def world(tmp_path: Path) -> World:
    WatchedBinding.log.clear()
    return World(tmp_path)


def ask(binding: str | None = None) -> GenerateRequest:
    return GenerateRequest(id="r", messages=(Message("user", "hi"),), binding=binding)


async def test_given_a_change_when_reloaded_then_what_it_does_not_concern_is_the_same_object(
    world: World,
) -> None:
    world.configure({"a": {}, "b": {"type": "watched_binding"}, "c": {}})
    async with world.running():
        a, b, c = (world.binding(name) for name in "abc")
        world.configure({"a": {}, "b": {"type": "watched_binding"}, "c": {"reply": "x"}, "d": {}})
        reloaded = await world.reload()

        assert world.binding("a") is a
        assert world.binding("b") is b
        assert world.binding("c") is not c
        changes = reloaded.instances
        assert (changes.added, changes.changed, changes.untouched) == (("d",), ("c",), ("a", "b"))
        assert WatchedBinding.log == [("open", "b")]


async def test_given_the_same_files_when_reloaded_then_nothing_is_touched(world: World) -> None:
    world.configure({"a": {}, "b": {"isolation": "process"}}, defaults={"ttt_binding": "a"})
    async with world.running():
        before = [world.binding(name) for name in "ab"]

        reloaded = await world.reload()

        assert [world.binding(name) for name in "ab"] == before
        assert reloaded.instances.untouched == ("a", "b")


async def test_given_other_defaults_when_reloaded_then_the_next_request_uses_them(world: World) -> None:
    world.configure({"a": {"reply": "A"}, "b": {"reply": "B"}}, defaults={"ttt_binding": "a"})
    async with world.running() as kernel:
        world.configure({"a": {"reply": "A"}, "b": {"reply": "B"}}, defaults={"ttt_binding": "b"})
        reloaded = await world.reload()

        async with kernel.stream(ask()) as chunks:
            last = [chunk async for chunk in chunks][-1]
        assert isinstance(last, Finished)
        assert last.metadata["binding"] == "b"
        assert reloaded.instances.untouched == ("a", "b")


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "watched_binding", "opens": False},
        {"type": "watched_binding", "speed": 1},
        {"type": "no_such_binding"},
        {"type": "dummy_binding", "binding_instance_name": "another"},
    ],
)
@pytest.mark.parametrize("name", ["b", "new"])
async def test_given_one_that_cannot_serve_when_reloaded_then_nothing_at_all_changes(
    world: World, broken: dict[str, Any], name: str
) -> None:
    before: dict[str, dict[str, Any]] = {"a": {}, "b": {"type": "watched_binding"}}
    world.configure(before)
    async with world.running() as kernel:
        objects = [world.binding("a"), world.binding("b")]
        world.configure({**before, "a": {"reply": "x"}, "c": {"type": "watched_binding"}, name: broken})

        with pytest.raises(LollmsError):
            await world.reload()

        assert [world.binding("a"), world.binding("b")] == objects
        assert {status.name: status.state for status in kernel.instances()} == {"a": "ready", "b": "ready"}
        opened = [entry for entry in WatchedBinding.log if entry[0] == "open"][1:]
        assert [("close", who) for _, who in opened] == [e for e in WatchedBinding.log if e[0] == "close"]


async def test_given_a_broken_one_from_the_start_when_others_change_then_it_is_tried_again_and_hinders_nothing(
    world: World,
) -> None:
    world.configure({"bad": {"type": "watched_binding", "opens": False}, "worse": {"tempo": 1}, "a": {}})
    async with world.running() as kernel:
        world.configure(
            {"bad": {"type": "watched_binding", "opens": False}, "worse": {"tempo": 1}, "a": {"reply": "x"}}
        )
        reloaded = await world.reload()

        assert reloaded.instances.changed == ("a",)
        assert set(reloaded.instances.retried) == {"bad", "worse"}
        assert {status.name for status in kernel.instances()} == {"a", "bad", "worse"}


async def test_given_a_running_answer_when_its_instance_goes_then_it_is_closed_after_the_end(
    world: World,
) -> None:
    world.configure({"a": SLOW, "b": {}})
    async with world.running() as kernel:
        old = kernel.instance("a")
        async with kernel.stream(ask("a")) as chunks:
            world.configure({"b": {}})
            await world.reload()
            with pytest.raises(LollmsError, match="not found"):
                kernel.instance("a")
            rest = [chunk async for chunk in chunks]

        assert isinstance(rest[-1], Finished)
        assert old.binding is not None


async def test_given_no_grace_when_its_instance_goes_then_the_answer_ends_with_the_reason(
    world: World,
) -> None:
    world.configure({"a": SLOW, "b": {}})
    async with world.running() as kernel, asyncio.timeout(LIMIT):
        async with kernel.stream(ask("a")) as chunks:
            world.configure({"b": {}})
            await world.reload(grace=0)
            rest = [chunk async for chunk in chunks]

        assert isinstance(rest[-1], Failed)
        assert "changed or removed" in rest[-1].message


async def test_given_sections_that_need_a_restart_when_reloaded_then_they_are_named_and_not_used(
    world: World,
) -> None:
    world.configure({"a": {}})
    async with world.running() as kernel:
        world.configure({"a": {}}, server={"port": 9999}, resource_manager={"queue_timeout": 1})

        assert set((await world.reload()).needs_restart) == {"server.port", "resource_manager.queue_timeout"}
        assert kernel.config.server.port == 9601


def _listener(events: list[Event]) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        events.append(event)

    return observe


async def test_given_an_update_when_observed_then_the_event_names_what_changed(world: World) -> None:
    world.configure({"a": {}})
    events: list[Event] = []
    async with world.running() as kernel:
        kernel.plugins.add("listener", lambda: SimpleNamespace(observe=hookimpl(_listener(events))))
        world.configure({"a": {}, "b": {}})
        await world.reload()

    assert [(event.name, list(event.data["added"])) for event in events if event.name == "reloaded"] == [
        ("reloaded", ["b"])
    ]


async def test_given_a_broken_main_file_when_reloaded_then_it_is_refused_before_anything(
    world: World,
) -> None:
    world.configure({"a": {}})
    async with world.running():
        a = world.binding("a")
        (world.folder / "main_config.yaml").write_text(
            "bindings_map: {a: dummy_binding}\ndefaults: {ttt_binding: x}"
        )

        with pytest.raises(ConfigError):
            await world.reload()

        assert world.binding("a") is a
