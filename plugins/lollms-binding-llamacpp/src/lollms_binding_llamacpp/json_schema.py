"""Makes a grammar of a JSON schema, or refuses it: an answer is never left unbound.

The schema comes from a caller, so its size, depth and repetitions are bounded before anything works on it.
"""

from __future__ import annotations

import json
from typing import Any

from lollms_kernel.errors import InvalidRequest

from .grammar_limits import check_grammar

MAX_DEPTH = 64
MAX_PARTS = 20_000
MAX_REPETITION = 1000
MAX_GBNF = 2**20
TYPES = frozenset("object array string number integer boolean null".split())
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")


def schema_grammar(text: str) -> str:
    """GBNF for a JSON schema. Raises InvalidRequest for what cannot be made one."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is not JSON: {error}") from None
    if schema is True or schema == {}:
        schema = {"type": "object"}
    if not isinstance(schema, dict):
        raise _refused("it is not an object")
    _check(schema)
    if "$ref" in schema and len(schema) > 1:  # beside a reference the converter looks at nothing
        schema = {**schema, "anyOf": [{"$ref": schema["$ref"]}]}
        del schema["$ref"]
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        grammar = str(json_schema_to_gbnf(json.dumps(schema)))
    except RecursionError:
        raise _refused("it refers to itself without end") from None
    except Exception as error:  # the converter raises whatever its own assertions and lookups raise
        raise _refused(f"{type(error).__name__}: {str(error)[:200]}") from None
    if len(grammar) > MAX_GBNF:
        raise _refused(f"its grammar would have {len(grammar)} characters")
    check_grammar(grammar)
    return grammar


def _check(schema: Any) -> None:
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    parts = 0
    while waiting:
        value, depth = waiting.pop()
        parts += 1
        if depth > MAX_DEPTH or parts > MAX_PARTS:
            raise _refused(f"it is nested more than {MAX_DEPTH} deep, or has more than {MAX_PARTS} parts")
        if isinstance(value, dict):
            _check_counts(value)
            reference = value.get("$ref")
            if isinstance(reference, str) and not reference.startswith("#"):
                raise _refused(f"it refers to {reference[:80]!r}; only references within it are followed")
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _check_counts(schema: dict[str, Any]) -> None:
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, bool) or (isinstance(count, int | float) and not 0 <= count <= MAX_REPETITION):
            raise _refused(f"{name} is {count!r}; 0 to {MAX_REPETITION} can be enforced")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_REPETITION:
        raise _refused(f"its pattern has {len(pattern)} characters")


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"parameters.json_schema cannot be made a grammar: {reason}",
        hint="Use a JSON schema without remote references; or give a GBNF grammar as `grammar`.",
    )
