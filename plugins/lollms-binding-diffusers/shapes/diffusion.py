"""Trains the text encoder and the denoiser together, and assembles the pipeline."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from .autoencoder import to_tensor
from .captions import caption
from .pictures import Scene, draw
from .tokenizer import END, MAX_LENGTH, START

_log = logging.getLogger(__name__)
WIDTH: Final = 64  # of the text encoder


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    seed: int
    batch: int = 32
    rate: float = 2e-3
    no_caption: float = 0.1  # share of pictures shown without words, for classifier-free guidance
    averaged: float = 0.998


def new_scheduler() -> DDIMScheduler:
    """Velocity prediction down to pure noise, so that even the background's colour comes from the words."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


def new_text_encoder(tokenizer: Any) -> CLIPTextModel:
    """An untrained two-layer CLIP text encoder for the tokenizer."""
    ids = tokenizer.get_vocab()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(ids), hidden_size=WIDTH, intermediate_size=4 * WIDTH, projection_dim=WIDTH,
            num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=MAX_LENGTH,
            bos_token_id=ids[START], eos_token_id=ids[END], pad_token_id=ids[END],
        )
    )  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 8×8 latents; words enter at 8×8 and in the middle, at 4×4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def train(
    tokenizer: Any,
    autoencoder: AutoencoderTiny,
    scenes: list[Scene],
    plan: Plan,
    snapshot: Callable[[int, StableDiffusionPipeline], None] | None = None,
) -> StableDiffusionPipeline:
    """Train for `plan.steps` steps on the scenes and return the pipeline with the averaged weights.

    `snapshot` is called with the step and the pipeline so far, after every sixth of the steps.
    """
    torch.manual_seed(plan.seed)
    dice = random.Random(plan.seed)
    scheduler, text, unet = new_scheduler(), new_text_encoder(tokenizer), new_unet()
    both = torch.nn.ModuleList([text, unet])
    average = copy.deepcopy(both).requires_grad_(False)
    _log.info("%.2f million parameters", sum(p.numel() for p in both.parameters()) / 1e6)
    optimizer = torch.optim.AdamW(both.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps, pct_start=0.05)
    running = 1.0
    for step in range(plan.steps):
        chosen = [dice.choice(scenes) for _ in range(plan.batch)]
        words = ["" if dice.random() < plan.no_caption else caption(scene, dice) for scene in chosen]
        ids = tokenizer(
            words, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            clean = autoencoder.encode(to_tensor([draw(scene, dice) for scene in chosen])).latents
        noise, times = torch.randn_like(clean), torch.randint(0, 1000, (plan.batch,))
        noisy = scheduler.add_noise(clean, noise, times)
        wanted = scheduler.get_velocity(clean, noise, times)
        guess = unet(noisy, times, text(ids)[0], return_dict=False)[0]
        loss = torch.nn.functional.mse_loss(guess, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            share = min(plan.averaged, (step + 1) / (step + 10))
            for kept, new in zip(average.parameters(), both.parameters(), strict=True):
                kept.lerp_(new, 1 - share)
        running += max(0.02, 1 / (step + 1)) * (loss.item() - running)
        if step % 100 == 0:
            _log.info("diffusion step %d of %d loss %.4f", step, plan.steps, running)
        if snapshot is not None and step % (plan.steps // 6) == plan.steps // 6 - 1:
            snapshot(step + 1, assemble(tokenizer, autoencoder, average[0], average[1]))
    return assemble(tokenizer, autoencoder, average[0].eval(), average[1].eval())


def assemble(
    tokenizer: Any, autoencoder: AutoencoderTiny, text: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The parts as one ordinary pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
