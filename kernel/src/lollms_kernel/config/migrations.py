"""Files of older versions in today's layout.

`__version__` says which schema wrote a file; a file without it is a current one. What lollms_server 0.2 and 0.3 wrote
is older than `VERSION` in main and instance files alike, so one number serves for both. docs/migration.md says in words
what happens here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import msgspec

from ..errors import ConfigError
from .describe import shown
from .places import drop, parse_place, put, value_at

VERSION = "2.0.0"
"""What our files say; those of lollms_server end at 1.2.1 (an instance file)."""

VERSION_KEY = "__version__"

MODEL_KINDS = ("ttt", "tti", "ttv", "ttm")


class Upgraded(msgspec.Struct, frozen=True, kw_only=True):
    """The values of a file in today's layout."""

    values: dict[str, Any]
    older: bool = False
    """Whether the file is of an older version: keys that are not known any more are then no mistakes."""
    notes: tuple[str, ...] = ()
    """What had to be changed, for people."""
    instances: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Settings of binding instances that the main file held itself, as 0.2 did."""


class _Upgrade:
    """A file on its way up, one migration after the other."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.notes: list[str] = []
        self.instances: dict[str, dict[str, Any]] = {}

    def get(self, path: str) -> Any:
        """What is at a path, None if nothing is."""
        try:
            return value_at(self.values, parse_place(path))
        except KeyError:
            return None

    def rename(self, old: str, new: str) -> None:
        """Move a value, unless the new name is taken."""
        value = self.get(old)
        if value is None:
            return
        drop(self.values, parse_place(old))
        if self.get(new) is None:
            put(self.values, parse_place(new), value)
        self.notes.append(f"{old} is now {new}.")

    def keep_default(self, path: str, value: Any) -> None:
        """Write down what an absent key meant when its default was another one."""
        section = self.get(path.partition(".")[0])
        if self.get(path) is None and (section is None or isinstance(section, dict)):
            put(self.values, parse_place(path), value)
            self.notes.append(f"{path} is {shown(value)}, which was its default.")


def _to_0_3(upgrade: _Upgrade) -> None:
    """0.2 kept everything in one config.toml: binding instances were tables of `bindings`."""
    found = upgrade.get("bindings")
    if isinstance(found, dict):
        del upgrade.values["bindings"]
        for name, settings in found.items():
            if isinstance(settings, dict) and isinstance(settings.get("type"), str):
                upgrade.instances[name] = settings
        types = {name: settings["type"] for name, settings in upgrade.instances.items()}
        known = upgrade.get("bindings_map")
        upgrade.values["bindings_map"] = {**types, **known} if isinstance(known, dict) else types
        upgrade.notes.append("bindings is now bindings_map, with one file for each instance.")
    for kind in MODEL_KINDS:
        _move_model(upgrade, kind)
    upgrade.keep_default("server.port", 9600)
    for folder in ("personalities", "bindings", "functions"):
        upgrade.keep_default(f"paths.{folder}_folder", f"personal_{folder}/")


def _move_model(upgrade: _Upgrade, kind: str) -> None:
    model, name = upgrade.get(f"defaults.{kind}_model"), upgrade.get(f"defaults.{kind}_binding")
    if model is None or name not in upgrade.instances:
        return
    drop(upgrade.values, ("defaults", f"{kind}_model"))
    upgrade.instances[name].setdefault("default_model", model)
    upgrade.notes.append(f"defaults.{kind}_model is now default_model of the instance {name}.")


def _to_2_0(upgrade: _Upgrade) -> None:
    """0.3 had these names for a while, and listened to everybody unless told otherwise."""
    for folder in ("personalities", "bindings", "functions"):
        upgrade.rename(f"paths.personal_{folder}_folder", f"paths.{folder}_folder")
    if upgrade.get("server.host") is None:
        upgrade.notes.append("server.host is 127.0.0.1 by default; it was 0.0.0.0.")


MIGRATIONS: tuple[tuple[str, Callable[[_Upgrade], None]], ...] = (("0.3", _to_0_3), (VERSION, _to_2_0))
"""The version that a migration leads to, in order; it is for files of lower versions."""


def upgrade_main(content: Mapping[str, Any], where: str) -> Upgraded:
    """A main file's content in today's layout. Raises ConfigError for a version that is none or too new."""
    values, version = _unwrapped(content, where)
    if version is None and _looks_like_0_2(values):
        version = (0, 2)
    if version is None or version >= _parsed(VERSION, where):
        return Upgraded(values=values)
    upgrade = _Upgrade(values)
    for goal, migration in MIGRATIONS:
        if version < _parsed(goal, where):
            migration(upgrade)
    return Upgraded(
        values=upgrade.values, older=True, notes=tuple(upgrade.notes), instances=upgrade.instances
    )


def upgrade_instance(content: Mapping[str, Any], where: str) -> Upgraded:
    """An instance file's content in today's layout. Raises ConfigError as `upgrade_main`."""
    values, version = _unwrapped(content, where)
    return Upgraded(values=values, older=version is not None and version < _parsed(VERSION, where))


def _unwrapped(content: Mapping[str, Any], where: str) -> tuple[dict[str, Any], tuple[int, ...] | None]:
    """The values without what ConfigGuard may have put around them, and their version."""
    values = deepcopy(dict(content))
    for named, rest, inner in (
        (VERSION_KEY, "__schema__", "__settings__"),
        ("version", "schema", "values"),
    ):
        if isinstance(values.get(inner), dict) and values.keys() <= {named, rest, inner} and named in values:
            values = {VERSION_KEY: values[named], **values[inner]}
    text = values.pop(VERSION_KEY, None)
    if text is None:
        return values, None
    version = _parsed(text, where)
    if version > _parsed(VERSION, where):
        raise ConfigError(
            f"{where}: {VERSION_KEY} is {shown(str(text))}, written by a newer server; this one knows {VERSION}.",
            hint="Update this server, or write the file anew.",
        )
    return values, version


def _parsed(version: Any, where: str) -> tuple[int, ...]:
    match = re.fullmatch(r"(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?.{0,20}", str(version))
    if match is None or isinstance(version, bool):
        raise ConfigError(
            f"{where}: {VERSION_KEY} is {shown(version)}, must be a version such as {VERSION}.",
            hint="Leave the key out if the file is a current one.",
        )
    return tuple(int(part or 0) for part in match.groups())


def _looks_like_0_2(values: Mapping[str, Any]) -> bool:
    found = values.get("bindings")
    return isinstance(found, dict) and any(
        isinstance(item, dict) and "type" in item for item in found.values()
    )
