"""A real llama model, small enough to write in a moment, whose every answer is known.

Its layers add nothing, so the next token depends on the last one only: after a letter comes the next letter, and
after "z" the end. A newline (with which a ChatML prompt ends) and a space lead to "a"; "!" leads to "€", byte by
byte; "?" leads to any digit with the same probability, and a digit to "?", for ever.
"""

from __future__ import annotations

import string
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_kernel.contracts import BindingContext
from lollms_kernel.types import Chunk, GenerateRequest

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["system", "user", "assistant", "<think>", "</think>"]
WIDTH = 288
"""One dimension for each token, rounded up to whole blocks of 32."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_names() -> list[str]:
    """The 256 byte tokens by the names that byte-level BPE gives them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


VOCABULARY = [*byte_names(), *CONTROL, *WORDS]


def successors() -> dict[int, list[int]]:
    """Which tokens follow which."""
    end = VOCABULARY.index("<|im_end|>")
    follow = {
        ord(a): [ord(b)] for a, b in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
    }
    follow |= {ord("z"): [end], ord("\n"): [ord("a")], ord(" "): [ord("a")]}
    euro = "€".encode()
    follow |= {ord("!"): [euro[0]], euro[0]: [euro[1]], euro[1]: [euro[2]], euro[2]: [end]}
    follow |= {ord("?"): list(b"0123456789")} | {digit: [ord("?")] for digit in b"0123456789"}
    return follow


def write_model(
    path: Path,
    *,
    quantization: Quantization = Quantization.F32,
    n_ctx: int = 512,
    template: str | None = CHATML,
    metadata: dict[str, Any] | None = None,
    add_bos: bool = False,
) -> Path:
    """Write the model to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Alphabet")
    writer.add_license("Apache-2.0")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(32)
    writer.add_head_count(9)
    writer.add_head_count_kv(9)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(32)
    writer.add_file_type({Quantization.F32: 0, Quantization.F16: 1, Quantization.Q8_0: 7}[quantization])
    _write_tokenizer(writer, add_bos)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in (metadata or {}).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    _write_weights(writer, quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: gguf.GGUFWriter, add_bos: bool) -> None:
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 3
    kinds += [gguf.TokenType.USER_DEFINED] * 2
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types(kinds)
    merges = []
    for word in ("system", "user", "assistant"):
        merges += [f"{word[:length]} {word[length]}" for length in range(1, len(word))]
    writer.add_token_merges(merges)
    writer.add_bos_token_id(VOCABULARY.index("<|endoftext|>"))
    writer.add_eos_token_id(VOCABULARY.index("<|im_end|>"))
    writer.add_add_bos_token(add_bos)


def _write_weights(writer: gguf.GGUFWriter, quantization: Quantization) -> None:
    random = np.random.default_rng(1)
    size = len(VOCABULARY)
    embedding = np.eye(size, WIDTH, dtype=np.float32)
    output = np.zeros((size, WIDTH), np.float32)
    for token, following in successors().items():
        for next_token in following:
            output[next_token, token] = 2.0

    def add(name: str, weights: Any) -> None:
        if quantization is Quantization.F32 or weights.ndim == 1:
            writer.add_tensor(name, weights)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weights, quantization), raw_dtype=quantization)

    def noise(*shape: int) -> Any:
        return random.normal(0, 0.02, shape).astype(np.float32)

    add("token_embd.weight", embedding)
    add("output_norm.weight", np.ones(WIDTH, np.float32))
    add("output.weight", output)
    for layer in range(2):
        for name in ("attn_q", "attn_k", "attn_v"):
            add(f"blk.{layer}.{name}.weight", noise(WIDTH, WIDTH))
        add(f"blk.{layer}.attn_output.weight", np.zeros((WIDTH, WIDTH), np.float32))
        add(f"blk.{layer}.ffn_gate.weight", noise(32, WIDTH))
        add(f"blk.{layer}.ffn_up.weight", noise(32, WIDTH))
        add(f"blk.{layer}.ffn_down.weight", np.zeros((WIDTH, 32), np.float32))
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The empty folder `models/gguf` of a fresh configuration."""
    folder = tmp_path / "models" / "gguf"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def make_model(models: Path) -> Callable[..., Path]:
    """Writes the alphabet model under a name into the models folder."""

    def make(name: str = "alphabet.gguf", **options: Any) -> Path:
        return write_model(models / name, **options)

    return make


@pytest.fixture
async def make_binding(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[LlamaCppBinding]]]:
    """Opens a binding with these settings in this process; closes it in the end."""
    opened: list[LlamaCppBinding] = []

    async def make(**settings: Any) -> LlamaCppBinding:
        context = BindingContext(models_folder=tmp_path / "models", root=tmp_path)
        own = {"type": "llamacpp_binding", "binding_instance_name": "under_test", **settings}
        binding = LlamaCppBinding(LlamaCppBinding.Settings(**own), context)
        opened.append(binding)
        await binding.open()
        return binding

    yield make
    for binding in opened:
        await binding.close()


@pytest.fixture
def ask() -> Callable[..., Awaitable[list[Chunk]]]:
    """Sends one request to a binding and gives all its chunks."""

    async def send(
        binding: LlamaCppBinding, model: str | None = "alphabet.gguf", **fields: Any
    ) -> list[Chunk]:
        request = GenerateRequest(id="request", model=model, **fields)
        async with aclosing(binding.generate(request)) as chunks:
            return [chunk async for chunk in chunks]

    return send


BERT_WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"▁{word}" for word in "red green blue cat dog".split()),
]
BERT_WIDTH = 32


def write_encoder(path: Path, *, pooling: int | None = 1, ranks: bool = False) -> Path:
    """A BERT with random weights: an encoder, which makes embeddings, and with `ranks` scores pairs of texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("Tiny encoder")
    writer.add_context_length(64)
    writer.add_embedding_length(BERT_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_uint32("bert.pooling_type", pooling)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(BERT_WORDS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * 5)
    writer.add_token_type_count(2)
    for name, token in {
        "padding": 0,
        "unknown": 1,
        "bos": 2,
        "cls": 2,
        "eos": 3,
        "seperator": 3,
        "mask": 4,
    }.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(BERT_WIDTH, np.float32))
        writer.add_tensor(f"{name}.bias", np.zeros(BERT_WIDTH, np.float32))

    add("token_embd.weight", len(BERT_WORDS), BERT_WIDTH)
    add("position_embd.weight", 64, BERT_WIDTH)
    add("token_types.weight", 2, BERT_WIDTH)
    norm("token_embd_norm")
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{part}.weight", BERT_WIDTH, BERT_WIDTH)
        add(f"blk.0.{part}.bias", BERT_WIDTH)
    norm("blk.0.attn_output_norm")
    add("blk.0.ffn_up.weight", 64, BERT_WIDTH)
    add("blk.0.ffn_up.bias", 64)
    add("blk.0.ffn_down.weight", BERT_WIDTH, 64)
    add("blk.0.ffn_down.bias", BERT_WIDTH)
    norm("blk.0.layer_output_norm")
    if ranks:
        add("cls.weight", BERT_WIDTH, BERT_WIDTH)
        add("cls.bias", BERT_WIDTH)
        add("cls.output.weight", 1, BERT_WIDTH)
        add("cls.output.bias", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_adapter(path: Path, after: str, comes: str) -> Path:
    """A LoRA adapter for the alphabet model: after one letter comes another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    down, up = np.zeros((1, WIDTH), np.float32), np.zeros((len(VOCABULARY), 1), np.float32)
    down[0, ord(after)] = 1.0
    up[ord(comes), 0] = 8.0
    writer.add_tensor("output.weight.lora_a", down)
    writer.add_tensor("output.weight.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def make_encoder(models: Path) -> Callable[..., Path]:
    """Writes an encoder under a name into the models folder."""
    return lambda name="encoder.gguf", **options: write_encoder(models / name, **options)


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Writes a LoRA adapter for the alphabet model."""
    return lambda name, after, comes: write_adapter(tmp_path / "adapters" / name, after, comes)


def write_projector(path: Path, width: int) -> Path:
    """Eyes with random weights for a model of this width: a picture of 8 × 8 points becomes four tokens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(9)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    numbers = {
        "image_size": 8, "patch_size": 4, "embedding_length": 32, "feed_forward_length": 64, "block_count": 1,
        "attention.head_count": 2, "projection_dim": width,
    }  # fmt: skip
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

    add("v.patch_embd.weight", 32, 3, 4, 4)
    add("v.position_embd.weight", 4, 32)
    for part in ("ln1", "ln2"):
        writer.add_tensor(f"v.blk.0.{part}.weight", np.ones(32, np.float32))
        writer.add_tensor(f"v.blk.0.{part}.bias", np.zeros(32, np.float32))
    for part, rows, columns in (
        *((part, 32, 32) for part in ("attn_q", "attn_k", "attn_v", "attn_out")),
        ("ffn_up", 64, 32),
        ("ffn_down", 32, 64),
    ):
        add(f"v.blk.0.{part}.weight", rows, columns)
        add(f"v.blk.0.{part}.bias", rows)
    add("mm.0.weight", width, 32)
    add("mm.0.bias", width)
    add("mm.2.weight", width, width)
    add("mm.2.bias", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def make_projector(tmp_path: Path) -> Callable[..., Path]:
    """Writes a projector for a model of some width beside the models."""
    return lambda width: write_projector(tmp_path / "mmproj.gguf", width)
