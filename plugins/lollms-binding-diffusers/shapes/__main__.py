"""`python -m shapes`: the whole chain from drawn pictures to the packaged model, or one step of it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

THREADS: Final = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

HERE: Final = Path(__file__).parent
TARGET: Final = HERE.parent / "src" / "lollms_binding_diffusers" / "models" / "lollms-shapes"

STEPS: Final = 12
GUIDANCE: Final = 1.5
DRAWINGS: Final = 2
"""Of each caption, for the decoder to learn from."""
FIRST_SEED: Final = 1_000_000
"""Far from the seeds with which the model is evaluated."""

FACTS: Final = {
    "description": "A demonstration model of this server: it draws one coloured shape on a coloured background "
    "(circle, square, triangle, diamond, cross, ring) and knows nothing else. Install a real model for pictures.",
    "license": "Apache-2.0",
    "fixed_size": 64,
    "steps": STEPS,
    "guidance_scale": GUIDANCE,
    "scheduler": "DDIMScheduler",
}


def show(text: str) -> None:
    """Write one line for the user."""
    sys.stdout.write(text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen step and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shapes", description=__doc__)
    parser.add_argument("step", choices=("train", "evaluate", "build"), nargs="?", default="build")
    parser.add_argument("--work", type=Path, default=HERE / "build", help="folder of intermediate files")
    parser.add_argument("--output", type=Path, default=TARGET, help="folder of the model")
    parser.add_argument("--autoencoder-steps", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=5000, help="training steps of the diffusion model")
    parser.add_argument(
        "--decoder-steps", type=int, default=2000, help="training steps of the decoder at the end"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="evaluate every so many captions only")
    parser.add_argument("--results", action="store_true", help="write RESULTS.md")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step in ("train", "build"):
        train(options)
    if options.step in ("evaluate", "build"):
        from .evaluate import report

        lines = report(options.output, options.work / "training.json", every=options.every)
        show("\n".join(lines))
        if options.results:
            (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def train(options: argparse.Namespace) -> None:
    """Train the networks, write the model to `options.output`, and what it took to the work folder."""
    import torch
    from diffusers import AutoencoderTiny, StableDiffusionPipeline

    from . import autoencoder, diffusion, tokenizer

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    scenes, work, seed = autoencoder.training_scenes(), options.work, options.seed
    words = tokenizer.write(work / "tokenizer")
    plan = diffusion.Plan(options.steps, seed)
    first = Stage(work / f"autoencoder-{seed}-{options.autoencoder_steps}")
    coder = first.result(
        AutoencoderTiny, lambda: autoencoder.train(scenes, options.autoencoder_steps, seed)
    ).requires_grad_(False)
    second = Stage(work / f"diffusion-{seed}-{options.autoencoder_steps}-{options.steps}")
    pipeline = second.result(
        StableDiffusionPipeline,
        lambda: diffusion.train(
            words, coder, scenes, plan, lambda step, so_far: so_far.save_pretrained(work / f"step-{step}")
        ),
    )
    third = Stage(
        work / f"decoder-{seed}-{options.autoencoder_steps}-{options.steps}-{options.decoder_steps}"
    )
    pipeline.vae = third.result(
        AutoencoderTiny, lambda: polished(pipeline, scenes, options.decoder_steps, seed)
    )
    pipeline.save_pretrained(options.output)
    (options.output / "lollms_model.json").write_text(
        json.dumps(FACTS, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for file in options.output.glob("**/*.json"):
        read = json.loads(file.read_text())
        if read.pop("_name_or_path", None) is not None:  # where an earlier run's stage lay on this machine
            file.write_text(json.dumps(read, indent=2) + "\n", encoding="utf-8")
    spent = [stage.minutes for stage in (first, second, third)]
    figures = {
        "autoencoder_steps": options.autoencoder_steps,
        "steps": options.steps,
        "decoder_steps": options.decoder_steps,
        "batch": plan.batch,
        "seed": seed,
        "threads": THREADS,
        "minutes": round(sum(wall for wall, _ in spent), 1),
        "cpu_minutes": round(sum(cpu for _, cpu in spent), 1),
    }
    (work / "training.json").write_text(json.dumps(figures), encoding="utf-8")


def polished(pipeline: Any, scenes: list[Any], steps: int, seed: int) -> Any:
    """The pipeline's autoencoder, its decoder trained on with what the denoiser makes of each scene's caption."""
    import torch

    from . import autoencoder, diffusion

    captions = [scene.caption for scene in scenes] * DRAWINGS
    drawn = diffusion.draw_captions(
        pipeline, captions, steps=STEPS, guidance=GUIDANCE, seed=FIRST_SEED + seed, output="latent"
    )
    autoencoder.polish(pipeline.vae, torch.cat(list(drawn)), scenes, steps, seed)
    return pipeline.vae


class Stage:
    """A part of the training whose result stays in the work folder: a build that was interrupted goes on there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.minutes = (0.0, 0.0)
        """Minutes of the clock and of the processors that it took."""

    def result(self, kind: Any, make: Callable[[], Any]) -> Any:
        """What an earlier run left, else what `make` makes."""
        note = self.folder / "minutes.json"
        if note.is_file():
            self.minutes = tuple(json.loads(note.read_text()))
            return kind.from_pretrained(self.folder)
        started, cpu = time.monotonic(), time.process_time()
        made = make()
        self.minutes = ((time.monotonic() - started) / 60, (time.process_time() - cpu) / 60)
        made.save_pretrained(self.folder)
        note.write_text(json.dumps(self.minutes))
        return made


if __name__ == "__main__":
    sys.exit(main())
