"""Inputs that are not plain text: base64, data: URLs and documents become bytes."""

from __future__ import annotations

import binascii
import re
from urllib.parse import unquote_to_bytes

from ..bodies import Location, Problems
from ..types import Media
from .wire import InputData

_LOOKS_LIKE_BASE64 = re.compile(r"[A-Za-z0-9+/]{24}")
_LONG = 50
"""From this length on, what looks like base64 needs a MIME type (the published rule)."""
_LINE_BREAKS = str.maketrans("", "", "\r\n")
_ADDRESS = re.compile(r"\s*(https?|ftp|file)://\S+\s*", re.IGNORECASE)
_TEXTUAL = re.compile(r"text/|application/(.+\+)?(json|xml|yaml|toml|javascript)\b", re.IGNORECASE)


def read_media(item: InputData, location: Location, problems: Problems) -> Media | None:
    """The item with its data as bytes; None, and a problem noted, where that cannot be."""
    mime_type, data = item.mime_type or None, item.data
    place = (*location, "data")
    if data[:5].lower() == "data:":
        named, content = _read_data_url(data)
        mime_type = mime_type or named
    elif _ADDRESS.fullmatch(data):
        cure = "Send the data itself as base64 or as a data: URL."
        problems.add_value(place, f"addresses are not fetched ({_names(item)}). {cure}", data)
        return None
    elif item.type == "document" and _is_text(data, mime_type):
        mime_type, content = mime_type or "text/plain", data.encode()
    elif mime_type is None and _needs_mime_type(item):
        message = f"mime_type is REQUIRED for likely base64 data of type '{item.type}' (role: {item.role})"
        problems.add_value((*location, "mime_type"), message)
        return None
    else:
        content = _read_base64(data)
    if not content:
        what = "empty" if not data else "not valid base64"
        problems.add_value(place, f"{_names(item)} is {what}. Send base64 or a data: URL.", data)
        return None
    return Media(item.type, item.role, content, mime_type, item.metadata or {})


def _names(item: InputData) -> str:
    return f"data of type '{item.type}' (role: {item.role})"


def _needs_mime_type(item: InputData) -> bool:
    looks = len(item.data) > _LONG and _LOOKS_LIKE_BASE64.match(item.data) is not None
    return item.type != "document" and looks


def _is_text(data: str, mime_type: str | None) -> bool:
    """Whether a document is sent as it reads; else it is base64."""
    if mime_type is not None:
        return _TEXTUAL.match(mime_type) is not None
    return not (len(data) > _LONG and _LOOKS_LIKE_BASE64.match(data) and _read_base64(data))


def _read_data_url(url: str) -> tuple[str | None, bytes | None]:
    """MIME type and content of `data:[type][;parameters][;base64],…`."""
    header, comma, payload = url[5:].partition(",")
    if not comma:
        return None, None
    mime_type, *parameters = header.split(";")
    is_base64 = any(parameter.strip().lower() == "base64" for parameter in parameters)
    return mime_type.strip() or None, _read_base64(payload) if is_base64 else unquote_to_bytes(payload)


def _read_base64(text: str) -> bytes | None:
    """The bytes; None if it is not base64. Line breaks are allowed, as encoders of mails make them."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    try:
        return binascii.a2b_base64(text.translate(_LINE_BREAKS), strict_mode=True)
    except ValueError:  # binascii.Error, or characters that are not ASCII
        return None
