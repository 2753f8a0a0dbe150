"""The part of llama.cpp's C interface that the engine uses, as three objects: model, vocabulary, context.

Importing this module loads llama.cpp, so only the worker process does. Numbers that C code would not check
(token ids, sequence ids) are checked here: llama.cpp ends the process on them.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from array import array
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from lollms_kernel.errors import GenerationFailed, InvalidRequest

logger = logging.getLogger(__name__)

CACHE_TYPES = {"fp16": 1, "q8_0": 8, "q4_0": 2}
FLASH_ATTENTION_AUTO, FLASH_ATTENTION_ON = -1, 1
_LEVEL_CONTINUES = 5
_LEVEL_ERROR = 4
_ABORTED = 2
_SEQUENCE = 0

_log_level = logging.DEBUG
_complaints: deque[str] = deque(maxlen=10)


class Stopped(Exception):
    """The work was given up because somebody asked for that."""


class StopFlag:
    """Asks running llama.cpp code to give up; may be set from any thread."""

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop as soon as possible."""
        self._text[0] = b"!"

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._text[0] != b"\0"

    @property
    def address(self) -> ctypes.c_void_p:
        """Where `_is_set_in_c` looks."""
        return ctypes.cast(self._text, ctypes.c_void_p)


_libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
_is_set_in_c = ctypes.cast(_libc.strlen, llama.ggml_abort_callback)
"""llama.cpp asks this before each operation of a step. A Python function would take the interpreter's lock a
hundred times for each token; strlen of the flag's text is 0 or 1, which is the very answer that is wanted."""


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: Any) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if not line.strip("."):
        return  # progress dots
    if level == _LEVEL_ERROR:
        _complaints.append(line)
    logger.log(_log_level, "%s", line)


def start_backend(verbose: bool) -> None:
    """Send llama.cpp's own log to ours, at DEBUG, or INFO if `verbose`."""
    global _log_level
    _log_level = logging.INFO if verbose else logging.DEBUG
    llama.llama_log_set(_log, None)
    llama.llama_backend_init()


def complaints() -> list[str]:
    """The errors that llama.cpp logged since the last call: its functions return no reasons."""
    lines = list(_complaints)
    _complaints.clear()
    return lines


def supports_gpu() -> bool:
    """Whether this build can put layers on a GPU that is there."""
    return bool(llama.llama_supports_gpu_offload())


class LoadFailed(Exception):
    """llama.cpp refused a file or had no memory for it; the text is its last error, or ""."""


class Model:
    """A loaded model file. Raises LoadFailed, or Stopped if `stop` was set meanwhile."""

    def __init__(
        self,
        path: Path,
        *,
        n_gpu_layers: int = 0,
        tensor_split: list[float] | None = None,
        extra_buffers: bool = True,
        vocabulary_only: bool = False,
        stop: StopFlag | None = None,
    ) -> None:
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = n_gpu_layers
        parameters.use_extra_bufts = extra_buffers
        parameters.vocab_only = vocabulary_only
        if tensor_split:
            devices = int(llama.llama_max_devices())
            if len(tensor_split) > devices:
                raise LoadFailed(
                    f"tensor_split has {len(tensor_split)} entries, this build knows {devices} devices"
                )
            shares = (ctypes.c_float * devices)(*tensor_split)
            parameters.tensor_split = shares
        if stop is not None:
            go_on = llama.llama_progress_callback(lambda _progress, _data: not stop.is_set())
            parameters.progress_callback = go_on
        complaints()
        self.pointer = llama.llama_model_load_from_file(bytes(path), parameters)
        if not self.pointer:
            if stop is not None and stop.is_set():
                raise Stopped
            raise LoadFailed("; ".join(complaints()[-2:]))
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(self.pointer))
        self.can_generate = bool(llama.llama_model_has_decoder(self.pointer)) and not bool(
            llama.llama_model_has_encoder(self.pointer)
        )
        self.trained_context = int(llama.llama_model_n_ctx_train(self.pointer))

    def close(self) -> None:
        """Give the memory back; nothing made of this model may be used any more."""
        if self.pointer:
            llama.llama_model_free(self.pointer)
            self.pointer = None


class Vocabulary:
    """Text to token ids and back. Usable from any thread as long as its model is open."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.size = int(llama.llama_vocab_n_tokens(pointer))
        self.bos = int(llama.llama_vocab_bos(pointer))
        self.eos = int(llama.llama_vocab_eos(pointer))
        self.add_bos = bool(llama.llama_vocab_get_add_bos(pointer))
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(256)

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """Texts that `tokenize(special=True)` turns into control tokens."""
        special = llama.LLAMA_TOKEN_ATTR_CONTROL | llama.LLAMA_TOKEN_ATTR_UNKNOWN
        found = (t for t in range(self.size) if llama.llama_vocab_get_attr(self.pointer, t) & special)
        return tuple(text for text in map(self.text, found) if text)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(t for t in range(self.size) if llama.llama_vocab_is_eog(self.pointer, t))

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token; llama.cpp's names of tokens are never shorter than what they stand for."""
        return max(len(llama.llama_vocab_get_text(self.pointer, token)) for token in range(self.size))

    def text(self, token: int) -> str:
        """A token's own name, e.g. "<|im_end|>"; "" for none."""
        if not 0 <= token < self.size:
            return ""
        name: bytes = llama.llama_vocab_get_text(self.pointer, token)
        return name.decode("utf-8", "replace")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text` alone, without BOS or EOS; `special` turns control tokens' texts into them."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self.pointer, data, len(data), buffer, room, False, special)
        if count < 0:
            buffer = (ctypes.c_int32 * -count)()
            count = llama.llama_tokenize(self.pointer, data, len(data), buffer, -count, False, special)
        if count < 0:
            raise GenerationFailed(
                "llama.cpp could not tokenize the text.", hint="Is it very long? Send less of it."
            )
        return buffer[:count]

    def detokenize(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens shown by their names. Raises InvalidRequest for unknown ids."""
        for token in tokens:
            self.check(token)
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        room = 16 * len(tokens) + 16
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            length = llama.llama_detokenize(self.pointer, ids, len(tokens), buffer, room, False, True)
            if length >= 0:
                return buffer.raw[:length].decode("utf-8", "replace")
            room = -length
        raise GenerationFailed("llama.cpp could not make text of the tokens.", hint="Send fewer at once.")

    def check(self, token: int) -> None:
        """Raise InvalidRequest unless `token` is an id of this vocabulary."""
        if not 0 <= token < self.size:
            raise InvalidRequest(f"There is no token {token}.", hint=f"Ids go from 0 to {self.size - 1}.")

    def piece(self, token: int) -> bytes:
        """The bytes that a generated token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            length = llama.llama_token_to_piece(
                self.pointer, token, self._buffer, len(self._buffer), 0, False
            )
            if length < 0:
                self._buffer = ctypes.create_string_buffer(-length)
                length = llama.llama_token_to_piece(self.pointer, token, self._buffer, -length, 0, False)
            piece = self._pieces[token] = self._buffer.raw[:length]
        return piece


class Context:
    """The KV cache of one sequence and the computation over it; belongs to a single thread.

    Raises LoadFailed if there is no memory for it.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        batch_size: int,
        threads: int,
        threads_batch: int,
        cache_type: str = "fp16",
        rope_freq_base: float = 0.0,
        compress_pos_emb: float = 1.0,
    ) -> None:
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = n_ctx
        parameters.n_batch = parameters.n_ubatch = self.batch_size = min(batch_size, n_ctx)
        parameters.n_threads = threads
        parameters.n_threads_batch = threads_batch
        parameters.type_k = parameters.type_v = CACHE_TYPES[cache_type]
        quantized = cache_type != "fp16"  # which works with flash attention only
        parameters.flash_attn_type = FLASH_ATTENTION_ON if quantized else FLASH_ATTENTION_AUTO
        parameters.rope_freq_base = rope_freq_base
        parameters.rope_freq_scale = 0.0 if compress_pos_emb == 1.0 else 1.0 / compress_pos_emb
        complaints()
        self.pointer = llama.llama_init_from_model(model.pointer, parameters)
        if not self.pointer:
            raise LoadFailed("; ".join(complaints()[-2:]))
        self.n_ctx = min(n_ctx, int(llama.llama_n_ctx(self.pointer)))
        self._memory = llama.llama_get_memory(self.pointer)
        if not self._memory:
            llama.llama_free(self.pointer)
            raise LoadFailed("the model keeps no context: it makes embeddings, not text")
        self._flag: StopFlag | None = None
        self._batch = llama.llama_batch_init(self.batch_size, 0, 1)
        for index in range(self.batch_size):
            self._batch.n_seq_id[index] = 1
            self._batch.seq_id[index][0] = _SEQUENCE
            self._batch.logits[index] = 0

    def decode(self, tokens: array[int], position: int) -> None:
        """Evaluate at most `batch_size` tokens that stand at `position`; the last one's logits can then be sampled.

        Raises Stopped, after which the cache may hold some of these tokens (`forget_from` removes them).
        """
        batch, count = self._batch, len(tokens)
        assert 0 < count <= self.batch_size
        if count == 1:
            batch.token[0], batch.pos[0] = tokens[0], position
        else:
            places = array("i", range(position, position + count))
            ctypes.memmove(batch.token, tokens.buffer_info()[0], 4 * count)
            ctypes.memmove(batch.pos, places.buffer_info()[0], 4 * count)
        batch.n_tokens = count
        batch.logits[count - 1] = 1
        code = llama.llama_decode(self.pointer, batch)
        batch.logits[count - 1] = 0
        if code == _ABORTED:
            raise Stopped
        if code != 0:
            reason = "; ".join(complaints()[-2:]) or f"code {code}"
            raise GenerationFailed(
                f"llama.cpp could not evaluate {count} tokens at position {position}: {reason}",
                hint="Is memory short? Unload the model, or lower `n_ctx` or `batch_size` in the instance file.",
            )

    def warm_up(self) -> None:
        """Evaluate a few tokens and forget them: loads the weights, and shows whether they can be computed with."""
        llama.llama_set_warmup(self.pointer, True)
        self.decode(array("i", [0] * min(4, self.batch_size)), 0)
        self.decode(array("i", [0]), min(4, self.batch_size))
        self.clear()
        llama.llama_synchronize(self.pointer)
        llama.llama_set_warmup(self.pointer, False)

    def stop_on(self, flag: StopFlag) -> None:
        """Let `flag` end the steps from now on."""
        llama.llama_set_abort_callback(self.pointer, _is_set_in_c, flag.address)
        self._flag = flag  # C code holds its address

    def forget_from(self, position: int) -> bool:
        """Remove everything from `position` on; False if this kind of model cannot (then `clear`)."""
        return bool(llama.llama_memory_seq_rm(self._memory, _SEQUENCE, position, -1))

    def clear(self) -> None:
        """Empty the cache."""
        llama.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Give the memory back."""
        if self.pointer:
            llama.llama_batch_free(self._batch)
            llama.llama_free(self.pointer)
            self.pointer = None
