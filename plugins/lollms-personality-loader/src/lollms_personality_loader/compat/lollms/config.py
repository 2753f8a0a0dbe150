"""Settings of a script: a template with types and defaults, and the values."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any


class InstallOption(Enum):
    """Whether to install; nothing ever is."""

    NEVER_INSTALL = 1
    INSTALL_IF_NECESSARY = 2
    FORCE_INSTALL = 3


class ConfigTemplate:
    """A list of `{"name", "type", "value", …}`."""

    def __init__(self, template: list[dict[str, Any]] | None = None) -> None:
        self.template = [dict(entry) for entry in template or []]

    def add_entry(self, entry: dict[str, Any]) -> None:
        """One more."""
        self.template.append(dict(entry))

    def __getitem__(self, name: str) -> Any:
        return next((entry for entry in self.template if entry["name"] == name), None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.template)


class BaseConfig:
    """Values by name, as items and as attributes."""

    def __init__(
        self, exceptional_keys: list[str] | None = None, config: dict[str, Any] | None = None
    ) -> None:
        self.exceptional_keys = exceptional_keys or []
        self.config: dict[str, Any] = dict(config or {})

    @classmethod
    def from_template(cls, template: ConfigTemplate, *_: Any, **__: Any) -> Any:
        """The defaults."""
        return cls(config={entry["name"]: entry.get("value") for entry in template})

    def __getitem__(self, name: str) -> Any:
        return self.config.get(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.config[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self.config

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.__dict__.get("config", {}):
            raise AttributeError(name)
        return self.config[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A value, or else the default."""
        return self.config.get(name, default)

    def items(self) -> Any:
        """Names and values."""
        return self.config.items()

    def to_dict(self) -> dict[str, Any]:
        """All values."""
        return dict(self.config)


class TypedConfig(BaseConfig):
    """The values of `config`, in the types that the template says."""

    def __init__(self, config_template: ConfigTemplate, config: Any = None, **_: Any) -> None:
        values = config.config if isinstance(config, BaseConfig) else dict(config or {})
        super().__init__(config={**BaseConfig.from_template(config_template).config, **values})
        self.config_template = config_template

    def sync(self) -> None:
        """The template says nothing new."""

    def update_template(self, template: Any) -> None:
        """Take other entries."""
        self.config_template = template if isinstance(template, ConfigTemplate) else ConfigTemplate(template)
        self.config = {**BaseConfig.from_template(self.config_template).config, **self.config}
