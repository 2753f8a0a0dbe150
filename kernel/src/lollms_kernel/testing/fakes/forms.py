"""Bodies of requests as fields, whether they came as JSON or as a form with files."""

from __future__ import annotations

from typing import Any

import msgspec

from .server import Received


class Upload(msgspec.Struct, frozen=True):
    """A file of a form."""

    name: str
    content: bytes
    mime_type: str


def fields_of(request: Received) -> dict[str, Any]:
    """The JSON body, or the fields of a form: texts, and files as `Upload`."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return dict(request.json) if request.body else {}
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    fields: dict[str, Any] = {}
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        lines = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n"))
        facts = dict(item.split("=", 1) for item in lines["content-disposition"].split("; ")[1:])
        name, filename = facts["name"].strip('"'), facts.get("filename")
        if filename is None:
            fields[name] = content.decode()
            continue
        upload = Upload(filename.strip('"'), content, lines.get("content-type", ""))
        number = sum(known == name or known.startswith(f"{name}#") for known in fields)
        fields[f"{name}#{number}" if number else name] = upload
    return fields
