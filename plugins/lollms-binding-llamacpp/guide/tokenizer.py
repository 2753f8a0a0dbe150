"""The guide's tokenizer: byte-level BPE with 2,048 tokens, which llama.cpp knows as `pre: smollm`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from .dialogues import Dialogues

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
)  # fmt: skip
END_OF_TEXT, START, END, THINK, END_THINK, FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE = range(8)
VOCABULARY = 2048


def _corpus(seed: int, conversations: int) -> list[str]:
    source = Dialogues(seed)
    texts: list[str] = []
    for conversation in islice(source, conversations):
        texts += [message.content for message in conversation if message.role == "user"]
        if conversation[0].role == "system" and source.rng.random() < 0.15:
            texts.append(conversation[0].content)
    # An answer occurs in thousands of dialogues but must not eat the merges: each comes a few times only.
    for topic in source.material.topics.values():
        texts += [topic.answer, topic.thought] * 25
    words = [*source.material.skills["names"], *source.material.skills["words"]]
    texts += [f"say {word}" for word in words for _ in range(4)]
    return texts


def train(seed: int = 1, conversations: int = 40_000) -> Tokenizer:
    """Return a tokenizer trained on generated questions and a small share of answers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed, conversations), trainer)
    return tokenizer


def load(path: Path, dropout: float | None = None) -> Tokenizer:
    """Return the stored tokenizer, with BPE dropout when asked for."""
    tokenizer = Tokenizer.from_file(str(path))
    if dropout:
        tokenizer.model.dropout = dropout
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    """Return the token ids of one segment."""
    ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
