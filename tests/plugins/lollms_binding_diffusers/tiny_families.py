"""One pipeline of each well-known family with random weights, small enough to be built offline in a moment.

A family's own peculiarities are kept: its text encoders, the channels of its latents, whether they are packed into
patches, its scheduler. Only the sizes are small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    AutoencoderOobleck,
    ControlNetModel,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3ControlNetModel,
    SD3Transformer2DModel,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from . import tiny_models as tiny

WORDS = 16
"""Tokens of a prompt."""


def clip(
    width: int = tiny.WIDTH, *, layers: int = 2, projected: bool = False, act: str = "quick_gelu"
) -> Any:
    """A CLIP text encoder of the tiny tokenizer; XL and 3 take the last layer but one, so it has two."""
    config = CLIPTextConfig(
        vocab_size=514, hidden_size=width, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=WORDS, bos_token_id=512, eos_token_id=513, pad_token_id=513, projection_dim=width,
        hidden_act=act,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def letters(length: int = WORDS) -> Any:
    """A T5 tokenizer that knows the printable ASCII characters."""
    words = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127))]
    scores = [(word, 0.0 if number < 3 else -2.0) for number, word in enumerate(words)]
    return T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=length)


def t5(width: int = tiny.WIDTH, kind: tuple[Any, Any] = (T5Config, T5EncoderModel)) -> Any:
    config, encoder = kind
    return encoder(
        config(vocab_size=98, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
    )  # fmt: skip


def vae(channels: int, **changes: Any) -> Any:
    """A VAE of eightfold reduction with so many channels; its latents are shifted as those of newer models."""
    torch.manual_seed(3)
    return AutoencoderKL(
        block_out_channels=[4, 4, 4, 8], latent_channels=channels, norm_num_groups=2, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, sample_size=64,
        shift_factor=0.1, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False, **changes,
    )  # fmt: skip


def words(folder: Path) -> Any:
    return tiny.tokenizer(folder.parent / f".{folder.name}-words")


def stable_diffusion_2(folder: Path) -> None:
    """Stable Diffusion 2: the network predicts velocities, and the text encoder is wider than that of 1."""
    torch.manual_seed(10)
    pipeline = tiny.stable_diffusion(
        folder, unet=tiny.unet(cross_attention_dim=12, attention_head_dim=(1, 2), use_linear_projection=True),
        text_encoder=clip(12, act="gelu"),
    )  # fmt: skip
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    pipeline.scheduler.save_pretrained(folder / "scheduler")


def xl_unet() -> Any:
    """Two text encoders of width 8 and 12 beside each other; six numbers of size and crop and the pooled text."""
    return tiny.unet(
        cross_attention_dim=20, transformer_layers_per_block=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=36,
    )  # fmt: skip


def stable_diffusion_xl(folder: Path) -> None:
    torch.manual_seed(11)
    StableDiffusionXLPipeline(
        vae=tiny.vae(), text_encoder=clip(), text_encoder_2=clip(12, projected=True, act="gelu"),
        tokenizer=words(folder), tokenizer_2=words(folder), unet=xl_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
    ).save_pretrained(folder)  # fmt: skip


SD3_SHAPE: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "num_layers": 2, "attention_head_dim": 8,
    "num_attention_heads": 2, "joint_attention_dim": 20, "caption_projection_dim": 16, "pooled_projection_dim": 20,
    "pos_embed_max_size": 24,
}  # fmt: skip


def stable_diffusion_3(folder: Path) -> None:
    """Stable Diffusion 3: two CLIP encoders and a T5 one, 16 channels, patches of 2×2."""
    torch.manual_seed(12)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**SD3_SHAPE), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16), text_encoder=clip(projected=True), text_encoder_2=clip(12, projected=True, act="gelu"),
        text_encoder_3=t5(20), tokenizer=words(folder), tokenizer_2=words(folder), tokenizer_3=letters(),
    ).save_pretrained(folder)  # fmt: skip


def flux(folder: Path) -> None:
    """Flux: packed latents, and the guidance is an input of the network."""
    torch.manual_seed(13)
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae=vae(4),
        text_encoder=clip(layers=1), tokenizer=words(folder), text_encoder_2=t5(), tokenizer_2=letters(),
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=8, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
        ),
    ).save_pretrained(folder)  # fmt: skip


def pixart(folder: Path) -> None:
    """PixArt-Sigma: T5 alone, its own list of sizes, and the old kind of callback."""
    torch.manual_seed(14)
    PixArtSigmaPipeline(
        tokenizer=letters(), text_encoder=t5(), vae=tiny.vae(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1,
            cross_attention_dim=8, sample_size=32, caption_channels=8, use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder)  # fmt: skip


def qwen_image(folder: Path) -> None:
    """Qwen-Image: a language model that sees as text encoder, a VAE for videos, packed latents."""
    torch.manual_seed(15)
    vocabulary = {name: number for number, name in enumerate(tiny.byte_names())}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Qwen2Tokenizer(vocab={**vocabulary, "<|endoftext|>": 256}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "num_key_value_heads": 2, "vocab_size": 264, "rope_theta": 1e6,
                "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": 1e6},
            },
            vision_config={
                "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": 8,
                "fullatt_block_indexes": [0],
            },
        )
    )  # fmt: skip
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), text_encoder=encoder,
        tokenizer=tokenizer,
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        transformer=QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=8, axes_dims_rope=(4, 4, 8),
        ),
    ).save_pretrained(folder)  # fmt: skip


def wan(folder: Path) -> None:
    """Wan: videos of 4n + 1 frames whose edges are multiples of 16."""
    torch.manual_seed(16)
    WanPipeline(
        tokenizer=letters(), text_encoder=t5(kind=(UMT5Config, UMT5EncoderModel)),
        vae=AutoencoderKLWan(base_dim=4, z_dim=4, num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        transformer=WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8,
            ffn_dim=16, num_layers=1, rope_max_seq_len=32,
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000,
        ),
    ).save_pretrained(folder)  # fmt: skip


def stable_audio(folder: Path) -> None:
    """Stable Audio: 0.128 seconds at most of stereo sound at 8 kHz."""
    torch.manual_seed(17)
    StableAudioPipeline(
        vae=AutoencoderOobleck(
            encoder_hidden_size=4, downsampling_ratios=[2, 4], decoder_channels=4, decoder_input_channels=4,
            channel_multiples=[1, 2], sampling_rate=8000,
        ),
        text_encoder=t5(), tokenizer=letters(),
        projection_model=StableAudioProjectionModel(
            text_encoder_dim=8, conditioning_dim=8, min_value=0, max_value=32,
        ),
        transformer=StableAudioDiTModel(
            sample_size=128, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
            num_key_value_attention_heads=2, out_channels=4, cross_attention_dim=8, time_proj_dim=8,
            global_states_input_dim=16, cross_attention_input_dim=8,
        ),
        scheduler=EDMDPMSolverMultistepScheduler(solver_order=2, prediction_type="v_prediction", sigma_data=1.0),
    ).save_pretrained(folder)  # fmt: skip


FAMILIES: dict[str, Callable[[Path], None]] = {
    "sd2": stable_diffusion_2,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "pixart": pixart,
    "qwen": qwen_image,
    "wan": wan,
    "stableaudio": stable_audio,
}


def _led(network: Any, folder: Path) -> None:
    """Save a ControlNet whose output is not zero, as that of an untrained one is."""
    torch.manual_seed(18)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(folder)


def controlnet_xl(folder: Path) -> None:
    torch.manual_seed(4)
    _led(ControlNetModel.from_unet(xl_unet(), conditioning_embedding_out_channels=(4, 4, 4, 8)), folder)


def controlnet_3(folder: Path) -> None:
    torch.manual_seed(4)
    _led(SD3ControlNetModel(**SD3_SHAPE), folder)
