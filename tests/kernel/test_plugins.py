"""Plugins: each hook has a test named after it; broken ones are facts with a cure."""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import Function, Personality, PersonalityCard
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.gpu import NoLock
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import PluginSet, load_plugins
from lollms_kernel.types import Event, Finished, GenerateRequest, Message, TextDelta

CONFIG = "bindings_map: {one: dummy_binding, two: dummy_binding}\n"


def plugin(*hooks: Callable[..., Any]) -> types.ModuleType:
    module = types.ModuleType("a_plugin")
    for hook in hooks:
        setattr(module, hook.__name__, hookimpl(hook))
    return module


def kernel_with(tmp_path: Path, *plugins: object, config: str = CONFIG) -> LocalKernel:
    folder = tmp_path / "lollms_configs"
    folder.mkdir()
    (folder / "main_config.yaml").write_text(config)
    return LocalKernel(load_config(folder), load_plugins([(f"p{n}", p) for n, p in enumerate(plugins)]))


def ask(text: str = "hello", **fields: Any) -> GenerateRequest:
    return GenerateRequest(id="r", messages=(Message("user", text),), **fields)


async def answer(kernel: LocalKernel, request: GenerateRequest) -> str:
    async with kernel.stream(request) as chunks:
        return "".join([chunk.text async for chunk in chunks if isinstance(chunk, TextDelta)])


class Shouting(DummyBinding):
    type_name = "shouting_binding"


class Pirate(Personality):
    async def run(self, request: GenerateRequest, context: Any) -> Any:
        yield TextDelta("Arr! ")
        async for chunk in super().run(request, context):
            yield chunk


class Adder(Function):
    name = "sums.add"
    schema: dict[str, Any] = {}

    async def call(self, arguments: Any) -> Any:
        return arguments["a"] + arguments["b"]


async def test_register_bindings(tmp_path: Path) -> None:
    def register_bindings(register: Any) -> None:
        register(Shouting)

    config = "bindings_map: {loud: shouting_binding}\ndefaults: {ttt_binding: loud}\n"
    async with kernel_with(tmp_path, plugin(register_bindings), config=config) as kernel:
        assert await answer(kernel, ask("hi")) == "hi"


async def test_register_personalities(tmp_path: Path) -> None:
    def register_personalities(register: Any, config: Any) -> None:
        register(Pirate(PersonalityCard(id="pirate", name="Pirate")))

    async with kernel_with(tmp_path, plugin(register_personalities)) as kernel:
        assert await answer(kernel, ask("hi", personality="pirate", binding="one")) == "Arr! hi"
        assert kernel.find_personality("Pirate") is kernel.personalities["pirate"]


async def test_register_functions(tmp_path: Path) -> None:
    def register_functions(register: Any, config: Any) -> None:
        register(Adder())

    async with kernel_with(tmp_path, plugin(register_functions)) as kernel:
        assert await kernel.functions["sums.add"].call({"a": 1, "b": 2}) == 3


async def test_register_gpu_strategies(tmp_path: Path) -> None:
    class Mine(NoLock):
        name = "none"

    def register_gpu_strategies(register: Any) -> None:
        register(Mine)

    config = CONFIG + "resource_manager: {gpu_strategy: none}\n"
    async with kernel_with(tmp_path, plugin(register_gpu_strategies), config=config) as kernel:
        assert isinstance(kernel.gpu, Mine)


async def test_register_transports(tmp_path: Path) -> None:
    from lollms_kernel.contracts import Transport

    class Telegraph(Transport):
        name = "telegraph"

    def register_transports(register: Any) -> None:
        register(Telegraph)

    kernel = kernel_with(tmp_path, plugin(register_transports))
    assert any(isinstance(transport, Telegraph) for transport in kernel.build_transports())


def test_register_commands() -> None:
    import click

    def register_commands(cli: Any) -> None:
        cli.add_command(click.Command("wave"))

    plugins = load_plugins([("p", plugin(register_commands))])
    group = click.Group()
    assert [name for name, _ in plugins.call_each("register_commands", {"cli": group})]
    assert "wave" in group.commands


async def test_select_binding(tmp_path: Path) -> None:
    def select_binding(request: Any, bindings: Any) -> str | None:
        return "two" if "two" in request.prompt and "two" in bindings else None

    config = CONFIG + "defaults: {ttt_binding: one}\n"
    async with kernel_with(tmp_path, plugin(select_binding), config=config) as kernel:
        for prompt, expected in [("take two", "two"), ("take any", "one")]:
            async with kernel.stream(ask(prompt)) as chunks:
                last = [chunk async for chunk in chunks][-1]
            assert isinstance(last, Finished)
            assert last.metadata["binding"] == expected


async def test_lifespan(tmp_path: Path) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def life(kernel: Any) -> Any:
        seen.append("open")
        yield
        seen.append("closed")

    def lifespan(kernel: Any) -> Any:
        return life(kernel)

    async with kernel_with(tmp_path, plugin(lifespan)):
        assert seen == ["open"]
    assert seen == ["open", "closed"]


async def test_observe(tmp_path: Path) -> None:
    seen: list[Event] = []

    def observe(event: Any) -> None:
        seen.append(event)

    async with kernel_with(tmp_path, plugin(observe)) as kernel:
        await answer(kernel, ask("hi", binding="one"))
    assert [event.name for event in seen] == ["started", "finished"]
    assert seen[-1].data["binding"] == "one"
    assert seen[-1].data["usage"]["prompt_tokens"] == 2


def broken_at_import() -> object:
    raise ModuleNotFoundError("No module named 'left_pad'", name="left_pad")


def test_a_plugin_that_cannot_be_imported_is_listed_with_the_cure() -> None:
    plugins = PluginSet()
    plugins.add("bad", broken_at_import)
    status = plugins.status("bad")
    assert status.state == "broken"
    assert "left_pad" in (status.error or "")
    assert "pip install left_pad" in (status.hint or "")


def unknown_argument(register: Any, colour: Any) -> None: ...


async def asynchronous(register: Any) -> None: ...


@pytest.mark.parametrize(
    ("hook", "name", "says"),
    [
        (unknown_argument, "register_bindings", "colour"),
        (unknown_argument, "register_bicycles", "register_bicycles"),
        (asynchronous, "register_bindings", "async def"),
    ],
)
def test_a_hook_that_does_not_fit_is_listed_and_not_called(hook: Any, name: str, says: str) -> None:
    module = types.ModuleType("odd")
    function = types.FunctionType(hook.__code__, hook.__globals__, name)
    setattr(module, name, hookimpl(function))
    plugins = load_plugins([("odd", module)])
    status = plugins.status("odd")
    assert status.state == "broken"
    assert says in (status.error or "")
    assert plugins.status("lollms-kernel").state == "loaded"


async def test_a_hook_that_raises_does_not_stop_the_others(tmp_path: Path) -> None:
    def register_bindings(register: Any) -> None:
        raise RuntimeError("out of coffee")

    async with kernel_with(tmp_path, plugin(register_bindings)) as kernel:
        assert await answer(kernel, ask("hi", binding="one")) == "hi"
        assert "out of coffee" in (kernel.plugins.status("p0").error or "")


def test_only_the_chosen_plugins_are_loaded() -> None:
    plugins = load_plugins(environ={"LOLLMS_LOAD_PLUGINS": "missing-one"})
    assert plugins.status("lollms-kernel").state == "loaded"
    assert plugins.status("missing-one").error == "not installed"
    others = [p for p in plugins.plugins if p.name not in ("lollms-kernel", "missing-one")]
    assert all(plugin.state == "disabled" for plugin in others)


def test_hook_calls_are_traced_on_request(caplog: pytest.LogCaptureFixture) -> None:
    plugins = load_plugins(environ={"LOLLMS_LOAD_PLUGINS": "", "LOLLMS_TRACE_PLUGINS": "1"})
    plugins.manager.hook.register_gpu_strategies(register=lambda _: None)
    assert "hook register_gpu_strategies: lollms-kernel" in caplog.text
