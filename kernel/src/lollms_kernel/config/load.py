"""The configuration folder: which one, the main file, instance files, and the folders that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .decode import Fault, config_error, did_you_mean, examine
from .describe import describe, shown
from .exposure import ALLOWED, check_exposure, is_host
from .formats import find_file, read_mapping
from .schema import MODEL_FOLDERS, MainConfig, ServerConfig

__all__ = [
    "LoadedConfig",
    "check_exposure",
    "create_folders",
    "instance_file",
    "load_config",
    "read_instance",
    "resolve_config_dir",
]

DEFAULT_CONFIG_DIR = "lollms_configs"


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration, and where it came from."""

    main: MainConfig
    config_dir: Path
    root: Path
    """The parent of `config_dir`; relative paths are relative to it."""
    file: Path | None
    """The main file; None where there is none and all is default."""

    def path(self, name: str) -> Path:
        """The absolute path of a key of the section `paths`. Raises ConfigError where that key is null."""
        value: str | None = getattr(self.main.paths, name)
        if name == "config_base_dir":
            return self.config_dir
        if value is None:
            raise ConfigError(f"paths.{name} is null.", hint="Name a folder there.")
        base = self.config_dir if name == "instance_bindings_folder" else self.root
        return Path(os.path.abspath(base / os.path.expanduser(value)))

    def resolved_main(self) -> MainConfig:
        """The main configuration as plugins receive it: with every path of `paths` made absolute."""
        paths = self.main.paths
        names = [name for name in paths.__struct_fields__ if getattr(paths, name) is not None]
        absolute = {name: str(self.path(name)) for name in names}
        return msgspec.structs.replace(self.main, paths=msgspec.structs.replace(paths, **absolute))


def resolve_config_dir(option: str | None, environ: Mapping[str, str]) -> Path:
    """The configuration folder: the option, else `LOLLMS_CONFIG_DIR`, else `./lollms_configs`."""
    chosen = option or environ.get("LOLLMS_CONFIG_DIR") or DEFAULT_CONFIG_DIR
    return Path(os.path.abspath(os.path.expanduser(chosen)))


def load_config(config_dir: Path, environ: Mapping[str, str] | None = None) -> LoadedConfig:
    """Read `main_config.*` of a folder; without file or folder everything is default.

    `LOLLMS_HOST` and `LOLLMS_PORT` of `environ` (by default the process's) win over the file. Raises ConfigError
    with all that is wrong.
    """
    folder = Path(os.path.abspath(config_dir))
    file = find_file(folder, "main_config")
    main = _checked(read_mapping(file), str(file)) if file else MainConfig()
    server = _overridden(main.server, os.environ if environ is None else environ)
    main = msgspec.structs.replace(main, server=server)
    return LoadedConfig(main=main, config_dir=folder, root=folder.parent, file=file)


def instance_file(loaded: LoadedConfig, name: str) -> Path:
    """The file with an instance's settings; where there is none yet, the one to create."""
    if name not in loaded.main.bindings_map:
        known = ", ".join(sorted(loaded.main.bindings_map)) or "none"
        raise ConfigError(f"bindings_map has no instance {shown(name)}.", hint=f"It has: {known}.")
    folder = loaded.path("instance_bindings_folder")
    return find_file(folder, name) or folder / f"{name}.yaml"


def read_instance(loaded: LoadedConfig, name: str) -> dict[str, Any]:
    """The raw settings of an instance of `bindings_map`, with `type` and `binding_instance_name` filled in.

    A missing or empty file means that all settings have their defaults; `instance_file` names it for errors.
    Raises ConfigError where the file cannot be read or belongs to another instance or type.
    """
    file = instance_file(loaded, name)
    content = read_mapping(file) if os.path.lexists(file) else {}
    expected = {"type": loaded.main.bindings_map[name], "binding_instance_name": name}
    sources = {"type": f"bindings_map.{name}", "binding_instance_name": "the file's name"}
    faults = [
        Fault((key,), f"is {shown(content[key])}, but {sources[key]} says {shown(value)}.")
        for key, value in expected.items()
        if content.get(key, value) != value
    ]
    if faults:
        raise config_error(str(file), faults, hint="Make the two agree, or leave the key out of the file.")
    return {**expected, **content}


def create_folders(loaded: LoadedConfig) -> list[str]:
    """Create the folders for models, personalities and functions; returns a warning for each that cannot be."""
    models = loaded.path("models_folder")
    wanted = [("models_folder", models / kind) for kind in MODEL_FOLDERS]
    wanted += [(name, loaded.path(name)) for name in ("personalities_folder", "functions_folder")]
    warnings = []
    for key, folder in wanted:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.append(f"paths.{key}: the folder {folder} cannot be created: {error.strerror}.")
    return warnings


def _checked(raw: dict[str, Any], where: str) -> MainConfig:
    cleaned, faults = examine(raw, MainConfig)
    # Every key has a default, so what is left of a faulty file still makes a configuration to check further.
    main = msgspec.convert(cleaned, MainConfig)
    broken = {str(fault.path[0]) for fault in faults if fault.path}
    faults += _contradictions(main, map_is_known="bindings_map" not in broken)
    if faults:
        raise config_error(where, faults)
    return main


def _contradictions(main: MainConfig, *, map_is_known: bool) -> Iterator[Fault]:
    """What is wrong between keys that are each valid."""
    if not is_host(main.server.host):
        yield Fault(("server", "host"), f"is {shown(main.server.host)}, must be {ALLOWED}.")
    if main.bindings_map and map_is_known:
        for key in main.defaults.__struct_fields__:
            value = getattr(main.defaults, key)
            if key.endswith("_binding") and value is not None and value not in main.bindings_map:
                guess = did_you_mean(value, main.bindings_map) or f"; it has {', '.join(main.bindings_map)}."
                yield Fault(("defaults", key), f"is {shown(value)}, which bindings_map does not have{guess}")
    workers = main.workers
    if workers.heartbeat_timeout <= workers.heartbeat_interval:
        yield Fault(
            ("workers", "heartbeat_timeout"),
            f"is {workers.heartbeat_timeout}, must be greater than heartbeat_interval"
            f" ({workers.heartbeat_interval}).",
        )
    if workers.restart_delay_max < workers.restart_delay:
        yield Fault(
            ("workers", "restart_delay_max"),
            f"is {workers.restart_delay_max}, must be at least restart_delay ({workers.restart_delay}).",
        )


def _overridden(server: ServerConfig, environ: Mapping[str, str]) -> ServerConfig:
    host, port = environ.get("LOLLMS_HOST"), environ.get("LOLLMS_PORT")
    if host:
        if not is_host(host):
            raise _bad_variable("LOLLMS_HOST", host, ALLOWED)
        server = msgspec.structs.replace(server, host=host)
    if port:
        type_ = next(field.type for field in msgspec.structs.fields(ServerConfig) if field.name == "port")
        try:
            server = msgspec.structs.replace(server, port=msgspec.convert(port, type_, strict=False))
        except msgspec.ValidationError:
            raise _bad_variable("LOLLMS_PORT", port, describe(type_)) from None
    return server


def _bad_variable(name: str, value: str, allowed: str) -> ConfigError:
    return ConfigError(
        f"The environment variable {name} is {shown(value)}, must be {allowed}.",
        hint="Correct it or unset it.",
    )
