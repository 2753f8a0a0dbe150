"""A configuration of an older version rewritten in today's layout, all its files at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .decode import examine
from .encryption import find_keys
from .load import check_main, load_config, read_values
from .migrations import VERSION, VERSION_KEY, Upgraded, upgrade_instance, upgrade_main
from .places import drop
from .resolve import resolve
from .rotation import Kinds
from .schema import MainConfig
from .store import NO_KEYS, Document, open_instance, open_main


class Upgrade(msgspec.Struct, frozen=True):
    """Documents with their new values, not saved, and what happened to the old ones."""

    documents: tuple[Document, ...]
    notes: tuple[str, ...]


def upgrade_files(
    config_dir: Path, kinds: Kinds, source: Path | None = None, environ: Mapping[str, str] | None = None
) -> Upgrade:
    """What brings a configuration folder up to date; nothing is written.

    `source` is a main file elsewhere, such as the config.toml of lollms_server 0.2, for a folder that has none yet.
    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    main = open_main(config_dir, environ, extension=".yaml" if source is None else source.suffix)
    if source is not None and main.exists:
        raise ConfigError(
            f"There is {main.path} already.", hint="Move it away, or choose another --config-dir."
        )
    origin = source or main.path
    content = main.values if source is None else read_values(source, find_keys(None, environ))
    upgraded = upgrade_main(content, str(origin))
    if source is not None and not upgraded.older:
        upgraded = msgspec.structs.replace(upgraded, older=True)
    config, warnings = check_main(upgraded, str(origin), environ, lenient=True)
    if upgraded.older:
        main.become(_stamped(_without_unknown(upgraded, MainConfig)))
    loaded = msgspec.structs.replace(
        load_config(config_dir, environ, lenient=True), main=config, file=main.path
    )
    documents, notes = [main], list(warnings)
    for name, kind in config.bindings_map.items():
        document = open_instance(loaded, name, kinds.get(kind), environ)
        notes += _upgrade_instance(document, upgraded.instances.get(name), kinds.get(kind))
        documents.append(document)
    return Upgrade(tuple(document for document in documents if document.changed), tuple(notes))


def _upgrade_instance(
    document: Document, inline: dict[str, Any] | None, settings: type[msgspec.Struct] | None
) -> list[str]:
    """Give an instance's document its new values; what is left out of the old ones."""
    if document.exists:
        upgraded = upgrade_instance(document.values, str(document.path))
    else:
        upgraded = Upgraded(values=dict(inline or {}), older=inline is not None)
    if not upgraded.older:
        return []
    values = _without_unknown(upgraded, settings)
    document.become(_stamped(values))
    return [f"{document.path}: {key} is not used any more." for key in upgraded.values if key not in values]


def _without_unknown(upgraded: Upgraded, schema: type[msgspec.Struct] | None) -> dict[str, Any]:
    values = dict(upgraded.values)
    if schema is not None:
        plain, _ = resolve(values, NO_KEYS, {}, lenient=True)
        for fault in examine(plain, schema)[1]:
            if fault.unknown:
                drop(values, fault.path)
    return values


def _stamped(values: dict[str, Any]) -> dict[str, Any]:
    return {VERSION_KEY: VERSION, **values}
