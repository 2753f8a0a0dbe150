"""Configuration: the schema, its files, and errors that name every mistake."""

from .decode import convert
from .exposure import check_exposure, is_loopback
from .load import (
    LoadedConfig,
    create_folders,
    instance_file,
    load_config,
    read_instance,
    resolve_config_dir,
)
from .schema import MainConfig
from .secrets import redact

__all__ = [
    "LoadedConfig",
    "MainConfig",
    "check_exposure",
    "convert",
    "create_folders",
    "instance_file",
    "is_loopback",
    "load_config",
    "read_instance",
    "redact",
    "resolve_config_dir",
]
