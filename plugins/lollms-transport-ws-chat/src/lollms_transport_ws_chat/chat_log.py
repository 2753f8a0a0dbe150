"""The log of voice chats, in the published format or in the server's own.

`2024-01-15 14:30:25.123 [USER_INPUT] 💬 (user123): AI speaking. Buffering: 'Hello' | current_buffer_size=1`
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from lollms_kernel.config.concealment import without_secrets

from .events import Level

LOGGER = __name__.rpartition(".")[0]
SHOWN = 80
"""Characters of a text that are logged."""

LEVELS: dict[Level, int] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "USER_INPUT": 21,
    "AI_RESPONSE": 22,
    "SESSION": 23,
    "TIMEOUT": 24,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}
_SIGNS = {
    "DEBUG": ("🐛", "36"),
    "INFO": ("ℹ️", "32"),  # noqa: RUF001 - the published sign
    "USER_INPUT": ("💬", "35"),
    "AI_RESPONSE": ("🤖", "34"),
    "SESSION": ("🔗", "1"),
    "TIMEOUT": ("⏱️", "34"),
    "WARNING": ("⚠️", "33"),
    "ERROR": ("❌", "31"),
}


class ChatLog:
    """Writes lines that say which client they are about."""

    def __init__(self, *, show_text: bool = True) -> None:
        self._logger = logging.getLogger(LOGGER)
        self._show_text = show_text
        for name, number in LEVELS.items():
            logging.addLevelName(number, name)

    def write(
        self,
        level: Level,
        client_id: str,
        message: str,
        text: str | None = None,
        *,
        trace: BaseException | None = None,
        **facts: Any,
    ) -> None:
        """One line; `text`, what a person or the model said, is shortened or left out."""
        number = LEVELS[level]
        if not self._logger.isEnabledFor(number):
            return
        if text is not None and self._show_text:
            message = f"{message}: '{shortened(text)}'"
        about = {"client_id": sanitised(client_id), **facts} if client_id else facts
        self._logger.log(number, "%s", sanitised(message), extra={"facts": about}, exc_info=trace)


class DocumentFormatter(logging.Formatter):
    """The published format: `DATE TIME [LEVEL] sign (client_id): Message | key=value`."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever a client has put into it, and a traceback below it where there is one."""
        facts = dict(getattr(record, "facts", None) or {})
        client = facts.pop("client_id", None)
        sign, colour = _SIGNS.get(record.levelname, ("•", "0"))
        level = f"[{record.levelname}]"
        if self._colours:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        about = f" ({client}):" if client else ":"
        rest = "".join(f" | {key}={sanitised(str(value))}" for key, value in facts.items())
        line = f"{self.formatTime(record)} {level} {sign}{about} {sanitised(record.getMessage())}{rest}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return without_secrets(line)


@contextmanager
def document_style(stream: TextIO | None = None) -> Iterator[None]:
    """Write this package's lines in the published format inside, to stderr unless told otherwise."""
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(DocumentFormatter(colours=target.isatty() and not os.environ.get("NO_COLOR")))
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def sanitised(text: str) -> str:
    """The text on one line, with escapes for whatever could forge another line or command a terminal."""
    return "".join(_visible(character) for character in text)


def shortened(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _visible(character: str) -> str:
    if character.isprintable() or character == "\u200d" or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
