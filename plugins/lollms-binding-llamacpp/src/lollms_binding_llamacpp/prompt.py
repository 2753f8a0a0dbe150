"""Makes the tokens of a prompt, so that nothing a user writes can become a control token.

A chat template mixes its own markers (`<|im_end|>`) with what people wrote, and the tokenizer cannot tell them
apart in the finished text. So before the template runs, a mark is put into every control token's text that occurs
in a message. The rendered text is cut at the marks and the parts are tokenized one by one: no part contains the
whole marker, and the mark itself never reaches the model. Templates still see the messages' text (many look for
`</think>` in it), and text without markers, nearly all, is tokenized in one piece, exactly as llama.cpp's chat does.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from lollms_kernel.errors import ContextOverflow, InvalidRequest, LollmsError

from .turns import RenderOptions, Turn

if TYPE_CHECKING:
    from .chat_template import ChatTemplate

_MARKS = range(0xE000, 0xF900)
"""Private use characters: they mean nothing, so hardly any text has one and no text has all."""
BORDER = 4
"""Tokens at the end of the public part that are not counted as public, since what follows may change them."""
_PUBLIC_KEPT = 64

MAX_COUNTED = 1 << 20
"""Bytes of a prompt up to which an error tells its exact number of tokens."""


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

    def check(self, token: int) -> None:
        """Raise InvalidRequest unless there is this token."""


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation for a template. `public` is the part of the system text, from its beginning, that comes from the
    operator; `answer` is what the answer begins with."""

    turns: list[Turn]
    options: RenderOptions = RenderOptions()
    public: str = ""
    answer: str = ""


class Prompt(msgspec.Struct, frozen=True):
    """The tokens of a prompt and whether the template's lack of a system role had to be worked round.

    The first `public` tokens depend on nothing but the operator's configuration. `text` is what was tokenized, without
    marks; with pictures in it, `parts` are the texts between them instead.
    """

    tokens: list[int]
    system_folded: bool = False
    public: int = 0
    text: str = ""


class PromptMaker:
    """Makes prompts for the model `name`, which has `n_ctx` tokens of context now and was trained for `trained`."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate, n_ctx: int, trained: int, name: str
    ) -> None:
        self.template = template
        self._tokenizer = tokenizer
        self._n_ctx = n_ctx
        self._trained = trained
        self._name = name
        # A marker of a single character could not be cut in two; no known vocabulary has one.
        markers = sorted((text for text in tokenizer.control_texts if len(text) > 1), key=len, reverse=True)
        self._markers = re.compile("|".join(map(re.escape, markers))) if markers else None
        self._public: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()

    def chat(self, chat: Chat) -> Prompt:
        """The prompt that asks for the next turn. Raises ContextOverflow if it is too long."""
        text, folded, mark = self._rendered(chat)
        tokens = self._tokens(text.split(mark))
        public = self._public_tokens(chat, tokens) if chat.public else 0
        return Prompt(tokens, folded, public, text.replace(mark, ""))

    def text(self, chat: Chat) -> str:
        """What the template makes of a conversation."""
        text, _, mark = self._rendered(chat)
        return text.replace(mark, "")

    def parts(self, chat: Chat, marker: str) -> tuple[list[list[str]], bool]:
        """The rendered text between pictures, whose places `marker` shows: each as pieces to tokenize one by one."""
        text, folded, mark = self._rendered(chat)
        return [part.split(mark) for part in text.split(marker)], folded

    def raw(self, text: str) -> Prompt:
        """`text` as it is; whoever sends a raw prompt writes its control tokens. Raises ContextOverflow."""
        return Prompt(self._tokens([text]), text=text)

    def mixed(self, parts: Sequence[int | str]) -> Prompt:
        """Token ids and texts as they are; BOS comes only before a text. Raises InvalidRequest for unknown ids."""
        tokens: list[int] = []
        for part in parts:
            if isinstance(part, str):
                tokens += self._tokens([part]) if not tokens else self._tokenizer.tokenize(part, special=True)
            else:
                self._tokenizer.check(part)
                tokens.append(part)
        if not tokens:
            raise InvalidRequest('"prompt" must not be empty', hint="Send at least one token.")
        self.check_length(len(tokens))
        return Prompt(tokens)

    def check_length(self, count: int) -> None:
        """Raise ContextOverflow unless so many tokens leave room for an answer."""
        if count >= self._n_ctx:
            raise self._overflow(count)

    def pieces(self, pieces: Sequence[str], first: bool) -> list[int]:
        """The tokens of a part of a prompt; the first part gets BOS where the model wants it."""
        if first:
            return self._tokens(pieces)
        return [token for piece in pieces for token in self._tokenizer.tokenize(piece, special=True)]

    def _rendered(self, chat: Chat) -> tuple[str, bool, str]:
        mark = self._unused_mark([chat.turns, chat.options.tools, chat.answer])
        turns = self._cut_all(chat.turns, mark)
        options = msgspec.structs.replace(
            chat.options, tools=tuple(self._cut_all(list(chat.options.tools), mark))
        )
        text, folded = self.template.render(turns, options)
        return text + self._cut(chat.answer, mark), folded, mark

    def _tokens(self, parts: Sequence[str]) -> list[int]:
        size = sum(len(part.encode("utf-8", "replace")) for part in parts)
        least = size // self._tokenizer.longest
        if size > MAX_COUNTED and least >= self._n_ctx:  # known without tokenizing megabytes
            raise self._overflow(least, "at least ")
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
        self.check_length(len(tokens))
        return tokens

    def _overflow(self, count: int, more: str = "") -> ContextOverflow:
        if self._trained > self._n_ctx:
            cure = f"Raise `n_ctx` in the instance file ('{self._name}' was trained for {self._trained}), or send less."
        else:
            cure = "Send less text or fewer earlier turns, or use a model with a larger context."
        return ContextOverflow(
            f"The prompt has {more}{count} tokens; the context of '{self._name}' holds {self._n_ctx},"
            " the answer included.",
            hint=cure,
            n_prompt_tokens=count,
            n_ctx=self._n_ctx,
        )

    # --- what everybody may share ---

    def _public_tokens(self, chat: Chat, tokens: list[int]) -> int:
        """How many leading tokens come from the operator alone.

        They are compared with tokens made of the operator's text and nothing else. It is all of those but a few at the
        border, or none: so the number tells nothing about what a caller wrote.
        """
        system = chat.turns[0]["content"] if chat.turns and chat.turns[0]["role"] == "system" else ""
        if not system.startswith(chat.public):
            return 0
        whole = system == chat.public
        known = self._public.get((chat.public, whole))
        if known is not None and _begins(tokens, known):
            return len(known) - BORDER
        own = self._make_operators_tokens(chat.public, whole)  # again, since templates may tell the date
        self._public[chat.public, whole] = own
        while len(self._public) > _PUBLIC_KEPT:
            self._public.popitem(last=False)
        return len(own) - BORDER if _begins(tokens, own) else 0

    def _make_operators_tokens(self, public: str, whole: bool) -> list[int]:
        border = self._unused_mark([public])
        mark = self._unused_mark([public, border])
        turns: list[Turn] = [
            {"role": "system", "content": self._cut(public, mark) + ("" if whole else border)},
            {"role": "user", "content": border},
        ]
        try:
            text, _ = self.template.render(turns)
            return self._tokens(text.split(border)[0].split(mark))
        except LollmsError:
            return []  # the template wants something else; then nothing is shared

    # --- control tokens' texts ---

    def _cut_all(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            return self._cut(value, mark)
        if isinstance(value, dict):
            return {key: self._cut_all(inner, mark) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._cut_all(inner, mark) for inner in value]
        return value

    def _cut(self, text: str, mark: str) -> str:
        if self._markers is None:
            return text
        while self._markers.search(text):  # again, since one marker may lie within another
            text = self._markers.sub(lambda found: found[0][0] + mark + found[0][1:], text)
        return text

    def _unused_mark(self, values: Any) -> str:
        texts = [self.template.source, *_texts(values)]
        for number in _MARKS:
            if not any(chr(number) in text for text in texts):
                return chr(number)
        raise InvalidRequest(
            "The messages contain every private use character of Unicode.", hint="Leave some out."
        )


def _begins(tokens: list[int], own: list[int]) -> bool:
    count = len(own) - BORDER
    return count > 0 and tokens[:count] == own[:count]


def _texts(value: Any) -> list[str]:
    found: list[str] = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
    return found
