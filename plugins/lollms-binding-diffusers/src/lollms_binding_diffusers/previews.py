"""Small pictures of an image that is still being drawn. For the engine's thread only."""

from __future__ import annotations

import io
from typing import Any, Final

import torch

EDGE: Final = 256
"""Longest edge of a preview in pixels."""
QUALITY: Final = 70


def preview(pipeline: Any, latents: Any, place: int) -> bytes | None:
    """Picture number `place` of the batch as a small JPEG; None where the pipeline's latents are no pictures yet."""
    vae = getattr(pipeline, "vae", None)
    if latents is None or vae is None or latents.ndim != 4 or latents.shape[1] != vae.config.latent_channels:
        return None
    one = latents[place : place + 1]
    factor = getattr(pipeline, "vae_scale_factor", 8)
    shrink = max(one.shape[-2:]) * factor / EDGE
    if shrink > 1:
        one = torch.nn.functional.interpolate(one, scale_factor=1 / shrink, mode="area")
    scaling, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0
    decoded = vae.decode((one / scaling + shift).to(vae.dtype), return_dict=False)[0]
    picture = pipeline.image_processor.postprocess(decoded, output_type="pil")[0]
    target = io.BytesIO()
    picture.convert("RGB").save(target, "JPEG", quality=QUALITY)
    return target.getvalue()
