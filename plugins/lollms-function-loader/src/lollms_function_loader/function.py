"""A coroutine function as the kernel's `Function`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from lollms_kernel.contracts import Function
from lollms_kernel.errors import GenerationFailed

from .arguments import Arguments

log = logging.getLogger(__name__)


class PythonFunction(Function):
    """A function of the functions folder; what it returns is handed on unchanged."""

    def __init__(self, name: str, run: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.name = name
        self.description = inspect.getdoc(run) or ""
        self._run = run
        self._arguments = Arguments(name, run)
        self.schema = self._arguments.schema

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        """Run it. Raises InvalidRequest for wrong arguments, GenerationFailed for what it raises itself."""
        bound = self._arguments.bind(arguments)
        try:
            return await self._run(*bound.args, **bound.kwargs)
        # The function may raise anything; a sys.exit() in it would even end the server.
        except (Exception, SystemExit) as error:
            log.warning("Function '%s' failed.", self.name, exc_info=True)
            raise GenerationFailed(
                f"Function '{self.name}' failed: {type(error).__name__}: {error}",
                hint="The log shows where; correct the function or its arguments.",
            ) from error
