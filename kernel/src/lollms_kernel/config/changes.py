"""What differs between two configurations, for people."""

from __future__ import annotations

import json
from typing import Any

from .places import Place, leaves, spell


def differences(before: Any, after: Any) -> list[str]:
    """One line for each value that goes (`- path: value`) or comes (`+ path: value`), in the order of the files."""
    old, new = _lines(before), _lines(after)
    changed = []
    for place in [*old, *(place for place in new if place not in old)]:
        if old.get(place) != new.get(place):
            changed += [f"- {old[place]}"] if place in old else []
            changed += [f"+ {new[place]}"] if place in new else []
    return changed


def _lines(values: Any) -> dict[Place, str]:
    if not values:
        return {}
    return {
        place: f"{spell(place)}: {json.dumps(value, ensure_ascii=False)}" for place, value in leaves(values)
    }
