"""The life cycle of a model state by state, with an engine whose memory the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from sqlite3 import Connection
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import BindingCard, Register
from lollms_kernel.downloads import Wanted
from lollms_kernel.dummy import DummyBinding, DummySettings
from lollms_kernel.errors import ModelLoadFailed
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.testing.fakes.hub import FakeHub
from lollms_transport_wingman.active import Active
from lollms_transport_wingman.control.home import Home
from lollms_transport_wingman.control.inference import Inference
from lollms_transport_wingman.control.loading import Loader, context_bytes, fewer_layers
from lollms_transport_wingman.control.objects import ItemStatus, WingmanItem

from .conftest import FILE, LIMIT, REPO


class EngineSettings(DummySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    n_ctx: int = 0
    n_gpu_layers: int = -1
    chat_template: str | None = None


class Engine(DummyBinding):
    """Loads if at most `room` layers go to the GPU; notes what it was asked."""

    type_name = "llamacpp_binding"
    card = BindingCard(display_name="E", version="1", author="t", description="")
    Settings = EngineSettings
    settings: EngineSettings
    room: ClassVar[int] = 1000
    problem: ClassVar[str] = "llama.cpp could not load it: failed to allocate buffer, out of memory."
    asked: ClassVar[list[int]] = []
    gate: ClassVar[asyncio.Event | None] = None

    async def load(self, model: str) -> None:
        layers = self.settings.n_gpu_layers
        self.asked.append(layers)
        if self.gate is not None:
            await self.gate.wait()
        if (1000 if layers < 0 else layers) > self.room:
            raise ModelLoadFailed(self.problem)


class World:
    """A kernel with that engine, and a downloaded model."""

    def __init__(self, kernel: LocalKernel, folder: Path) -> None:
        self.kernel = kernel
        self.folder = folder
        self.told: list[tuple[str, str]] = []
        self.inference: Inference

    async def open(self) -> Inference:
        """The life cycle as a start of the server begins it."""
        self.inference = Inference(
            Home(self.folder, self.folder),
            self.kernel.downloads,
            Loader(self.kernel),
            Active(),
            lambda _address, _port: None,
            lambda item: self.told.append((item.alias, item.status)),
        )
        await self.inference.open()
        return self.inference

    async def until(self, alias: str, *statuses: str) -> WingmanItem:
        async with asyncio.timeout(LIMIT):
            while True:
                for item in self.inference.items:
                    if item.alias == alias and item.status in statuses:
                        return item
                await asyncio.sleep(0.005)


def wanted(alias: str = "a", **fields: Any) -> WingmanItem:
    return WingmanItem(alias=alias, modelRepo=REPO, filePath=FILE, **fields)


@pytest.fixture
async def world(tmp_path: Path, hub: FakeHub) -> AsyncIterator[World]:
    Engine.room, Engine.asked, Engine.gate = 1000, [], None
    Engine.problem = "llama.cpp could not load it: failed to allocate buffer, out of memory."

    @hookimpl
    def register_bindings(register: Register) -> None:
        register(Engine)

    folder = tmp_path / "lollms_configs"
    folder.mkdir()
    (folder / "main_config.yaml").write_text(f"downloads: {{hub_url: '{hub.url}'}}\n")
    plugins = load_plugins(
        [("engine", SimpleNamespace(register_bindings=register_bindings))], {"LOLLMS_LOAD_PLUGINS": ""}
    )
    async with AsyncExitStack() as stack:
        kernel = await stack.enter_async_context(LocalKernel(load_config(folder), plugins))
        await kernel.downloads.ensure(Wanted(REPO, FILE))
        made = World(kernel, tmp_path / "home")
        stack.push_async_callback(lambda: made.inference.close())
        yield made


async def test_every_state_is_told(world: World) -> None:
    inference = await world.open()

    assert (await inference.start(wanted())).status == 202
    await world.until("a", "inferring")
    assert (await inference.stop("a")).status == 200

    assert world.told == [
        ("a", state) for state in ("queued", "preparing", "inferring", "cancelling", "complete")
    ]


async def test_one_start_at_a_time(world: World) -> None:
    Engine.gate = asyncio.Event()
    inference = await world.open()
    await inference.start(wanted("a"))
    await world.until("a", "preparing")

    first, second = await asyncio.gather(inference.start(wanted("b")), inference.start(wanted("c")))

    assert (first.status, second.status) == (202, 503)
    assert (await inference.start(wanted("b"))).status == 208
    Engine.gate.set()
    await world.until("b", "inferring")
    assert [(item.alias, item.status) for item in inference.items] == [("a", "complete"), ("b", "inferring")]


async def test_a_model_is_stopped_while_it_loads(world: World) -> None:
    Engine.gate = asyncio.Event()
    inference = await world.open()
    await inference.start(wanted())
    await world.until("a", "preparing")
    async with asyncio.timeout(LIMIT):
        while not Engine.asked:  # noqa: ASYNC110 - the engine of the test gives no event
            await asyncio.sleep(0.005)

    answer = await inference.stop("a")

    assert answer.item is not None
    assert answer.item.status == "complete"
    assert [status.name for status in world.kernel.instances() if status.name == "wingman"] == []


async def test_a_file_that_is_gone_when_its_turn_comes(world: World) -> None:
    inference = await world.open()
    Engine.gate = asyncio.Event()
    await inference.start(wanted("a"))
    await world.until("a", "preparing")
    path = world.kernel.downloads.path(REPO, FILE)
    content = path.read_bytes()
    await inference.stop("a")
    path.unlink()
    assert (await inference.start(wanted("b"))).status == 404
    path.write_bytes(content)


async def test_an_instance_that_somebody_takes_away_ends_the_model(world: World) -> None:
    inference = await world.open()
    await inference.start(wanted())
    await world.until("a", "inferring")

    await world.kernel.remove_instance("wingman")

    await world.until("a", "complete")
    assert inference.instance is None


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "known", "tried"),
    [
        (-1, None, [-1, 49, 24, 12, 6, 3, 1]),
        (-1, 2, [-1, 1]),
        (40, 31, [40, 16, 8, 4, 2, 1]),
        (1, 80, [1]),
        (0, 80, [0]),
    ],
)
def test_fewer_layers_are_tried_by_halves(asked: int, known: int | None, tried: list[int]) -> None:
    found = []
    for layers in fewer_layers(asked, known):
        found.append(layers)
        if layers <= 0 and asked == 0:
            break
    assert found == tried


async def test_without_room_for_all_layers_fewer_are_taken_and_told(world: World) -> None:
    Engine.room = 1
    inference = await world.open()
    await inference.start(wanted())

    item = await world.until("a", "inferring")

    assert (Engine.asked, item.gpuLayers) == ([-1, 1], 1)


async def test_without_any_room_the_error_is_clear_and_stays(world: World) -> None:
    Engine.room = 0
    inference = await world.open()
    await inference.start(wanted(gpuLayers=8))

    item = await world.until("a", "error")

    assert item.error.startswith("Wingman exited with error code 1024. There was an error loading the model.")
    assert "not enough memory" in item.error
    assert "even with one layer" in item.error
    assert (await inference.stop("a")).status == 200
    assert [item.status for item in inference.items] == ["error"], "a stop does not hide it"
    assert (await inference.reset("a")).status == 200
    assert inference.items == []


async def test_what_is_no_lack_of_memory_is_not_tried_again(world: World) -> None:
    Engine.room, Engine.problem = -1, "unknown model architecture: 'newest'"
    inference = await world.open()
    await inference.start(wanted())

    item = await world.until("a", "error")

    assert "unknown model architecture" in item.error
    assert Engine.asked == [-1]


def test_the_memory_of_a_context_is_known_before() -> None:
    from lollms_kernel.gguf_header import GgufHeader

    own = {
        "block_count": 32,
        "embedding_length": 4096,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
    }
    header = GgufHeader(
        {"general.architecture": "llama", **{f"llama.{key}": value for key, value in own.items()}}, {}, {}
    )

    assert context_bytes(header, 8192) == 1 << 30, (
        "1 GiB for 8192 tokens of an 8B model, as llama.cpp reports"
    )
    assert context_bytes(GgufHeader({}, {}, {}), 8192) is None


# --- what a start makes of what the last run left (the table of the life cycle) ----------------------------------

OUT_OF_MEMORY = "The system ran out of memory while running the AI."
MODEL_OUT_OF_MEMORY = "The system ran out of memory while running the AI model."
NO_MEMORY = "There is not enough available memory to load the AI model."
FAILED = "The AI failed to load."


async def left_behind(world: World, items: list[WingmanItem], state: str, file: str | None) -> None:
    """What is on the disk after a run that ended so."""
    from lollms_kernel.downloads.database import Database

    home = Home(world.folder, world.folder)
    for item in items:
        await home.put(item)
    await home.close()
    database = Database(home._file, "")

    def note(connection: Connection) -> None:
        connection.execute("UPDATE app SET value = ?", (state,))

    await database.write(note)
    await database.close()
    if file is not None:
        (world.folder / file).touch()


@pytest.mark.parametrize(
    ("before", "state", "file", "after", "error"),
    [
        ("inferring", "stopped", None, "inferring", ""),
        ("preparing", "stopped", None, "inferring", ""),
        ("queued", "stopped", None, "inferring", ""),
        ("cancelling", "stopped", None, "inferring", ""),
        ("queued", "running", None, "inferring", ""),
        ("inferring", "running", None, "error", MODEL_OUT_OF_MEMORY),
        ("preparing", "running", None, "error", NO_MEMORY),
        ("inferring", "running", "wingman.die", "error", OUT_OF_MEMORY),
        ("preparing", "running", "wingman.die", "error", OUT_OF_MEMORY),
        ("queued", "running", "wingman.die", "error", OUT_OF_MEMORY),
        ("preparing", "running", "wingman.exit", "error", FAILED),
        ("inferring", "stopped", "wingman.exit", "inferring", ""),
        ("complete", "stopped", None, None, ""),
        ("error", "running", None, "error", "kept"),
    ],
)
async def test_a_start_takes_up_what_was_left(
    world: World, before: ItemStatus, state: str, file: str | None, after: str | None, error: str
) -> None:
    await left_behind(world, [wanted(status=before, error="kept" if before == "error" else "")], state, file)

    inference = await world.open()

    if after is None:
        assert inference.items == []
    else:
        item = await world.until("a", after)
        assert item.error == error
    assert not list(world.folder.glob("wingman.*")), "each file counts once"


async def test_of_several_active_models_the_newest_is_taken_up(world: World) -> None:
    items = [wanted("old", status="inferring", created=100), wanted("new", status="queued", created=200)]
    await left_behind(world, items, "stopped", None)

    inference = await world.open()

    await world.until("new", "inferring")
    assert [item.alias for item in inference.items] == ["new"]


async def test_an_orderly_end_lets_the_model_run_again(world: World) -> None:
    inference = await world.open()
    await inference.start(wanted(contextSize=256, chatTemplate="llama2"))
    await world.until("a", "inferring")
    await inference.close()

    await world.open()

    item = await world.until("a", "inferring")
    assert (item.contextSize, item.chatTemplate) == (256, "llama2")
    status = next(status for status in world.kernel.instances() if status.name == "wingman")
    assert status.settings["n_ctx"] == 256
    assert "[INST]" in status.settings["chat_template"]


async def test_a_folder_that_another_server_uses_is_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    other = Home(world.folder, world.folder)
    await other.put(wanted("theirs"))

    inference = await world.open()
    await inference.start(wanted("ours"))
    await world.until("ours", "inferring")
    await inference.close()
    await other.close()

    assert "Another server uses Wingman's folder" in caplog.text
    again = Home(world.folder, world.folder)
    await again.open()
    assert [item.alias for item in again.items] == ["theirs"]
    await again.close()


async def test_nothing_is_written_before_a_model_is_started(world: World) -> None:
    inference = await world.open()
    await inference.close()

    assert not world.folder.exists()
    await world.open()
    callback: Callable[[], object] = world.folder.exists
    assert not callback()
