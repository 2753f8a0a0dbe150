"""The binding type `llamacpp_binding`: finds models, keeps one loaded, and turns requests into its jobs."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from lollms_kernel.contracts import Binding, BindingCard, BindingContext, Isolation
from lollms_kernel.errors import BindingUnavailable, LollmsError, ModelLoadFailed
from lollms_kernel.types import Chunk, GenerateRequest, GpuNeed, ModelInfo, Notice, TextDelta

from .answering import check_input, context_full, finished, prepare
from .extra_buffers import ExtraBuffers, amx_trap
from .gguf_header import GgufError
from .in_thread import in_thread
from .installation import ENGINE, has_gpu_backend, missing_engine
from .library import GUIDE, Library, ModelFile, describe
from .settings import DEFAULT_MODELS_FOLDER, LlamaCppSettings

if TYPE_CHECKING:  # these import llama.cpp, which belongs into the worker
    from .loading import LoadedModel
    from .vocabularies import Vocabularies

logger = logging.getLogger(__name__)


class LlamaCppBinding(Binding):
    """GGUF models through llama.cpp: one is loaded at a time, one request runs at a time."""

    type_name: ClassVar[str] = "llamacpp_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="llama.cpp",
        version="0.1.0",
        author="lollms",
        description="Runs GGUF models on this machine with llama.cpp; includes a tiny guide model.",
        requirements=(ENGINE, "numpy"),
    )
    Settings = LlamaCppSettings
    settings: LlamaCppSettings

    def __init__(self, settings: LlamaCppSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self.library = Library(self._models_folder(), self._model_path())
        self.extra_buffers = ExtraBuffers(settings.use_extra_bufts, self.library.headers)
        self._loaded: LoadedModel | None = None
        self._turn = asyncio.Lock()
        self._vocabularies: Vocabularies | None = None
        self._vocabularies_lock = threading.Lock()

    @property
    def isolation(self) -> Isolation:
        """A worker: llama.cpp ends its process when something is badly wrong."""
        return "process"

    @property
    def parallel(self) -> int | None:
        """One request at a time."""
        return 1

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        """`embedded`, which answers with the packaged guide model."""
        return {
            "embedded": {"type": cls.type_name, "binding_instance_name": "embedded", "default_model": GUIDE}
        }

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether llama-cpp-python is missing."""
        return missing_engine()

    @classmethod
    def doctor_findings(cls) -> Iterator[tuple[str, str, str, str | None]]:
        """What `lollms doctor` says beyond what it finds out itself: level, title, text, cure."""
        trap = amx_trap()
        if trap is not None:
            yield "warning", "llama.cpp and AMX", trap, None

    def gpu_need(self, request: GenerateRequest) -> GpuNeed:
        """The GPU, if the settings want it and the installed build can use one."""
        return GpuNeed(required=self.settings.n_gpu_layers != 0 and has_gpu_backend())

    def supports_role(self, media_type: str, role: str) -> bool:
        """Text only."""
        return media_type == "text"

    async def open(self) -> None:
        """Import the engine and look at the settings; models are loaded by the first request."""
        await in_thread(_import_engine)
        old = [name for name in ("server_path", "additional_args") if getattr(self.settings, name)]
        if old:
            logger.warning(
                "Instance '%s': %s had a meaning when this binding started llama-server; it has no effect now.",
                self.name,
                " and ".join(old),
            )
        if self.library.extra is not None and not self.library.extra.is_file():
            logger.warning("Instance '%s': model_path %s is not a file.", self.name, self.library.extra)

    async def close(self) -> None:
        """Stop what runs and unload everything."""
        await self._unload()
        if self._vocabularies is not None:
            await in_thread(self._vocabularies.close)

    # --- models ---

    async def list_models(self) -> list[ModelInfo]:
        """The file given by path, the files of the models folder, the guide."""
        return await asyncio.to_thread(lambda: [self._describe(file) for file in self.library.files()])

    async def get_model_info(self, model: str | None = None) -> ModelInfo:
        """What the file says of a model, by default the instance's own. Raises ModelNotFound."""
        return await asyncio.to_thread(lambda: self._describe(self._find(model)))

    async def load(self, model: str) -> None:
        """Load `model` and unload the one before. Raises ModelNotFound or ModelLoadFailed."""
        async with self._turn:
            await self._get_ready(model)

    async def unload(self) -> None:
        """Give the loaded model's memory back, after the answer that may be running."""
        async with self._turn:
            await self._unload()

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """Token ids of `text`; control tokens written in it count as such."""
        file = await asyncio.to_thread(self._find, model)
        return await in_thread(lambda: self._tokenize(file, text, add_bos, add_eos))

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of token ids. Raises InvalidRequest for ids that the model does not have."""
        file = await asyncio.to_thread(self._find, model)
        return await in_thread(lambda: self._detokenize(file, tokens))

    # --- generation ---

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of `request.model`, which is loaded first if need be."""
        started = time.perf_counter()
        check_input(request)
        async with self._turn:
            before, loading = self._loaded, time.perf_counter()
            loaded = await self._get_ready(request.model)
            load = None if loaded is before else time.perf_counter() - loading
            job, notices = await in_thread(lambda: prepare(loaded, request))
            if before is not None and loaded is not before:
                swapped = f"'{before.file.name}' was unloaded to load '{loaded.file.name}'."
                notices.append(Notice("model_swapped", swapped))
            stream = loaded.engine.start(job)
            first_chunk: float | None = None
            try:
                async for text in stream.texts():
                    first_chunk = first_chunk or time.perf_counter() - started
                    while notices:  # only now, so that a request that fails at once streams nothing
                        yield notices.pop(0)
                    yield TextDelta(text)
                result = stream.result()
            finally:
                await stream.stop()
        if result.answer.reason == "context":
            notices.append(context_full(loaded))
        for notice in notices:
            yield notice
        yield finished(loaded, result, load, first_chunk)

    # --- one model in memory ---

    async def _get_ready(self, model: str | None) -> LoadedModel:
        loaded = self._loaded
        if loaded is not None and loaded.file.name == model:
            return loaded
        file = await asyncio.to_thread(self._find, model)
        if loaded is not None and loaded.file == file:
            return loaded
        from .loading import load_model

        try:
            header = await asyncio.to_thread(self.library.headers, file.path)
        except GgufError as error:
            raise ModelLoadFailed(
                f"'{file.name}' is no GGUF file that can be used: {error}", hint="Download it again."
            ) from error
        await self._unload()
        verdict = await self.extra_buffers.decide(file)
        self._loaded = await load_model(file, header, self.settings, self.context.root, verdict)
        return self._loaded

    async def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            await loaded.engine.close()

    # --- files (these block: call them in a thread) ---

    def _find(self, model: str | None) -> ModelFile:
        return self.library.find(model or self.settings.default_model)

    def _describe(self, file: ModelFile) -> ModelInfo:
        info = describe(file, self.library.headers, self.settings)
        if "error" in info.details:
            return info
        details = {**info.details, "loaded": self._loaded is not None and self._loaded.file == file}
        verdict = self.extra_buffers.known(file)
        if verdict is not None:
            details["extra_buffers"] = verdict.use
            if verdict.reason:
                details["extra_buffers_reason"] = verdict.reason
        return msgspec.structs.replace(info, details=details)

    def _tokenize(self, file: ModelFile, text: str, add_bos: bool, add_eos: bool) -> list[int]:
        with self._vocabularies_now().of(file) as vocabulary:
            tokens = vocabulary.tokenize(text, special=True)
            if add_bos and vocabulary.bos >= 0:
                tokens.insert(0, vocabulary.bos)
            if add_eos and vocabulary.eos >= 0:
                tokens.append(vocabulary.eos)
            return tokens

    def _detokenize(self, file: ModelFile, tokens: list[int]) -> str:
        with self._vocabularies_now().of(file) as vocabulary:
            return vocabulary.detokenize(tokens)

    def _vocabularies_now(self) -> Vocabularies:
        from .vocabularies import Vocabularies

        with self._vocabularies_lock:
            if self._vocabularies is None:
                self._vocabularies = Vocabularies(self.settings.verbose)
            return self._vocabularies

    def _models_folder(self) -> Path:
        if self.settings.models_folder == DEFAULT_MODELS_FOLDER:
            return self.context.models_folder / "gguf"
        return self.context.root / self.settings.models_folder

    def _model_path(self) -> Path | None:
        return None if self.settings.model_path is None else self.context.root / self.settings.model_path


def _import_engine() -> None:
    try:
        importlib.import_module(".loading", __package__)
    except (
        Exception
    ) as error:  # a broken build raises what the system's loader says; all of it means the same
        raise BindingUnavailable(
            f"llama-cpp-python is installed but cannot be loaded: {error}",
            hint="Install it again: `pip install --force-reinstall --no-cache-dir llama-cpp-python==0.3.36`.",
        ) from error
