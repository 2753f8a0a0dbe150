"""Reads a JSON body into a Struct and names every wrong place, in the shape that clients of lollms_server know."""

from __future__ import annotations

import functools
import re
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from .errors import Problem, ValidationFailed

T = TypeVar("T", bound=msgspec.Struct)
Location = tuple[str | int, ...]

MAX_PROBLEMS = 50
MAX_SHOWN = 100

_EXPECTED = re.compile(r"^Expected `(\w+)[^`]*`, got ")
_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\[(\d+)\]|\.(\w+)")
_BYTE = re.compile(r"\(byte (\d+)\)")
_KINDS = {
    "str": ("string_type", "Input should be a valid string"),
    "bool": ("bool_type", "Input should be a valid boolean"),
    "int": ("int_type", "Input should be a valid integer"),
    "array": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
}


class Problems:
    """Collects what is wrong with one body, so that its sender can mend all of it at once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, kind: str, location: Location, message: str, value: object = None) -> None:
        """Note a problem; the fiftieth is enough and raises ValidationFailed."""
        self.found.append(Problem(kind, location, message, _shown(value)))
        if len(self.found) >= MAX_PROBLEMS:
            self.check()

    def add_value(self, location: Location, message: str, value: object = None) -> None:
        """Note a problem with a value of the right type."""
        self.add("value_error", location, f"Value error, {message}", value)

    def check(self) -> None:
        """Raise ValidationFailed if anything is wrong."""
        if self.found:
            raise ValidationFailed(self.found)


def read_body(body: bytes, kind: type[T]) -> T:
    """The body as `kind`; unknown fields are ignored. Raises ValidationFailed with all problems found."""
    problems = Problems()
    value = _read_struct(_parse(body), kind, ("body",), problems)
    problems.check()
    assert value is not None, "no value without a problem"
    return value


def _parse(body: bytes) -> Any:
    if not body.strip():
        raise ValidationFailed([Problem("missing", ("body",), "Field required")])
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise ValidationFailed([Problem("json_invalid", ("body", 0), "JSON is nested too deeply")]) from None
    except ValueError as error:  # msgspec.DecodeError and UnicodeDecodeError
        at = _BYTE.search(str(error))
        location: Location = ("body", int(at.group(1))) if at else ("body",)
        message = f"JSON decode error: {error}"[: 2 * MAX_SHOWN]
        raise ValidationFailed([Problem("json_invalid", location, message)]) from None


def _read_struct(raw: Any, kind: type[T], location: Location, problems: Problems) -> T | None:
    if not isinstance(raw, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        problems.add("model_attributes_type", location, message, raw)
        return None
    values: dict[str, Any] = {}
    for field in _fields(kind):
        place = (*location, field.name)
        if field.name in raw:
            values[field.name] = _read_value(raw[field.name], field.type, place, problems)
        elif field.required:
            problems.add("missing", place, "Field required")
    return None if problems.found else kind(**values)


def _read_value(raw: Any, type_: Any, location: Location, problems: Problems) -> Any:
    item = _listed_struct(type_)
    if item is not None and isinstance(raw, list):
        return [_read_struct(entry, item, (*location, n), problems) for n, entry in enumerate(raw)]
    try:
        # "true" and 1 have always passed for a truth value
        return msgspec.convert(raw, type_, strict=_bare(type_) is not bool)
    except msgspec.ValidationError as error:
        _add_mismatch(str(error), raw, type_, location, problems)
        return None


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


@functools.cache
def _listed_struct(type_: Any) -> type[msgspec.Struct] | None:
    """The Struct S if `type_` is list[S]."""
    plain = _bare(type_)
    of = get_args(plain)
    if get_origin(plain) is list and isinstance(of[0], type) and issubclass(of[0], msgspec.Struct):
        return of[0]
    return None


def _bare(type_: Any) -> Any:
    """The type without its annotations."""
    return type_.__origin__ if hasattr(type_, "__metadata__") else type_


def _add_mismatch(message: str, raw: Any, type_: Any, location: Location, problems: Problems) -> None:
    """msgspec's message as a problem; where the wrong value lies deeper, its place is added."""
    if get_origin(_bare(type_)) is Literal:
        *others, last = (repr(choice) for choice in get_args(_bare(type_)))
        problems.add("literal_error", location, f"Input should be {', '.join(others)} or {last}", raw)
        return
    place = _PLACE.search(message)
    for index, name in _STEP.findall(place.group(1)) if place else ():
        step = int(index) if index else name
        location, raw = (*location, step), raw[step]
    expected = _EXPECTED.match(message)
    kind, text = _KINDS.get(expected.group(1) if expected else "", ("value_error", ""))
    problems.add(kind, location, text or _PLACE.sub("", message), raw)


def _shown(value: object) -> object:
    """What a problem repeats of a wrong value: bodies hold megabytes, error answers must not."""
    if isinstance(value, str):
        return value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}…"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "(a very large integer)"
    if isinstance(value, bool | int | float | None):
        return value
    return "(list)" if isinstance(value, list) else "(object)"
