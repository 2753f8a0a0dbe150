"""Turns a conversation into the text that a model was trained on, with the Jinja template of its file.

Templates come with downloaded files, so they run in Jinja's sandbox: they can build text and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lollms_kernel.errors import GenerationFailed, InvalidRequest, ModelLoadFailed

from .turns import RenderOptions, Turn

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used for models whose file has no template."""

_CURE = "Set `chat_template` in the instance file to a template that works, or the path of one."


class _Refused(Exception):
    """The template called `raise_exception`: these messages do not suit the model."""


class _Generation(jinja2.ext.Extension):
    """Accepts `{% generation %}…{% endgeneration %}`, which marks text for training and means nothing here."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Read the block as if its tags were not there."""
        parser.stream.skip(1)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


class ChatTemplate:
    """One compiled template. Raises ModelLoadFailed if it cannot be compiled."""

    def __init__(self, source: str, bos: str, eos: str) -> None:
        self.source = source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(
            raise_exception=_refuse,
            strftime_now=_strftime_now,
            bos_token=bos,
            eos_token=eos,
            tools=None,
            documents=None,
        )
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelLoadFailed(f"The model's chat template has an error: {error}", hint=_CURE) from error

    @property
    def knows_tools(self) -> bool:
        """Whether it describes tools to the model itself."""
        return "tools" in self.source

    @property
    def thinks(self) -> bool:
        """Whether its model reasons before it answers."""
        return "<think>" in self.source or "enable_thinking" in self.source

    def render(self, turns: Sequence[Turn], options: RenderOptions | None = None) -> tuple[str, bool]:
        """The prompt text, and whether the system message had to go into the first user turn.

        Some templates know no system role; they are asked a second time with its text put before the user's.
        Raises InvalidRequest where the template refuses the messages, GenerationFailed where it is broken.
        """
        options = options or RenderOptions()
        try:
            return self._render(turns, options), False
        except _Refused as refusal:
            folded = _fold_system(turns)
            if folded is not None:
                try:
                    return self._render(folded, options), True
                except _Refused:
                    pass  # the first refusal is about what was really asked
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {refusal}",
                hint="Change the order or the roles of the messages, or send a raw prompt.",
            ) from None

    def _render(self, turns: Sequence[Turn], options: RenderOptions) -> str:
        given: dict[str, Any] = {
            **options.kwargs,
            "messages": list(turns),
            "add_generation_prompt": options.add_generation_prompt,
        }
        if options.tools:
            given["tools"] = list(options.tools)
        try:
            return self._template.render(given)
        except _Refused:
            raise
        except Exception as error:  # a template is a program: whatever it does wrong is the template's fault
            what = f"{type(error).__name__}: {error}"
            raise GenerationFailed(
                f"The model's chat template fails on these messages: {what}", hint=_CURE
            ) from error


def _fold_system(turns: Sequence[Turn]) -> list[Turn] | None:
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    others = [turn for turn in turns if turn["role"] != "system"]
    if not system:
        return None
    if not others or others[0]["role"] != "user":
        return [{"role": "user", "content": system}, *others]
    return [{**others[0], "content": f"{system}\n\n{others[0]['content']}"}, *others[1:]]


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Like the filter of the library that most templates are written for; Jinja's own escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
