"""What a Python function takes: a JSON schema for callers, and the check of what they send against it."""

from __future__ import annotations

import inspect
import logging
import typing
from collections import OrderedDict
from collections.abc import Callable, Mapping
from inspect import BoundArguments, Parameter
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest

from .documentation import read_docstring

log = logging.getLogger(__name__)


class Arguments:
    """The arguments of the function `name`, from its signature."""

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self._name = name
        self.warnings: list[str] = []
        """What of the annotations could not be used."""
        self.description, self._said = read_docstring(inspect.getdoc(run) or "")
        self._signature = inspect.signature(run)
        types = self._types_of(run)
        parameters = self._signature.parameters.values()
        self._named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self._types = {key: _known_type(types.get(key, Any)) for key in self._named}
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self.schema = self._build_schema()

    @property
    def required(self) -> list[str]:
        """The arguments that have no default, in the order of the signature."""
        return [key for key, parameter in self._named.items() if parameter.default is Parameter.empty]

    def bind(self, arguments: Mapping[str, Any]) -> BoundArguments:
        """The arguments, converted and ready for the call. Raises InvalidRequest naming what is wrong."""
        missing = [key for key in self.required if key not in arguments]
        if missing:
            raise InvalidRequest(
                f"Missing required arguments for function '{self._name}': {', '.join(missing)}.",
                hint=f"It takes: {', '.join(self._named)}.",
            )
        values = {key: self._convert(key, arguments[key]) for key in self._named if key in arguments}
        others = {key: value for key, value in arguments.items() if key not in self._named}
        if self._rest is not None:
            values[self._rest] = others
        elif others:
            log.info("Function '%s' does not take, and did not get: %s.", self._name, ", ".join(others))
        bound = BoundArguments(self._signature, OrderedDict(values))
        bound.apply_defaults()
        return bound

    def _convert(self, key: str, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._types[key])
        except msgspec.ValidationError as error:
            raise InvalidRequest(
                f"Argument '{key}' of function '{self._name}' is wrong: {error}.",
                hint="The function's schema says what it takes.",
            ) from error

    def _build_schema(self) -> dict[str, Any]:
        schemas, definitions = msgspec.json.schema_components(
            self._types.values(), ref_template="#/$defs/{name}"
        )
        properties = {
            key: {**schema, **self._text(key), **_default(parameter)}
            for (key, parameter), schema in zip(self._named.items(), schemas, strict=True)
        }
        schema = {
            "type": "object",
            "properties": properties,
            "required": self.required,
            "additionalProperties": self._rest is not None,
        }
        return {**schema, "$defs": definitions} if definitions else schema

    def _text(self, key: str) -> dict[str, str]:
        return {"description": self._said[key]} if self._said.get(key) else {}

    def _types_of(self, run: Callable[..., Any]) -> dict[str, Any]:
        try:
            return typing.get_type_hints(run, include_extras=True)
        except Exception as error:  # annotations are any expressions; the names in them may not exist
            self.warnings.append(f"The annotations of function '{self._name}' are not used: {error}.")
            return {}


def _known_type(annotation: Any) -> Any:
    """The type itself where JSON has something like it, else Any."""
    try:
        msgspec.json.schema(annotation)
    except TypeError:
        return Any
    return annotation


def _default(parameter: Parameter) -> dict[str, Any]:
    if parameter.default is Parameter.empty:
        return {}
    try:
        return {"default": msgspec.to_builtins(parameter.default)}
    except TypeError:
        return {}
