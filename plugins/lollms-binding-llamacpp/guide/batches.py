"""Turns dialogues into padded batches of token ids and loss weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from . import tokenizer as tok
from .dialogues import Dialogues, Message

TOKENS_PER_BATCH = 4096
MAX_LENGTH = 1024
USER_WEIGHT = 0.1
CUT = 9
"""Tokens left of an answer that is cut: enough to name the topic, cheap to compute."""


class Batches:
    """An endless stream of (ids, weights, real tokens)."""

    def __init__(self, tokenizer_path: Path, seed: int) -> None:
        self.dialogues = Dialogues(seed)
        self.rng = self.dialogues.rng
        self._plain = tok.load(tokenizer_path)
        self._dropout = tok.load(tokenizer_path, dropout=0.1)
        self._answer = cache(self._encode_plain)

    def _encode_plain(self, text: str) -> tuple[int, ...]:
        return tuple(tok.encode(self._plain, text))

    def _message(self, message: Message, ids: list[int], weights: list[float]) -> None:
        head = [tok.START, *self._answer(message.role + "\n")]
        ids += head
        weights += [0.0] * len(head)
        if message.role == "assistant":
            body = list(self._answer(message.content))
            if message.thought:
                thought = (
                    tok.THINK,
                    *self._answer("\n" + message.thought + "\n"),
                    tok.END_THINK,
                    *self._answer("\n\n"),
                )
                body = [*thought, *body]
                cut = len(thought) + CUT
            else:
                cut = CUT
            loss, end_loss = (0.0, 0.0) if message.muted else (1.0, 1.0)
            if message.cut and len(body) > cut + 6:
                body, end_loss = body[:cut], 0.0
        else:
            user = message.role == "user"
            if user and self.rng.random() < 0.3:
                body = list(tok.encode(self._dropout, message.content))
            else:
                body = list(tok.encode(self._plain, message.content))
            loss = end_loss = USER_WEIGHT if user else 0.0
        ids += [*body, tok.END]
        weights += [*([loss] * len(body)), end_loss]
        ids += self._answer("\n")
        weights.append(0.0)

    def _copying(self) -> tuple[list[int], list[float]]:
        """Random tokens, repeated two to five times: every repetition has to be copied."""
        length, times = self.rng.randint(2, 12), self.rng.randint(2, 5)
        body = [self.rng.randrange(8, tok.VOCABULARY) for _ in range(length)]
        return [tok.START, *body * times], [0.0] * (length + 1) + [0.5] * (length * (times - 1))

    def _infilling(self) -> tuple[list[int], list[float]]:
        prefix, middle, suffix = (list(tok.encode(self._plain, part)) for part in self.dialogues.code_parts())
        given = [tok.FIM_PREFIX, *prefix, tok.FIM_SUFFIX, *suffix, tok.FIM_MIDDLE]
        return [*given, *middle, tok.END], [0.0] * len(given) + [1.0] * (len(middle) + 1)

    def sample(self) -> tuple[list[int], list[float]]:
        """Return token ids and, for each, the weight of predicting it."""
        kind = self.rng.random()
        if kind < 0.06:
            return self._copying()
        if kind < 0.065:
            return self._infilling()
        ids: list[int] = []
        weights: list[float] = []
        for message in self.dialogues.conversation():
            self._message(message, ids, weights)
            if len(ids) > MAX_LENGTH:
                break
        return ids[:MAX_LENGTH], weights[:MAX_LENGTH]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield batches of about TOKENS_PER_BATCH padded tokens, of dialogues of similar length."""
        while True:
            pool = sorted((self.sample() for _ in range(1024)), key=lambda sample: len(sample[0]))
            groups: list[list[tuple[list[int], list[float]]]] = [[]]
            for sample in pool:
                if (len(groups[-1]) + 1) * _round(len(sample[0])) > TOKENS_PER_BATCH and groups[-1]:
                    groups.append([])
                groups[-1].append(sample)
            self.rng.shuffle(groups)
            # A batch of one would make torch.compile specialize the graph a second time.
            yield from (_pad(group) for group in groups if len(group) > 1)


def _round(length: int) -> int:
    step = 16 if length <= 128 else 64
    return -(-length // step) * step


def _pad(group: Sequence[tuple[list[int], list[float]]]) -> tuple[Tensor, Tensor, int]:
    width = _round(max(len(ids) for ids, _ in group)) + 1
    ids = torch.full((len(group), width), tok.END_OF_TEXT, dtype=torch.long)
    weights = torch.zeros(len(group), width)
    for row, (row_ids, row_weights) in enumerate(group):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        weights[row, : len(row_weights)] = torch.tensor(row_weights)
    return ids, weights[:, 1:].contiguous(), sum(len(row_ids) for row_ids, _ in group)
