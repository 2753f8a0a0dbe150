"""`python -m turn_training`: from phrases to the ONNX file and its figures, or one step of it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from itertools import islice
from pathlib import Path

from .sets import HERE


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen step and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m turn_training", description=__doc__)
    parser.add_argument("step", choices=("sample", "train", "export", "develop", "evaluate", "build"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=320_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="checkpoint of an earlier stage to continue from")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sample | head`
    checkpoint = HERE / "build" / "network.pt"

    if options.step == "sample":
        from .examples import Examples

        for example in islice(Examples(options.seed, 10_000).stream(), 100):
            sys.stdout.write(f"{'-+'[example.complete]} {example.expected.name.lower():9} {example.text}\n")
    if options.step in ("train", "build"):
        from .train import Plan, load, save, train

        plan = Plan(options.seed, options.examples, options.epochs, rate=options.rate)
        save(train(plan, load(options.start) if options.start else None), checkpoint)
    if options.step in ("export", "build"):
        from .export import export
        from .train import load

        export(load(checkpoint))
    if options.step in ("develop", "build"):
        from .develop import develop

        sys.stdout.writelines(line + "\n" for line in develop())
    if options.step in ("evaluate", "build"):
        from .evaluate import evaluate, with_overlap, write

        write(with_overlap(evaluate()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
