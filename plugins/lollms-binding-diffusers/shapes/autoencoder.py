"""Trains the small autoencoder: 64×64 pictures to 8×8 latents of 8 channels, of about unit variance, and back."""

from __future__ import annotations

import logging
import random
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from .pictures import Scene, all_scenes, draw

_log = logging.getLogger(__name__)
BATCH: Final = 24


def to_tensor(pictures: list[Any]) -> Tensor:
    """Pictures of 0 to 255 as one `(n, 3, 64, 64)` tensor of -1 to 1, the range of diffusers."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def new() -> AutoencoderTiny:
    """An untrained autoencoder that halves three times."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(0, 0, 1, 1),
        num_decoder_blocks=(2, 2, 1, 0),
        latent_channels=8,
        scaling_factor=1.0,
    )


def train(scenes: list[Scene], steps: int, seed: int) -> AutoencoderTiny:
    """Train for `steps` steps; the latents' mean and variance are pulled to 0 and 1, and noise makes them forgiving."""
    torch.manual_seed(seed)
    dice, model = random.Random(seed), new().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2.5e-3, total_steps=steps, pct_start=0.1)
    running = 1.0
    for step in range(steps):
        pictures = to_tensor([draw(dice.choice(scenes), dice) for _ in range(BATCH)])
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encode(pictures).latents.float()
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        noisy = latents + 0.05 * torch.randn_like(latents)
        with torch.autocast("cpu", torch.bfloat16):
            restored = model.decode(noisy).sample
        error = (restored.float() - pictures).abs().mean()
        loss = error + 0.02 * (mean.square().mean() + (deviation - 1).square().mean())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
        running += max(0.02, 1 / (step + 1)) * (error.item() - running)
        if step % 100 == 0:
            _log.info("autoencoder step %d error %.4f deviation %.2f", step, running, deviation.mean().item())
    return model.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def training_scenes() -> list[Scene]:
    """The scenes that training may see."""
    return [scene for scene in all_scenes() if not scene.held_out]
