"""Notices when the main configuration file changes, and hands every good version on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from ..errors import ConfigError
from .formats import EXTENSIONS
from .load import MAIN_FILE, LoadedConfig, load_config

logger = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks. A change counts when two looks find the same: some editors write in several steps."""

_NAMES = tuple(MAIN_FILE + extension for extension in EXTENSIONS)

Apply = Callable[[LoadedConfig], Awaitable[object] | None]
Looks = tuple[tuple[str, int, int, int], ...]


async def watch(
    loaded: LoadedConfig,
    apply: Apply,
    environ: Mapping[str, str] | None = None,
    interval: float = INTERVAL,
) -> None:
    """Call `apply` with each new version of the main configuration, for ever, and await what it gives.

    A version that cannot be read, or that `apply` refuses with ConfigError, is logged and changes nothing. A file that
    is gone changes nothing either: it may be on its way back.
    """
    seen = applied = None
    while True:
        await asyncio.sleep(interval)
        now = await asyncio.to_thread(_look, loaded.config_dir)
        if now not in (applied, seen):
            seen = now
        elif now != applied:
            applied = now
            await _reload(loaded, apply, environ)


async def _reload(loaded: LoadedConfig, apply: Apply, environ: Mapping[str, str] | None) -> None:
    try:
        new = await asyncio.to_thread(load_config, loaded.config_dir, environ)
        if new.file is None and loaded.file is not None:
            logger.warning("%s is gone; the running configuration stays", loaded.file)
            return
        result = apply(new)
        if isinstance(result, Awaitable):
            await result
    except ConfigError as error:
        logger.error("the running configuration stays: %s", error.detail)
    except Exception:  # a mistake in here must not end a server that runs well
        logger.exception("the running configuration stays: the new one could not be applied")


def _look(folder: Path) -> Looks:
    """What tells one version of the file from another without reading it."""
    found = []
    for name in _NAMES:
        try:
            state = os.stat(folder / name)
        except OSError:
            continue
        found.append((name, state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)
