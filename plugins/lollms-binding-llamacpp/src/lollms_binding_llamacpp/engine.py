"""One loaded model that generates, in a thread of its own: one sequence at a time.

This is the seam behind which generation happens. A binding needs only `Engine.load`, `start` and `close`, the
model's `vocabulary` and `n_ctx`; a job goes in, a stream of text and a result come out.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import secrets
import threading
import time
from array import array
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import msgspec

from lollms_kernel.errors import ModelLoadFailed, ShuttingDown

from .in_thread import in_thread
from .job import Answer, Job, Result
from .native import Context, LoadFailed, Model, StopFlag, Stopped, Vocabulary, start_backend
from .parameters import MAX_SEED, Sampling
from .sampling import Sampler
from .stream import Stream
from .text import StopStrings, Utf8Stream

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 10.0


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and how; the fields are the settings of the same name, resolved."""

    name: str
    path: Path
    n_ctx: int
    """0: the model's own."""
    n_gpu_layers: int = 0
    batch_size: int = 512
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
    context: Context


class Engine:
    """A model in memory. Made by `Engine.load`, never directly."""

    def __init__(self, spec: EngineSpec, loading: Stream[_Loaded]) -> None:
        self.spec = spec
        self._jobs: queue.SimpleQueue[tuple[Job, Stream[Result]] | None] = queue.SimpleQueue()
        self._running: Stream[Result] | None = None
        self._closed = False
        self._cached: array[int] = array("i")  # what the KV cache holds,
        self._tenant = ""  # and whose it is
        self._thread = threading.Thread(
            target=self._run, args=(loading,), name=f"llama.cpp {spec.name}", daemon=True
        )
        self._thread.start()

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
        loading.result()
        return engine

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the model; usable until `close`."""
        return self._model.vocabulary

    @property
    def n_ctx(self) -> int:
        """Tokens of context."""
        return self._context.n_ctx

    def start(self, job: Job) -> Stream[Result]:
        """Begin a generation; jobs run one after the other. Whoever starts one stops its stream in the end."""
        stream: Stream[Result] = Stream()
        self._jobs.put((job, stream))
        return stream

    async def close(self) -> None:
        """Stop what runs and give all memory back."""
        self._closed = True
        self._jobs.put(None)
        if (running := self._running) is not None:
            running.flag.set()
        await in_thread(lambda: self._thread.join(CLOSE_TIMEOUT))
        if self._thread.is_alive():
            logger.error("The engine of '%s' did not stop within %s s.", self.spec.name, CLOSE_TIMEOUT)

    # --- everything below runs in the engine's thread ---

    def _run(self, loading: Stream[_Loaded]) -> None:
        try:
            loaded = _load(self.spec, loading.flag)
        except BaseException as error:  # it belongs to whoever waits for the model
            loading.end(error)
            return
        self._model, self._context = loaded.model, loaded.context
        loading.end(loaded)
        while (item := self._jobs.get()) is not None:
            self._serve(*item)
        loaded.context.close()
        loaded.model.close()

    def _serve(self, job: Job, stream: Stream[Result]) -> None:
        self._running = stream
        if self._closed:
            stream.flag.set()
        try:
            result = self._generate(job, stream)
        except BaseException as error:  # it belongs to whoever waits for the answer
            if not isinstance(error, Stopped) or not self._context.forget_from(len(self._cached)):
                self._forget_all()
            if isinstance(error, Stopped) and self._closed:
                error = ShuttingDown(f"'{self.spec.name}' is being unloaded.", hint="Send the request again.")
            stream.end(error)
        else:
            stream.end(result)
        finally:
            self._running = None

    def _generate(self, job: Job, stream: Stream[Result]) -> Result:
        self._context.stop_on(stream.flag)
        sampling = job.sampling
        seed = sampling.seed if 0 <= sampling.seed <= MAX_SEED else secrets.randbelow(MAX_SEED + 1)
        started = time.perf_counter()
        with closing(Sampler(sampling, self.vocabulary, seed, self.n_ctx)) as sampler:
            cached = self._keep_common_prefix(job)
            self._read(job.tokens, cached, stream.flag)
            sampler.see(job.tokens)
            read = time.perf_counter()
            answer = self._answer(sampling, sampler, stream)
        return Result(
            answer=answer,
            seed=seed,
            prompt_tokens=len(job.tokens),
            cached_tokens=cached,
            prompt_seconds=read - started,
            generate_seconds=time.perf_counter() - read,
        )

    def _keep_common_prefix(self, job: Job) -> int:
        """Tokens of the prompt that need not be read again; never those of another tenant, never all of them."""
        common = 0
        if job.sampling.cache_prompt and job.tenant == self._tenant:
            common = min(_common_prefix(self._cached, job.tokens), len(job.tokens) - 1)
        self._tenant = job.tenant
        if common and self._context.forget_from(common):
            del self._cached[common:]
            return common
        self._forget_all()
        return 0

    def _read(self, tokens: list[int], start: int, flag: StopFlag) -> None:
        for at in range(start, len(tokens), self._context.batch_size):
            self._decode(array("i", tokens[at : at + self._context.batch_size]), flag)

    def _answer(self, sampling: Sampling, sampler: Sampler, stream: Stream[Result]) -> Answer:
        utf8, stops = Utf8Stream(), StopStrings(sampling.stop)
        ends = frozenset() if sampling.ignore_eos else self.vocabulary.end_tokens
        count, last = 0, 0
        reason: Literal["stop", "length", "context"] = "length"
        while count != sampling.max_tokens:
            if count:
                if len(self._cached) >= self.n_ctx:
                    reason = "context"
                    break
                self._decode(array("i", (last,)), stream.flag)
            token = sampler.sample(self._context)
            if token is None:
                reason = "stop"
                break
            count, last = count + 1, token
            if token in ends:
                reason = "stop"
                break
            if text := stops.feed(utf8.feed(self.vocabulary.piece(token))):
                stream.put(text)
            if stops.matched is not None:
                reason = "stop"
                break
        if rest := stops.finish():
            stream.put(rest)
        return Answer(reason, count, stops.matched)

    def _decode(self, tokens: array[int], flag: StopFlag) -> None:
        if flag.is_set():
            raise Stopped
        self._context.decode(tokens, len(self._cached))
        self._cached.extend(tokens)

    def _forget_all(self) -> None:
        self._context.clear()
        del self._cached[:]


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
    try:
        if not model.can_generate:
            raise LoadFailed("it is an encoder, which makes embeddings and no text")
        context = Context(
            model,
            n_ctx=spec.n_ctx or model.trained_context,
            batch_size=spec.batch_size,
            threads=spec.threads,
            threads_batch=spec.threads_batch or spec.threads,
            cache_type=spec.cache_type,
            rope_freq_base=spec.rope_freq_base,
            compress_pos_emb=spec.compress_pos_emb,
        )
    except LoadFailed as error:
        model.close()
        raise _load_error(spec, str(error)) from None
    try:
        context.stop_on(flag)
        context.warm_up()
        vocabulary = model.vocabulary
        _ = (
            vocabulary.end_tokens,
            vocabulary.control_texts,
            vocabulary.longest,
        )  # now, not in the first answer
    except BaseException:
        context.close()
        model.close()
        raise
    return _Loaded(model, context)


def _load_error(spec: EngineSpec, reason: str) -> ModelLoadFailed:
    lowered = reason.lower()
    if "unknown model architecture" in lowered:
        hint = "Install a newer llama-cpp-python, or choose another model."
    elif "tensor_split" in lowered:
        hint = "Give `tensor_split` in the instance file one number for each GPU."
    elif any(sign in lowered for sign in ("alloc", "out of memory", "buffer")):
        hint = "Free some memory, or lower `n_ctx` or `n_gpu_layers` in the instance file, or choose a smaller model."
    elif spec.cache_type != "fp16":
        hint = "Not every model can have a quantized KV cache: set `cache_type: fp16` in the instance file."
    else:
        hint = "The file may be damaged or incomplete: download it again. `verbose: true` logs what llama.cpp says."
    return ModelLoadFailed(
        f"llama.cpp could not load '{spec.name}': {reason or 'it gives no reason'}.", hint=hint
    )


def _common_prefix(cached: Sequence[int], tokens: Sequence[int]) -> int:
    for at, (left, right) in enumerate(zip(cached, tokens, strict=False)):
        if left != right:
            return at
    return min(len(cached), len(tokens))
