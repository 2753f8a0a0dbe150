"""The process of a script: loads it, gives it its context, and sends what it returns or yields.

Runs in `lollms_kernel.sandbox.child` only. Everything here is on the side of the script: nothing here protects anybody.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from lollms_kernel.sandbox import Peer

from ..scripts import COMPAT
from .context import context_of
from .legacy import run_legacy
from .order import Order
from .plain import plain

_END = object()


def serve(peer: Peer) -> Mapping[str, Callable[..., Any]]:
    """The one thing that the server asks of such a process."""

    async def run(raw: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        order = msgspec.convert(raw, Order)
        try:
            async for item in _run(order, peer):
                yield item
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything; the server is told
            yield {"error": _words(error), "trace": "".join(traceback.format_exception(error))[-4000:]}

    sys.path.insert(0, str(COMPAT))
    return {"run": run}


async def _run(order: Order, peer: Peer) -> AsyncGenerator[dict[str, Any], None]:
    script = Path(order.folder, order.file)
    sys.path.append(str(script.parent))
    module = await asyncio.to_thread(_import, script)
    if order.kind == "legacy":
        async for item in run_legacy(module, order, peer):
            yield {"item": plain(item)}
        return
    workflow = getattr(module, "run_workflow", None)
    if not callable(workflow):
        raise TypeError(f"{order.file} defines no function `run_workflow(prompt, params, context)`")
    context = context_of(order, peer)
    if inspect.iscoroutinefunction(workflow) or inspect.isasyncgenfunction(workflow):
        result = workflow(order.prompt, dict(order.params), context)
    else:
        result = await asyncio.to_thread(workflow, order.prompt, dict(order.params), context)
    if inspect.isawaitable(result):
        result = await result
    if inspect.isasyncgen(result) or hasattr(result, "__anext__"):
        async for item in result:
            yield {"item": plain(item)}
    elif inspect.isgenerator(result):
        while (item := await asyncio.to_thread(next, result, _END)) is not _END:
            yield {"item": plain(item)}
    else:
        yield {"result": plain(result)}


def _import(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module


def _words(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, SystemExit):
        return f"the script ended itself (exit code {text or 0})"
    return text or type(error).__name__
