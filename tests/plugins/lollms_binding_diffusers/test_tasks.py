"""What hangs on one loaded model: schedulers, ControlNets one at a time, and parts that wait in main memory."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import DiffusionPipeline

from lollms_binding_diffusers import DiffusersBinding, device
from lollms_binding_diffusers.loading import LoadedModel
from lollms_kernel.errors import InvalidRequest, ModelLoadFailed
from lollms_kernel.types import Notice

from .conftest import chunks_of, draw, image, order, outputs_of, pixels

Open = Callable[..., Awaitable[DiffusersBinding]]


def loaded(binding: DiffusersBinding) -> LoadedModel:
    assert binding._engine is not None
    model = binding._engine._loaded
    assert model is not None
    return model


def differs(one: Any, other: Any) -> int:
    return int(abs(pixels(one) - pixels(other)).max())


async def drawn(binding: DiffusersBinding, request: Any) -> tuple[str, list[Notice]]:
    """The scheduler that a request was drawn with, and the notices about it."""
    chunks = await chunks_of(binding, request)
    told = [chunk for chunk in chunks if isinstance(chunk, Notice) and chunk.code == "scheduler_replaced"]
    return outputs_of(chunks)[0].metadata["scheduler"], told


# --- schedulers -----------------------------------------------------------------------------------------------------


async def test_the_operators_scheduler_is_used(open_binding: Open) -> None:
    assert await drawn(await open_binding(scheduler_type="LCMScheduler"), order()) == ("LCMScheduler", [])


async def test_a_request_may_name_the_scheduler_that_lcm_loras_need(open_binding: Open) -> None:
    binding = await open_binding(lora_paths=["loras/style.safetensors"])
    [output] = await draw(binding, order(scheduler="LCM", num_inference_steps=4, guidance_scale=1))
    assert output.metadata["scheduler"] == "LCMScheduler"
    [other] = await draw(binding, order(scheduler="DDIM", num_inference_steps=4, guidance_scale=1))
    assert differs(output, other) > 0
    with pytest.raises(InvalidRequest, match=r"num_inference_steps is 60: LCMScheduler makes 50") as refused:
        await draw(binding, order(scheduler="LCM", num_inference_steps=60))
    assert "4 to 8" in str(refused.value.hint)


async def test_a_setting_that_a_model_cannot_follow_is_told(open_binding: Open) -> None:
    binding = await open_binding(scheduler_type="FlowMatchEulerDiscreteScheduler")
    used, [notice] = await drawn(binding, order())
    assert used == "DDIMScheduler"
    assert notice.details == {"wanted": "FlowMatchEulerDiscreteScheduler", "used": "DDIMScheduler"}
    assert await drawn(binding, order(scheduler="EulerDiscrete")) == ("EulerDiscreteScheduler", [])


async def test_the_setting_goes_before_what_the_model_names_and_its_default_does_not(
    open_binding: Open, root: Path
) -> None:
    own = root / "models" / "diffusers_models" / "opinionated"
    shutil.copytree(own.parent / "tiny", own)
    (own / "lollms_model.json").write_text('{"scheduler": "PNDMScheduler"}')
    request = order(model="opinionated", num_inference_steps=4)
    assert await drawn(await open_binding(), request) == ("PNDMScheduler", [])
    assert await drawn(await open_binding(scheduler_type=None), request) == ("PNDMScheduler", [])
    explicit = await open_binding(scheduler_type="EulerDiscreteScheduler")
    assert await drawn(explicit, request) == ("EulerDiscreteScheduler", [])
    (own / "lollms_model.json").write_text('{"scheduler": "FlowMatchEulerDiscreteScheduler"}')
    used, [notice] = await drawn(await open_binding(), request)
    assert used == "DDIMScheduler"
    assert "lollms_model.json" in notice.message
    shutil.rmtree(own)


# --- ControlNets ----------------------------------------------------------------------------------------------------


async def test_one_controlnet_is_kept(open_binding: Open, root: Path) -> None:
    folder = root / "models" / "controlnet"
    copies = [folder / f"edges{number}" for number in range(3)]
    for copy in copies:
        shutil.copytree(folder / "edges", copy)
    binding = await open_binding()
    held = []
    for name in ("edges0", "edges1", "edges2", "edges2"):
        await draw(binding, order("a cat", image("controlnet_image"), controlnet_model=name))
        network = loaded(binding).tasks.get("text2image", name).controlnet
        held.append(weakref.ref(network))
        del network
    gc.collect()
    assert [one() is not None for one in held] == [False, False, True, True]
    assert held[2]() is held[3]()
    for copy in copies:
        shutil.rmtree(copy)


async def test_errors_tell_no_places_of_the_server(open_binding: Open, root: Path, tmp_path: Path) -> None:
    hollow = root / "models" / "controlnet" / "hollow"
    elsewhere = tmp_path / "elsewhere"
    for path in (hollow, elsewhere):
        shutil.copytree(hollow.parent / "edges", path, ignore=shutil.ignore_patterns("*.safetensors"))
    binding = await open_binding(controlnet_model_paths=[str(elsewhere)])
    for name in ("hollow", "elsewhere"):
        with pytest.raises(ModelLoadFailed, match=f"directory {name}") as failed:
            await draw(binding, order("a cat", image("controlnet_image"), controlnet_model=name))
        assert str(tmp_path) not in failed.value.detail
        assert str(root) not in failed.value.detail
    shutil.rmtree(hollow)


# --- parts that wait in main memory ---------------------------------------------------------------------------------


@pytest.fixture(params=["model_offload", "sequential_offload"])
def offloading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every model is placed so; the device that parts are moved to is the CPU."""
    placement = str(request.param)
    monkeypatch.setattr(device, "place", lambda *_: (placement, False))
    monkeypatch.setattr(DiffusionPipeline, "enable_sequential_cpu_offload", _offload_one_by_one)
    return placement


def _offload_one_by_one(pipeline: Any, device: str) -> None:
    """As the library does it, which calls this device `cpu:0`: torch takes that for another one than `cpu`."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload(part, torch.device(device), offload_buffers=bool(part._parameters))


async def test_all_tasks_draw_the_same_with_offloading(open_binding: Open, offloading: str) -> None:
    binding = await open_binding()
    requests = [
        order(),
        order("a cat", image("controlnet_image")),
        order("a cat", image(), kind="i2i", num_inference_steps=4),
        order("a cat", image(), image("controlnet_image"), kind="i2i", num_inference_steps=4),
    ]
    waiting = [(await draw(binding, request))[0] for request in requests]
    assert loaded(binding).choice.placement == offloading
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "place", lambda *_: ("device", False))
        await binding.unload()
        plain = [(await draw(binding, request))[0] for request in requests]
    assert [differs(one, other) for one, other in zip(waiting, plain, strict=True)] == [0] * 4


@pytest.mark.parametrize("offloading", ["model_offload"], indirect=True)
async def test_after_every_drawing_all_parts_wait_again(open_binding: Open, offloading: str) -> None:
    binding = await open_binding()
    await draw(binding, order("a cat", image(), kind="i2i", num_inference_steps=4))
    base = loaded(binding).tasks.base
    hook = base.vae._hf_hook  # a fresh one after each time that the parts were put away
    assert loaded(binding).tasks.get("image2image") is not base
    await draw(binding, order("a cat", image(), kind="i2i", num_inference_steps=4))
    assert base.vae._hf_hook is not hook
