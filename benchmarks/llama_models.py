"""Models to measure with: shape and vocabulary of a 0.5B model, random weights, written in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np
from gguf.constants import GGMLQuantizationType as Quantization

VOCABULARY = 151_936
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BLOCK = 32
_SPREAD = {Quantization.Q8_0: 0.02 / 73, Quantization.Q4_0: 0.02 / 4.6}
"""The scale that gives weights a deviation of 0.02."""


class Shape(msgspec.Struct, frozen=True):
    """How large a model is."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int


FULL = Shape("0.5B", 896, 24, 14, 2, 4864)
SMALL = Shape("tenth of a 0.5B", 256, 6, 4, 2, 1024)


def write_model(path: Path, shape: Shape, quantization: Quantization, n_ctx: int = 32_768) -> Path:
    """Write a model of this shape; each byte is one token of its vocabulary."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name(f"random {shape.name}")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_chat_template(CHATML)
    _write_vocabulary(writer)
    _write_weights(writer, shape, quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    names = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    filler = [f"token{number}" for number in range(VOCABULARY - len(names) - len(control))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*names, *control, *filler])
    kinds = (
        [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * len(filler)
    )
    writer.add_token_types(kinds)
    writer.add_token_merges(["t o"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)


def _write_weights(writer: gguf.GGUFWriter, shape: Shape, quantization: Quantization) -> None:
    random = np.random.default_rng(0)
    kv_width = shape.width // shape.heads * shape.kv_heads

    def add(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(name, _blocks(random, rows, columns, quantization), raw_dtype=quantization)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.width, np.float32))

    add("token_embd.weight", VOCABULARY, shape.width)
    ones("output_norm.weight")
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        ones(f"{block}.ffn_norm.weight")
        for part, rows in (("attn_q", shape.width), ("attn_k", kv_width), ("attn_v", kv_width)):
            add(f"{block}.{part}.weight", rows, shape.width)
            writer.add_tensor(f"{block}.{part}.bias", np.zeros(rows, np.float32))
        add(f"{block}.attn_output.weight", shape.width, shape.width)
        add(f"{block}.ffn_gate.weight", shape.inner, shape.width)
        add(f"{block}.ffn_up.weight", shape.inner, shape.width)
        add(f"{block}.ffn_down.weight", shape.width, shape.inner)


def _blocks(random: Any, rows: int, columns: int, quantization: Quantization) -> Any:
    """Random weights in ggml's own format: for each 32 of them a scale and their digits."""
    digits = 32 if quantization is Quantization.Q8_0 else 16
    count = rows * columns // _BLOCK
    blocks = random.integers(0, 256, (count, 2 + digits), dtype=np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(_SPREAD[quantization]).tobytes(), np.uint8)
    return blocks.reshape(rows, columns // _BLOCK * (2 + digits))
