"""Figures of the diffusers binding with its demonstration model, next to a bare script with the same pipeline."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from lollms_kernel.testing import ServerProcess

from .figures import Figure

PROMPT = "a red circle on white"
STEPS = 12
MANY = 50

BARE = """
import os, sys, time
os.environ.update(OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")
import torch
from diffusers import AutoPipelineForText2Image
torch.set_num_threads(1)
pipeline = AutoPipelineForText2Image.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
for line in sys.stdin:
    started = time.perf_counter()
    image = pipeline([sys.argv[2]], num_inference_steps=int(sys.argv[3]), guidance_scale=1.5,
                     generator=[torch.Generator().manual_seed(int(line))]).images[0]
    image.save(sys.argv[4])
    print(1000 * (time.perf_counter() - started), flush=True)
"""


def image_figures() -> Iterator[Figure]:
    """All of them; none where the engine is not installed."""
    if importlib.util.find_spec("torch") is None:
        return
    yield from per_image()
    yield from asyncio.run(in_a_worker())


def per_image(rounds: int = 30) -> list[Figure]:
    """One picture by turns: over REST from the server, and from the bare script, each at the end a PNG."""
    body = {
        "input_data": [{"type": "text", "role": "user_prompt", "data": PROMPT}],
        "generation_type": "tti",
    }
    ours, theirs = [], []
    only = {"LOLLMS_LOAD_PLUGINS": "lollms-binding-diffusers"}
    with (
        ServerProcess(env=only) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
        _bare() as bare,
    ):
        for seed in range(rounds + 3):
            asked = {**body, "parameters": {"seed": seed, "num_inference_steps": STEPS}}
            started = time.perf_counter()
            client.post("/api/v1/generate", json=asked).raise_for_status()
            ours.append(1000 * (time.perf_counter() - started))
            theirs.append(_ask(bare, seed))
    ours, theirs = ours[3:], theirs[3:]
    added = tuple(100 * (mine / bare_ - 1) for mine, bare_ in zip(ours, theirs, strict=True))
    name = f"image of the demonstration model, {STEPS} steps"
    return [
        Figure(f"{name}: bare diffusers script", "ms", tuple(theirs)),
        Figure(f"{name}: server over REST", "ms", tuple(ours)),
        Figure(f"{name}: added by the server", "%", added),
    ]


async def in_a_worker() -> list[Figure]:
    """Memory, cancelling and company, measured at the worker itself."""
    async with _worker() as binding:
        await _picture(binding, 0)
        before = _resident(binding.pid)
        for seed in range(MANY):
            await _picture(binding, seed)
        after = _resident(binding.pid)
        cancels = [await _cancel(binding) for _ in range(20)]
        alone, together = [], []
        for start in range(0, 40, 4):
            seeds = range(start, start + 4)
            began = time.perf_counter()
            for seed in seeds:
                await _picture(binding, seed)
            alone.append(time.perf_counter() - began)
            began = time.perf_counter()
            await asyncio.gather(*(_picture(binding, seed) for seed in seeds))
            together.append(time.perf_counter() - began)
        pid = binding.pid
        await binding.unload()
        left = _resident(pid)
    gain = tuple(one / four for one, four in zip(alone, together, strict=True))
    return [
        Figure("memory of the image worker after its first image", "MiB", (before,)),
        Figure(f"memory of the image worker after {MANY} images more", "MiB", (after,)),
        Figure("memory of the image worker after unloading", "MiB", (left,)),
        Figure("image request left in the middle: until the worker has stopped", "ms", tuple(cancels)),
        Figure("4 images at once against one after the other", "times as fast", gain),
    ]


@contextmanager
def _bare() -> Iterator[subprocess.Popen[str]]:
    import lollms_binding_diffusers

    model = Path(lollms_binding_diffusers.__file__).parent / "models" / "lollms-shapes"
    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            BARE,
            str(model),
            PROMPT,
            str(STEPS),
            f"{folder}/out.png",
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _ask(bare: subprocess.Popen[str], seed: int) -> float:
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(f"{seed}\n")
    bare.stdin.flush()
    return float(json.loads(bare.stdout.readline()))


@asynccontextmanager
async def _worker() -> AsyncIterator[Any]:
    from lollms_binding_diffusers import DiffusersBinding
    from lollms_kernel.config.schema import WorkersConfig
    from lollms_kernel.contracts import BindingContext
    from lollms_kernel.testing import make_binding
    from lollms_kernel.workers.proxy import WorkerBinding

    with tempfile.TemporaryDirectory(prefix="lollms-bench-") as folder:
        root = Path(folder)
        settings = dict(DiffusersBinding.builtin_instances()["images"])
        front = make_binding(DiffusersBinding, settings, BindingContext(models_folder=root, root=root))
        binding = WorkerBinding(front, WorkersConfig(), lambda event: None)
        try:
            yield binding
        finally:
            await binding.close()


def _request(seed: int, steps: int = STEPS) -> Any:
    from lollms_kernel.testing.binding_contract import ask

    parameters = {"seed": seed, "num_inference_steps": steps}
    return ask(PROMPT, generation_type="tti", model="lollms-shapes", parameters=parameters)


async def _picture(binding: Any, seed: int) -> None:
    async with aclosing(binding.generate(_request(seed))) as chunks:
        async for _ in chunks:
            pass


async def _cancel(binding: Any) -> float:
    """Milliseconds from leaving a request of 150 steps until the worker has said that it works no more."""
    from lollms_kernel.types import Progress

    chunks = binding.generate(_request(1, steps=150))
    async for chunk in chunks:
        if isinstance(chunk, Progress) and chunk.step >= 3:
            break
    started = time.perf_counter()
    await chunks.aclose()
    return 1000 * (time.perf_counter() - started)


def _resident(pid: int | None) -> float:
    """MiB of a process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
