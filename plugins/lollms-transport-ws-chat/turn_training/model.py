"""The network: embeddings of the last words, three convolutions, and what the whole turn tells."""

from __future__ import annotations

import torch
from torch import nn

from lollms_transport_ws_chat.turn_detection.features import (
    ENDINGS,
    GLOBALS,
    PADDING,
    POSITIONS,
    SUFFIXES,
)

WORD, SUFFIX, ENDING, GLOBAL = 32, 16, 8, 8
CHANNELS = 64
LAST = 3


class TurnNetwork(nn.Module):
    """Logits that a turn is complete, `[batch]`, of word ids `[batch, 20, 3]` and ids of the whole `[batch, 6]`."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.word = nn.Embedding(vocabulary, WORD, padding_idx=PADDING)
        self.suffix = nn.Embedding(SUFFIXES, SUFFIX)
        self.ending = nn.Embedding(ENDINGS, ENDING)
        self.whole = nn.ModuleList(nn.Embedding(size, GLOBAL) for size in GLOBALS)
        width = WORD + SUFFIX + ENDING
        self.convolutions = nn.ModuleList([
            nn.Conv1d(width, CHANNELS, 3, padding=1),
            nn.Conv1d(CHANNELS, CHANNELS, 3, padding=2, dilation=2),
            nn.Conv1d(CHANNELS, CHANNELS, 3, padding=4, dilation=4),
        ])  # fmt: skip
        self.position = nn.Parameter(torch.zeros(POSITIONS, width))
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(2 * CHANNELS + LAST * width + GLOBAL * len(GLOBALS), 64)
        self.output = nn.Linear(64, 1)

    def forward(self, words: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """See the class."""
        embedded = torch.cat(
            [self.word(words[:, :, 0]), self.suffix(words[:, :, 1]), self.ending(words[:, :, 2])], 2
        )
        embedded = self.dropout(embedded + self.position)
        first, *others = self.convolutions
        state = torch.relu(first(embedded.transpose(1, 2)))
        for convolution in others:
            state = state + torch.relu(convolution(state))
        globals_ = [embedding(whole[:, n]) for n, embedding in enumerate(self.whole)]
        features = torch.cat(
            [
                state.amax(2),
                state[:, :, -1],
                embedded[:, -LAST:].flatten(1),
                self.dropout(torch.cat(globals_, 1)),
            ],
            1,
        )
        logits: torch.Tensor = self.output(self.dropout(torch.relu(self.hidden(features))))
        return logits.squeeze(1)
