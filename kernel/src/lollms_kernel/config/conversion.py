"""Configuration files rewritten in another format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from ..errors import ConfigError
from .atomic import retire
from .formats import Format
from .store import Document


def convert_file(document: Document, form: Format) -> Path:
    """Write what a document holds in another format and keep the old file as `NAME.bak`; the new file.

    References and encrypted values stay as they are; comments are lost. Raises ConfigError.
    """
    path = document.path.with_suffix(form.extensions[0])
    if document.path.suffix.lower() in form.extensions:
        raise ConfigError(
            f"{document.path} is {form.name.upper()} already.", hint="There is nothing to convert."
        )
    if document.encrypt():
        document.save()  # the backup that it becomes shall not hold secrets in clear
    converted = document.sibling(path)
    if converted.exists:
        raise ConfigError(f"{path} exists already.", hint="Move it away first.")
    values = document.values
    if form.name == "toml" and document.schema is not None:
        values = without_default_nulls(values, document.schema)
    converted.become(values)
    converted.save()
    # Were this to fail, two files would be an error that names both: nothing is lost and nothing runs wrong.
    retire(document.path)
    return path


def without_default_nulls(values: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """The values without the nulls that are defaults anyway: TOML has no null."""
    kind = get_args(schema)[0] if get_origin(schema) is not None else schema
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return dict(values)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    kept: dict[str, Any] = {}
    for key, value in values.items():
        field = fields.get(key)
        if value is None and field is not None and (field.default is None or _is_section(field.type)):
            continue
        inner = isinstance(value, Mapping) and field is not None
        kept[key] = without_default_nulls(value, field.type) if inner and field else value
    return kept


def _is_section(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)
