"""What a model's file says about itself, as texts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lollms_kernel.gguf_header import GgufError, GgufHeader, read_header

from .objects import Json

TEMPLATE = "tokenizer.chat_template"

_FAMILIES = (
    ("<|im_start|>", "chatml", "ChatML"),
    ("<|start_header_id|>", "llama3", "Llama 3"),
    ("[INST]", "llama2", "Llama 2 and Mistral"),
    ("<start_of_turn>", "gemma", "Gemma"),
    ("<|user|>", "zephyr", "Zephyr and Phi 3"),
)
"""Marks in a template, and what templates with them are called."""


async def header_of(path: Path) -> GgufHeader | None:
    """The header of a file; None if it has none that can be read."""
    try:
        return await asyncio.to_thread(read_header, path)
    except (GgufError, OSError):
        return None


def as_texts(header: GgufHeader) -> dict[str, str]:
    """Its key-value pairs; of arrays only how long they are."""
    values = {key: _text(value) for key, value in header.values.items()}
    return {**values, **{key: f"[{length} entries]" for key, length in header.lengths.items()}}


def tensors_of(header: GgufHeader) -> dict[str, int]:
    """Weights of each type."""
    return dict(header.elements)


def metadata(repo: str, file: str, header: GgufHeader) -> Json | None:
    """The answer of `/api/model/metadata`; None if the file has no chat template."""
    template = header.text(TEMPLATE)
    if template is None:
        return None
    return {
        "modelRepo": repo,
        "filePath": file,
        "chatTemplateInfo": template_info(template),
        "metadata": as_texts(header),
    }


def template_info(template: str) -> dict[str, str]:
    """What a chat template is called."""
    for mark, alias, name in _FAMILIES:
        if mark in template:
            return {"alias": alias, "name": name, "description": f"{name} chat template"}
    return {"alias": "custom", "name": "Custom", "description": "The model's own chat template"}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
