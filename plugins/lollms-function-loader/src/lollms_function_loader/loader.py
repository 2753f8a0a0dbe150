"""From a folder of Python files to `Function` objects; a broken file is reported and left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .describing import DescribedFile, describe_files
from .function import FileFunction, FileWorker

if TYPE_CHECKING:
    from lollms_kernel.config.schema import FunctionOverride, FunctionsConfig

log = logging.getLogger(__name__)


def load_functions(
    folder: Path, limits: FunctionsConfig, overrides: Mapping[str, FunctionOverride]
) -> Iterator[FileFunction]:
    """Every public `async def` that a file directly in `folder` defines, as `file.function`, the enabled ones."""
    for described in describe_files(
        [file for file in _source_files(folder) if _wanted(file.stem, overrides)]
    ):
        if described.error is not None:
            _report(described)
            continue
        memory = None if limits.memory_mb is None else limits.memory_mb << 20
        worker = FileWorker(Path(described.file), memory)
        for function in described.functions:
            for warning in function.warnings:
                log.warning("%s", warning)
            if _wanted(function.name, overrides):
                yield FileFunction(function, worker, _timeout(function.name, limits, overrides))


def _source_files(folder: Path) -> Iterator[Path]:
    root = os.path.realpath(folder)
    for file in sorted(folder.glob("*.py")):
        if file.name.startswith("_"):
            continue
        if not Path(os.path.realpath(file)).is_relative_to(root):
            log.warning("%s is left out: it leads out of the folder. Copy the file into it.", file)
        elif file.is_file():
            yield file


def _wanted(name: str, overrides: Mapping[str, FunctionOverride]) -> bool:
    """Whether the file or function of this name is enabled. A function's own entry wins over its file's."""
    own = overrides.get(name)
    if own is not None:
        # A file of which one function is enabled by name has to be read.
        return own.enabled or any(
            key.startswith(f"{name}.") and entry.enabled for key, entry in overrides.items()
        )
    of_file = overrides.get(name.partition(".")[0])
    return of_file is None or of_file.enabled


def _timeout(name: str, limits: FunctionsConfig, overrides: Mapping[str, FunctionOverride]) -> float:
    for key in (name, name.partition(".")[0]):
        entry = overrides.get(key)
        if entry is not None and entry.timeout is not None:
            return entry.timeout
    return limits.timeout


def _report(described: DescribedFile) -> None:
    log.warning(
        "The functions of %s%s are left out: %s. Correct it, or rename the file to begin with '_'.",
        described.file,
        f", line {described.line}," if described.line else "",
        described.error,
    )
