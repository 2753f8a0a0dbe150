"""Writes the trained guide as a GGUF file that every llama.cpp build can load."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import torch

from . import tokenizer as tok
from .model import Shape

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DESCRIPTION = (
    "A tiny demonstration model that answers questions about the lollms server it is built into. "
    "Trained from scratch on generated text; not a general assistant."
)
MAX_BYTES = 4_000_000
_Array = npt.NDArray[np.float32]


def _interleave(weight: _Array, heads: int) -> _Array:
    """Reorder rows from rotary halves, as trained, to the adjacent pairs of llama.cpp's llama."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _tensors(checkpoint: Path, shape: Shape) -> dict[str, _Array]:
    state = torch.load(checkpoint, weights_only=True)
    tensors: dict[str, _Array] = {}
    for name, value in state.items():
        array = value.float().numpy()
        if ".attn_q." in name:
            array = _interleave(array, shape.heads)
        elif ".attn_k." in name:
            array = _interleave(array, shape.kv_heads)
        name = name.replace("layers.", "blk.")
        tensors[name if name.endswith(".weight") else name + ".weight"] = array
    return tensors


def _add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))["model"]
    vocabulary = sorted(stored["vocab"], key=stored["vocab"].__getitem__)
    kinds = [gguf.TokenType.NORMAL] * len(vocabulary)
    for i in range(len(tok.SPECIALS)):
        # A CONTROL token vanishes from the output, and the thoughts' tags have to be seen.
        kinds[i] = gguf.TokenType.USER_DEFINED if i in (tok.THINK, tok.END_THINK) else gguf.TokenType.CONTROL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in stored["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tok.END_OF_TEXT)
    writer.add_eos_token_id(tok.END)
    writer.add_eot_token_id(tok.END)
    writer.add_pad_token_id(tok.END_OF_TEXT)
    writer.add_add_bos_token(False)
    writer.add_uint32("tokenizer.ggml.fim_pre_token_id", tok.FIM_PREFIX)
    writer.add_uint32("tokenizer.ggml.fim_suf_token_id", tok.FIM_SUFFIX)
    writer.add_uint32("tokenizer.ggml.fim_mid_token_id", tok.FIM_MIDDLE)
    writer.add_chat_template(CHAT_TEMPLATE)


def export(tokenizer: Path, checkpoint: Path, output: Path) -> None:
    """Write `output`: Q5_1 for the feed-forward matrices, F16 for the others, F32 for the norms.

    No type here has an AMX kernel, so that llama.cpp's gcc-12 AMX crash cannot happen with default parameters.
    """
    shape = Shape()
    output.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(output), "llama")
    writer.add_name("lollms-guide")
    writer.add_description(DESCRIPTION)
    writer.add_license("Apache-2.0")
    writer.add_author("lollms-server")
    writer.add_languages(["en"])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_float32("general.sampling.temp", 0.0)
    _add_tokenizer(writer, tokenizer)
    for name, array in _tensors(checkpoint, shape).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        elif ".ffn_" in name:
            kind = gguf.GGMLQuantizationType.Q5_1
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = output.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{output} has {size:,} bytes, more than {MAX_BYTES:,}")
