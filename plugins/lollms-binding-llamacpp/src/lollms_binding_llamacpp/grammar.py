"""Grammars that bind an answer: checked before llama.cpp reads them, and started by a trigger where they are lazy.

llama.cpp ends the process where a grammar gets a token that it does not allow, or a pattern that is none. So a token is
always tried first, and triggers are looked for here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np

from lollms_kernel.errors import GenerationFailed, InvalidRequest

from .candidates import Candidates
from .grammar_limits import check_grammar
from .native import Vocabulary, complaints
from .parameters import Trigger

LOOKBACK = 4096
"""Bytes of the answer in which triggers are looked for."""

_NESTED_QUANTIFIER = re.compile(r"\([^()]*[*+}][^()]*\)\s*[*+{]")


class Grammar:
    """One grammar at work. Raises InvalidRequest for one that cannot be used."""

    def __init__(self, text: str, vocabulary: Vocabulary, triggers: Sequence[Trigger] = ()) -> None:
        self._vocabulary = vocabulary
        self.pointer = _parse(text, vocabulary)
        self._watch = _Watch(triggers, vocabulary) if triggers else None

    @property
    def binds(self) -> bool:
        """Whether it restricts the next token; a lazy one does so after its trigger."""
        return self._watch is None

    def fits(self, token: int) -> bool:
        """Whether it allows this token next."""
        if not self.binds:
            return True
        single = Candidates(np.array([token], np.int32), np.zeros(1, np.float32))
        single.apply(self.pointer)
        return single.allowed == 1

    def accept(self, token: int) -> None:
        """Go on after a token that `fits`."""
        if self._watch is None:
            llama.llama_sampler_accept(self.pointer, token)
            return
        replay = self._watch.see(token)
        if replay is None:
            return
        self._watch = None
        for part in replay:
            if not self.fits(part):
                raise GenerationFailed(
                    "The model's answer does not fit the grammar from its trigger on.",
                    hint="Let the grammar begin with what the trigger matches.",
                )
            llama.llama_sampler_accept(self.pointer, part)

    def close(self) -> None:
        """Give the memory back."""
        llama.llama_sampler_free(self.pointer)


class _Watch:
    """Looks for a lazy grammar's triggers in an answer."""

    def __init__(self, triggers: Sequence[Trigger], vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokens: set[int] = set()
        self._words: list[bytes] = []
        self._patterns: list[re.Pattern[str]] = []
        self._whole: list[re.Pattern[str]] = []
        self._seen = bytearray()
        self._pieces: list[tuple[int, int]] = []
        for trigger in triggers:
            self._add(trigger)

    def _add(self, trigger: Trigger) -> None:
        if trigger.kind == "token":
            self._vocabulary.check(trigger.token)
            self._tokens.add(trigger.token)
        elif trigger.kind == "word":
            tokens = self._vocabulary.tokenize(trigger.value, special=True)
            if len(tokens) == 1:
                self._tokens.add(tokens[0])
            self._words.append(trigger.value.encode("utf-8", "replace"))
        elif trigger.kind == "pattern":
            self._patterns.append(_pattern(trigger.value))
        else:
            self._whole.append(_pattern(trigger.value))

    def see(self, token: int) -> list[int] | None:
        """The tokens that the grammar has to begin with, once a trigger is there."""
        if token in self._tokens:
            return [token]
        start = len(self._seen)
        self._seen += self._vocabulary.piece(token, special=True)
        self._pieces.append((token, start))
        at = self._found()
        return None if at is None else self._from(at)

    def _found(self) -> int | None:
        base = max(0, len(self._seen) - LOOKBACK)
        recent = bytes(self._seen[base:])
        for word in self._words:
            if (at := recent.find(word)) >= 0:
                return base + at
        if self._patterns or self._whole:
            text = recent.decode("utf-8", "replace")
            found = [pattern.search(text) for pattern in self._patterns]
            if not base:
                found += [pattern.fullmatch(text) for pattern in self._whole]
            for match in found:
                if match is not None:
                    group = next((n for n in range(1, (match.re.groups or 0) + 1) if match.group(n)), 0)
                    return base + len(text[: match.start(group)].encode())
        return None

    def _from(self, at: int) -> list[int]:
        tokens: list[int] = []
        for token, start in self._pieces:
            end = start + len(self._vocabulary.piece(token, special=True))
            if end <= at:
                continue
            if start >= at:
                tokens.append(token)
            else:
                part = bytes(self._seen[at:end])
                tokens += self._vocabulary.spell(part)
        return tokens


def _pattern(text: str) -> re.Pattern[str]:
    if len(text) > 512 or _NESTED_QUANTIFIER.search(text):
        raise InvalidRequest(
            "parameters.grammar_triggers has a pattern that may take for ever.",
            hint="Avoid a repetition inside of a repeated group.",
        )
    try:
        return re.compile(text, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidRequest(
            f"parameters.grammar_triggers has a pattern that is none: {error}",
            hint="Give a regular expression.",
        ) from None


def _parse(text: str, vocabulary: Vocabulary) -> Any:
    check_grammar(text)
    complaints()
    sampler = llama.llama_sampler_init_grammar(vocabulary.pointer, text.encode("utf-8", "replace"), b"root")
    if not sampler:
        reason = "; ".join(complaints()[:2]) or "it has no rule `root`"
        raise InvalidRequest(
            f"parameters.grammar cannot be used: failed to parse grammar: {reason}",
            hint="It must be GBNF with a rule named `root`.",
        )
    return sampler
