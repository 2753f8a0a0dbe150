"""The part of llama.cpp's C interface that belongs to a model: loading it, its vocabulary, stopping, its log.

Importing this module loads llama.cpp, so only the worker process does. Numbers that C code would not check
(token ids, sequence ids) are checked here and in `context`: llama.cpp ends the process on them.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama

from lollms_kernel.errors import GenerationFailed, InvalidRequest

from .pulse import beat

logger = logging.getLogger(__name__)

_LEVEL_ERROR = 4

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

    def clear(self) -> None:
        """Let work go on."""
        self._text[0] = b"\0"

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._text[0] != b"\0"

    @property
    def address(self) -> ctypes.c_void_p:
        """Where `is_set_in_c` looks."""
        return ctypes.cast(self._text, ctypes.c_void_p)


def _loads_on(stop: StopFlag) -> bool:
    """Called by llama.cpp with every piece of a model that is in memory; False gives up."""
    beat()
    return not stop.is_set()


_libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
is_set_in_c = ctypes.cast(_libc.strlen, llama.ggml_abort_callback)
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
            go_on = llama.llama_progress_callback(lambda _progress, _data: _loads_on(stop))
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
        self.can_cut = not (
            llama.llama_model_is_recurrent(self.pointer) or llama.llama_model_is_hybrid(self.pointer)
        )
        """Whether a sequence can lose its end: recurrent memory cannot."""

    def rerank_template(self) -> str | None:
        """The prompt into which a reranker's query and document go, if the file has one."""
        text = llama.llama_model_chat_template(self.pointer, b"rerank")
        return text.decode("utf-8", "replace") if text else None

    @property
    def embedding_width(self) -> int:
        """Numbers of one embedding."""
        return int(llama.llama_model_n_embd_out(self.pointer))

    def facts(self) -> dict[str, int | str]:
        """What llama-server lists under a model's `meta`."""
        return {
            "vocab_type": int(llama.llama_vocab_type(self.vocabulary.pointer)),
            "n_vocab": self.vocabulary.size,
            "n_ctx_train": self.trained_context,
            "n_embd": int(llama.llama_model_n_embd(self.pointer)),
            "n_params": int(llama.llama_model_n_params(self.pointer)),
            "size": int(llama.llama_model_size(self.pointer)),
        }

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
        self.sep = int(llama.llama_vocab_sep(pointer))
        self.add_bos = bool(llama.llama_vocab_get_add_bos(pointer))
        self.add_eos = bool(llama.llama_vocab_get_add_eos(pointer))
        self.add_sep = bool(llama.llama_vocab_get_add_sep(pointer))
        self._pieces: dict[tuple[int, bool], bytes] = {}

    def infill_tokens(self) -> dict[str, int]:
        """The tokens that mark the parts of a gap, by what llama.cpp calls them; -1 for those it lacks."""
        names = ("pre", "suf", "mid", "rep", "sep")
        return {name: int(getattr(llama, f"llama_vocab_fim_{name}")(self.pointer)) for name in names}

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that the model's file wants never to be generated."""
        count = ctypes.c_int32(0)
        tokens = llama.llama_vocab_get_suppress_tokens(self.pointer, ctypes.byref(count))
        return tuple(tokens[: count.value]) if count.value > 0 else ()

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

    def tokenize(self, text: str, *, special: bool, complete: bool = False) -> list[int]:
        """Token ids of `text`; `special` turns control tokens' texts into them, `complete` adds BOS, EOS and the like
        as the model wants them around a text."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        buffer = (ctypes.c_int32 * room)()
        count = llama.llama_tokenize(self.pointer, data, len(data), buffer, room, complete, special)
        if count < 0:
            buffer = (ctypes.c_int32 * -count)()
            count = llama.llama_tokenize(self.pointer, data, len(data), buffer, -count, complete, special)
        if count < 0:
            raise GenerationFailed(
                "llama.cpp could not tokenize the text.", hint="Is it very long? Send less of it."
            )
        return buffer[:count]

    def spell(self, data: bytes) -> list[int]:
        """Tokens that together make exactly these bytes. Raises GenerationFailed where there are none."""
        tokens = self.tokenize(data.decode("utf-8", "replace"), special=True)
        if b"".join(self.piece(token, special=True) for token in tokens) == data:
            return tokens
        tokens = [self._of_bytes.get(data[at : at + 1], -1) for at in range(len(data))]
        if -1 in tokens:
            raise GenerationFailed(
                "The vocabulary cannot spell a part of a token.", hint="Use another trigger."
            )
        return tokens

    @cached_property
    def _of_bytes(self) -> dict[bytes, int]:
        return {piece: t for t in range(self.size - 1, -1, -1) if len(piece := self.piece(t)) == 1}

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

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes that a generated token adds to the text; control tokens add none unless `special`."""
        piece = self._pieces.get((token, special))
        if piece is None:
            self.check(token)
            buffer = ctypes.create_string_buffer(256)
            length = llama.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
            if length < 0:
                buffer = ctypes.create_string_buffer(-length)
                length = llama.llama_token_to_piece(self.pointer, token, buffer, -length, 0, special)
            piece = self._pieces[token, special] = buffer.raw[:length]
        return piece
