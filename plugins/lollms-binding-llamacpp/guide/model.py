"""The guide as a torch module: a llama with rotary halves, grouped keys and tied embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .tokenizer import VOCABULARY


@dataclass(frozen=True)
class Shape:
    """The sizes of the model; every one is a multiple of 32, as quantization wants it."""

    layers: int = 6
    width: int = 192
    heads: int = 6
    kv_heads: int = 2
    head: int = 32
    hidden: int = 512
    vocabulary: int = VOCABULARY
    context: int = 2048
    rope_base: float = 10_000.0
    epsilon: float = 1e-5


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + epsilon)).to(x.dtype) * weight.to(x.dtype)


class Layer(nn.Module):
    """One transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, keys = shape.width, shape.kv_heads * shape.head
        self.attn_norm = nn.Parameter(torch.ones(width))
        self.ffn_norm = nn.Parameter(torch.ones(width))
        self.attn_q = nn.Linear(width, shape.heads * shape.head, bias=False)
        self.attn_k = nn.Linear(width, keys, bias=False)
        self.attn_v = nn.Linear(width, keys, bias=False)
        self.attn_output = nn.Linear(shape.heads * shape.head, width, bias=False)
        self.ffn_gate = nn.Linear(width, shape.hidden, bias=False)
        self.ffn_up = nn.Linear(width, shape.hidden, bias=False)
        self.ffn_down = nn.Linear(shape.hidden, width, bias=False)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Return the hidden states (batch, time, width) after this block."""
        batch, time, _ = x.shape
        s = self.shape
        h = _norm(x, self.attn_norm, s.epsilon)
        q = self.attn_q(h).view(batch, time, s.heads, s.head).transpose(1, 2)
        k = self.attn_k(h).view(batch, time, s.kv_heads, s.head).transpose(1, 2)
        v = self.attn_v(h).view(batch, time, s.kv_heads, s.head).transpose(1, 2)
        q = self._rotate(q, cos, sin).to(x.dtype)
        k = self._rotate(k, cos, sin).to(x.dtype)
        groups = s.heads // s.kv_heads
        k = k.repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
        scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(s.head) + mask
        mixed = scores.softmax(-1).to(v.dtype) @ v
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, time, -1))
        h = _norm(x, self.ffn_norm, s.epsilon)
        out: Tensor = x + self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return out


class Guide(nn.Module):
    """The whole model; `forward` gives the weighted loss, `logits` the raw scores."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.token_embd = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.Parameter(torch.ones(shape.width))
        for layer in self.layers:
            for name, parameter in layer.named_parameters():
                if parameter.ndim == 2:
                    scale = (
                        0.5 / math.sqrt(2 * shape.layers)
                        if name.startswith(("attn_output", "ffn_down"))
                        else 0.7
                    )
                    nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))
        inverse = shape.rope_base ** (-torch.arange(0, shape.head, 2).float() / shape.head)
        angles = torch.outer(torch.arange(shape.context).float(), inverse)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer(
            "mask", torch.full((shape.context, shape.context), -1e9).triu(1), persistent=False
        )

    def logits(self, ids: Tensor) -> Tensor:
        """Return (batch, time, vocabulary) scores of the next token."""
        time = ids.shape[1]
        x = functional.embedding(ids, self.token_embd) * 1.0
        if torch.is_autocast_enabled("cpu"):
            x = x.bfloat16()
        for layer in self.layers:
            x = layer(x, self.cos[:time], self.sin[:time], self.mask[:time, :time])
        return functional.linear(_norm(x, self.output_norm, self.shape.epsilon), self.token_embd)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Return the mean loss of predicting ids[:, 1:], weighted by `weights` (batch, time - 1)."""
        logits = self.logits(ids[:, :-1])
        losses = functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none"
        )
        return (losses * weights.reshape(-1)).sum() / weights.sum().clamp(min=1.0)
