"""Makes the tokens of a prompt, so that nothing a user writes can become a control token.

A chat template mixes its own markers (`<|im_end|>`) with what people wrote, and the tokenizer cannot tell them
apart in the finished text. So before the template runs, a mark is put into every control token's text that occurs
in a message. The rendered text is cut at the marks and the parts are tokenized one by one: no part contains the
whole marker, and the mark itself never reaches the model. Templates still see the messages' text (many look for
`</think>` in it), and text without markers, nearly all, is tokenized in one piece, exactly as llama.cpp's chat does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from lollms_kernel.errors import ContextOverflow, InvalidRequest
from lollms_kernel.types import Message

from .chat_template import ChatTemplate

_MARKS = range(0xE000, 0xF900)
"""Private use characters: they mean nothing, so hardly any text has one and no text has all."""


class Tokenizer(Protocol):
    """What is needed of a model's vocabulary."""

    bos: int
    add_bos: bool

    @property
    def longest(self) -> int:
        """Bytes of its longest token."""

    @property
    def control_texts(self) -> tuple[str, ...]:
        """Texts that the tokenizer turns into control tokens."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids; with `special`, control tokens' texts become control tokens."""


class Prompt(msgspec.Struct, frozen=True):
    """The tokens of a prompt and whether the template's lack of a system role had to be worked round."""

    tokens: list[int]
    system_folded: bool = False


class PromptMaker:
    """Makes prompts for the model `name`, which has `n_ctx` tokens of context now and was trained for `trained`."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, n_ctx: int, trained: int, name: str
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._n_ctx = n_ctx
        self._trained = trained
        self._name = name
        # A marker of a single character could not be cut in two; no known vocabulary has one.
        markers = sorted((text for text in tokenizer.control_texts if len(text) > 1), key=len, reverse=True)
        self._markers = re.compile("|".join(map(re.escape, markers))) if markers else None

    def chat(self, messages: Sequence[Message]) -> Prompt:
        """The prompt that asks for the next turn after `messages`. Raises ContextOverflow if it is too long."""
        mark = self._unused_mark(messages)
        safe = [
            msgspec.structs.replace(message, content=self._cut(message.content, mark)) for message in messages
        ]
        text, folded = self._template.render(safe)
        return Prompt(self._tokens(text.split(mark)), folded)

    def raw(self, text: str) -> Prompt:
        """`text` as it is; whoever sends a raw prompt writes its control tokens. Raises ContextOverflow."""
        return Prompt(self._tokens([text]))

    def _tokens(self, parts: Sequence[str]) -> list[int]:
        least = sum(len(part.encode("utf-8", "replace")) for part in parts) // self._tokenizer.longest
        if least >= self._n_ctx:  # known without tokenizing megabytes
            raise self._overflow(f"at least {least}")
        tokens: list[int] = []
        for part in parts:
            tokens += self._tokenizer.tokenize(part, special=True)
        bos = self._tokenizer.bos
        if bos >= 0 and tokens[:1] != [bos] and (self._tokenizer.add_bos or not tokens):
            tokens.insert(0, bos)  # many templates write it themselves, and two confuse models
        if not tokens:
            raise InvalidRequest(
                "The prompt is empty.", hint="Send some text; this model cannot begin with nothing."
            )
        if len(tokens) >= self._n_ctx:
            raise self._overflow(str(len(tokens)))
        return tokens

    def _overflow(self, count: str) -> ContextOverflow:
        if self._trained > self._n_ctx:
            cure = f"Raise `n_ctx` in the instance file ('{self._name}' was trained for {self._trained}), or send less."
        else:
            cure = "Send less text or fewer earlier turns, or use a model with a larger context."
        return ContextOverflow(
            f"The prompt has {count} tokens; the context of '{self._name}' holds {self._n_ctx}, the answer included.",
            hint=cure,
        )

    def _cut(self, text: str, mark: str) -> str:
        if self._markers is None:
            return text
        while self._markers.search(text):  # again, since one marker may lie within another
            text = self._markers.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        return text

    def _unused_mark(self, messages: Sequence[Message]) -> str:
        texts = [self._template.source, *(message.content for message in messages)]
        for number in _MARKS:
            if not any(chr(number) in text for text in texts):
                return chr(number)
        raise InvalidRequest(
            "The messages contain every private use character of Unicode.", hint="Leave some out."
        )
