"""`{{date}}` and its like in the texts of personalities.

Known are `date`, `time`, `date_time` and `user_name`; every other `{{word}}` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")

_TIMES: Mapping[str, str] = {
    "date": "%A, %B %d, %Y",
    "time": "%H:%M:%S",
    "date_time": "%A, %B %d, %Y %I:%M:%S %p",
}

Clock = Callable[[], datetime]


def expand(text: str, user_name: str, clock: Clock = datetime.now) -> tuple[str, int]:
    """The text with its placeholders filled in, and how many characters come before the first one."""
    if "{{" not in text:
        return text, len(text)
    now = clock()
    values = {name: now.strftime(form) for name, form in _TIMES.items()} | {"user_name": user_name}
    first = next((found.start() for found in _PLACEHOLDER.finditer(text) if found[1] in values), len(text))
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text), first
