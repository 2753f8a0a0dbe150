"""Models of a hub: real downloads over HTTP into a cache of their own, and what they are afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest

from lollms_binding_diffusers import DiffusersBinding, fetching, hub
from lollms_binding_diffusers.device import choose
from lollms_kernel.errors import LollmsError, ModelLoadFailed
from lollms_kernel.testing.fakes.hub import FakeHub, FakeRepo, sha256
from lollms_kernel.testing.fakes.server import FakeServer, Received
from lollms_kernel.types import Info

from .conftest import chunks_of, draw, order, outputs_of, pixels

Open = Callable[..., Awaitable[DiffusersBinding]]
MOVING = "owner/moving"
LIMIT = 60.0
SMALL = (".json", ".txt", ".md", ".py")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.glob("**/*")
        if path.is_file()
    }


def add(fake: FakeHub, repo: str, files: dict[str, bytes], **fields: Any) -> None:
    fake.add(repo, files, small=frozenset(name for name in files if name.endswith(SMALL)), **fields)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def fake(cache: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the tiny models, beside which it has what nobody needs."""
    models = root / "models" / "diffusers_models"
    with FakeHub() as made:
        point_to(made.url, monkeypatch)
        rest = {
            "README.md": b"# Model",
            "everything.safetensors": b"x" * 9999,
            "unet/flax_model.msgpack": b"x",
        }
        for name in ("moving", "tiny"):
            files = {**files_of(models / name), **rest}
            files["unet/diffusion_pytorch_model.bin"] = b"a pickle"
            add(made, f"owner/{name}", files)
        yield made


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does in a process that begins."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library waits no longer before it tries again."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


async def permitted(open_binding: Open, *names: str, **settings: Any) -> DiffusersBinding:
    return await open_binding(allow_downloads=True, hub_models=list(names), **settings)


def fetched(fake: FakeHub) -> list[str]:
    """The files whose contents were asked for."""
    stored = {sha256(data): name for repo in fake.repos.values() for name, data in repo.files.items()}
    small = [request.path.split("/resolve/")[-1].partition("/")[2] for request in got(fake)]
    return [*small, *(stored[request.path.rpartition("/")[2]] for request in got(fake.storage))]


def got(server: FakeServer) -> list[Received]:
    return [request for request in server.received if request.method == "GET" and "/api/" not in request.path]


async def test_a_listing_does_not_ask_the_hub(open_binding: Open, fake: FakeHub) -> None:
    binding = await permitted(open_binding, MOVING)
    models = {info.name: info for info in await binding.list_models()}
    assert models[MOVING].details["fetched"] is False
    assert "Not fetched yet" in models[MOVING].details["description"]
    assert fake.received == []


async def test_a_model_is_fetched_once_and_is_what_its_description_says(
    open_binding: Open, fake: FakeHub, root: Path
) -> None:
    binding = await permitted(open_binding, MOVING)
    request = order(kind="ttv", model=MOVING, num_frames=4)
    [output] = await draw(binding, request)
    assert output.type == "video"
    [local] = await draw(binding, order(kind="ttv", model="moving", num_frames=4))
    assert output.data == local.data
    names = fetched(fake)
    assert not [name for name in names if name.endswith((".bin", ".msgpack", ".md", ".py"))]
    assert "everything.safetensors" not in names
    assert "unet/diffusion_pytorch_model.safetensors" in names
    info = await binding.get_model_info(MOVING)
    own = root / "models" / "diffusers_models" / "moving"
    assert (info.model_type, info.details["fetched"]) == ("ttv", True)
    assert info.size == sum(file.stat().st_size for file in own.glob("**/*.safetensors"))
    asked = len(fake.received)
    await draw(binding, request)
    assert len(fake.received) == asked  # neither for the same model again, nor for its loading


async def test_one_request_loads_it_once(open_binding: Open, fake: FakeHub) -> None:
    binding = await permitted(open_binding, "owner/tiny")
    assert (await draw(binding, order(model="owner/tiny")))[0].metadata["generation_timings"]["load"] > 0
    [again] = await draw(binding, order(model="owner/tiny"))
    assert "load" not in again.metadata["generation_timings"]


async def test_it_is_drawn_with_offline_afterwards(
    open_binding: Open, fake: FakeHub, no_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = await draw(await permitted(open_binding, "owner/tiny"), order(model="owner/tiny"))
    point_to("http://127.0.0.1:9", monkeypatch)  # where nobody listens
    binding = await permitted(open_binding, "owner/tiny", MOVING)
    [second] = await draw(binding, order(model="owner/tiny"))
    assert abs(pixels(first) - pixels(second)).max() == 0
    with pytest.raises(ModelLoadFailed, match="did not answer") as failed:
        await draw(binding, order(model=MOVING))
    assert "connected" in str(failed.value.hint)


async def test_what_is_damaged_is_not_taken_and_what_is_whole_is_not_fetched_again(
    open_binding: Open, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    binding = await permitted(open_binding, "owner/tiny")
    largest = max(fake.repos["owner/tiny"].files.values(), key=len)
    with monkeypatch.context() as patch:
        patch.setattr(fake.storage, "mangle", lambda data: data[::-1] if data == largest else data)
        with pytest.raises(ModelLoadFailed, match="cannot be fetched: Its checksum is wrong") as failed:
            await draw(binding, order(model="owner/tiny"))
    assert "What was fetched is kept" in str(failed.value.hint)
    before = fetched(fake)
    fake.received.clear()
    fake.storage.received.clear()
    assert len(await draw(binding, order(model="owner/tiny"))) == 1
    stored = {name for name, data in fake.repos["owner/tiny"].files.items() if data == largest}
    assert set(before) & set(fetched(fake)) == stored


@pytest.fixture
def slow(fake: FakeHub) -> FakeHub:
    """A hub whose large files come in pieces, slowly."""
    fake.storage.frame_delay = 1.0
    return fake


async def weights_on_their_way(fake: FakeHub) -> Received:
    """The request for the weights of the denoiser, of which a part has come."""
    weights = sha256(fake.repos["owner/tiny"].files["unet/diffusion_pytorch_model.safetensors"])
    async with asyncio.timeout(LIMIT):
        while True:
            for request in got(fake.storage):
                if request.path.endswith(weights) and request.frames:
                    return request
            await asyncio.sleep(0.01)


async def test_who_leaves_ends_the_download_and_the_next_one_goes_on_there(
    open_binding: Open, slow: FakeHub
) -> None:
    binding = await permitted(open_binding, "owner/tiny")
    leaver = asyncio.create_task(draw(binding, order(model="owner/tiny")))
    request = await weights_on_their_way(slow)
    assert len(await draw(binding, order())) == 1  # another model is drawn with meanwhile
    assert not leaver.done()
    leaver.cancel()
    await asyncio.wait([leaver], timeout=LIMIT)
    assert leaver.cancelled()
    await slow.storage.until(request.left)

    slow.storage.frame_delay = 0
    assert len(await draw(binding, order(model="owner/tiny"))) == 1
    [resumed] = [again for again in got(slow.storage) if again.path == request.path and again is not request]
    assert int(resumed.headers["range"].removeprefix("bytes=").rstrip("-")) > 0


async def test_a_download_is_shared_and_goes_on_while_somebody_waits(
    open_binding: Open, slow: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TELL_EVERY", 0.05)
    binding = await permitted(open_binding, "owner/tiny")
    leaver = asyncio.create_task(binding.load("owner/tiny"))
    await weights_on_their_way(slow)
    before = binding.pulse
    stayer = asyncio.create_task(chunks_of(binding, order(model="owner/tiny")))
    await asyncio.sleep(0.2)
    leaver.cancel()
    await asyncio.wait([leaver], timeout=LIMIT)
    async with asyncio.timeout(LIMIT):
        while binding.pulse == before:  # noqa: ASYNC110 - it shows that bytes come, and tells nobody
            await asyncio.sleep(0.05)
        slow.storage.frame_delay = 0
        chunks = await stayer

    told: list[Any] = [chunk.content for chunk in chunks if isinstance(chunk, Info)]
    fetching_ = [content for content in told if content["status"] == "fetching"]
    assert fetching_[-1]["model"] == "owner/tiny"
    assert 0 < fetching_[-1]["fetched_bytes"] <= fetching_[-1]["total_bytes"]
    assert len(outputs_of(chunks)) == 1
    paths = [request.path for request in got(slow.storage)]
    assert len(paths) == len(set(paths))


async def test_a_full_disk_is_told_without_the_places_of_this_machine(
    open_binding: Open, fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    binding = await permitted(open_binding, "owner/tiny")
    with monkeypatch.context() as patch:
        patch.setattr("lollms_kernel.downloads.part.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
        with pytest.raises(ModelLoadFailed, match="There is not enough room") as failed:
            await draw(binding, order(model="owner/tiny"))
    assert "in models--owner--tiny/blobs" in failed.value.message
    assert str(tmp_path) not in failed.value.detail
    assert len(await draw(binding, order(model="owner/tiny"))) == 1


async def test_a_hub_cannot_choose_where_files_lie(
    open_binding: Open, fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = FakeRepo.tree

    def lying(self: FakeRepo) -> list[dict[str, Any]]:
        entries = honest(self)
        for entry in entries:
            if "lfs" in entry:
                entry["lfs"]["oid"] = f"../../../{'0' * 52}"
        return entries

    monkeypatch.setattr(FakeRepo, "tree", lying)
    assert len(await draw(await permitted(open_binding, "owner/tiny"), order(model="owner/tiny"))) == 1
    assert not [name for name in files_of(tmp_path) if name.rpartition("/")[2].startswith("0000")]


async def test_closing_ends_a_download(open_binding: Open, slow: FakeHub) -> None:
    binding = await permitted(open_binding, "owner/tiny")
    waiting = asyncio.create_task(draw(binding, order(model="owner/tiny")))
    request = await weights_on_their_way(slow)
    async with asyncio.timeout(LIMIT):
        await binding.close()
        await slow.storage.until(request.left)
        with pytest.raises(LollmsError):
            await waiting


async def test_the_weights_count_for_placement_and_threads(
    open_binding: Open, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def spied(torch: Any, settings: Any, weights: int, largest: int) -> Any:
        seen.append((weights, largest))
        return choose(torch, settings, weights, largest)

    monkeypatch.setattr("lollms_binding_diffusers.loading.choose", spied)
    binding = await permitted(open_binding, "owner/tiny")
    await draw(binding, order(model="owner/tiny"))
    await draw(binding, order(model="tiny"))
    assert seen[0] == seen[1]
    assert seen[0][1] > 0


async def test_the_log_says_how_far_a_download_is(
    open_binding: Open, fake: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lollms_binding_diffusers.hub")
    monkeypatch.setattr(hub, "LOG_EVERY", 0.0)
    await draw(await permitted(open_binding, "owner/tiny"), order(model="owner/tiny"))
    assert "Model owner/tiny: 0 of 0 MB are fetched." in [record.getMessage() for record in caplog.records]


async def test_what_is_wrong_with_a_repository_is_told(open_binding: Open, fake: FakeHub) -> None:
    add(fake, "owner/gated", {"model_index.json": b"{}"}, gated=True)
    add(fake, "owner/words", {"config.json": b"{}"})
    add(
        fake,
        "owner/coded",
        {
            "model_index.json": json.dumps(
                {"_class_name": "StableDiffusionPipeline", "unet": ["net", "Net"]}
            ).encode(),
            "unet/net.py": b"raise SystemExit",
        },
    )
    expected = {
        "owner/gated": "wants to be asked",
        "owner/words": "no model of diffusers",
        "owner/coded": "own code",
        "owner/nowhere": "does not have it",
        "no/such/name": "no repository is called so",
    }
    binding = await permitted(open_binding, *expected)
    assert len(await binding.list_models()) > len(expected)
    for name, reason in expected.items():
        with pytest.raises(ModelLoadFailed, match=reason) as failed:
            await draw(binding, order(model=name))
        assert failed.value.hint or reason == "own code"


async def test_a_cache_that_another_program_filled_will_do(
    open_binding: Open, fake: FakeHub, cache: Path, root: Path
) -> None:
    store, commit = cache / "models--elsewhere--moving", "0123456789" * 4
    shutil.copytree(root / "models" / "diffusers_models" / "moving", store / "snapshots" / commit)
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(commit)
    binding = await permitted(open_binding, "elsewhere/moving")
    info = await binding.get_model_info("elsewhere/moving")
    assert info.model_type == "ttv"
    [output] = await draw(binding, order(kind="ttv", model="elsewhere/moving", num_frames=2))
    assert output.type == "video"


async def test_a_single_files_configuration_is_fetched_if_it_is_named(
    open_binding: Open, fake: FakeHub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.loaders import single_file_utils

    from . import tiny_models as tiny

    models = root / "models" / "diffusers_models"
    tiny.single_file(models / "tiny", models / "lonely.safetensors", with_config=False)
    repo = {"pretrained_model_name_or_path": "owner/tiny"}
    monkeypatch.setattr(single_file_utils, "fetch_diffusers_config", lambda _: repo)
    with pytest.raises(ModelLoadFailed, match="its configuration is not there") as refused:
        await draw(await permitted(open_binding, MOVING), order(model="lonely"))
    assert "name 'owner/tiny' in `hub_models`" in str(refused.value.hint)
    assert fake.received == []
    binding = await permitted(open_binding, "owner/tiny")
    [output] = await draw(binding, order(model="lonely"))
    [whole] = await draw(binding, order(model="tiny"))
    assert abs(pixels(output) - pixels(whole)).max() == 0
    assert not [name for name in fetched(fake) if name.endswith(".safetensors")]
    (models / "lonely.safetensors").unlink()
