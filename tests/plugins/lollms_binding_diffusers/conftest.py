"""A folder of tiny models, built once, and bindings that draw with them in this process."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

# Before torch is imported: waiting threads that spin slow a busy machine down a hundredfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from PIL import Image

from lollms_binding_diffusers import DiffusersBinding
from lollms_kernel.contracts import BindingContext
from lollms_kernel.testing.binding_contract import make_binding
from lollms_kernel.types import Chunk, GenerateRequest, Media, Message, Output, Progress

QUICK: dict[str, Any] = {"num_inference_steps": 2, "seed": 1}


@pytest.fixture(autouse=True, scope="module")
def own_environment() -> Iterator[None]:
    """What the binding sets in the environment of its worker is gone after the tests of a module: others ask hubs."""
    import huggingface_hub.constants  # noqa: F401 - it reads the environment once

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's root with models in the default folders."""
    import huggingface_hub.constants  # noqa: F401 - as above

    from . import tiny_models as tiny

    folder = tmp_path_factory.mktemp("root")
    models = folder / "models" / "diffusers_models"
    tiny.stable_diffusion(models / "tiny")
    tiny.stable_diffusion(models / "other", unet=tiny.unet(layers_per_block=2))
    tiny.animate_diff(models / "moving")
    tiny.audio_ldm(models / "sounding")
    tiny.controlnet(folder / "models" / "controlnet" / "edges")
    tiny.lora(folder / "loras")
    tiny.vae(seed=99).save_pretrained(folder / "vaes" / "bright")
    return folder


@pytest.fixture
async def open_binding(root: Path) -> AsyncIterator[Callable[..., Awaitable[DiffusersBinding]]]:
    """Makes open bindings from settings; closed at the end."""
    opened: list[DiffusersBinding] = []

    async def make(**settings: Any) -> DiffusersBinding:
        context = BindingContext(models_folder=root / "models", root=root)
        binding = make_binding(DiffusersBinding, {"default_model": "tiny", **settings}, context)
        assert isinstance(binding, DiffusersBinding)
        await binding.open()
        opened.append(binding)
        return binding

    yield make
    for binding in opened:
        await binding.close()


def order(
    prompt: str = "a cat", *media: Media, kind: str = "tti", model: str = "tiny", **parameters: Any
) -> GenerateRequest:
    """A request for quick drawing."""
    return GenerateRequest(
        id="r",
        generation_type=kind,
        messages=(Message("user", prompt, media),),
        model=model,
        parameters={**QUICK, **parameters},
    )


async def chunks_of(binding: DiffusersBinding, request: GenerateRequest) -> list[Chunk]:
    """Everything that a request gives."""
    async with aclosing(binding.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


async def draw(binding: DiffusersBinding, request: GenerateRequest) -> list[Output]:
    """The finished pieces of a request."""
    return outputs_of(await chunks_of(binding, request))


def outputs_of(chunks: list[Chunk]) -> list[Output]:
    """The finished pieces among chunks."""
    return [chunk for chunk in chunks if isinstance(chunk, Output)]


def steps_of(chunks: list[Chunk]) -> list[Progress]:
    """The progress among chunks."""
    return [chunk for chunk in chunks if isinstance(chunk, Progress)]


def png(size: tuple[int, int] = (64, 64), colour: Any = (200, 30, 30), kind: str = "PNG") -> bytes:
    """A picture in one colour."""
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, kind)
    return target.getvalue()


def image(role: str = "input_image", **fields: Any) -> Media:
    """An image input."""
    return Media("image", role, fields.pop("data", None) or png(**fields), "image/png")


def pixels(output: Output) -> Any:
    """The pixels of a finished picture, as whole numbers."""
    import numpy as np

    return np.asarray(Image.open(io.BytesIO(output.data)).convert("RGB")).astype(int)
