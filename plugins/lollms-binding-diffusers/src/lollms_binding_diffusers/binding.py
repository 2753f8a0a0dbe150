"""The binding type `diffusers_binding`: finds models, checks requests, and hands them to the engine's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec

from lollms_kernel.contracts import Binding, BindingCard, BindingContext, Isolation
from lollms_kernel.errors import BindingUnavailable, LollmsError
from lollms_kernel.types import (
    Chunk,
    Finished,
    GenerateRequest,
    GpuNeed,
    Info,
    ModelInfo,
    Progress,
    Timings,
)

from .encoding import encode
from .engine import Engine
from .environment import prepare
from .fetching import Fetches
from .input_images import IMAGE_ROLES, read_inputs
from .installation import missing_engine, torch_uses_gpu
from .job import Job, Order
from .library import DEMONSTRATION, Library, ModelSource, describe
from .parameters import read_parameters
from .pulse import Pulse
from .settings import DiffusersSettings

logger = logging.getLogger(__name__)

_STARTING: Mapping[str, str] = {
    "image": "starting_image_generation",
    "video": "starting_video_generation",
    "audio": "starting_audio_generation",
}


class DiffusersBinding(Binding):
    """Pictures, videos and sounds with diffusers: one model is loaded at a time, requests like each other are drawn
    at once."""

    type_name: ClassVar[str] = "diffusers_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Diffusers",
        version="1.1.0",
        author="lollms",
        description="Draws on this machine with diffusers: text to image, image to image, inpainting, ControlNet; "
        "includes a tiny demonstration model.",
        requirements=(
            "torch",
            "diffusers>=0.42",
            "transformers>=5",
            "accelerate",
            "peft",
            "safetensors",
            "Pillow",
        ),
        documentation_url="https://huggingface.co/docs/diffusers",
        supported_input_modalities=("text", "image"),
        supported_output_modalities=("image", "video", "audio"),
    )
    Settings = DiffusersSettings
    settings: DiffusersSettings

    def __init__(self, settings: DiffusersSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        hub = settings.hub_models if settings.allow_downloads else []
        self.library = Library(context.root / settings.models_folder, tuple(hub), settings.default_model)
        self._pulse = Pulse()
        self._fetches = Fetches(settings, self._pulse)
        self._engine: Engine | None = None

    @property
    def isolation(self) -> Isolation:
        """A worker: torch holds gigabytes that only the end of a process gives back."""
        return "process"

    @property
    def parallel(self) -> int | None:
        """Two batches: while one is drawn the next one gathers."""
        return 2 * self.settings.max_batch

    @property
    def pulse(self) -> int | None:
        """What shows that the engine gets on, see `Pulse`: then requests may load, draw and wait for long."""
        return None if self._engine is None else self._pulse.value

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        """`images`, which draws with the packaged demonstration model; only where the engine is installed."""
        if missing_engine() is not None:
            return {}
        name = "images"
        return {name: {"type": cls.type_name, "binding_instance_name": name, "default_model": DEMONSTRATION}}

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether torch, diffusers or something that they need is missing."""
        return missing_engine()

    def supports_role(self, media_type: str, role: str) -> bool:
        """An image to change, its mask, or a control image."""
        return media_type != "image" or role in IMAGE_ROLES

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        """The GPU where one is used; requests of this instance share the lease, since they are drawn together."""
        used = self.settings.device in ("cuda", "mps") or (
            self.settings.device == "auto" and torch_uses_gpu()
        )
        return GpuNeed(required=used, share=f"diffusers:{self.name}")

    async def open(self) -> None:
        """Start the engine's thread; torch is imported with the first model."""
        missing = missing_engine()
        if missing is not None:
            raise missing
        prepare(offline=not self.settings.allow_downloads)
        if self.settings.use_compel:
            logger.warning(
                "Instance '%s': use_compel has no effect; prompts are taken as they are.", self.name
            )
        self._fetches = Fetches(self.settings, self._pulse)
        self._engine = Engine(self.settings, self.context.root, self._pulse)

    async def close(self) -> None:
        """Stop what runs and unload everything."""
        engine, self._engine = self._engine, None
        await self._fetches.close()
        if engine is not None:
            await engine.close()

    # --- models ---

    async def list_models(self) -> list[ModelInfo]:
        """The models of the folder, permitted hub ids, the demonstration model."""
        sources = await asyncio.to_thread(self.library.sources)
        return await asyncio.to_thread(lambda: [self._describe(source) for source in sources])

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What is known of a model, by default the instance's own. Raises ModelNotFound."""
        return await asyncio.to_thread(lambda: self._describe(self.library.find(model)))

    async def load(self, model: str) -> None:
        """Load `model` and unload the one before. Raises ModelNotFound or ModelLoadFailed."""
        engine = self._running()
        source = await asyncio.to_thread(self.library.obtain, model)
        async for _ in self._fetches.bring(source):
            pass
        await engine.load(source)

    async def unload(self) -> None:
        """Unload the model, after what is being drawn. A server ends the whole worker instead, whatever it draws."""
        await self._running().unload()

    # --- generation ---

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Draw what `request` wants, telling each step."""
        engine = self._running()
        with engine.expecting():
            job = Job(await self._order(request))
            is_here = self._fetches.has(job.order.source)
            if is_here:
                engine.submit(job)
        if not is_here:
            async with aclosing(self._fetches.bring(job.order.source)) as fetching:
                async for far in fetching:
                    if request.want_progress:
                        yield far
            engine.submit(job)
        wanted, source = job.order.wanted, job.order.source
        told = False
        try:
            async for news in job.progress():
                if not told and isinstance(news, Progress):
                    told = True
                    yield Info(
                        {
                            "status": _STARTING[source.kind.output],
                            "model": source.name,
                            "prompt": wanted.prompt,
                            "seed": wanted.seed,
                        }
                    )
                yield news
            result = job.result()
        finally:
            engine.withdraw(job)
            await job.ended.wait()
        outputs = [await asyncio.to_thread(encode, piece, result, wanted) for piece in result.made]
        for notice in result.notices:
            yield notice
        for output in outputs:
            yield output
        yield Finished(timings=Timings(load=result.load, generate=result.generate))

    async def _order(self, request: GenerateRequest) -> Order:
        """The request, checked; nothing of it has reached a model."""
        source = await asyncio.to_thread(self.library.obtain, request.model)
        wanted = read_parameters(request.parameters, request.prompt, self.settings)
        inputs = await asyncio.to_thread(read_inputs, request, self.settings.max_input_megapixels)
        return Order(
            request_id=request.id,
            source=source,
            generation_type=request.generation_type,
            wanted=wanted,
            inputs=inputs,
            want_progress=request.want_progress,
        )

    def _describe(self, source: ModelSource) -> ModelInfo:
        info = describe(source)
        engine = self._engine
        loaded = engine is not None and engine.loaded_name == source.name
        details = {**info.details, "loaded": loaded}
        if loaded and engine is not None:
            details |= engine.facts
        return msgspec.structs.replace(info, details=details)

    def _running(self) -> Engine:
        if self._engine is None:
            raise BindingUnavailable(f"Binding instance '{self.name}' is not open.")
        return self._engine
