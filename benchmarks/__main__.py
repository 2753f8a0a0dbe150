"""`make bench`: every figure as a Markdown table, or as JSON with --json. Takes about four minutes."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import msgspec

from .figures import every_figure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON with all samples")
    as_json = parser.parse_args().json
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    machine = f"Python {platform.python_version()}, {platform.machine()}, {cores} cores, load {load:.1f} at the start"
    if load > cores / 4:
        print(
            f"Other programs are busy here (load {load:.1f}): the figures will be too high.", file=sys.stderr
        )
    if as_json:
        figures = [{**msgspec.to_builtins(figure), "median": figure.median} for figure in every_figure()]
        print(msgspec.json.encode({"machine": machine, "figures": figures}).decode())
        return
    print(f"{machine}\n\n| figure | median | from – to | samples |\n|---|---|---|---|")
    for figure in every_figure():
        low, high = min(figure.samples), max(figure.samples)
        median = f"{figure.median:.4g} {figure.unit}"
        print(f"| {figure.name} | {median} | {low:.4g} – {high:.4g} | {len(figure.samples)} |", flush=True)


if __name__ == "__main__":
    main()
