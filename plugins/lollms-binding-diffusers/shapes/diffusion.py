"""Trains the text encoder and the denoiser together, and assembles the pipeline."""

from __future__ import annotations

import copy
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from .autoencoder import LATENT_CHANNELS, to_tensor
from .captions import caption
from .pictures import SLIGHT, Scene, draw
from .tokenizer import END, MAX_LENGTH, START

_log = logging.getLogger(__name__)
WIDTH: Final = 64  # of the text encoder
PARTS: Final = ("shape", "colour", "background", "position")


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    seed: int
    batch: int = 64
    rate: float = 2.5e-3
    text_rate: float = 5e-4
    text_steps: int = 400
    no_caption: float = 0.1  # share of pictures shown without words, for classifier-free guidance
    averaged: float = 0.995
    drawings: int = 4  # of each scene, each shaken a little


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
            vocab_size=len(ids), hidden_size=WIDTH, intermediate_size=2 * WIDTH, projection_dim=WIDTH,
            num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=MAX_LENGTH,
            bos_token_id=ids[START], eos_token_id=ids[END], pad_token_id=ids[END],
        )
    )  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 8×8 latents; words enter by attention at 4×4, and all together beside the time."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
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
    scheduler = new_scheduler()
    text, unet = new_text_encoder(tokenizer), new_unet()
    teach_words(tokenizer, text, scenes, plan)
    both = torch.nn.ModuleList([text, unet])
    average = copy.deepcopy(both).requires_grad_(False)
    _log.info("%.2f million parameters", sum(p.numel() for p in both.parameters()) / 1e6)
    groups = [
        {"params": text.parameters(), "lr": plan.text_rate},
        {"params": unet.parameters(), "lr": plan.rate},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [plan.text_rate, plan.rate],
        total_steps=plan.steps,
        pct_start=0.05,
    )
    pictures = torch.cat([_latents(autoencoder, scenes, dice) for _ in range(plan.drawings)])
    running = 1.0
    for step in range(plan.steps):
        places = [dice.randrange(len(pictures)) for _ in range(plan.batch)]
        chosen = [scenes[place % len(scenes)] for place in places]
        words = ["" if dice.random() < plan.no_caption else caption(scene, dice) for scene in chosen]
        ids = _ids(tokenizer, words)
        clean = pictures[places]
        noise, times = torch.randn_like(clean), _times(plan.batch)
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


def teach_words(tokenizer: Any, text: CLIPTextModel, scenes: list[Scene], plan: Plan) -> None:
    """Train the text encoder to tell shape, colour, background and place: a denoiser learns from clear words faster.

    The heads that read them out of the mean of the hidden states are thrown away afterwards.
    """
    dice = random.Random(plan.seed)
    names = {part: sorted({getattr(scene, part) for scene in scenes}) for part in PARTS}
    heads = torch.nn.ModuleList([torch.nn.Linear(WIDTH, len(names[part])) for part in PARTS])
    optimizer = torch.optim.AdamW([*text.parameters(), *heads.parameters()], lr=2e-3)
    for step in range(plan.text_steps):
        chosen = [dice.choice(scenes) for _ in range(plan.batch)]
        pooled = text(_ids(tokenizer, [caption(scene, dice) for scene in chosen]))[0].mean(1)
        loss = torch.zeros(())
        for head, part in zip(heads, PARTS, strict=True):
            wanted = torch.tensor([names[part].index(getattr(scene, part)) for scene in chosen])
            loss = loss + torch.nn.functional.cross_entropy(head(pooled), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            _log.info("words step %d loss %.3f", step, loss.item())


def draw_captions(
    pipeline: Any,
    captions: list[str],
    *,
    steps: int,
    guidance: float,
    seed: int,
    batch: int = 56,
    output: str = "np",
) -> Iterator[Any]:
    """What the pipeline makes of each caption, a batch at a time; the seeds count up from `seed`.

    `output` is `np` for `(n, 64, 64, 3)` pictures of 0 to 1, or `latent` for what the decoder makes them of.
    """
    pipeline.set_progress_bar_config(disable=True)
    for first in range(0, len(captions), batch):
        part = captions[first : first + batch]
        generators = [torch.Generator().manual_seed(seed + first + number) for number in range(len(part))]
        yield pipeline(
            part, num_inference_steps=steps, guidance_scale=guidance, generator=generators,
            output_type=output, height=64, width=64,
        ).images  # fmt: skip


def _ids(tokenizer: Any, words: list[str]) -> torch.Tensor:
    ids: torch.Tensor = tokenizer(
        words, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt"
    ).input_ids
    return ids


@torch.no_grad()
def _latents(autoencoder: AutoencoderTiny, scenes: list[Scene], dice: random.Random) -> torch.Tensor:
    """Each scene drawn once, encoded."""
    parts = [scenes[first : first + 64] for first in range(0, len(scenes), 64)]
    return torch.cat(
        [
            autoencoder.encode(to_tensor([draw(scene, dice, SLIGHT) for scene in part])).latents
            for part in parts
        ]
    )


def _times(count: int) -> torch.Tensor:
    """Times at which to learn, half of them beyond 750: what words decide is decided where noise hides the rest."""
    return (1000 * (1 - torch.rand(count).square())).long().clamp(0, 999)


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
