"""Engines that were used tell their figures as events; those that rest are left alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import Binding, BindingContext
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.engine_figures import EngineFigures
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import Event, GenerateRequest, Message

LIMIT = 20.0


class Engine(DummyBinding):
    """A dummy that counts what it is asked for its figures."""

    type_name = "engine_binding"
    asked = 0
    broken = False
    pid: int | None = 1

    async def properties(self, model: str | None) -> dict[str, Any]:
        return {}

    async def engine_metrics(self, model: str | None) -> dict[str, float]:
        self.asked += 1
        if self.broken:
            raise RuntimeError("no figures today")
        return {"tokens_predicted_total": 3.0}


class Told:
    """The events of figures, and the moment when there is one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.came = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if event.name == "engine":
            self.events.append(event)
            self.came.set()


def engine(kind: type[Binding] = Engine, name: str = "fast") -> Any:
    settings = {"type": kind.type_name, "binding_instance_name": name}
    return kind(
        kind.Settings(**settings), BindingContext(models_folder=Path("models"), root=Path())
    )  # nothing of it is read


async def test_an_engine_that_was_used_is_told_once_however_often_it_was_used() -> None:
    told, binding = Told(), engine()
    figures = EngineFigures(told, interval=0.01)
    figures.open()

    for _ in range(5):
        figures.used(binding)
    async with asyncio.timeout(LIMIT):
        await told.came.wait()
    await figures.close()

    assert [event.data for event in told.events] == [{"instance": "fast", "tokens_predicted_total": 3.0}]
    assert binding.asked == 1


async def test_one_that_fails_or_has_ended_or_has_no_figures_keeps_no_other_from_being_told() -> None:
    told, broken, ended, good = Told(), engine(), engine(name="ended"), engine(name="good")
    broken.broken, ended.pid = True, None
    figures = EngineFigures(told, interval=0.01)
    figures.open()

    for binding in (broken, ended, engine(DummyBinding, "plain"), good):
        figures.used(binding)
    async with asyncio.timeout(LIMIT):
        await told.came.wait()
    await figures.close()

    assert [event.data["instance"] for event in told.events] == ["good"]
    assert ended.asked == 0


async def test_an_answer_of_the_kernel_is_followed_by_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lollms_kernel.engine_figures.INTERVAL", 0.0)
    told = Told()
    (tmp_path / "conf" / "bindings").mkdir(parents=True)
    (tmp_path / "conf" / "main_config.yaml").write_text("bindings_map: {fast: engine_binding}\n")
    (tmp_path / "conf" / "bindings" / "fast.yaml").write_text(
        "{type: engine_binding, binding_instance_name: fast}\n"
    )

    @hookimpl
    def register_bindings(register: Any) -> None:
        register(Engine)

    @hookimpl
    def observe(event: Event) -> None:
        told(event)

    plugin = SimpleNamespace(register_bindings=register_bindings, observe=observe)
    plugins = load_plugins([("engine", plugin)], environ={"LOLLMS_LOAD_PLUGINS": ""})
    request = GenerateRequest(id="1", binding="fast", messages=(Message("user", "hello"),))

    async with LocalKernel(load_config(tmp_path / "conf"), plugins) as kernel:
        async with kernel.stream(request) as stream:
            _ = [chunk async for chunk in stream]
        async with asyncio.timeout(LIMIT):
            await told.came.wait()

    assert told.events[0].data == {"instance": "fast", "tokens_predicted_total": 3.0}
