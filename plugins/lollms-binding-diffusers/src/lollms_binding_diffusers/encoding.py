"""Finished pieces as the bytes that clients get: PNG with its parameters, animated WebP or GIF, WAV."""

from __future__ import annotations

import io
import json
import wave
from typing import TYPE_CHECKING, Any, Final

from lollms_kernel.types import Output

from .job import Made, Result

if TYPE_CHECKING:
    from .parameters import Wanted

SOFTWARE: Final = "lollms (diffusers_binding)"


def encode(piece: Made, result: Result, wanted: Wanted) -> Output:
    """One piece with its metadata. Blocks: call it in a thread."""
    facts = {name: value for name, value in result.facts.items() if value is not None}
    metadata: dict[str, Any] = {"prompt_used": wanted.prompt, **facts, "seed": piece.seed}
    if piece.hidden:
        metadata["hidden_by_safety_checker"] = True
    timings = {"generate": round(result.generate, 4)}
    if result.load is not None:
        timings["load"] = round(result.load, 4)
    metadata["generation_timings"] = timings
    if result.sampling_rate is not None:
        metadata["sampling_rate"] = result.sampling_rate
        return Output("audio", to_wav(piece.content, result.sampling_rate), "audio/wav", metadata)
    if isinstance(piece.content, list) or getattr(piece.content, "ndim", 0) == 4:
        frames = _frames(piece.content)
        metadata |= {"num_frames": len(frames), "fps": wanted.fps}
        data = to_animation(frames, wanted.fps, wanted.video_format)
        return Output("video", data, f"image/{wanted.video_format}", metadata)
    return Output("image", to_png(piece.content, metadata), "image/png", metadata)


def to_png(picture: Any, metadata: dict[str, Any]) -> bytes:
    """A PNG whose text chunks say how it was made: one for each value, and all as JSON in `parameters`."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Software", SOFTWARE)
    for name, value in metadata.items():
        if isinstance(value, str | int | float):
            _add(texts, name, str(value))
    _add(texts, "parameters", json.dumps(metadata, ensure_ascii=False, default=str))
    target = io.BytesIO()
    picture.save(target, "PNG", pnginfo=texts)
    return target.getvalue()


def _add(texts: Any, name: str, value: str) -> None:
    """Text of any language; the zero character ends a field of the format and cannot stand in one."""
    value = value.replace("\0", "")
    if value.isascii():
        texts.add_text(name, value)
    else:
        texts.add_itxt(name, value)


def _frames(content: Any) -> list[Any]:
    from PIL import Image

    return [
        frame if isinstance(frame, Image.Image) else Image.fromarray((frame * 255).round().astype("uint8"))
        for frame in content
    ]


def to_animation(frames: list[Any], fps: int, kind: str) -> bytes:
    """The frames as an endless animated WebP or GIF."""
    target = io.BytesIO()
    frames[0].save(
        target, kind.upper(), save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0
    )
    return target.getvalue()


def to_wav(samples: Any, rate: int) -> bytes:
    """Samples of -1 to 1, `(n,)` or `(channels, n)`, as a WAV of 16 bits."""
    import numpy as np

    if hasattr(samples, "cpu"):
        samples = samples.float().cpu()  # numpy has no bfloat16
    values = np.asarray(samples, np.float32)
    values = values.T if values.ndim == 2 else values[:, None]
    pcm = (np.clip(np.nan_to_num(values), -1, 1) * 32767).round().astype("<i2")
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(pcm.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(pcm.tobytes())
    return target.getvalue()
