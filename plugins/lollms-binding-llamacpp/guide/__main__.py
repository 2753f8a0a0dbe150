"""`python -m guide`: the whole chain from phrases to lollms-guide.gguf, or one step of it."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .material import GUIDE

TARGET = GUIDE.parent / "src" / "lollms_binding_llamacpp" / "models" / "lollms-guide.gguf"


def show(text: str) -> None:
    """Write one line for the user."""
    sys.stdout.write(text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen step and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m guide", description=__doc__)
    parser.add_argument(
        "step",
        choices=("sample", "tokenizer", "train", "export", "evaluate", "build"),
        nargs="?",
        default="build",
    )
    parser.add_argument("--work", type=Path, default=GUIDE / "build", help="folder of intermediate files")
    parser.add_argument("--output", type=Path, default=TARGET, help="the GGUF file")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="guide", help="name of the checkpoint in the work folder")
    parser.add_argument("--start", type=Path, help="checkpoint to continue from")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--failures", action="store_true", help="show what dev.yaml got wrong")
    parser.add_argument("--results", action="store_true", help="write RESULTS.md")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer, checkpoint = options.work / "tokenizer.json", options.work / f"{options.name}.pt"

    if options.step == "sample":
        from itertools import islice

        from .dialogues import Dialogues

        for conversation in islice(Dialogues(options.seed), 60):
            show(" || ".join(f"{m.role[0]}: {m.content[:150]}" for m in conversation))
    if options.step in ("tokenizer", "build"):
        from .tokenizer import train as train_tokenizer

        train_tokenizer().save(str(tokenizer))
    if options.step in ("train", "build"):
        from .train import Plan, train

        plan = Plan(
            options.minutes, options.seed, 0.02 * options.rate, 3e-3 * options.rate, start=options.start
        )
        train(tokenizer, checkpoint, plan)
    if options.step in ("export", "build"):
        from .export import export

        export(tokenizer, checkpoint, options.output)
        show(f"{options.output}: {options.output.stat().st_size:,} bytes")
    if options.step in ("evaluate", "build"):
        from .evaluate import evaluate

        for line in evaluate(
            options.output, checkpoint, show_failures=options.failures, write=options.results
        ):
            show(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
