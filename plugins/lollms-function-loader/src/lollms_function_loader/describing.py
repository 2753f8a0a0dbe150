"""What functions a folder has, found out without running any of it in the server.

`python -m lollms_function_loader.describing FILE…` imports each file and prints one line of JSON for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .arguments import Arguments
from .source import functions_of, line_of

TIMEOUT = 20.0
"""Seconds that importing all files of a folder may take."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """One function."""

    name: str
    description: str
    schema: dict[str, Any]
    warnings: tuple[str, ...] = ()


class DescribedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file: its functions, or why there are none."""

    file: str
    functions: tuple[Described, ...] = ()
    error: str | None = None
    line: int | None = None


_decoder = msgspec.json.Decoder(DescribedFile)


def describe_files(files: Sequence[Path]) -> Iterator[DescribedFile]:
    """Each file in its order. One that ends the process, or that takes too long, takes no other along."""
    waiting = list(files)
    while waiting:
        lines, why = _ask(waiting, TIMEOUT)
        described = [_decoder.decode(line) for line in lines]
        yield from described
        waiting = waiting[len(described) :]
        if waiting:
            yield DescribedFile(file=str(waiting.pop(0)), error=why)


def _ask(files: Sequence[Path], timeout: float) -> tuple[list[bytes], str]:
    """The lines that came, and why no more did."""
    environment = {key: value for key, value in os.environ.items() if key != "LOLLMS_ENCRYPTION_KEY"}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if os.path.isabs(entry))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, *map(str, files)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
        why = f"importing it ended the process (exit code {process.returncode})"
    except subprocess.TimeoutExpired:
        _kill(process.pid)
        output, _ = process.communicate()
        why = f"importing it takes longer than {timeout:g} s"
    finally:
        _kill(process.pid)
    whole, _, _ = output.rpartition(b"\n")
    return whole.splitlines() if whole else [], why


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def describe(file: Path) -> DescribedFile:
    """Import a file and describe its functions, in this process."""
    try:
        found = functions_of(file)
        functions = tuple(_described(name, run) for name, run in found.items())
    except (Exception, SystemExit) as error:  # any code may run here; the others must load
        return DescribedFile(
            file=str(file), error=f"{type(error).__name__}: {error}", line=line_of(error, file)
        )
    return DescribedFile(file=str(file), functions=functions)


def _described(name: str, run: Any) -> Described:
    arguments = Arguments(name, run)
    return Described(
        name=name,
        description=arguments.description,
        schema=arguments.schema,
        warnings=tuple(arguments.warnings),
    )


def main(files: Sequence[str]) -> None:
    """Print a line for each file. What the files print themselves goes elsewhere."""
    answers = os.dup(1)
    os.dup2(2, 1)
    for file in files:
        line = msgspec.json.encode(describe(Path(file)), enc_hook=repr)
        os.write(answers, line + b"\n")
    os._exit(0)  # an orderly exit would wait for threads that a file may have started


if __name__ == "__main__":
    main(sys.argv[1:])
