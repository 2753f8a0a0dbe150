"""`python -m lollms_kernel.config.json_schema` prints the JSON Schema of main_config, for editors."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import click
import msgspec

from .migrations import VERSION_KEY
from .schema import MainConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"

REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
"""A text that stands for an environment variable may be where a number or a truth value belongs."""

_VERSION = {"description": "The version of the schema that wrote the file.", "type": ["string", "number"]}


def main_schema() -> dict[str, Any]:
    """The schema of `main_config.*`."""
    return json_schema(MainConfig, "Configuration of the lollms server")


def json_schema(settings: type[msgspec.Struct], title: str) -> dict[str, Any]:
    """What a file may hold that is read as `settings`: null stands for an empty section, references for anything."""
    (schema,), parts = msgspec.json.schema_components(
        [_with_plain_defaults(settings)], schema_hook=_plain, ref_template="#/$defs/{name}"
    )
    objects = {name: _tolerant(_for_editors(part)) for name, part in parts.items()}
    root = objects.pop(schema["$ref"].rpartition("/")[2])
    root["properties"] = {VERSION_KEY: _VERSION, **root["properties"]}
    return {"$schema": DIALECT, **root, "title": title, **({"$defs": objects} if objects else {})}


def _for_editors(schema: Any) -> Any:
    """The schema with patterns as JavaScript spells them."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\A", "^").replace(r"\Z", "$") if key == "pattern" else _for_editors(value)
            for key, value in schema.items()
        }
    return [_for_editors(item) for item in schema] if isinstance(schema, list) else schema


def _tolerant(schema: Any) -> Any:
    """The schema of an object whose members may be null or references where the server takes these."""
    members = schema.get("properties", {})
    return {**schema, "properties": {name: _member(member) for name, member in members.items()}}


def _member(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") in ("integer", "number", "boolean"):
        return _or(schema, REFERENCE)
    if schema.get("type") == "object" or "$ref" in schema:
        return _or(schema, {"type": "null"})
    return schema


def _or(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    shared: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    own = {key: value for key, value in schema.items() if key not in shared}
    return {**shared, "anyOf": [own, other]}


def _with_plain_defaults(settings: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same settings with texts for defaults that are paths, which msgspec cannot put into a schema."""
    fields = msgspec.structs.fields(settings)
    if not any(isinstance(field.default, PurePath) for field in fields):
        return settings
    members: list[Any] = []
    for field in fields:
        if field.required:
            members.append((field.encode_name, field.type))
        elif field.default_factory is not msgspec.NODEFAULT:
            members.append(
                (field.encode_name, field.type, msgspec.field(default_factory=field.default_factory))
            )
        else:
            plain = str(field.default) if isinstance(field.default, PurePath) else field.default
            members.append((field.encode_name, field.type, plain))
    strict = settings.__struct_config__.forbid_unknown_fields
    return msgspec.defstruct(
        settings.__name__,
        members,
        kw_only=True,
        forbid_unknown_fields=strict,
        namespace={"__doc__": settings.__doc__},
    )


def _plain(kind: type) -> dict[str, Any]:
    """The types that msgspec does not know: paths, which settings may use."""
    if issubclass(kind, PurePath):
        return {"type": "string"}
    raise NotImplementedError


def formatted(schema: dict[str, Any]) -> str:
    """The schema as the text of a file."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()


if __name__ == "__main__":
    click.echo(formatted(main_schema()))
