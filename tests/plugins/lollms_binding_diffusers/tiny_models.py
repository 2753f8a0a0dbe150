"""Real pipelines with random weights, small enough to be built offline in a moment."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AudioLDMPipeline,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
)

WIDTH = 8


def byte_names() -> list[str]:
    """The 256 byte tokens by the names that byte-level BPE gives them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = byte_names()
    tokens = [*names, *(f"{name}</w>" for name in names), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=16)


def text_encoder() -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=514, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=512, eos_token_id=513, pad_token_id=513,
            projection_dim=WIDTH,
        )
    )  # fmt: skip


def unet(**changes: Any) -> Any:
    shape: dict[str, Any] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (4, 8), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH, "norm_num_groups": 2, "attention_head_dim": 4,
    }  # fmt: skip
    return UNet2DConditionModel(**{**shape, **changes})


def vae(seed: int = 3) -> Any:
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=[4, 4, 4, 8], latent_channels=4, norm_num_groups=2, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, sample_size=64,
    )  # fmt: skip


def scheduler() -> Any:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        set_alpha_to_one=False, clip_sample=False,
    )  # fmt: skip


def stable_diffusion(folder: Path, **parts: Any) -> Any:
    """A Stable Diffusion pipeline of 64×64 pictures, saved to `folder`."""
    torch.manual_seed(0)
    made: dict[str, Any] = {
        "vae": vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(folder.parent / f".{folder.name}-words"),
        "unet": unet(),
        "scheduler": scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    pipeline = StableDiffusionPipeline(**{**made, **parts})
    pipeline.save_pretrained(folder)
    return pipeline


def controlnet(folder: Path) -> None:
    """A ControlNet for the tiny UNet, saved to `folder`; its output is not zero as that of an untrained one is."""
    torch.manual_seed(4)
    network = ControlNetModel.from_unet(unet(), conditioning_embedding_out_channels=(4, 4, 4, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for parameter in network.controlnet_cond_embedding.parameters():
            parameter.add_(torch.randn_like(parameter))
    network.save_pretrained(folder)


def lora(folder: Path) -> Path:
    """A LoRA of the tiny UNet that changes pictures visibly; returns its file."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(5)
    network = unet()
    network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "to_out.0"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(network), weight_name="style.safetensors"
    )
    return folder / "style.safetensors"


def animate_diff(folder: Path) -> None:
    """A text-to-video pipeline, saved to `folder`."""
    torch.manual_seed(6)
    motion = MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2,
        motion_num_attention_heads=2, use_motion_mid_block=False,
    )  # fmt: skip
    AnimateDiffPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=tokenizer(folder.parent / f".{folder.name}-words"),
        unet=unet(), motion_adapter=motion, scheduler=scheduler(),
    ).save_pretrained(folder)  # fmt: skip


def audio_ldm(folder: Path) -> None:
    """A text-to-audio pipeline of 16 kHz, saved to `folder`."""
    torch.manual_seed(7)
    words = folder.parent / f".{folder.name}-words"
    words.mkdir(parents=True, exist_ok=True)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *byte_names()]
    (words / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    text = ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=32, projection_dim=WIDTH, pad_token_id=1,
            bos_token_id=0, eos_token_id=2,
        )
    )  # fmt: skip
    coder = AutoencoderKL(
        block_out_channels=[4, 8], in_channels=1, out_channels=1, norm_num_groups=2, layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4,
    )  # fmt: skip
    voice = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=8, sampling_rate=16000, upsample_initial_channel=16, upsample_rates=[2, 2],
            upsample_kernel_sizes=[4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]],
            normalize_before=False,
        )
    )  # fmt: skip
    AudioLDMPipeline(
        vae=coder, text_encoder=text, tokenizer=RobertaTokenizer.from_pretrained(words, model_max_length=24),
        unet=unet(
            cross_attention_dim=(8, 8), class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=8, class_embeddings_concat=True,
        ),
        scheduler=scheduler(), vocoder=voice,
    ).save_pretrained(folder)  # fmt: skip


def strict_safety_checker() -> dict[str, Any]:
    """Parts of a pipeline whose safety checker hides every picture."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    torch.manual_seed(8)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
            vision_config={
                "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "image_size": 16, "patch_size": 8,
            },
            projection_dim=8,
        )
    )  # fmt: skip
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)  # every likeness is above it
    return {
        "safety_checker": checker,
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        "requires_safety_checker": True,
    }


RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
}  # fmt: skip
VAE: list[tuple[str, Any]] = [
    (r"coder\.conv_norm_out", "coder.norm_out"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda found: f"up.{3 - int(found[1])}.block.{found[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample"),
    (r"conv_shortcut", "nin_shortcut"),
]


def unet_name(name: str) -> str:
    """A parameter of the tiny UNet by the name that published checkpoints give it."""
    start = max((known for known in UNET if name.startswith(f"{known}.")), key=len)
    rest = name.removeprefix(f"{start}.")
    if "resnets" in start:
        layer, _, kind = rest.rpartition(".")
        rest = f"{RESNET[layer]}.{kind}"
    return f"model.diffusion_model.{UNET[start]}.{rest}"


def vae_name(name: str) -> str:
    """The same for the VAE."""
    for pattern, place in VAE:
        name = re.sub(pattern, place, name)
    return f"first_stage_model.{name}"


def text_name(name: str) -> str:
    """The same for the text encoder."""
    return f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"


def single_file(folder: Path, target: Path, *, with_config: bool = True) -> None:
    """A tiny pipeline's weights as one checkpoint, named as in published ones, and its configuration beside it."""
    from safetensors.torch import load_file, save_file

    weights: dict[str, Any] = {}
    for part, named in (("unet", unet_name), ("vae", vae_name), ("text_encoder", text_name)):
        for file in (folder / part).glob("*.safetensors"):
            for name, value in load_file(file).items():
                place = named(name)
                attention = ".attn_1." in place and ".norm." not in place and value.ndim == 2
                weights[place] = value[:, :, None, None] if attention else value
    save_file(weights, target)
    if with_config:
        no_weights = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(folder, target.with_suffix(".config"), ignore=no_weights)
