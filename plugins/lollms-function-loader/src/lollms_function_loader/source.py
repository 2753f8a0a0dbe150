"""Python files of functions, imported: in the processes that describe and run them, never in the server."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

Run = Callable[..., Coroutine[Any, Any, Any]]


def functions_of(file: Path) -> dict[str, Run]:
    """Every public `async def` that the file defines itself, as `file.function`. Raises whatever the file raises."""
    module = _import(file)
    return {
        f"{file.stem}.{name}": value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and inspect.iscoroutinefunction(value)
        and not name.startswith("_")
    }


def _import(file: Path) -> ModuleType:
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


def line_of(error: BaseException, file: Path) -> int | None:
    """The line of `file` where the error came up, as far as that is known."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return error.lineno
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame.lineno for frame in frames if frame.filename == str(file)), None)
