"""One loaded model that generates for many requests at once, in a thread of its own.

This is the seam behind which generation happens. A binding needs only `Engine.load`, `start`, `between_steps` and
`close`, the model's `vocabulary` and `n_ctx`; jobs go in, streams of pieces and a result each come out.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lollms_kernel.errors import GenerationFailed, ModelLoadFailed, NotSupported, ShuttingDown

from .adapters import Adapters
from .context import Context, ContextOptions, KeepsNoContext
from .in_thread import in_thread
from .job import Job, Result
from .native import LoadFailed, Model, StopFlag, Vocabulary, start_backend
from .sampling import Sampler
from .scheduler import Scheduler, SchedulerOptions
from .slot import chosen_seed
from .stream import Ended, Outbox, Stream

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0
STACK = 64 * 2**20
"""Bytes of the thread's stack: llama.cpp's grammar parser calls itself for each nesting."""

T = TypeVar("T")


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and how; the fields are the settings of the same name, resolved."""

    name: str
    path: Path
    n_ctx: int
    """0: the model's own."""
    n_gpu_layers: int = 0
    batch_size: int = 512
    ubatch_size: int = 512
    parallel: int = 1
    kv_unified: bool = True
    cache_ram: int = 0
    """MiB."""
    context_shift: bool = False
    draft_max: int = 0
    lora: tuple[tuple[Path, float], ...] = ()
    threads: int = 1
    threads_batch: int = 1
    tensor_split: list[float] | None = None
    cache_type: str = "fp16"
    rope_freq_base: float = 0.0
    compress_pos_emb: float = 1.0
    extra_buffers: bool = True
    verbose: bool = False


class _Loaded(msgspec.Struct, frozen=True):
    model: Model
    context: Context | None
    adapters: Adapters


class _Start(msgspec.Struct, frozen=True):
    job: Job
    stream: Stream[Result]
    sampler: Sampler | None
    seed: int | None


class _Call(msgspec.Struct, frozen=True):
    function: Callable[[Scheduler], Any]
    stream: Stream[Any]
    slot: int | None = None
    """Which slot has to be idle for it."""


class Engine:
    """A model in memory. Made by `Engine.load`, never directly."""

    def __init__(self, spec: EngineSpec, loading: Stream[_Loaded]) -> None:
        self.spec = spec
        self._commands: queue.SimpleQueue[_Start | _Call | None] = queue.SimpleQueue()
        self._closed = False
        self._abort = StopFlag()
        self._outbox = Outbox()
        self._scheduler: Scheduler | None = None
        before = threading.stack_size(STACK)
        self._thread = threading.Thread(
            target=self._run, args=(loading,), name=f"llama.cpp {spec.name}", daemon=True
        )
        self._thread.start()
        threading.stack_size(before)

    @classmethod
    async def load(cls, spec: EngineSpec) -> Engine:
        """Load a model and evaluate a few tokens with it. Raises ModelLoadFailed. Being cancelled stops it."""
        loading: Stream[_Loaded] = Stream()
        engine = cls(spec, loading)
        try:
            await loading.ended()
        except asyncio.CancelledError:
            loading.flag.set()
            await engine.close()
            raise
        loaded = loading.result()
        engine.model, engine.adapters = loaded.model, loaded.adapters
        engine.n_ctx = loaded.context.n_ctx if loaded.context else loaded.model.trained_context
        engine.generates = loaded.context is not None
        return engine

    model: Model
    adapters: Adapters
    n_ctx: int
    """Tokens of context of one request."""
    generates: bool
    """False for encoders, which make embeddings and no text."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the model; usable until `close`."""
        return self.model.vocabulary

    def prepare(self, job: Job) -> tuple[Sampler, int]:
        """What `start` needs beside the job. Blocks: grammars are parsed here. Raises InvalidRequest for wrong ones."""
        seed = chosen_seed(job.sampling)
        return Sampler(job.sampling, self.vocabulary, seed, self.n_ctx, job.grammar), seed

    def start(self, job: Job, prepared: tuple[Sampler, int] | None = None) -> Stream[Result]:
        """Begin a generation. Whoever starts one stops its stream in the end."""
        stream: Stream[Result] = Stream(self._hurry)
        sampler, seed = prepared or (None, None)
        if self.generates:
            self._commands.put(_Start(job, stream, sampler, seed))
        else:
            stream.deliver(Ended(_no_text(self.spec.name)))
        return stream

    async def between_steps(self, function: Callable[[Scheduler], T], slot: int | None = None) -> T:
        """The result of `function`, called in the engine's thread while no step is under way, and `slot` is idle."""
        if not self.generates:
            raise _no_text(self.spec.name)
        stream: Stream[T] = Stream()
        self._commands.put(_Call(function, stream, slot))
        await stream.ended()
        return stream.result()

    async def close(self) -> None:
        """Stop what runs and give all memory back."""
        self._closed = True
        self._abort.set()
        self._commands.put(None)
        await in_thread(lambda: self._thread.join(CLOSE_TIMEOUT))
        if self._thread.is_alive():
            logger.error("The engine of '%s' did not stop within %s s.", self.spec.name, CLOSE_TIMEOUT)

    def _hurry(self, stream: Stream[Any]) -> None:
        if self._scheduler is not None:
            self._scheduler.hurry(stream)

    # --- everything below runs in the engine's thread ---

    def _run(self, loading: Stream[_Loaded]) -> None:
        try:
            loaded = _load(self.spec, loading.flag)
        except BaseException as error:  # it belongs to whoever waits for the model
            self._outbox.put(loading, Ended(error))
            self._outbox.send()
            return
        scheduler = None
        if loaded.context is not None:
            scheduler = self._scheduler = _scheduler(self.spec, loaded, self._outbox, self._abort)
        self._outbox.put(loading, Ended(loaded))
        self._outbox.send()
        while self._take_commands(scheduler):
            if scheduler is not None:
                self._step(scheduler)
        if scheduler is not None:
            scheduler.stop_everything(self._shutting_down)
            scheduler.free_media()
        self._refuse_the_rest()
        self._outbox.send()
        loaded.adapters.close()
        if loaded.context is not None:
            loaded.context.close()
        loaded.model.close()

    def _take_commands(self, scheduler: Scheduler | None) -> bool:
        """Look at what is new, and wait for something if there is nothing to do; False when it is time to close."""
        while not self._closed:
            try:
                idle = scheduler is None or not scheduler.busy
                command = self._commands.get() if idle else self._commands.get_nowait()
            except queue.Empty:
                return True
            if command is None or self._closed:
                if command is not None:
                    self._commands.put(command)
                break
            if isinstance(command, _Start):
                assert scheduler is not None
                scheduler.add(command.job, command.stream, command.sampler, command.seed)
            else:
                self._call(command, scheduler)
            self._outbox.send()
        return False

    def _call(self, command: _Call, scheduler: Scheduler | None) -> None:
        assert scheduler is not None

        def call() -> None:
            try:
                self._outbox.put(command.stream, Ended(command.function(scheduler)))
            except BaseException as error:  # it belongs to whoever called
                self._outbox.put(command.stream, Ended(error))

        def give_up(error: BaseException) -> None:
            self._outbox.put(command.stream, Ended(error))

        if command.slot is None:
            call()
        else:
            scheduler.when_idle(command.slot, call, give_up)

    def _step(self, scheduler: Scheduler) -> None:
        try:
            scheduler.step()
        except Exception as error:  # a mistake of ours must not leave everybody waiting
            logger.exception("A step of the engine of '%s' failed.", self.spec.name)
            reason = f"{type(error).__name__}: {error}"
            scheduler.stop_everything(
                lambda: GenerationFailed(f"A step of the engine failed: {reason}", hint="Send it again.")
            )
        self._outbox.send()

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            if command is not None:
                self._outbox.put(command.stream, Ended(self._shutting_down()))

    def _shutting_down(self) -> ShuttingDown:
        return ShuttingDown(f"'{self.spec.name}' is being unloaded.", hint="Send the request again.")


def _no_text(name: str) -> NotSupported:
    return NotSupported(
        f"'{name}' is an encoder: it makes embeddings and no text.",
        hint="Ask it for embeddings, or use another model.",
    )


def _scheduler(spec: EngineSpec, loaded: _Loaded, outbox: Outbox, abort: StopFlag) -> Scheduler:
    assert loaded.context is not None
    loaded.context.stop_on(abort)
    options = SchedulerOptions(
        parallel=spec.parallel,
        host_bytes=spec.cache_ram * 2**20,
        context_shift=spec.context_shift,
        draft_max=spec.draft_max if loaded.model.can_cut else 0,
    )
    scheduler = Scheduler(loaded.model, loaded.context, options, outbox, abort)
    scheduler.adapt = loaded.adapters.applier(loaded.context)
    return scheduler


def _load(spec: EngineSpec, flag: StopFlag) -> _Loaded:
    start_backend(spec.verbose)
    try:
        model = Model(
            spec.path,
            n_gpu_layers=spec.n_gpu_layers,
            tensor_split=spec.tensor_split,
            extra_buffers=spec.extra_buffers,
            stop=flag,
        )
    except LoadFailed as error:
        raise _load_error(spec, str(error)) from None
    context = None
    try:
        adapters = Adapters(model, spec.lora)
        if model.can_generate:
            with suppress(KeepsNoContext):  # an encoder
                context = Context(model, _context_options(spec, model))
        if context is not None:
            context.stop_on(flag)
            context.warm_up()
        vocabulary = model.vocabulary
        _ = (
            vocabulary.end_tokens,
            vocabulary.control_texts,
            vocabulary.longest,
        )  # now, not in the first answer
    except LoadFailed as error:
        model.close()
        raise _load_error(spec, str(error)) from None
    except BaseException:
        if context is not None:
            context.close()
        model.close()
        raise
    return _Loaded(model, context, adapters)


def _context_options(spec: EngineSpec, model: Model) -> ContextOptions:
    return ContextOptions(
        n_ctx=spec.n_ctx or model.trained_context,
        batch_size=spec.batch_size,
        ubatch_size=spec.ubatch_size,
        parallel=spec.parallel,
        outputs=1 + spec.draft_max,
        unified=spec.kv_unified,
        threads=spec.threads,
        threads_batch=spec.threads_batch or spec.threads,
        cache_type=spec.cache_type,
        rope_freq_base=spec.rope_freq_base,
        compress_pos_emb=spec.compress_pos_emb,
    )


def _load_error(spec: EngineSpec, reason: str) -> ModelLoadFailed:
    lowered = reason.lower()
    if "unknown model architecture" in lowered:
        hint = "Install a newer llama-cpp-python, or choose another model."
    elif "tensor_split" in lowered:
        hint = "Give `tensor_split` in the instance file one number for each GPU."
    elif "lora" in lowered:
        hint = "Does the adapter fit the model? Look at `lora` in the instance file."
    elif any(sign in lowered for sign in ("alloc", "out of memory", "buffer")):
        hint = "Free some memory, or lower `n_ctx` or `n_gpu_layers` in the instance file, or choose a smaller model."
    elif spec.cache_type != "fp16":
        hint = "Not every model can have a quantized KV cache: set `cache_type: fp16` in the instance file."
    else:
        hint = "The file may be damaged or incomplete: download it again. `verbose: true` logs what llama.cpp says."
    return ModelLoadFailed(
        f"llama.cpp could not load '{spec.name}': {reason or 'it gives no reason'}.", hint=hint
    )
