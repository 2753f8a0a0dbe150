"""What turn detectors cost: the time of one verdict, with and without the thread, the load, and the memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lollms_transport_ws_chat.turn_detection import (
    DetectorSettings,
    Judge,
    Turn,
    TurnDetector,
    create_detector,
)
from lollms_transport_ws_chat.turn_detection.detector import DetectorName

from .figures import Figure

SAID = [
    "turn off the lights in the",
    "what's the weather like in oslo",
    "i was wondering if you could help me find a",
    "yes please",
    "my number is oh seven seven double oh nine hundred one two three",
    "So, first of all, we need to talk about the schedule, and then",
]
ASKED = Turn("assistant", "Hello! How can I help you?")
MEMORY_PROGRAM = """
import json, re, sys
from pathlib import Path
from lollms_transport_ws_chat.turn_detection import DetectorSettings, Turn, create_detector
def memory():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text("ascii"))[1]) / 1024
detector = create_detector(DetectorSettings(), Path("/"))
before = memory()
import onnxruntime
engine = memory()
detector.probability([Turn("user", "hello there")])
for _ in range(200):
    detector.probability([Turn("user", "what time is it in")])
json.dump([before, engine, memory()], sys.stdout)
"""


def turn_detection_figures(rounds: int = 4000) -> Iterator[Figure]:
    """All of them."""
    yield _load()
    for name in ("embedded", "rule"):
        yield from _percentiles(f"turn detector `{name}`, one verdict", _verdicts(_detector(name), rounds))
    judged = asyncio.run(_judged(Judge(_detector("embedded")), rounds // 2))
    yield from _percentiles("turn detector `embedded`, off the event loop", judged)
    before, engine, after = json.loads(
        subprocess.run([sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, check=True).stdout
    )
    yield Figure("turn detector `embedded`, memory of onnxruntime and numpy", "MiB", (engine - before,))
    yield Figure("turn detector `embedded`, memory of the network", "MiB", (after - engine,))


def _detector(name: DetectorName) -> TurnDetector:
    return create_detector(DetectorSettings(name=name), Path("/"))


def _load(rounds: int = 10) -> Figure:
    """From a new detector to its first verdict, onnxruntime imported."""
    _detector("embedded").probability([Turn("user", "hello")], "en")
    samples = []
    for _ in range(rounds):
        started = time.perf_counter()
        _detector("embedded").probability([Turn("user", "hello")], "en")
        samples.append(1e3 * (time.perf_counter() - started))
    return Figure("turn detector `embedded`, load and first verdict", "ms", tuple(samples))


def _verdicts(detector: TurnDetector, rounds: int) -> list[float]:
    samples = []
    for n in range(rounds):
        turns = [ASKED, Turn("user", SAID[n % len(SAID)])]
        started = time.perf_counter()
        detector.probability(turns, "en")
        samples.append(1e6 * (time.perf_counter() - started))
    return samples[rounds // 10 :]


async def _judged(judge: Judge, rounds: int) -> list[float]:
    samples = []
    try:
        for n in range(rounds):
            turns = [ASKED, Turn("user", SAID[n % len(SAID)])]
            started = time.perf_counter()
            verdict = await judge.judge(turns, "en")
            samples.append(1e6 * (time.perf_counter() - started))
            if verdict.detector != "embedded":
                raise RuntimeError("the rule judged instead")
    finally:
        judge.close()
    return samples[rounds // 10 :]


def _percentiles(name: str, samples: list[float]) -> Iterator[Figure]:
    """The median of all samples, and as samples of the p99 that of each tenth of them."""
    yield Figure(f"{name}, p50", "µs", tuple(samples))
    part = len(samples) // 10
    tails = (sorted(samples[n * part : (n + 1) * part]) for n in range(10))
    yield Figure(f"{name}, p99", "µs", tuple(tail[int(0.99 * part)] for tail in tails))


def main() -> None:
    """Print these figures alone: `python -m benchmarks.turn_detection`."""
    for figure in turn_detection_figures():
        low, high = min(figure.samples), max(figure.samples)
        print(
            f"| {figure.name} | {figure.median:.4g} {figure.unit} | {low:.4g} – {high:.4g} | {len(figure.samples)} |"
        )


if __name__ == "__main__":
    main()
