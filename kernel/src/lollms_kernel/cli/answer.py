"""One answer as it comes: shown on the terminal, and kept as a whole for who needs it afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import click

from ..errors import error_from_code
from ..types import Chunk, Failed, Finished, Info, Notice, Output, Progress, TextDelta, ThoughtDelta, ToolCall
from .inline_image import ROWS, in_line, protocol_of

BAR = 24
"""Width of a progress bar."""

_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\n\t"}


@dataclass
class Answer:
    """What was received of an answer so far; `finished` is set when it is whole."""

    text: str = ""
    thoughts: str = ""
    outputs: list[Output] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    finished: Finished | None = None
    _block: int = 0

    def receive(self, chunks: Generator[Chunk, None, None], show: Callable[[Chunk], None]) -> None:
        """Take all chunks, showing each one. Raises the error of a Failed; what came before stays here."""
        with closing(chunks):
            for chunk in chunks:
                self._add(chunk)
                show(chunk)

    def _add(self, chunk: Chunk) -> None:
        match chunk:
            case TextDelta(text=text):
                self.text += text
            case ThoughtDelta(text=text, block=block):
                self.thoughts += f"\n\n{text}" if self.thoughts and block != self._block else text
                self._block = block
            case Output():
                self.outputs.append(chunk)
            case ToolCall():
                self.tool_calls.append(chunk)
            case Notice():
                self.notices.append(chunk)
            case Finished():
                self.finished = chunk
            case Failed():
                raise error_from_code(chunk.code, chunk.message, hint=chunk.hint)
            case _:
                pass  # Info and Progress are only of the moment


class Screen:
    """Shows chunks: the text on stdout, what is about the answer on stderr, dim.

    Thoughts and progress are shown to people only. Text for a terminal loses its control characters: a model must
    not be able to steer the terminal.
    """

    def __init__(self, *, text: bool = True, pictures: bool = False) -> None:
        self._text = text
        self._out_is_terminal = sys.stdout.isatty()
        self._err_is_terminal = sys.stderr.isatty()
        self._open: str | None = None
        """Which kind of text the cursor stands in; None at the beginning of a line."""
        self._at_line_start = True
        self._pictures = protocol_of() if pictures and self._err_is_terminal else None
        self._below = 0
        """Lines under the cursor that a preview takes."""

    def show(self, chunk: Chunk) -> None:
        """Show one chunk at once."""
        match chunk:
            case TextDelta(text=text) if self._text:
                self._write("text", text)
            case ThoughtDelta(text=text, end=end) if self._err_is_terminal:
                self._write("thought", text)
                if end:
                    self.end()
            case Progress() if self._err_is_terminal:
                self._progress(chunk)
            case Info(content=content):
                self.note(content if isinstance(content, str) else _in_words(content))
            case Notice(message=message):
                self.note(message)
            case _:
                pass  # outputs, tool calls and the end are for the caller

    def note(self, text: str) -> None:
        """Say something about the answer, on a line of its own on stderr."""
        self.end()
        click.secho(printable(text), dim=True, err=True)

    def end(self) -> None:
        """Finish the line that the cursor stands in."""
        if self._below:
            click.echo(f"\x1b[{self._below}B", nl=False, err=True)
            self._below = 0
        if self._open is not None and not self._at_line_start:
            click.echo(err=self._open != "text")
        self._open = None
        self._at_line_start = True

    def _progress(self, progress: Progress) -> None:
        if self._open != "progress":
            self.end()
            self._open, self._at_line_start = "progress", False
        click.secho(f"\r{bar(progress.step, progress.total)}", dim=True, nl=False, err=True)
        picture = in_line(progress.preview, self._pictures) if progress.preview else None
        if picture is None:
            return
        if not self._below:  # make room under the bar once, so that nothing scrolls between two previews
            self._below = ROWS + 1
            click.echo("\n" * self._below + f"\x1b[{self._below}A", nl=False, err=True)
        click.echo(f"\x1b7\r\x1b[1B{picture}\x1b8", nl=False, err=True)

    def picture(self, data: bytes) -> None:
        """Show a finished picture on stderr, where the terminal can."""
        shown = in_line(data, self._pictures)
        if shown is not None:
            self.end()
            click.echo(shown, err=True)

    def _write(self, kind: str, text: str) -> None:
        if self._open != kind:
            self.end()
            self._open = kind
        if kind == "thought":
            click.secho(printable(text), dim=True, nl=False, err=True)
        else:
            click.echo(printable(text) if self._out_is_terminal else text, nl=False)
        if text:
            self._at_line_start = text.endswith("\n")


def bar(step: int, total: int) -> str:
    """How far it is, as a bar and as numbers."""
    done = round(BAR * min(step, total) / total) if total > 0 else 0
    return f"[{'#' * done}{'.' * (BAR - done)}] {step}/{total}"


def printable(text: str) -> str:
    """The text without control characters except line feeds and tabs."""
    return text.translate(_CONTROLS)


def _in_words(content: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in content.items())
