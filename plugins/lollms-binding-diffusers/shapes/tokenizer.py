"""The CLIP tokenizer of the demonstration model: a token for every byte and one for every known word."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from .captions import words

MAX_LENGTH: Final = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """The printable stand-ins that byte-level BPE uses for the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + number) for number, byte in enumerate(rest)}
    return [letters[byte] for byte in range(256)]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with their ids, and the merges that build each known word from its letters."""
    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    ranks: dict[tuple[str, str], int] = {}
    for word in words():
        left, *others = _pieces(word, ranks)
        for piece in others:
            ranks[left, piece] = len(ranks)
            left += piece
            tokens.append(left)
    tokens += [START, END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, list(ranks)


def _pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """The word as byte-pair encoding leaves it: merges that come later never change what earlier words became."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while pairs := [(ranks[pair], pair) for pair in pairwise(pieces) if pair in ranks]:
        _, (left, right) = min(pairs)
        place = list(pairwise(pieces)).index((left, right))
        pieces[place : place + 2] = [left + right]
    return pieces


def write(folder: Path) -> Any:
    """Write the tokenizer's files and load them as `transformers.CLIPTokenizer`."""
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    ids, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"model_max_length": MAX_LENGTH, "pad_token": END, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)
