"""Trains the network, deterministically for a seed and one thread."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from lollms_transport_ws_chat.turn_detection.features import SPECIALS

from .data import Arrays, generated
from .model import TurnNetwork

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """How to train."""

    seed: int = 1
    examples: int = 240_000
    epochs: int = 5
    batch: int = 256
    rate: float = 2e-3
    smoothing: float = 0.05


class Trained(NamedTuple):
    """A network with the vocabulary of its first input, and how it came about."""

    network: TurnNetwork
    vocabulary: dict[str, int]
    stages: list[dict[str, float]]


def train(plan: Plan, start: Trained | None = None) -> Trained:
    """A network after all epochs, its weights averaged over the last third; from nothing, or from an earlier stage."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    data, vocabulary = generated(plan.seed, plan.examples, start.vocabulary if start else SPECIALS)
    logger.info(
        "%d examples, %d words, %.0f s", len(data.complete), len(vocabulary), time.monotonic() - started
    )
    network = TurnNetwork(len(vocabulary))
    if start is not None:
        _take_over(network, start.network)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    optimizer = torch.optim.AdamW(network.parameters(), plan.rate, weight_decay=0.01)
    steps = plan.epochs * (len(data.complete) // plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng(plan.seed)
    step, loss = 0, math.nan
    for epoch in range(plan.epochs):
        total = 0.0
        order = rng.permutation(len(data.complete))
        for first in range(0, len(order) - plan.batch + 1, plan.batch):
            chosen = order[first : first + plan.batch]
            total += _step(network, optimizer, data, chosen, plan.smoothing)
            schedule.step()
            step += 1
            if step > 0.67 * steps and step % 20 == 0:
                averaged.update_parameters(network)
        loss = total * plan.batch / len(order)
        logger.info("epoch %d, loss %.4f, %.0f s", epoch + 1, loss, time.monotonic() - started)
    trained = averaged.module.eval()
    assert isinstance(trained, TurnNetwork)
    stage = {**plan._asdict(), "words": len(vocabulary), "last loss": round(loss, 4)}
    return Trained(trained, vocabulary, [*(start.stages if start else []), stage])


def _take_over(network: TurnNetwork, earlier: TurnNetwork) -> None:
    """The weights of an earlier stage, which may know fewer words."""
    state = earlier.state_dict()
    words = network.word.weight.detach().clone()
    words[: len(state["word.weight"])] = state["word.weight"]
    network.load_state_dict({**state, "word.weight": words})


def _step(
    network: TurnNetwork,
    optimizer: torch.optim.Optimizer,
    data: Arrays,
    chosen: np.ndarray[tuple[int], np.dtype[np.int64]],
    smoothing: float,
) -> float:
    network.train()
    words, whole = torch.from_numpy(data.words[chosen]), torch.from_numpy(data.whole[chosen])
    wanted = torch.from_numpy(data.complete[chosen]) * (1 - smoothing) + smoothing / 2
    loss = functional.binary_cross_entropy_with_logits(network(words, whole), wanted)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def save(trained: Trained, file: Path) -> None:
    """A checkpoint."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "network": trained.network.state_dict(),
            "vocabulary": list(trained.vocabulary),
            "stages": trained.stages,
        },
        file,
    )


def load(file: Path) -> Trained:
    """What `save` wrote."""
    stored = torch.load(file, weights_only=True)
    network = TurnNetwork(len(stored["vocabulary"]))
    network.load_state_dict(stored["network"])
    return Trained(network.eval(), {word: n for n, word in enumerate(stored["vocabulary"])}, stored["stages"])
