"""Trains the guide on generated dialogues: Muon and AdamW, bf16, a cosine on the clock, averaged weights."""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

from .batches import Batches
from .model import Guide, Shape

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn; `start` continues from a checkpoint."""

    minutes: float = 28.0
    seed: int = 1
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    start: Path | None = None
    processes: int = 2
    average_from: float = 0.6
    average_decay: float = 0.998


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized by Newton-Schulz: https://kellerjordan.github.io/posts/muon/."""

    def __init__(
        self, parameters: list[Tensor], lr: float, weight_decay: float = 0.05, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix; matrices of one shape are orthogonalized together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                state = self.state[parameter]
                buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])
                by_shape.setdefault(parameter.shape, []).append((parameter, update))
            for shape, pairs in by_shape.items():
                updates = _orthogonal(torch.stack([update for _, update in pairs]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5 * group["lr"]
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-scale)


def _orthogonal(matrices: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


def train(tokenizer: Path, output: Path, plan: Plan) -> None:
    """Train for `plan.minutes` and write the averaged weights, with figures beside them, to `output`.

    Each process computes with one thread and they meet once a step, so that a busy machine costs only its share:
    threads that meet in every matrix product stand still as soon as one of them is not scheduled.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        multiprocessing.spawn(_work, args=(store, tokenizer, output, plan), nprocs=plan.processes)


def _work(rank: int, store: str, tokenizer: Path, output: Path, plan: Plan) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=plan.processes)
    torch.manual_seed(plan.seed)
    model = Guide(Shape())
    if plan.start:
        model.load_state_dict(torch.load(plan.start, weights_only=True))
    matrices = [p for layer in model.layers for p in layer.parameters() if p.ndim == 2]
    others = [model.token_embd, model.output_norm]
    others += [p for layer in model.layers for p in layer.parameters() if p.ndim == 1]
    muon = Muon(matrices, plan.muon_rate)
    adam = torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.01)
    loss_of = torch.compile(model, dynamic=True)
    batches = iter(Batches(tokenizer, plan.seed * plan.processes + rank))
    for _ in range(4):  # compile and warm up before the clock starts
        ids, weights, _ = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss_of(ids, weights).backward()
    distributed.barrier()
    average: dict[str, Tensor] = {}
    started, step, tokens, report, running, done = time.monotonic(), 0, 0, 0.0, 0.0, 0.0
    while done < 1:
        rate = min(1.0, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * done)))
        for optimizer, peak in ((muon, plan.muon_rate), (adam, plan.adam_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.zero_grad(set_to_none=True)
        ids, weights, real = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(ids, weights)
        loss.backward()
        clock = (time.monotonic() - started) / (60 * plan.minutes)
        mean_loss, done, mean_real = _share([*matrices, *others], [loss.item(), clock, float(real)])
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        muon.step()
        adam.step()
        step, tokens = step + 1, tokens + round(mean_real * plan.processes)
        running += max(0.02, 1 / step) * (mean_loss - running)
        if done > plan.average_from and step % 4 == 0:
            for name, value in model.state_dict().items():
                if name in average:
                    average[name].lerp_(value, 1 - plan.average_decay**4)
                else:
                    average[name] = value.clone()
        if rank == 0 and time.monotonic() - report > 20:
            report = time.monotonic()
            speed = tokens / (report - started) / 1e3
            _log.info(
                "%4.0f%% step %d loss %.4f tokens %.2fM %.1fk/s",
                100 * done,
                step,
                running,
                tokens / 1e6,
                speed,
            )
            torch.save(average or model.state_dict(), output.with_suffix(".latest.pt"))
    if rank == 0:
        torch.save(average or model.state_dict(), output)
        figures = {"minutes": plan.minutes, "steps": step, "tokens": tokens, "loss": round(running, 4)}
        plan_text = {
            key: value.name if isinstance(value, Path) else value for key, value in asdict(plan).items()
        }
        output.with_suffix(".json").write_text(json.dumps(figures | {"plan": plan_text}, indent=1))
    distributed.destroy_process_group()


def _share(parameters: list[Tensor], figures: list[float]) -> list[float]:
    """Average gradients and figures over all processes; returns the figures."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), torch.tensor(figures)])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    position = 0
    for gradient in gradients:
        gradient.copy_(flat[position : position + gradient.numel()].view_as(gradient))
        position += gradient.numel()
    averaged: list[float] = flat[position:].tolist()
    return averaged
