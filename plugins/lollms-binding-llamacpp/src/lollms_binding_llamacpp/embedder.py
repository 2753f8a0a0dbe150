"""Embeddings and rank scores of a loaded model, in a thread and a context of their own.

Many inputs are computed in one step, each as a sequence. An input has to fit into one step as a whole, since pooling
looks at all its tokens.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import msgspec
import numpy as np

from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported, ShuttingDown

from .context import Batch
from .in_thread import in_thread
from .native import Model, complaints
from .pulse import beat
from .stream import Ended, Outbox, Stream

POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
SEQUENCES = 64
CLOSE_TIMEOUT = 10.0
_QUANTIZED = 32760.0


class EmbedderOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the context is made. `pooling` is a name out of `POOLINGS`."""

    ubatch_size: int = 512
    pooling: str = "mean"
    threads: int = 1


class Vectors(msgspec.Struct, frozen=True):
    """What came of one input: one vector, or one for each token where nothing is pooled; for ranks, the scores."""

    rows: list[list[float]]
    tokens: int


class _Order(msgspec.Struct, frozen=True):
    inputs: list[list[int]]
    stream: Stream[list[list[Any]]]


class Embedder:
    """Computes embeddings with `model`; the context is made with the first input. Close it before the model."""

    def __init__(self, model: Model, options: EmbedderOptions) -> None:
        self.options = options
        self._model = model
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._outbox = Outbox()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._context: Any = None

    @property
    def pools(self) -> bool:
        """Whether an input gets one vector."""
        return self.options.pooling != "none"

    async def embed(
        self, inputs: Sequence[Sequence[int]], normalize: int, dimensions: int | None
    ) -> list[Vectors]:
        """The vectors of each input, which is token ids. Raises InvalidRequest for one that is too long or empty."""
        rows = await self._compute(inputs)
        done = await in_thread(
            lambda: [[_finished(row, normalize, dimensions, self.pools) for row in of_one] for of_one in rows]
        )
        return [Vectors(vectors, len(tokens)) for vectors, tokens in zip(done, inputs, strict=True)]

    async def scores(self, inputs: Sequence[Sequence[int]]) -> list[float]:
        """The rank score of each input."""
        return [float(rows[0][0]) for rows in await self._compute(inputs)]

    async def close(self) -> None:
        """Stop what runs and give the context's memory back."""
        self._closed = True
        self._orders.put(None)
        thread = self._thread
        if thread is not None:
            await in_thread(lambda: thread.join(CLOSE_TIMEOUT))

    async def _compute(self, inputs: Sequence[Sequence[int]]) -> list[list[Any]]:
        limit = self.options.ubatch_size
        for tokens in inputs:
            if not tokens:
                raise InvalidRequest("An input is empty.", hint="Send some text.")
            if len(tokens) > limit:
                raise InvalidRequest(
                    f"input ({len(tokens)} tokens) is too large to process. increase the physical batch size "
                    f"(current batch size: {limit})",
                    hint="Raise `ubatch_size` in the instance file, or send less.",
                )
            for token in tokens:
                self._model.vocabulary.check(token)
        if not inputs:
            return []
        if self._closed:
            raise _closing()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llama.cpp embeddings", daemon=True)
            self._thread.start()
        stream: Stream[list[list[Any]]] = Stream()
        self._orders.put(_Order([list(tokens) for tokens in inputs], stream))
        try:
            await stream.ended()
        except asyncio.CancelledError:
            stream.flag.set()
            await stream.ended()
            raise
        return stream.result()

    # --- the embedder's thread ---

    def _run(self) -> None:
        while (order := self._orders.get()) is not None and not self._closed:
            try:
                if self._context is None:
                    self._context = _Context(self._model, self.options)
                outcome: Any = self._context.compute(order.inputs, order.stream)
            except LollmsError as error:
                outcome = error
            except Exception as error:  # a mistake of ours must not leave anybody waiting
                outcome = GenerationFailed(f"Embedding failed: {error}", hint="Please report this.")
            self._outbox.put(order.stream, Ended(outcome))
            self._outbox.send()
        while True:
            if order is not None:
                self._outbox.put(order.stream, Ended(_closing()))
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                break
        self._outbox.send()
        if self._context is not None:
            self._context.close()


class _Context:
    def __init__(self, model: Model, options: EmbedderOptions) -> None:
        parameters = llama.llama_context_default_params()
        size = max(options.ubatch_size, SEQUENCES)
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = size
        parameters.n_seq_max = SEQUENCES
        parameters.kv_unified = True
        parameters.embeddings = True
        parameters.pooling_type = POOLINGS[options.pooling]
        parameters.n_threads = parameters.n_threads_batch = options.threads
        complaints()
        self.pointer = llama.llama_init_from_model(model.pointer, parameters)
        if not self.pointer:
            reason = "; ".join(complaints()[-2:]) or "no reason is given"
            raise GenerationFailed(
                f"llama.cpp could not make a context for embeddings: {reason}",
                hint="Free some memory, or lower `ubatch_size` in the instance file.",
            )
        self._memory = llama.llama_get_memory(self.pointer)
        self._batch = Batch(size)
        self._ranks = options.pooling == "rank"
        self._pools = options.pooling != "none"
        self._width = 1 if self._ranks else model.embedding_width

    def compute(self, inputs: list[list[int]], stream: Stream[Any]) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for group in self._groups(inputs):
            if stream.flag.is_set():
                raise _closing()
            rows += self._step(group)
        return rows

    def _groups(self, inputs: list[list[int]]) -> Iterator[list[list[int]]]:
        group: list[list[int]] = []
        size = 0
        for tokens in inputs:
            if group and (size + len(tokens) > self._batch.size or len(group) == SEQUENCES):
                yield group
                group, size = [], 0
            group.append(tokens)
            size += len(tokens)
        if group:
            yield group

    def _step(self, group: list[list[int]]) -> list[list[Any]]:
        self._batch.clear()
        starts = [self._batch.add(at, tokens, 0, len(tokens)) for at, tokens in enumerate(group)]
        if self._memory:
            llama.llama_memory_clear(self._memory, False)
            code = llama.llama_decode(self.pointer, self._batch.view(0, self._batch.count))
        else:
            code = llama.llama_encode(self.pointer, self._batch.view(0, self._batch.count))
        beat()
        if code != 0:
            reason = "; ".join(complaints()[-2:]) or f"code {code}"
            raise GenerationFailed(f"llama.cpp could not embed the input: {reason}", hint="Is memory short?")
        if self._pools:
            return [[self._row(llama.llama_get_embeddings_seq(self.pointer, at))] for at in range(len(group))]
        return [
            [self._row(llama.llama_get_embeddings_ith(self.pointer, start + at)) for at in range(len(tokens))]
            for start, tokens in zip(starts, group, strict=True)
        ]

    def _row(self, pointer: Any) -> Any:
        if not pointer:
            raise GenerationFailed(
                "llama.cpp gave no embedding.", hint="Try another `pooling` in the instance file."
            )
        values = (ctypes.c_float * self._width).from_address(ctypes.addressof(pointer.contents))
        return np.ctypeslib.as_array(values).copy()

    def close(self) -> None:
        llama.llama_free(self.pointer)


def _finished(row: Any, normalize: int, dimensions: int | None, pooled: bool) -> list[float]:
    """Cut to the wanted size and divided by its norm, as llama.cpp does it; rows of tokens stay as they are."""
    values = row.astype(np.float64)
    if dimensions is not None:
        values = values[:dimensions]
    if pooled and normalize >= 0:
        if normalize == 0:
            norm = float(np.abs(values).max()) / _QUANTIZED
        else:
            norm = float((np.abs(values) ** normalize).sum() ** (1.0 / normalize))
        values = values / norm if norm > 0 else values * 0
    result: list[float] = values.astype(np.float32).tolist()
    return result


def embeddings_disabled(name: str) -> NotSupported:
    """Says that embeddings are off, and how they are turned on."""
    return NotSupported(
        f"'{name}' does not serve embeddings here.", hint="Set `embeddings: true` in the instance file."
    )


def reranking_disabled(name: str) -> NotSupported:
    """Says that reranking is off, and how it is turned on."""
    return NotSupported(
        f"'{name}' does not serve reranking here.",
        hint="Use a reranker model, and set `reranking: true` in the instance file.",
    )


def _closing() -> ShuttingDown:
    return ShuttingDown("The model is being unloaded.", hint="Send the request again.")
