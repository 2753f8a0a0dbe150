"""Lets a model see pictures and hear sound, with the projector that belongs to it (llama.cpp's mtmd).

A prompt is cut at the places of its media. The text between them is tokenized as always; a picture or sound becomes
chunks that the engine evaluates in between.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp.mtmd_cpp as mtmd

from lollms_kernel.errors import GenerationFailed, InvalidRequest, ModelLoadFailed, UnsupportedInput
from lollms_kernel.types import Media

from .in_thread import in_thread
from .job import MediaRun
from .prompt import Chat, Prompt, PromptMaker
from .pulse import beat
from .turns import MEDIA_MARKER, PLAIN_MARKER

if TYPE_CHECKING:
    from .engine import Engine
    from .scheduler import Scheduler
    from .slot import Work

MAX_MEDIA = 64
_TEXT, _AUDIO = 0, 2


class _Chunk:
    """A picture or sound, or a part of it, that mtmd has prepared."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    def __del__(self) -> None:
        if self.pointer:
            mtmd.mtmd_input_chunk_free(self.pointer)
            self.pointer = None


class MediaReader:
    """The projector of one loaded model. Made by `open_media`."""

    def __init__(self, pointer: Any, engine: Engine, name: str) -> None:
        self._pointer = pointer
        self._engine = engine
        self._name = name
        self._lock = threading.Lock()
        self.sees = bool(mtmd.mtmd_support_vision(pointer))
        self.hears = bool(mtmd.mtmd_support_audio(pointer))

    def chat(
        self, chat: Chat, media: Sequence[Media], prompts: PromptMaker
    ) -> tuple[Prompt, tuple[MediaRun, ...]]:
        """The prompt of a conversation whose turns have markers where its media are."""
        parts, folded = prompts.parts(chat, MEDIA_MARKER)
        prompt, runs = self._joined(parts, media, prompts)
        return Prompt(prompt.tokens, folded), runs

    def raw(
        self, text: str, media: Sequence[Media], prompts: PromptMaker
    ) -> tuple[Prompt, tuple[MediaRun, ...]]:
        """The prompt of a raw text with markers (either kind) where its media are."""
        parts = text.replace(PLAIN_MARKER, MEDIA_MARKER).split(MEDIA_MARKER)
        return self._joined([[part] for part in parts], media, prompts)

    def evaluate(self, work: Work) -> int:
        """Evaluate the picture or sound that comes next in a work; in the engine's thread."""
        run = work.next_media
        assert run is not None
        assert work.held is not None
        position = work.position(run.start)
        after = ctypes.c_int32(0)
        context = self._scheduler.context
        code = mtmd.mtmd_helper_eval_chunk_single(
            self._pointer,
            context.pointer,
            run.chunk.pointer,
            position,
            work.held.id,
            context.batch_size,
            False,
            ctypes.byref(after),
        )
        beat()
        if code != 0:
            context.remove(work.held.id, position, -1)
            raise GenerationFailed(
                f"llama.cpp could not evaluate a picture or sound: code {code}.",
                hint="Does the projector belong to the model?",
            )
        return run.length

    def attach(self, scheduler: Scheduler) -> None:
        """Let a scheduler evaluate media; in the engine's thread."""
        self._scheduler = scheduler
        scheduler.evaluate_media = self.evaluate
        scheduler.free_media = self.close

    def close(self) -> None:
        """Give the projector's memory back; in the engine's thread, after its last step."""
        if self._pointer:
            mtmd.mtmd_free(self._pointer)
            self._pointer = None

    def _joined(
        self, parts: Sequence[Sequence[str]], media: Sequence[Media], prompts: PromptMaker
    ) -> tuple[Prompt, tuple[MediaRun, ...]]:
        if len(parts) - 1 != len(media):
            raise InvalidRequest(
                f"The prompt has {len(parts) - 1} media markers and {len(media)} media.",
                hint=f"Write {PLAIN_MARKER} where each of them belongs.",
            )
        if len(media) > MAX_MEDIA:
            raise InvalidRequest(f"{len(media)} media are given.", hint=f"At most {MAX_MEDIA} are taken.")
        tokens: list[int] = []
        runs: list[MediaRun] = []
        for place, part in enumerate(parts):
            if any(part) or place == 0:
                tokens += prompts.pieces(part, first=place == 0)
            if place < len(media):
                self._append(tokens, runs, media[place])
        prompts.check_length(len(tokens))
        if tokens and runs and runs[-1].start + runs[-1].length == len(tokens):
            tokens += prompts.pieces(["\n"], first=False)  # an answer follows a text
        return Prompt(tokens), tuple(runs)

    def _append(self, tokens: list[int], runs: list[MediaRun], item: Media) -> None:
        digest = int.from_bytes(hashlib.sha256(item.data).digest()[:3], "little")
        for kind, chunk in self._chunks(item):
            if kind == _TEXT:
                count = ctypes.c_size_t(0)
                found = mtmd.mtmd_input_chunk_get_tokens_text(chunk.pointer, ctypes.byref(count))
                tokens += found[: count.value]
                continue
            length = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk.pointer))
            positions = int(mtmd.mtmd_input_chunk_get_n_pos(chunk.pointer))
            runs.append(MediaRun(len(tokens), length, positions, chunk))
            tokens += [-1 - digest] * length

    def _chunks(self, item: Media) -> list[tuple[int, _Chunk]]:
        """What mtmd makes of one picture or sound: its chunks, and the marks that the model wants around them."""
        if item.type not in ("image", "audio") or not (self.sees if item.type == "image" else self.hears):
            raise UnsupportedInput(f"'{self._name}' takes no {item.type}.", hint="Send what the model lists.")
        with self._lock:
            bitmap = self._bitmap(item)
            output = mtmd.mtmd_input_chunks_init()
            try:
                marker = PLAIN_MARKER.encode()
                text = mtmd.mtmd_input_text(
                    text=marker, text_len=len(marker), add_special=False, parse_special=True
                )
                bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
                code = mtmd.mtmd_tokenize(self._pointer, output, ctypes.byref(text), bitmaps, 1)
                if code != 0:
                    raise InvalidRequest(
                        f"The {item.type} cannot be prepared for the model.",
                        hint="Is it very small or very large?",
                    )
                found = []
                for at in range(mtmd.mtmd_input_chunks_size(output)):
                    chunk = mtmd.mtmd_input_chunks_get(output, at)
                    copy = _Chunk(mtmd.mtmd_input_chunk_copy(chunk))
                    found.append((int(mtmd.mtmd_input_chunk_get_type(chunk)), copy))
                return found
            finally:
                mtmd.mtmd_input_chunks_free(output)
                mtmd.mtmd_bitmap_free(bitmap)

    def _bitmap(self, item: Media) -> Any:
        data = (ctypes.c_uint8 * len(item.data)).from_buffer_copy(item.data)
        bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(self._pointer, data, len(item.data), False)
        if not bitmap:
            raise InvalidRequest(
                f"The {item.type} cannot be read.",
                hint="Send a JPEG or PNG picture, or WAV, MP3 or FLAC sound.",
            )
        if bool(mtmd.mtmd_bitmap_is_audio(bitmap)) != (item.type == "audio"):
            mtmd.mtmd_bitmap_free(bitmap)
            raise InvalidRequest(f"What is sent as {item.type} is none.", hint="Say what it is.")
        return bitmap


async def open_media(engine: Engine, path: Path) -> MediaReader:
    """Load a projector for an engine's model. Raises ModelLoadFailed."""
    reader = await in_thread(lambda: _open(engine, path))
    await engine.between_steps(reader.attach)
    return reader


def _open(engine: Engine, path: Path) -> MediaReader:
    if not path.is_file():
        raise ModelLoadFailed(
            f"The projector {path.name} is not there.", hint="Look at `mmproj` in the instance file."
        )
    parameters = mtmd.mtmd_context_params_default()
    parameters.use_gpu = engine.spec.n_gpu_layers != 0
    parameters.print_timings = False
    parameters.n_threads = engine.spec.threads_batch
    parameters.warmup = False
    pointer = mtmd.mtmd_init_from_file(bytes(path), engine.model.pointer, parameters)
    if not pointer:
        raise ModelLoadFailed(
            f"llama.cpp could not load the projector {path.name}.", hint="Does it belong to the model?"
        )
    return MediaReader(pointer, engine, engine.spec.name)
