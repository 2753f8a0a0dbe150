"""The values of the REST API that scripts make and read."""

from __future__ import annotations

from typing import Any, ClassVar


class Model:
    """Fields as keyword arguments and attributes; unknown ones are kept. What has no default must be given."""

    _required: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init__(self, **fields: Any) -> None:
        missing = [name for name in self._required if name not in fields]
        if missing:
            raise ValueError(f"{type(self).__name__} lacks {', '.join(missing)}")
        defaults = {
            name: value.copy() if isinstance(value, dict | list) else value
            for name, value in self._defaults.items()
        }
        self.__dict__.update(defaults | fields)

    def model_dump(self, *, exclude_none: bool = False, **_: Any) -> dict[str, Any]:
        """As a mapping, inner models too."""
        found = {name: _dumped(value) for name, value in self.__dict__.items()}
        return {name: value for name, value in found.items() if value is not None or not exclude_none}

    def dict(self, **options: Any) -> dict[str, Any]:
        """As `model_dump`."""
        return self.model_dump(**options)

    @classmethod
    def model_validate(cls, value: Any) -> Any:
        """A model of a mapping."""
        return value if isinstance(value, cls) else cls(**value)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    __hash__ = None  # type: ignore[assignment]


def _dumped(value: Any) -> Any:
    if isinstance(value, Model):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [_dumped(item) for item in value]
    if isinstance(value, dict):
        return {key: _dumped(item) for key, item in value.items()}
    return value


class InputData(Model):
    """One input and what it is for."""

    _required = ("type", "role", "data")
    _defaults = {"mime_type": None, "metadata": {}}


class OutputData(Model):
    """One piece of an answer."""

    _required = ("type", "data")
    _defaults = {"mime_type": None, "thoughts": None, "metadata": {}}


class StreamChunk(Model):
    """One event of a stream."""

    _required = ("type",)
    _defaults = {"content": None, "thoughts": None, "metadata": {}}


class GenerateRequest(Model):
    """What the client asked for."""

    _defaults = {
        "input_data": [],
        "text_prompt": None,
        "personality": None,
        "binding_name": None,
        "model_name": None,
        "generation_type": "ttt",
        "stream": False,
        "parameters": {},
        "functions": None,
    }


class GenerateResponse(Model):
    """A whole answer."""

    _defaults = {"personality": None, "request_id": None, "output": [], "execution_time": None}
