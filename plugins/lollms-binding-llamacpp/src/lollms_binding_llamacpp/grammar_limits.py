"""What of a grammar's text is refused before llama.cpp's parser sees it: that calls itself for each nesting."""

from __future__ import annotations

import re

from lollms_kernel.errors import InvalidRequest

MAX_NESTING = 100
MAX_RULES = 4000

_LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\]|#[^\n]*', re.DOTALL)


def check_grammar(text: str) -> None:
    """Raise InvalidRequest for a text that llama.cpp's parser should not even see."""
    if "\0" in text:
        raise InvalidRequest("parameters.grammar has a NUL character.", hint="It must be GBNF.")
    plain = _LITERAL.sub("", text)
    depth = deepest = 0
    for character in plain:
        if character == "(":
            depth += 1
            deepest = max(deepest, depth)
        elif character == ")":
            depth = max(0, depth - 1)
    if deepest > MAX_NESTING or plain.count("::=") > MAX_RULES:
        raise InvalidRequest(
            f"parameters.grammar is too large: {plain.count('::=')} rules, nested {deepest} deep.",
            hint=f"At most {MAX_RULES} rules, nested at most {MAX_NESTING} deep, are taken.",
        )
