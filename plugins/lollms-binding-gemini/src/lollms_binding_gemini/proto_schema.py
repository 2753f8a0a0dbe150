"""JSON schemas in the form that Google's protocol had before it took JSON schemas."""

from __future__ import annotations

from typing import Any

_SAME = ("description", "required", "nullable", "format")
_NUMBERS = {"maxItems": "max_items", "minItems": "min_items"}
_WITHOUT_MEANING = ("$schema", "$id", "title", "additionalProperties", "default", "examples", "strict")
"""What a model does not miss."""
MAX_DEPTH = 32


def simplified(schema: Any, depth: int = 0) -> tuple[dict[str, Any], bool]:
    """The schema as a protocol message, and whether everything that means something is in it."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {"type": "STRING"}, False
    kind, nullable, whole = _kind(schema)
    result: dict[str, Any] = {"type": kind, **({"nullable": True} if nullable else {})}
    for name, value in schema.items():
        if name in _SAME:
            result[name] = value
        elif name in _NUMBERS:
            result[_NUMBERS[name]] = value
        elif name == "enum" and isinstance(value, list):
            result["enum"] = [str(item) for item in value]
            whole = whole and all(isinstance(item, str) for item in value)
        elif name == "items":
            result["items"], inner = simplified(value, depth + 1)
            whole = whole and inner
        elif name == "properties" and isinstance(value, dict):
            described = {key: simplified(inner, depth + 1) for key, inner in value.items()}
            result["properties"] = {key: inner for key, (inner, _) in described.items()}
            whole = whole and all(complete for _, complete in described.values())
        elif name != "type" and name not in _WITHOUT_MEANING:
            whole = False
    return result, whole


def _kind(schema: dict[str, Any]) -> tuple[str, bool, bool]:
    """Its one type, whether null may stand for it, and whether it has no other types."""
    kind = schema.get("type")
    kinds = [item for item in kind if item != "null"] if isinstance(kind, list) else [kind]
    nullable = isinstance(kind, list) and "null" in kind
    if not kinds or not isinstance(kinds[0], str):
        return (
            ("OBJECT" if "properties" in schema else "STRING"),
            nullable,
            kind is None and "properties" in schema,
        )
    return kinds[0].upper(), nullable, len(kinds) == 1
