"""The process in which the functions of one file run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lollms_kernel.errors import GenerationFailed
from lollms_kernel.sandbox import Peer

from .arguments import Arguments
from .source import Run, functions_of

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")


def serve(peer: Peer) -> Mapping[str, Callable[..., Any]]:
    """Load a file once, then call its functions, several at a time if they await."""
    functions: dict[str, tuple[Run, Arguments]] = {}

    async def load(file: str) -> None:
        functions.update(
            {name: (run, Arguments(name, run)) for name, run in functions_of(Path(file)).items()}
        )

    async def call(name: str, arguments: dict[str, Any]) -> Any:
        run, known = functions[name]
        bound = known.bind(arguments)
        try:
            result = await run(*bound.args, **bound.kwargs)
            return msgspec.to_builtins(result, builtin_types=(bytes,), str_keys=True, enc_hook=str)
        # The function may raise anything, and its value may be of any type.
        except (Exception, SystemExit) as error:
            logging.warning("function '%s' failed", name, exc_info=True)
            raise GenerationFailed(
                f"Error executing function '{name}': {type(error).__name__}: {error}",
                hint="The log shows where; correct the function or its arguments.",
            ) from error

    async def ping() -> None:
        return None

    return {"load": load, "call": call, "ping": ping}
