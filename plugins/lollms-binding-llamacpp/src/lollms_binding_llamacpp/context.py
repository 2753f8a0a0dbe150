"""llama.cpp's context: the memory of many sequences (the KV cache) and the computation over it.

Sequence ids, positions and token ids are checked before native code sees them: llama.cpp ends on wrong ones.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import msgspec
import numpy as np

from lollms_kernel.errors import GenerationFailed

from .native import LoadFailed, Model, StopFlag, Stopped, complaints, is_set_in_c
from .pulse import beat

CACHE_TYPES = {"fp16": 1, "q8_0": 8, "q4_0": 2}
FLASH_ATTENTION_AUTO, FLASH_ATTENTION_ON = -1, 1
CELLS_PER_KEPT, LEAST_KEPT, MOST_KEPT = 256, 8, 60
"""How many sequences of ended requests are kept for a memory of some size; each costs room for its logits."""
_FULL, _ABORTED = 1, 2


class CacheFull(Exception):
    """The memory has no room for the tokens of a step; nothing was computed."""


class KeepsNoContext(LoadFailed):
    """The model is an encoder."""


class ContextOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a context is made. `n_ctx` counts the tokens of all sequences together."""

    n_ctx: int
    batch_size: int = 512
    ubatch_size: int = 512
    parallel: int = 1
    """Sequences that are worked on at once."""
    outputs: int = 1
    """Tokens of one step that may have logits, for each of them."""
    unified: bool = True
    """One memory for all sequences, which then can share what they have in common."""
    threads: int = 1
    threads_batch: int = 1
    cache_type: str = "fp16"
    rope_freq_base: float = 0.0
    compress_pos_emb: float = 1.0


class Batch:
    """The tokens of one step: which, of which sequence, at which position, and whose logits are wanted."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.count = 0
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.sequences = np.zeros(size, np.int32)
        self.outputs = np.zeros(size, np.int8)
        self._one = np.ones(size, np.int32)
        self._pointers = np.arange(size, dtype=np.uintp) * 4 + self.sequences.ctypes.data
        self._steps = np.arange(size, dtype=np.int32)

    def clear(self) -> None:
        """Empty it."""
        self.count = 0

    def add(self, sequence: int, tokens: Any, position: int, outputs: int = 1) -> int:
        """Append tokens that stand at `position`; the last `outputs` of them get logits. Gives the first's index."""
        start, count = self.count, len(tokens)
        end = start + count
        assert 0 < count <= self.size - start
        self.tokens[start:end] = tokens
        self.positions[start:end] = self._steps[:count]
        self.positions[start:end] += position
        self.sequences[start:end] = sequence
        self.outputs[start:end] = 0
        if outputs:
            self.outputs[end - outputs : end] = 1
        self.count = end
        return start

    def view(self, start: int, count: int) -> Any:
        """The C structure for some of the tokens."""
        return llama.llama_batch(
            n_tokens=count,
            token=_pointer(self.tokens, start, ctypes.c_int32),
            embd=None,
            pos=_pointer(self.positions, start, ctypes.c_int32),
            n_seq_id=_pointer(self._one, start, ctypes.c_int32),
            seq_id=_pointer(self._pointers, start, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self.outputs, start, ctypes.c_int8),
        )


class Context:
    """The memory of many sequences and the computation over it; belongs to a single thread.

    Raises LoadFailed if there is no memory for it.
    """

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self._model = model
        parameters = llama.llama_context_default_params()
        unified = options.unified and model.can_cut
        sequences = options.parallel + (_kept_sequences(options.n_ctx) if unified else 0)
        parameters.n_ctx = options.n_ctx
        self.batch_size = min(options.batch_size, options.n_ctx)
        outputs = max(sequences, options.parallel * options.outputs)
        parameters.n_batch = max(self.batch_size, outputs)
        parameters.n_ubatch = min(options.ubatch_size, parameters.n_batch)
        parameters.n_seq_max = sequences
        parameters.n_outputs_max = outputs
        parameters.kv_unified = unified
        parameters.n_threads = options.threads
        parameters.n_threads_batch = options.threads_batch
        _set_cache(parameters, options.cache_type)
        _set_rope(parameters, options.rope_freq_base, options.compress_pos_emb)
        complaints()
        self.pointer = llama.llama_init_from_model(model.pointer, parameters)
        if not self.pointer:
            raise LoadFailed("; ".join(complaints()[-2:]))
        self.unified = unified
        self.sequences = sequences
        """How many sequences it can hold."""
        self.cells = int(llama.llama_n_ctx(self.pointer))
        """Tokens that fit into its memory."""
        self.n_ctx = min(options.n_ctx, int(llama.llama_n_ctx_seq(self.pointer)))
        """Tokens that one sequence can have."""
        self._memory = llama.llama_get_memory(self.pointer)
        if not self._memory:
            llama.llama_free(self.pointer)
            raise KeepsNoContext("the model keeps no context: it makes embeddings, not text")
        self.can_shift = bool(llama.llama_memory_can_shift(self._memory))
        self._flag: StopFlag | None = None

    # --- computation ---

    def decode(self, batch: Batch, start: int = 0, count: int | None = None) -> None:
        """Evaluate (some of) the batch. Raises CacheFull, Stopped or GenerationFailed.

        After Stopped some of the tokens may be in the memory: `remove` them.
        """
        number = batch.count - start if count is None else count
        if not 0 < number <= batch.size - start:
            raise GenerationFailed(f"A step of {number} tokens was planned.", hint="Please report this.")
        code = llama.llama_decode(self.pointer, batch.view(start, number))
        beat()
        if code == 0:
            return
        if code == _FULL:
            raise CacheFull
        if code == _ABORTED:
            raise Stopped
        reason = "; ".join(complaints()[-4:]) or f"code {code}"
        raise GenerationFailed(
            f"llama.cpp could not evaluate {number} tokens: {reason}",
            hint="Is memory short? Unload the model, or lower `n_ctx` or `batch_size` in the instance file.",
        )

    def logits(self, index: int) -> Any:
        """The logits after a token of the last step, as an array that the next step overwrites."""
        pointer = llama.llama_get_logits_ith(self.pointer, index)
        if not pointer:
            raise GenerationFailed("llama.cpp gave no logits.", hint="Please report this.")
        size = self._model.vocabulary.size
        values = (ctypes.c_float * size).from_address(ctypes.addressof(pointer.contents))
        return np.ctypeslib.as_array(values)

    def warm_up(self) -> None:
        """Evaluate a few tokens and forget them: loads the weights, and shows whether they can be computed with."""
        llama.llama_set_warmup(self.pointer, True)
        batch = Batch(max(4, self.batch_size))
        length = min(4, self.batch_size)
        batch.add(0, [0] * length, 0)
        self.decode(batch)
        batch.clear()
        batch.add(0, [0], length)
        self.decode(batch)
        self.clear()
        llama.llama_synchronize(self.pointer)
        llama.llama_set_warmup(self.pointer, False)

    def stop_on(self, flag: StopFlag) -> None:
        """Let `flag` end the steps from now on."""
        llama.llama_set_abort_callback(self.pointer, is_set_in_c, flag.address)
        self._flag = flag  # C code holds its address

    def adapt(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Compute with these LoRA adapters, and no others, from now on."""
        pointers = (llama.llama_adapter_lora_p_ctypes * max(1, len(adapters)))(*(p for p, _ in adapters))
        scales = (ctypes.c_float * max(1, len(adapters)))(*(scale for _, scale in adapters))
        if llama.llama_set_adapters_lora(self.pointer, pointers, len(adapters), scales) != 0:
            raise GenerationFailed("llama.cpp refused the LoRA adapters.", hint="Do they fit the model?")

    # --- memory ---

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let `target`, which is empty there, have what `source` has at these positions, without copying cells."""
        self._check(source)
        self._check(target)
        if end <= start:
            return
        if self.unified:
            llama.llama_memory_seq_cp(self._memory, source, target, start, end)
        else:  # separate memories are copied whole or not at all
            llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.remove(target, end)

    def remove(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        """Take positions out of a sequence; False if this kind of model cannot."""
        self._check(sequence)
        return bool(llama.llama_memory_seq_rm(self._memory, sequence, start, end))

    def shift(self, sequence: int, start: int, delta: int) -> None:
        """Move everything of a sequence from `start` on by `delta` positions."""
        self._check(sequence)
        llama.llama_memory_seq_add(self._memory, sequence, start, -1, delta)

    def clear(self) -> None:
        """Empty the memory."""
        llama.llama_memory_clear(self._memory, True)

    def save(self, sequence: int) -> bytes:
        """The state of a sequence, for `load`; b"" if there is none."""
        self._check(sequence)
        size = int(llama.llama_state_seq_get_size(self.pointer, sequence))
        if size <= 0:
            return b""
        buffer = (ctypes.c_uint8 * size)()
        written = int(llama.llama_state_seq_get_data(self.pointer, buffer, size, sequence))
        return bytes(memoryview(buffer)[:written])

    def load(self, sequence: int, state: bytes) -> bool:
        """Fill an empty sequence with a state that `save` gave; False where it does not fit, which leaves it empty."""
        self._check(sequence)
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama.llama_state_seq_set_data(self.pointer, buffer, len(state), sequence):
            return True
        self.remove(sequence)
        return False

    def close(self) -> None:
        """Give the memory back."""
        if self.pointer:
            llama.llama_free(self.pointer)
            self.pointer = None

    def _check(self, sequence: int) -> None:
        if not 0 <= sequence < self.sequences:
            raise GenerationFailed(f"There is no sequence {sequence}.", hint="Please report this.")


def _kept_sequences(cells: int) -> int:
    return min(max(cells // CELLS_PER_KEPT, LEAST_KEPT), MOST_KEPT)


def _pointer(array: Any, start: int, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data + start * array.itemsize, ctypes.POINTER(kind))


def _set_cache(parameters: Any, cache_type: str) -> None:
    parameters.type_k = parameters.type_v = CACHE_TYPES[cache_type]
    quantized = cache_type != "fp16"  # which works with flash attention only
    parameters.flash_attn_type = FLASH_ATTENTION_ON if quantized else FLASH_ATTENTION_AUTO


def _set_rope(parameters: Any, base: float, stretch: float) -> None:
    parameters.rope_freq_base = base
    parameters.rope_freq_scale = 0.0 if stretch == 1.0 else 1.0 / stretch
