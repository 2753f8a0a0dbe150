"""The configuration folder: which one, the main file, instance files, and the folders that they name."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .concealment import remember
from .contradictions import contradictions
from .decode import examine
from .describe import describe, shown
from .encryption import SETTING, WHOLE_FILE, Keys, UndecryptableError, find_keys
from .exposure import ALLOWED, check_exposure, is_host
from .faults import HINT, Fault, config_error
from .files import read_bytes
from .formats import find_file, parse_mapping
from .migrations import Upgraded, upgrade_instance, upgrade_main
from .places import leaves, parse_place, value_at
from .references import BadReferenceError, expand
from .resolve import MASK, Concealed, Unknown, resolve
from .schema import MODEL_FOLDERS, MainConfig, ServerConfig
from .secrets import secret_places

__all__ = [
    "LoadedConfig",
    "check_exposure",
    "create_folders",
    "instance_file",
    "load_config",
    "read_instance",
    "resolve_config_dir",
]

logger = logging.getLogger(__name__)

DEFAULT_CONFIG_DIR = "lollms_configs"
MAIN_FILE = "main_config"

OLD_FILE_HINT = "Correct what is named here, or let `lollms config migrate` bring the file up to date."


class LoadedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration, and where it came from."""

    main: MainConfig
    config_dir: Path
    root: Path
    """The parent of `config_dir`; relative paths are relative to it."""
    file: Path | None
    """The main file; None where there is none and all is default."""
    warnings: tuple[str, ...] = ()
    """What was different in a file of an older version."""
    inline_instances: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """Instance settings that an old main file holds itself; an instance file wins over them."""

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

    def keys(self, environ: Mapping[str, str] | None = None) -> Keys:
        """The keys of encrypted values."""
        return find_keys(self.main.security.encryption_key, os.environ if environ is None else environ)


def resolve_config_dir(option: str | None, environ: Mapping[str, str]) -> Path:
    """The configuration folder: the option, else `LOLLMS_CONFIG_DIR`, else `./lollms_configs`."""
    chosen = option or environ.get("LOLLMS_CONFIG_DIR") or DEFAULT_CONFIG_DIR
    return Path(os.path.abspath(os.path.expanduser(chosen)))


def load_config(
    config_dir: Path, environ: Mapping[str, str] | None = None, *, lenient: bool = False
) -> LoadedConfig:
    """Read `main_config.*` of a folder; without file or folder everything is default.

    `LOLLMS_HOST` and `LOLLMS_PORT` of `environ` (by default the process's) win over the file. `lenient` is for who
    edits and does not serve: values that cannot be resolved in this environment pass. Raises ConfigError with all that
    is wrong.
    """
    environ = os.environ if environ is None else environ
    folder = Path(os.path.abspath(config_dir))
    file = find_file(folder, MAIN_FILE)
    upgraded = Upgraded(values={})
    main = MainConfig()
    warnings: tuple[str, ...] = ()
    if file is not None:
        upgraded = upgrade_main(read_values(file, find_keys(None, environ)), str(file))
        main, warnings = check_main(upgraded, str(file), environ, lenient=lenient)
    server = _overridden(main.server, environ)
    return LoadedConfig(
        main=msgspec.structs.replace(main, server=server),
        config_dir=folder,
        root=folder.parent,
        file=file,
        warnings=warnings,
        inline_instances=upgraded.instances,
    )


def read_values(file: Path, keys: Keys) -> dict[str, Any]:
    """What a configuration file holds, as it is written there; {} if it is empty. Raises ConfigError."""
    data = read_bytes(file)
    if data.startswith(WHOLE_FILE):
        data = decrypted_file(data, file, keys)
    return parse_mapping(data, file)


def decrypted_file(data: bytes, file: Path, keys: Keys) -> bytes:
    """The content of a file that is encrypted as a whole. Raises ConfigError."""
    try:
        return keys.decrypt_bytes(data.strip())
    except UndecryptableError as error:
        raise ConfigError(
            f"{file} {error}.",
            hint="lollms_server encrypts whole files; set LOLLMS_ENCRYPTION_KEY to the key that it used.",
        ) from None


def check_main(
    upgraded: Upgraded, where: str, environ: Mapping[str, str], *, lenient: bool = False
) -> tuple[MainConfig, tuple[str, ...]]:
    """The main configuration of a file's values, and warnings. Raises ConfigError with all that is wrong.

    `lenient` lets values pass whose meaning is not to be found in this environment.
    """
    keys = find_keys(configured_key(upgraded.values, environ), environ)
    values, unresolved = resolve(upgraded.values, keys, environ, lenient=lenient)
    cleaned, faults = examine(values, MainConfig)
    faults, warnings = _without_removed(faults, upgraded, where)
    # Every key has a default, so what is left of a faulty file still makes a configuration to check further.
    main = msgspec.convert(cleaned, MainConfig)
    broken = {str(fault.path[0]) for fault in faults if fault.path}
    between = contradictions(main, map_is_known="bindings_map" not in broken)
    # what cannot be known here contradicts nothing
    unknown = [place for place, value in leaves(values) if isinstance(value, Unknown)]
    faults += unresolved
    faults += [f for f in between if not any(place[: len(f.path)] == f.path for place in unknown)]
    remember([*keys.text.split(","), *(text for _, text in secret_places(cleaned, MainConfig))])
    if faults:
        raise config_error(where, faults, OLD_FILE_HINT if upgraded.older else HINT)
    return main, warnings


def instance_file(loaded: LoadedConfig, name: str) -> Path:
    """The file with an instance's settings; where there is none yet, the one to create."""
    if name not in loaded.main.bindings_map:
        known = ", ".join(sorted(loaded.main.bindings_map)) or "none"
        raise ConfigError(f"bindings_map has no instance {shown(name)}.", hint=f"It has: {known}.")
    folder = loaded.path("instance_bindings_folder")
    suffix = ".yaml" if loaded.file is None else loaded.file.suffix
    return find_file(folder, name) or folder / f"{name}{suffix}"


def read_instance(
    loaded: LoadedConfig,
    name: str,
    settings: type[msgspec.Struct] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The settings of an instance of `bindings_map`, with `type` and `binding_instance_name` filled in.

    Encrypted values and `${NAME}` are resolved. A missing or empty file means that all settings have their defaults;
    `instance_file` names it for errors. From a file of an older version what `settings` does not know is left out, with
    a warning in the log. Raises ConfigError where the file cannot be read or belongs to another instance or type.
    """
    environ = os.environ if environ is None else environ
    file = instance_file(loaded, name)
    keys = loaded.keys(environ)
    if os.path.lexists(file):
        upgraded = upgrade_instance(read_values(file, keys), str(file))
    else:
        inline = loaded.inline_instances.get(name)
        upgraded = Upgraded(values=dict(inline or {}), older=inline is not None)
    content, faults = resolve(upgraded.values, keys, environ)
    if faults:
        raise config_error(
            str(file),
            faults,
            hint="Set that key or variable where the server starts, or write the value anew.",
        )
    remember(text for _, text in secret_places(content, settings))
    remember(value for _, value in leaves(content) if isinstance(value, Concealed) and value.shown == MASK)
    content = with_identity(content, loaded, name, file)
    if upgraded.older and settings is not None:
        for key in content.keys() - {field.encode_name for field in msgspec.structs.fields(settings)}:
            logger.warning("%s: %s is not used any more.", file, shown(key))
            del content[key]
    return content


def with_identity(content: Mapping[str, Any], loaded: LoadedConfig, name: str, file: Path) -> dict[str, Any]:
    """Instance settings with type and name filled in. Raises ConfigError if they are those of another instance."""
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


def configured_key(values: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """The encryption key that a main file names; what is wrong with it is told where it is checked."""
    try:
        key = value_at(values, parse_place(SETTING))
        return expand(key, environ) if isinstance(key, str) else None
    except (KeyError, BadReferenceError):
        return None


def _without_removed(
    faults: list[Fault], upgraded: Upgraded, where: str
) -> tuple[list[Fault], tuple[str, ...]]:
    """The faults that count, and warnings instead of the unknown keys of an older file."""
    if not upgraded.older:
        return faults, ()
    removed = [f"{fault.place} is not used any more." for fault in faults if fault.unknown]
    warnings = tuple(f"{where}: {note}" for note in [*upgraded.notes, *removed])
    return [fault for fault in faults if not fault.unknown], warnings


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
