"""What a docstring says: of the function, and of each of its parameters."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Params):\s*$", re.IGNORECASE)
_OTHER_SECTION = re.compile(r"^(Returns?|Raises?|Yields?|Examples?|Notes?):\s*$", re.IGNORECASE)
_ENTRY = re.compile(r"^\s+\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")
_FIELD = re.compile(r"^:param\s+(?:[\w\[\], .|]+\s+)?(?P<name>\w+):\s*(?P<text>.*)$")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and name to text of the parameters: an `Args:` section, or `:param name:` lines."""
    description: list[str] = []
    parameters: dict[str, list[str]] = {}
    current: list[str] | None = None
    inside = ""
    for line in inspect.cleandoc(text).splitlines():
        if _SECTION.match(line):
            inside, current = "parameters", None
        elif _OTHER_SECTION.match(line) or line.startswith((":return", ":raise", ":rtype")):
            inside, current = "other", None
        elif found := _FIELD.match(line):
            inside = "fields"
            current = parameters.setdefault(found["name"], [])
            current.append(found["text"])
        elif inside == "parameters" and (found := _ENTRY.match(line)) and _indent(line) <= 4:
            current = parameters.setdefault(found["name"], [])
            current.append(found["text"])
        elif current is not None and line.startswith(" "):
            current.append(line)
        elif inside == "parameters" and line and not line.startswith(" "):
            inside, current = "", None
            description.append(line)
        elif not inside:
            description.append(line)
    said = {name: " ".join(" ".join(lines).split()) for name, lines in parameters.items()}
    return "\n".join(description).strip(), said


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
