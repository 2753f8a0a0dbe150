"""From a folder of Python files to `Function` objects; a broken file is reported and left out."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from .function import PythonFunction

log = logging.getLogger(__name__)


def load_functions(folder: Path) -> Iterator[PythonFunction]:
    """Every public `async def` that a file directly in `folder` defines, as `file.function`."""
    for file in _source_files(folder):
        try:
            functions = list(_functions_of(_import_file(file), file.stem))
        except (Exception, SystemExit) as error:  # any code may run here; the others must load
            log.warning(
                "The functions of %s%s are left out: %s: %s. Correct it, or rename the file to begin with '_'.",
                file,
                _line(error, file),
                type(error).__name__,
                error,
            )
        else:
            yield from functions


def _source_files(folder: Path) -> Iterator[Path]:
    root = os.path.realpath(folder)
    for file in sorted(folder.glob("*.py")):
        if file.name.startswith("_"):
            continue
        if not Path(os.path.realpath(file)).is_relative_to(root):
            log.warning("%s is left out: it leads out of the folder. Copy the file into it.", file)
        elif file.is_file():
            yield file


def _import_file(file: Path) -> ModuleType:
    """The module in `file`, which can import what is installed but not its neighbours: sys.path stays."""
    name = f"lollms_functions_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _functions_of(module: ModuleType, stem: str) -> Iterator[PythonFunction]:
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if own and inspect.iscoroutinefunction(value) and not name.startswith("_"):
            yield PythonFunction(f"{stem}.{name}", value)


def _line(error: BaseException, file: Path) -> str:
    """The line of `file` where the error came up, as far as that is known."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f", line {error.lineno},"
    frames = reversed(traceback.extract_tb(error.__traceback__))
    line = next((frame.lineno for frame in frames if frame.filename == str(file)), None)
    return f", line {line}," if line else ""
