"""The binding type `llamacpp_binding`: finds models, keeps one loaded, and turns requests into its jobs."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from lollms_kernel.contracts import Binding, BindingCard, BindingContext, Isolation
from lollms_kernel.errors import BindingUnavailable, InvalidRequest, LollmsError, ModelLoadFailed
from lollms_kernel.types import (
    Chunk,
    Embedding,
    EmbeddingOptions,
    GenerateRequest,
    GpuNeed,
    Message,
    ModelInfo,
    Notice,
    Parameters,
    Progress,
    Ranking,
    TemplateOptions,
    TextDelta,
    ToolCall,
)

from .answering import Prepared, chat_of, check_input, context_full, finished, prepare
from .extra_buffers import ExtraBuffers, amx_trap
from .gguf_header import GgufError
from .in_thread import in_thread
from .installation import ENGINE, has_gpu_backend, missing_engine
from .job import Piece, Reading, Result
from .library import GUIDE, Library, ModelFile, describe, embeds, reranks
from .one_model import OneModel
from .parameters import read_sampling
from .pulse import beats
from .settings import DEFAULT_MODELS_FOLDER, LlamaCppSettings
from .tool_calls import ToolCallParser
from .tool_formats import described
from .turns import MEDIA_MARKER, PLAIN_MARKER, with_system

if TYPE_CHECKING:  # these import llama.cpp, which belongs into the worker
    from .loading import LoadedModel
    from .stream import Stream
    from .vocabularies import Vocabularies

logger = logging.getLogger(__name__)


class LlamaCppBinding(Binding):
    """GGUF models through llama.cpp: one is loaded at a time, and works on many requests at once."""

    type_name: ClassVar[str] = "llamacpp_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="llama.cpp",
        version="0.2.0",
        author="lollms",
        description="Runs GGUF models on this machine with llama.cpp; includes a tiny guide model.",
        requirements=(ENGINE, "numpy"),
        supported_input_modalities=("text", "image", "audio"),
    )
    Settings = LlamaCppSettings
    endless: ClassVar[bool] = True
    settings: LlamaCppSettings

    def __init__(self, settings: LlamaCppSettings, context: BindingContext) -> None:
        super().__init__(settings, context)
        self.library = Library(self._models_folder(), self._model_path())
        self.extra_buffers = ExtraBuffers(settings.use_extra_bufts, self.library.headers)
        self._model = OneModel(self._load)
        self._vocabularies: Vocabularies | None = None
        self._vocabularies_lock = threading.Lock()

    @property
    def isolation(self) -> Isolation:
        """A worker: llama.cpp ends its process when something is badly wrong."""
        return "process"

    @property
    def parallel(self) -> int | None:
        """No limit of its own: more requests than slots wait in the engine, which is fair to all tenants."""
        return None

    @property
    def pulse(self) -> int:
        """See `pulse`: a long prompt, a large model or a long line of requests is no hang."""
        return beats()

    @property
    def default_parameters(self) -> Parameters:
        """What the instance file says."""
        return self.settings.default_parameters

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
        """The GPU, if the settings want it and the installed build can use one; requests in flight share it."""
        required = self.settings.n_gpu_layers != 0 and has_gpu_backend()
        return GpuNeed(required=required, share=f"{self.type_name} {self.name}")

    def supports_role(self, media_type: str, role: str) -> bool:
        """Text, and with a projector what it takes."""
        return media_type == "text" or self.settings.mmproj is not None

    async def open(self) -> None:
        """Import the engine and look at the settings; models are loaded by the first request."""
        await in_thread(_import_engine)
        read_sampling(self.settings.default_parameters, {})
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
        await self._model.close()
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
        async with self._using(model):
            pass

    async def unload(self) -> None:
        """Give the loaded model's memory back, after the answers that may be running."""
        await self._model.unload()

    async def tokenize(self, text: str, model: str | None, add_bos: bool, add_eos: bool) -> list[int]:
        """Token ids of `text`; control tokens written in it count as such."""
        file = await asyncio.to_thread(self._find, model)
        return await in_thread(lambda: self._tokenize(file, text, add_bos, add_eos))

    async def detokenize(self, tokens: list[int], model: str | None) -> str:
        """The text of token ids. Raises InvalidRequest for ids that the model does not have."""
        file = await asyncio.to_thread(self._find, model)
        return await in_thread(lambda: self._detokenize(file, tokens))

    async def token_pieces(self, tokens: list[int], model: str | None) -> list[bytes]:
        """The bytes of each token, control tokens as they are written. Raises InvalidRequest for unknown ids."""
        file = await asyncio.to_thread(self._find, model)
        return await in_thread(lambda: self._pieces(file, tokens))

    # --- generation ---

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Stream the answer of `request.model`, which is loaded first if need be."""
        started = time.perf_counter()
        check_input(request)
        async with self._using(request.model) as (loaded, load, swapped):
            prepared = await in_thread(lambda: prepare(loaded, request))
            if swapped is not None:
                text = f"'{swapped}' was unloaded to load '{loaded.file.name}'."
                prepared.notices.append(Notice("model_swapped", text))
            stream = loaded.engine.start(prepared.job, (prepared.sampler, prepared.seed))
            answer = _Answer(prepared)
            first_chunk: float | None = None
            try:
                async for chunk in answer.chunks(stream):
                    if first_chunk is None and not isinstance(chunk, Progress | Notice):
                        first_chunk = time.perf_counter() - started
                    yield chunk
                result = stream.result()
            finally:
                await stream.stop()
        if result.answer.reason == "context":
            yield context_full(loaded)
        elif result.answer.truncated:
            yield Notice("context_shifted", "The context was full: the middle of it was dropped.")
        yield finished(
            loaded,
            prepared,
            result,
            load=load,
            first_chunk=first_chunk,
            called=answer.called,
            want_tokens=request.want_tokens,
        )

    # --- embeddings and ranks ---

    async def embed(self, texts: list[str], model: str | None) -> list[list[float]]:
        """One vector for each text."""
        made = await self.embed_inputs([[text] for text in texts], model, EmbeddingOptions())
        if any(len(embedding.vectors) != 1 for embedding in made):
            raise InvalidRequest(
                "This instance makes one vector for each token.",
                hint="Set `pooling: mean` in the instance file.",
            )
        return [embedding.vectors[0] for embedding in made]

    async def embed_inputs(
        self, inputs: list[list[int | str]], model: str | None, options: EmbeddingOptions
    ) -> list[Embedding]:
        """The embedding of each input. Raises NotSupported where embeddings are off, InvalidRequest for long inputs."""
        from .embedder import embeddings_disabled

        if not 0 <= options.normalize + 1 <= 1000:
            raise InvalidRequest(f"embd_normalize is {options.normalize}.", hint="It must be -1 to 999.")
        if options.dimensions is not None and options.dimensions < 1:
            raise InvalidRequest(f"dimensions is {options.dimensions}.", hint="It must be at least 1.")
        async with self._using(model) as (loaded, _, _):
            if not embeds(loaded.header, self.settings):
                raise embeddings_disabled(loaded.file.name)
            tokens = await in_thread(lambda: [_input_tokens(loaded, parts) for parts in inputs])
            vectors = await loaded.embedder.embed(tokens, options.normalize, options.dimensions)
        return [Embedding(vectors=made.rows, tokens=made.tokens) for made in vectors]

    async def rerank(self, query: str, documents: list[str], model: str | None, tenant: str) -> Ranking:
        """One score for each document; larger is better. Raises NotSupported where reranking is off."""
        from .embedder import reranking_disabled

        async with self._using(model) as (loaded, _, _):
            if not reranks(loaded.header, self.settings):
                raise reranking_disabled(loaded.file.name)
            inputs = await in_thread(lambda: [_pair_tokens(loaded, query, text) for text in documents])
            scores = await loaded.embedder.scores(inputs)
        return Ranking(scores=scores, tokens=sum(map(len, inputs)))

    # --- the engine, looked at and acted on ---

    async def apply_template(
        self, messages: list[Message], model: str | None, options: TemplateOptions
    ) -> str:
        """The prompt that the model's template makes. Raises InvalidRequest where it refuses the turns."""
        tools, _ = described(options.tools)
        parameters = {
            "chat_template_kwargs": options.kwargs,
            "add_generation_prompt": options.add_generation_prompt,
            "continue_final_message": options.continue_final_message,
        }
        async with self._using(self._current(model)) as (loaded, _, _):
            chat = chat_of(loaded, with_system(None, messages), tools, parameters)
            text = await in_thread(lambda: loaded.prompts.text(chat))
        return text.replace(MEDIA_MARKER, PLAIN_MARKER)

    async def slots(self, model: str | None) -> list[dict[str, Any]]:
        """Each slot of the loaded model; of one that is not loaded, what it would have."""
        from .slot_view import idle_slots, view_slots

        loaded = await self._loaded(model)
        if loaded is None or not loaded.engine.generates:
            return idle_slots(self.settings.parallel, self.settings.n_ctx)
        return await loaded.engine.between_steps(view_slots)

    async def slot_action(
        self, slot: int, action: str, filename: str | None, model: str | None, tenant: str
    ) -> dict[str, Any]:
        """`save`, `restore` or `erase` one slot. Raises InvalidRequest, or NotSupported without `slot_save_path`."""
        from .slot_files import SlotFiles

        folder = self.settings.slot_save_path
        files = SlotFiles(None if folder is None else self.context.root / folder)
        async with self._using(self._current(model)) as (loaded, _, _):
            return await files.act(loaded, slot, action, filename, tenant)

    async def adapters(self, model: str | None) -> list[dict[str, Any]]:
        """Each LoRA adapter."""
        async with self._using(self._current(model)) as (loaded, _, _):
            return loaded.engine.adapters.listing()

    async def set_adapters(self, scales: list[tuple[int, float]], model: str | None) -> None:
        """Change the scales for requests that say nothing. Raises InvalidRequest for ids that do not exist."""
        async with self._using(self._current(model)) as (loaded, _, _):
            loaded.engine.adapters.set(scales)

    async def properties(self, model: str | None) -> dict[str, Any]:
        """What llama-server's `/props` and `/v1/models` say; loads the model, since much is known only then."""
        from .properties import properties

        async with self._using(self._current(model)) as (loaded, _, _):
            return properties(loaded, self.settings)

    async def engine_metrics(self, model: str | None) -> dict[str, float]:
        """Counters and gauges of the loaded model; zeros where none is loaded."""
        from .counters import Counters
        from .slot_view import figures

        loaded = await self._loaded(model)
        waiting = self._model.waiting
        if loaded is None or not loaded.engine.generates:
            return {**Counters().figures(), "requests_processing": 0.0, "requests_deferred": float(waiting)}
        return await loaded.engine.between_steps(lambda scheduler: figures(scheduler, waiting))

    # --- one model in memory ---

    @asynccontextmanager
    async def _using(self, model: str | None) -> AsyncIterator[tuple[LoadedModel, float | None, str | None]]:
        """The model, which is not unloaded meanwhile; the seconds that loading it took; the one unloaded for it."""
        file = await asyncio.to_thread(self._find, model)
        async with self._model.using(file) as used:
            yield used

    def _current(self, model: str | None) -> str | None:
        """What a question that names no model is about: the loaded one, if one is."""
        loaded = self._model.loaded
        return loaded.file.name if model is None and loaded is not None else model

    async def _loaded(self, model: str | None) -> LoadedModel | None:
        file = await asyncio.to_thread(self._find, self._current(model))
        loaded = self._model.loaded
        return loaded if loaded is not None and loaded.file == file else None

    async def _load(self, file: ModelFile) -> LoadedModel:
        from .loading import load_model

        try:
            header = await asyncio.to_thread(self.library.headers, file.path)
        except GgufError as error:
            raise ModelLoadFailed(
                f"'{file.name}' is no GGUF file that can be used: {error}", hint="Download it again."
            ) from error
        verdict = await self.extra_buffers.decide(file)
        return await load_model(file, header, self.settings, self.context.root, verdict)

    # --- files (these block: call them in a thread) ---

    def _find(self, model: str | None) -> ModelFile:
        return self.library.find(model or self.settings.default_model)

    def _describe(self, file: ModelFile) -> ModelInfo:
        info = describe(file, self.library.headers, self.settings)
        if "error" in info.details:
            return info
        loaded = self._model.loaded
        details = {**info.details, "loaded": loaded is not None and loaded.file == file}
        verdict = self.extra_buffers.known(file)
        if verdict is not None:
            details["extra_buffers"] = verdict.use
            if verdict.reason:
                details["extra_buffers_reason"] = verdict.reason
        modalities: tuple[str, ...] = ("text",)
        if self.settings.mmproj is not None:
            from .library import projector_modalities

            path = self.context.root / self.settings.mmproj
            modalities = ("text", *projector_modalities(path, self.library.headers))
        return msgspec.structs.replace(info, details=details, input_modalities=modalities)

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

    def _pieces(self, file: ModelFile, tokens: list[int]) -> list[bytes]:
        with self._vocabularies_now().of(file) as vocabulary:
            return [vocabulary.piece(token, special=True) for token in tokens]

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


class _Answer:
    """Makes chunks of what the engine gives: notices first, tool calls told apart from text."""

    def __init__(self, prepared: Prepared) -> None:
        self._notices = prepared.notices
        self._opening = prepared.begins_with
        self._parser = ToolCallParser(prepared.names) if prepared.names else None

    @property
    def called(self) -> bool:
        """Whether a function was called."""
        return self._parser is not None and self._parser.found > 0

    async def chunks(self, stream: Stream[Result]) -> AsyncIterator[Chunk]:
        """What the client gets before the last chunk."""
        async for item in stream.items():
            while self._notices:  # only now, so that a request that fails at once streams nothing
                yield self._notices.pop(0)
            if isinstance(item, Reading):
                details = {"cache": item.cached, "time_ms": item.milliseconds}
                yield Progress(item.processed, item.total, details=details)
                continue
            if self._opening:
                yield TextDelta(self._opening)
                self._opening = ""
            for chunk in self._told_apart(item):
                yield chunk
        if self._parser is not None:
            for part in self._parser.finish():
                yield TextDelta(part) if isinstance(part, str) else part
        stream.result()
        while self._notices:
            yield self._notices.pop(0)

    def _told_apart(self, piece: Piece) -> list[TextDelta | ToolCall]:
        if self._parser is None:
            return [TextDelta(piece.text, piece.tokens, piece.probabilities)]
        parts = self._parser.feed(piece.text) if piece.text else []
        text = "".join(part for part in parts if isinstance(part, str))
        calls = [part for part in parts if not isinstance(part, str)]
        deltas: list[TextDelta | ToolCall] = []
        if text or piece.tokens:
            deltas.append(TextDelta(text, piece.tokens, piece.probabilities))
        return [*deltas, *calls]


def _input_tokens(loaded: LoadedModel, parts: list[int | str]) -> list[int]:
    """The first text gets what the model wants around a text; the other parts are taken as they are."""
    vocabulary = loaded.engine.vocabulary
    tokens: list[int] = []
    for part in parts:
        if isinstance(part, str):
            tokens += vocabulary.tokenize(part, special=True, complete=not tokens)
        else:
            vocabulary.check(part)
            tokens.append(part)
    return tokens


def _pair_tokens(loaded: LoadedModel, query: str, document: str) -> list[int]:
    vocabulary = loaded.engine.vocabulary
    template = loaded.engine.model.rerank_template()
    if template is not None:
        text = template.replace("{query}", query).replace("{document}", document)
        return vocabulary.tokenize(text, special=True)
    end = vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep
    tokens = [vocabulary.bos] if vocabulary.add_bos and vocabulary.bos >= 0 else []
    tokens += vocabulary.tokenize(query, special=False)
    if vocabulary.add_eos and end >= 0:
        tokens.append(end)
    if vocabulary.add_sep and vocabulary.sep >= 0:
        tokens.append(vocabulary.sep)
    tokens += vocabulary.tokenize(document, special=False)
    if vocabulary.add_eos and end >= 0:
        tokens.append(end)
    return tokens


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
