"""What `lollms config check` looks at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...errors import ConfigError

if TYPE_CHECKING:
    from ...config.load import LoadedConfig
    from ...config.store import Document

Line = tuple[Literal["ok", "warning", "error"], str, str | None]
"""Level, what was found, and the cure."""


def examine(config_dir: Path) -> Iterator[Line]:
    """What is right and wrong with a configuration, file by file."""
    from ...config.exposure import check_exposure
    from ...config.load import load_config
    from ..opening import quiet

    quiet()
    try:
        loaded = load_config(config_dir)
    except ConfigError as error:
        yield "error", error.message, error.hint
        return
    yield "ok", str(loaded.file or f"no main_config file in {loaded.config_dir}: the defaults hold"), None
    for warning in loaded.warnings:
        yield "warning", warning, "`lollms config migrate` brings the file up to date."
    try:
        check_exposure(loaded.main.server.host, loaded.main)
    except ConfigError as error:
        yield "error", error.message, error.hint
    yield from _transports(loaded)
    yield from _instances(loaded)
    yield from _secrets(loaded)


def _transports(loaded: LoadedConfig) -> Iterator[Line]:
    from ...config.decode import convert
    from ..opening import registered

    known = {kind.name: kind for kind in registered("register_transports")}
    for name, section in loaded.main.transports.items():
        where = f"{loaded.file}: transports.{name}"
        if name not in known:
            yield (
                "warning",
                f"{where}: no installed plugin provides this protocol",
                "`lollms plugins` lists them.",
            )
            continue
        try:
            convert(section, known[name].Settings, where)
        except ConfigError as error:
            yield "error", error.message, error.hint


def _instances(loaded: LoadedConfig) -> Iterator[Line]:
    from ...config.decode import convert
    from ...config.load import instance_file, read_instance
    from ..opening import binding_settings

    known = binding_settings()
    for name, kind in loaded.main.bindings_map.items():
        if kind not in known:
            text = f"bindings_map.{name}: no installed plugin has the binding type '{kind}'"
            yield "error", text, f"Install its plugin or use one of: {', '.join(sorted(known))}."
            continue
        try:
            file = instance_file(loaded, name)
            convert(read_instance(loaded, name, known[kind]), known[kind], str(file))
        except ConfigError as error:
            yield "error", error.message, error.hint
        else:
            yield "ok", f"{file}{'' if file.exists() else ' (not there: its defaults hold)'}", None


def _secrets(loaded: LoadedConfig) -> Iterator[Line]:
    """Whether the key works, and what stands in clear although there is one."""
    keys = loaded.keys()
    if not keys:
        return
    try:
        keys.encrypt("")
        clear = [(document.path, document.encrypt()) for document in _documents(loaded)]
    except ConfigError as error:
        yield "error", error.message, error.hint
        return
    for path, count in clear:
        if count:
            text = f"{path}: {count} secret{'' if count == 1 else 's'} in clear"
            yield "warning", text, "`lollms config encrypt` encrypts what stands in clear."


def _documents(loaded: LoadedConfig) -> list[Document]:
    from ...config.rotation import open_all
    from ..opening import binding_settings

    return open_all(loaded.config_dir, binding_settings(), os.environ)
