"""Small pictures of an image that is still being drawn. For the engine's thread only."""

from __future__ import annotations

import io
from typing import Any, Final

import torch

EDGE: Final = 256
"""Longest edge of a preview in pixels."""
QUALITY: Final = 70


def is_shown(step: int, total: int, every: int, spread: int) -> bool:
    """Whether a step is shown: after each `every`, else `spread` of them in equal parts; never the last one."""
    if step >= total:
        return False
    if every:
        return step % every == 0
    return step in {round(total * part / (spread + 1)) for part in range(1, spread + 1)}


def preview(pipeline: Any, latents: Any, place: int, size: tuple[int, int] | None) -> bytes | None:
    """Picture number `place` of the batch as a small JPEG; None where the pipeline's latents are no pictures yet.

    `size` is the width and height of what is drawn.
    """
    vae, processor = getattr(pipeline, "vae", None), getattr(pipeline, "image_processor", None)
    channels, scaling = (
        getattr(getattr(vae, "config", None), name, None) for name in ("latent_channels", "scaling_factor")
    )
    if vae is None or latents is None or processor is None or channels is None or scaling is None:
        return None
    one = latents[place : place + 1]
    factor = getattr(pipeline, "vae_scale_factor", 8)
    if one.ndim == 3 and size is not None:
        one = _unpacked(one, channels, size[1] // (2 * factor), size[0] // (2 * factor))
    if one.ndim != 4 or one.shape[1] != channels:
        return None
    shrink = max(one.shape[-2:]) * factor / EDGE
    if shrink > 1:
        one = torch.nn.functional.interpolate(one, scale_factor=1 / shrink, mode="area")
    shift = getattr(vae.config, "shift_factor", None) or 0
    decoded = _decoded(pipeline, one / scaling + shift)
    picture = processor.postprocess(decoded, output_type="pil")[0]
    target = io.BytesIO()
    picture.convert("RGB").save(target, "JPEG", quality=QUALITY)
    return target.getvalue()


def _decoded(pipeline: Any, latents: Any) -> Any:
    """Latents as pixels; the VAE of XL overflows in half precision, so it decodes in full, as its pipeline does."""
    vae = pipeline.vae
    usual = vae.dtype
    raised = usual == torch.float16 and hasattr(pipeline, "upcast_vae") and vae.config.force_upcast
    if raised:
        vae.to(torch.float32)
    try:
        return vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    finally:
        if raised:
            vae.to(usual)


def _unpacked(latents: Any, channels: int, rows: int, columns: int) -> Any:
    """Latents `(1, rows * columns, 4 * channels)`, packed in patches of 2×2 as Flux has them, as a picture of them.

    Those of any other shape are given back as they are.
    """
    if latents.shape[1:] != (rows * columns, 4 * channels):
        return latents
    patches = latents.view(1, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(1, channels, 2 * rows, 2 * columns)
