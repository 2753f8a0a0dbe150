"""Trains the small autoencoder: 64×64 pictures to 8×8 latents of 16 channels, of about unit variance, and back."""

from __future__ import annotations

import logging
import random
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from .pictures import Scene, all_scenes, draw

_log = logging.getLogger(__name__)
BATCH: Final = 16
RATE: Final = 3e-3
LATENT_CHANNELS: Final = 16
NOISE: Final = (
    0.2  # at most so much of a latent's deviation: the denoiser's latents will not be perfect either
)


def to_tensor(pictures: list[Any]) -> Tensor:
    """Pictures of 0 to 255 as one `(n, 3, 64, 64)` tensor of -1 to 1, the range of diffusers."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def new() -> AutoencoderTiny:
    """An autoencoder that halves three times, begun as one that keeps every eighth pixel and enlarges it again.

    From there it learns several times faster than from noise alone.
    """
    model = AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24, 24),
        decoder_block_out_channels=(24, 24, 24, 24),
        num_encoder_blocks=(0, 0, 1, 1),
        num_decoder_blocks=(3, 3, 1, 0),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    blocks = [part for part in model.modules() if isinstance(part, AutoencoderTinyBlock)]
    for block in blocks:
        block.conv[-1].weight.data *= 0.2
    inside = {layer for block in blocks for layer in block.modules()}
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer not in inside:
            noise = 0.5 * layer.weight.data
            nn.init.dirac_(layer.weight)
            layer.weight.data += noise
    return model


def train(scenes: list[Scene], steps: int, seed: int) -> AutoencoderTiny:
    """Train for `steps` steps on pictures and their edges; the latents' mean and variance are pulled to 0 and 1."""
    torch.manual_seed(seed)
    dice, model = random.Random(seed), new().to(memory_format=torch.channels_last)
    optimizer, plan = _optimizer(model, steps)
    running = 1.0
    for step in range(steps):
        pictures = to_tensor([draw(dice.choice(scenes), dice) for _ in range(BATCH)])
        latents = model.encode(pictures).latents
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        error, edges = _errors(model, latents, pictures)
        loss = error + edges + 0.02 * (mean.square().mean() + (deviation - 1).square().mean())
        _step(loss, model, optimizer, plan)
        running += max(0.02, 1 / (step + 1)) * (error.item() - running)
        if step % 100 == 0:
            _log.info("autoencoder step %d error %.4f edges %.4f", step, running, edges.item())
    return model.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def polish(model: AutoencoderTiny, latents: Tensor, scenes: list[Scene], steps: int, seed: int) -> None:
    """Teach the decoder to draw what a caption says out of the latents that the denoiser makes of it.

    `latents` are `(n, 16, 8, 8)`, one of each scene, again and again. The encoder, which the denoiser has learned from,
    stays as it is.
    """
    torch.manual_seed(seed)
    dice = random.Random(seed)
    model.requires_grad_(False).to(memory_format=torch.channels_last)
    model.decoder.requires_grad_(True)
    optimizer, plan = _optimizer(model.decoder, steps)
    for step in range(steps):
        places = [dice.randrange(len(latents)) for _ in range(BATCH)]
        pictures = to_tensor([draw(scenes[place % len(scenes)]) for place in places])
        error, edges = _errors(model, latents[places], pictures)
        _step(error + edges, model.decoder, optimizer, plan)
        if step % 100 == 0:
            _log.info("decoder step %d error %.4f edges %.4f", step, error.item(), edges.item())
    model.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _errors(model: AutoencoderTiny, latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """How far what the decoder makes of the latents, shaken a little, is from the pictures: in colours, in edges."""
    noise = NOISE * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
    wrong = model.decode(latents + noise).sample - pictures
    return wrong.abs().mean(), wrong.diff(dim=2).abs().mean() + wrong.diff(dim=3).abs().mean()


def _optimizer(part: nn.Module, steps: int) -> tuple[Any, Any]:
    """An optimizer of the part's parameters, and the plan of its rate over so many steps."""
    optimizer = torch.optim.AdamW(part.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)


def _step(loss: Tensor, part: nn.Module, optimizer: Any, plan: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(part.parameters(), 1.0)
    optimizer.step()
    plan.step()


def training_scenes() -> list[Scene]:
    """The scenes that training may see."""
    return [scene for scene in all_scenes() if not scene.held_out]
