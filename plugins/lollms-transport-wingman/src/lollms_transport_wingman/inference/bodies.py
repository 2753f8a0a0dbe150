"""Reads bodies: JSON into objects whose depth is bounded, forms into fields and files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest, PayloadTooLarge

MAX_DEPTH = 128
"""Of a JSON body. Real requests have ten levels; schemas of tools perhaps thirty."""
MAX_FORM_PARTS = 64
IN_THREAD = 1 << 20
"""Bodies from this size on are decoded in a thread."""


class Upload(msgspec.Struct, frozen=True):
    """A file of a form."""

    name: str
    data: bytes
    content_type: str


class Form(msgspec.Struct, frozen=True):
    """A form's fields, the last one of each name, and files by name."""

    fields: dict[str, str]
    files: dict[str, list[Upload]]


def read_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds, whatever its Content-Type; {} for an empty one. Raises InvalidRequest."""
    if not body.strip():
        return {}
    value = decode_json(body)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return value


def decode_json(body: bytes) -> Any:
    """Any JSON value. Raises InvalidRequest, also where it is nested more deeply than any request has to be."""
    if _is_deep(body):
        raise InvalidRequest(f"The JSON is nested more than {MAX_DEPTH} levels deep.")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise InvalidRequest("The JSON is nested too deeply.") from None
    except ValueError as error:  # msgspec.DecodeError and UnicodeDecodeError
        raise InvalidRequest(f"The body is no valid JSON: {error}"[:300]) from None


def _is_deep(body: bytes) -> bool:
    """Whether brackets outside of strings are nested too deeply. Only looks closely where there are many."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for outside in _outside_of_strings(body):
        for character in outside.translate(None, _NO_BRACKETS):
            depth += 1 if character in b"[{" else -1
            if depth > MAX_DEPTH:
                return True
    return False


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _outside_of_strings(body: bytes) -> Iterable[bytes]:
    inside = False
    for part in body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"'):
        if not inside:
            yield part
        inside = not inside


def read_form(body: bytes, content_type: str) -> Form:
    """A `multipart/form-data` body. Raises InvalidRequest or PayloadTooLarge."""
    from multipart import (  # type: ignore[import-untyped]
        MultipartError,
        MultipartParser,
        ParserLimitReached,
        parse_options_header,
    )

    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise InvalidRequest(
            "The body must be multipart/form-data.", hint="Send the file as a field of a form."
        )
    fields: dict[str, str] = {}
    files: dict[str, list[Upload]] = {}
    size = len(body)
    try:
        parser = MultipartParser(
            io.BytesIO(body),
            options["boundary"],
            size,
            part_limit=MAX_FORM_PARTS,
            spool_limit=size + 1,
            memory_limit=size + 1,
            disk_limit=1,
        )
        for part in parser:
            if part.filename is None and part.size < IN_THREAD:
                fields[part.name] = part.value
            else:
                files.setdefault(part.name, []).append(
                    Upload(part.filename or "", part.raw, part.content_type)
                )
            part.close()
    except ParserLimitReached:
        raise PayloadTooLarge(f"The form has more than {MAX_FORM_PARTS} parts.") from None
    except (MultipartError, UnicodeDecodeError, ValueError) as error:
        raise InvalidRequest(f"The form cannot be read: {error}"[:300]) from None
    return Form(fields, files)
