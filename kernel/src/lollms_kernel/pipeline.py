"""One streamed request, as a straight line: admission, personality, binding, lease, generation, thoughts.

Every step is a context manager or an async generator that the step above closes, so that whoever stops first
(the client, the operator, the binding) everything that was taken is given back before the caller goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from .admission import FairQueue
from .completion import fitted
from .config.concealment import without_secrets
from .contracts import Binding, GpuStrategy, Personality
from .endings import Ending
from .errors import LollmsError, NotSupported, UnsupportedInput, error_from_code
from .interrupt import Interrupt
from .parameters import ENDLESS, normalise
from .thoughts import ThoughtParser
from .tools import generate_with_tools
from .types import (
    Chunk,
    Event,
    Failed,
    Finished,
    GenerateRequest,
    ModelInfo,
    TextDelta,
    ThoughtDelta,
)
from .workers.faults import as_lollms_error

if TYPE_CHECKING:
    from .instance import Instance
    from .kernel import LocalKernel

logger = logging.getLogger(__name__)

OUTPUT_OF = {
    "ttt": "text",
    "stt": "text",
    "tti": "image",
    "i2i": "image",
    "ttv": "video",
    "ttm": "audio",
    "tts": "audio",
    "audio2audio": "audio",
}
"""Generation type to the modality that it makes."""

ROLES = {
    "image": ("input_image", "mask_image", "controlnet_image"),
    "audio": ("input_audio",),
    "video": ("input_video",),
    "document": ("input_document",),
}
"""The usual roles of each type of input; bindings may know more."""


class Generation:
    """What a personality calls to reach a binding; counts where the time went."""

    def __init__(self, kernel: LocalKernel, strategy: GpuStrategy, interrupt: Interrupt) -> None:
        self._kernel = kernel
        self._strategy = strategy
        self._interrupt = interrupt
        self.waited = 0.0
        self.binding: str | None = None
        self.model: str | None = None

    @property
    def kernel(self) -> LocalKernel:
        """The kernel that runs this."""
        return self._kernel

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Choose the binding, wait for its turn and the GPU, and stream its answer with thoughts told apart."""
        instance = self._kernel.choose_instance(request)
        with instance.used_by(self._interrupt) as binding:
            info = await binding.get_model_info(request.model)
            check_inputs(request, binding, info)
            request = fitted(self._complete(request, binding, info.name), info)

            async def once(asked: GenerateRequest) -> AsyncGenerator[Chunk, None]:
                started = time.perf_counter()
                async with (
                    self._turn(instance, asked.tenant),
                    self._strategy.lease(instance.name, binding.gpu_need(asked)),
                ):
                    self.waited += time.perf_counter() - started
                    try:
                        async with (
                            aclosing(binding.generate(asked)) as chunks,
                            aclosing(_read(chunks, asked)) as told,
                        ):
                            async for chunk in told:
                                yield chunk
                    finally:
                        self._kernel.engine_figures.used(binding)

            rounds = self._kernel.config.functions.max_rounds
            async with aclosing(
                generate_with_tools(request, info, self._kernel.functions, rounds, once)
            ) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _complete(self, request: GenerateRequest, binding: Binding, model: str) -> GenerateRequest:
        """The request as the binding gets it: who serves it is decided, and default parameters are filled in."""
        self.binding, self.model = binding.name, model
        defaults = self._kernel.config.defaults
        sizes = {
            "max_tokens": defaults.default_max_output_tokens,
            "context_size": defaults.default_context_size,
        }
        given = {**normalise(binding.default_parameters), **request.parameters}
        if given.get("max_tokens") == ENDLESS and not binding.endless:
            del given["max_tokens"]
        return msgspec.structs.replace(
            request, binding=binding.name, model=model, parameters={**sizes, **given}
        )

    @staticmethod
    def _turn(instance: Instance, tenant: str) -> Any:
        return nullcontext() if instance.queue is None else instance.queue.turn(tenant)


def check_inputs(request: GenerateRequest, binding: Binding, info: ModelInfo) -> None:
    """Raise UnsupportedInput or NotSupported where the model cannot take or make what the request wants."""
    wanted = OUTPUT_OF[request.generation_type]
    if wanted not in info.output_modalities:
        raise NotSupported(
            f"Binding instance '{binding.name}' (model '{info.name}') does not support generation type "
            f"'{request.generation_type}'.",
            hint=f"It makes: {', '.join(info.output_modalities)}.",
        )
    for item in request.media:
        if item.type not in info.input_modalities:
            raise UnsupportedInput(
                f"Binding instance '{binding.name}' does not support input type '{item.type}'.",
                hint=f"Model '{info.name}' takes: {', '.join(info.input_modalities)}.",
            )
        if not binding.supports_role(item.type, item.role):
            known = [role for role in ROLES.get(item.type, ()) if binding.supports_role(item.type, role)]
            raise UnsupportedInput(
                f"Binding instance '{binding.name}' does not support input type '{item.type}' with role '{item.role}'.",
                hint=f"It takes the roles: {', '.join(known)}." if known else None,
            )


async def _read(chunks: AsyncIterator[Chunk], request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    """The chunks of a binding with thoughts told apart, up to the text that ends the answer."""
    if request.raw_thoughts:
        async for chunk in _ended(chunks, request):
            yield chunk
        return
    async with aclosing(_tell_thoughts(chunks)) as told:
        async for chunk in _ended(told, request):
            yield chunk


async def _ended(chunks: AsyncIterator[Chunk], request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    if not request.ends_at:
        async for chunk in chunks:
            yield chunk
        return
    ending = Ending(request.ends_at)
    async for chunk in chunks:
        if isinstance(chunk, TextDelta):
            for delta in ending.feed(chunk):
                yield delta
            if ending.reached:
                yield Finished("stop")
                return
            continue
        if isinstance(chunk, Finished | Failed):
            for delta in ending.finish():
                yield delta
        yield chunk


async def _tell_thoughts(chunks: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
    parser = ThoughtParser()
    async for chunk in chunks:
        if isinstance(chunk, TextDelta):
            for delta in _with_tokens(chunk, parser.feed(chunk.text)):
                yield delta
            continue
        if isinstance(chunk, Finished | Failed):
            for delta in parser.finish():
                yield delta
            yield chunk
            return
        yield chunk
    for delta in parser.finish():
        yield delta


def _with_tokens(chunk: TextDelta, deltas: list[TextDelta | ThoughtDelta]) -> list[TextDelta | ThoughtDelta]:
    """The deltas of a piece of text; the last of them keeps its tokens, an empty one where all text is held back."""
    if not chunk.tokens:
        return deltas
    if not deltas or not isinstance(deltas[-1], TextDelta):
        return [*deltas, TextDelta("", chunk.tokens, chunk.probabilities)]
    return [*deltas[:-1], TextDelta(deltas[-1].text, chunk.tokens, chunk.probabilities)]


class RunningStream:
    """One request from admission to its last chunk: an async context manager and an async iterator of chunks.

    Entering waits for the first chunk and raises whatever is wrong before it; later errors arrive as Failed.
    Exactly one Finished or Failed comes last. Leaving at any time stops the work.
    """

    def __init__(
        self, kernel: LocalKernel, request: GenerateRequest, admission: FairQueue, strategy: GpuStrategy
    ):
        self.request = request
        self.interrupt = Interrupt()
        self.ended = asyncio.Event()
        """Set when nothing of this request runs any more."""
        self._kernel = kernel
        self._admission = admission
        self._generation = Generation(kernel, strategy, self.interrupt)
        self._resources = AsyncExitStack()
        self._chunks: AsyncGenerator[Chunk, None] | None = None
        self._first: Chunk | None = None
        self._outcome: Finished | Failed | None = None
        self._started = time.perf_counter()
        self._first_chunk: float | None = None

    async def __aenter__(self) -> RunningStream:
        self._observe("started")
        try:
            personality = self._kernel.choose_personality(self.request)
            request = msgspec.structs.replace(self.request, parameters=normalise(self.request.parameters))
            turn = self._admission.turn(request.tenant)
            self._generation.waited += await self.interrupt.guard(turn.__aenter__())
            self._resources.push_async_exit(turn)
            self._chunks = _checked(personality, request, self._generation)
            self._resources.push_async_callback(self._chunks.aclose)
            self._first = await self._next()
            if isinstance(self._first, Failed):
                raise error_from_code(self._first.code, self._first.message, hint=self._first.hint)
        except LollmsError as error:
            await self._fail(error)
            raise
        except BaseException:
            await self._leave()
            raise
        self._first_chunk = time.perf_counter() - self._started
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    def __aiter__(self) -> RunningStream:
        return self

    async def __anext__(self) -> Chunk:
        if self._outcome is not None:
            raise StopAsyncIteration
        chunk, self._first = self._first, None
        if chunk is None:
            chunk = await self._next_or_failed()
        if isinstance(chunk, Finished):
            chunk = self._enriched(chunk)
        if isinstance(chunk, Failed):  # perhaps in a binding's own words
            hint = None if chunk.hint is None else without_secrets(chunk.hint)
            chunk = Failed(chunk.code, without_secrets(chunk.message), hint)
        if isinstance(chunk, Finished | Failed):
            self._outcome = chunk
            await self._resources.aclose()  # whoever waits for the lease need not wait for a slow client
        return chunk

    async def _next(self) -> Chunk:
        assert self._chunks is not None
        try:
            return await self.interrupt.guard(anext(self._chunks))
        except StopAsyncIteration:
            return Finished()
        except LollmsError:
            raise
        except Exception as error:
            raise as_lollms_error(error) from error

    async def _next_or_failed(self) -> Chunk:
        try:
            return await self._next()
        except LollmsError as error:
            return Failed(error.code, error.message, error.hint)

    def _enriched(self, chunk: Finished) -> Finished:
        timings = msgspec.structs.replace(
            chunk.timings,
            queue=self._generation.waited,
            first_chunk=self._first_chunk,
            total=time.perf_counter() - self._started,
        )
        names = {"binding": self._generation.binding, "model": self._generation.model}
        return msgspec.structs.replace(chunk, timings=timings, metadata={**names, **chunk.metadata})

    async def _fail(self, error: LollmsError) -> None:
        self._outcome = Failed(error.code, error.message, error.hint)
        await self._leave()

    async def _leave(self) -> None:
        left = time.perf_counter()
        try:
            await self._resources.aclose()
        finally:
            if not self.ended.is_set():
                self.ended.set()
                self._kernel.forget(self)
                self._tell(time.perf_counter() - left)

    def _tell(self, stopping: float) -> None:
        outcome = self._outcome
        if isinstance(outcome, Finished):
            usage = outcome.usage
            self._observe(
                "finished", reason=outcome.reason, usage=msgspec.to_builtins(usage) if usage else None
            )
        elif isinstance(outcome, Failed) and outcome.code != "cancelled":
            self._observe("failed", code=outcome.code, message=outcome.message)
        else:
            self._observe("cancelled", cancel_latency=stopping)

    def _observe(self, name: str, **data: Any) -> None:
        request = self.request
        facts = {
            "request": request.id,
            "source": request.source,
            "type": request.generation_type,
            "binding": self._generation.binding or request.binding,
            "model": self._generation.model or request.model,
            **data,
        }
        if name != "started":
            facts["seconds"] = round(time.perf_counter() - self._started, 4)
        self._kernel.observe(Event(name, facts))


async def _checked(
    personality: Personality, request: GenerateRequest, generation: Generation
) -> AsyncGenerator[Chunk, None]:
    """The personality's chunks up to the first terminal one, which is added where it forgot it."""
    async with aclosing(personality.run(request, generation)) as chunks:
        async for chunk in chunks:
            yield chunk
            if isinstance(chunk, Finished | Failed):
                return
    yield Finished()
