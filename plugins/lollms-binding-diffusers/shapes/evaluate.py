"""Scores the model: every caption, drawn once, judged by the checker."""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import torch

from .captions import caption
from .checker import ALIKE, read
from .diffusion import draw_captions
from .pictures import Scene, all_scenes, draw

_log = logging.getLogger(__name__)


@dataclass
class Score:
    """How many captions were met, and in what the others failed."""

    asked: int = 0
    met: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, wanted: Scene, found: Scene) -> None:
        """Count one picture."""
        self.asked += 1
        self.met += wanted == found
        for part in ("shape", "colour", "background", "position"):
            self.wrong[part] += getattr(wanted, part) != getattr(found, part)

    def include(self, other: Score) -> None:
        """Count what another score has counted."""
        self.asked += other.asked
        self.met += other.met
        self.wrong += other.wrong

    @property
    def percent(self) -> float:
        """Share of captions that were met in every word."""
        return 100 * self.met / max(1, self.asked)


def checker_score(dice: Any) -> Score:
    """The checker's own accuracy on pictures that the repository draws."""
    score = Score()
    for scene in all_scenes():
        score.add(scene, read(draw(scene, dice).round()))
    return score


def model_score(
    folder: Path,
    scenes: list[Scene],
    *,
    steps: int,
    guidance: float,
    seed: int,
    batch: int = 56,
    captions: list[str] | None = None,
) -> tuple[Score, float]:
    """Draw each scene's caption once through the ordinary pipeline; returns the score and seconds per picture."""
    from diffusers import AutoPipelineForText2Image

    pipeline = AutoPipelineForText2Image.from_pretrained(folder)
    texts = captions or [scene.caption for scene in scenes]
    score, started = Score(), time.monotonic()
    drawn = draw_captions(pipeline, texts, steps=steps, guidance=guidance, seed=seed, batch=batch)
    for scene, picture in zip(scenes, chain.from_iterable(drawn), strict=True):
        score.add(scene, read((picture * 255).round()))
    return score, (time.monotonic() - started) / len(scenes)


PROMPT_VARIANTS: Final = 300


def report(folder: Path, training: Path, *, every: int = 1) -> list[str]:
    """The figures of the model in `folder` as lines of RESULTS.md."""
    torch.set_num_threads(1)
    dice = random.Random(2024)
    facts = json.loads((folder / "lollms_model.json").read_text())
    steps, guidance = facts["steps"], facts["guidance_scale"]
    size = sum(file.stat().st_size for file in folder.glob("**/*") if file.is_file())
    checker = checker_score(dice)
    scenes = all_scenes()[::every]
    seen = [scene for scene in scenes if not scene.held_out]
    unseen = [scene for scene in scenes if scene.held_out]
    lines = [
        "# What the demonstration model can do",
        "",
        "Written by `python -m shapes evaluate --results`. A caption is met when shape, colour, background and place "
        "are all as it says,",
        "judged by `checker.py` from the pixels alone.",
        "",
        f"- Size: {size / 1e6:.2f} MB with tokenizer and configuration; {steps} steps, guidance {guidance:g}.",
        f"- The checker asks that a drawn shape and the ideal one share {ALIKE:.0%} (`ALIKE`).",
        f"- The checker itself, on {checker.asked} drawn pictures with random shifts: {checker.percent:.2f} %.",
    ]
    if training.is_file():
        known = json.loads(training.read_text())
        stages = (
            f"{known['autoencoder_steps']} steps of the autoencoder, {known['steps']} of the diffusion model "
            f"(batches of {known['batch']}) and {known['decoder_steps']} of the decoder alone"
        )
        lines.append(
            f"- Training: {stages}, seed {known['seed']}: {known['cpu_minutes']:g} minutes of CPU time "
            f"on {known['threads']} cores, {known['minutes']:g} on the clock."
        )
    lines += ["", "| captions | pictures | met | wrong shape | colour | background | place |"]
    lines += ["|---|---|---|---|---|---|---|"]
    seconds, everything = 0.0, Score()
    for name, part in (("trained on", seen), ("combinations never trained on", unseen)):
        score, seconds = model_score(folder, part, steps=steps, guidance=guidance, seed=1)
        everything.include(score)
        lines.append(_row(name, score))
        _log.info(lines[-1])
    lines.append(_row("**all**", everything))
    wordy = [dice.choice(scenes) for _ in range(max(8, PROMPT_VARIANTS // every))]
    told = [caption(scene, dice) for scene in wordy]
    score, _ = model_score(folder, wordy, steps=steps, guidance=guidance, seed=5, captions=told)
    lines.append(_row("in free words (captions.py; some leave colour or background open)", score))
    lines += ["", f"{seconds * 1000:.0f} ms for a picture on one core, in batches of 56.", ""]
    lines.append(
        "It draws these shapes and nothing else: other words are ignored or misread, and other sizes are this one "
        "enlarged."
    )
    return lines


def _row(name: str, score: Score) -> str:
    wrong = score.wrong
    parts = " | ".join(str(wrong[part]) for part in ("shape", "colour", "background", "position"))
    return f"| {name} | {score.asked} | {score.percent:.1f} % | {parts} |"
