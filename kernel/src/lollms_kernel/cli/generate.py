"""`lollms generate`: one answer, made for pipes."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from ..errors import InvalidRequest, LollmsError
from ..types import GENERATION_TYPES, Media, Output
from . import options
from .answer import Answer, Screen
from .conversation import Conversation, read_lines
from .tables import format_json

_TEXT_MAKERS = ("ttt", "stt")
_PICTURE_MAKERS = ("tti", "i2i")
_PREVIEWS = {"previews": 5}
"""What --preview asks for: one after every so many steps."""
_MEDIA = ("image", "audio", "video")


class Parameter(click.ParamType[tuple[str, Any]]):
    """`key=value`; the value is JSON where it can be read as JSON, else text."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """The pair of name and value."""
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"'{value}' is not of the form key=value.", param, ctx)
        try:
            return key, msgspec.json.decode(text)
        except msgspec.DecodeError:
            return key, text


class Attachment(click.ParamType[tuple[str | None, Path]]):
    """`[ROLE=]FILE`; a file whose own name looks like that is still found."""

    name = "[role=]file"
    _file = click.Path(exists=True, dir_okay=False, path_type=Path)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, Path]:
        """The role, None where the file's type says it, and the file."""
        found = re.fullmatch(r"([a-z_]+)=(.+)", str(value))
        if found is None or Path(value).exists():
            return None, Path(os.fsdecode(self._file.convert(value, param, ctx)))
        return found[1], Path(os.fsdecode(self._file.convert(found[2], param, ctx)))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Files; a shell completes them itself."""
        return self._file.shell_complete(ctx, param, incomplete)


@click.command()
@click.argument("prompt", required=False, metavar="[PROMPT|-]")
@options.answerer
@click.option(
    "--type",
    "generation_type",
    type=click.Choice(GENERATION_TYPES),
    default="ttt",
    show_default=True,
    help="What to make: text to text, image, video, music, speech; speech to text; …",
)
@click.option(
    "--param", "parameters", type=Parameter(), multiple=True, help="A generation parameter; repeatable."
)
@click.option(
    "--attach",
    "attachments",
    type=Attachment(),
    multiple=True,
    metavar="[ROLE=]FILE",
    help="An image, sound, video or document to send along; repeatable. ROLE says what else than the input it is: "
    "mask_image, controlnet_image.",
)
@click.option(
    "--stream/--no-stream", default=True, help="Print text as it comes (default) or when it is whole."
)
@click.option(
    "--preview/--no-preview",
    default=None,
    help="Show pictures in the terminal, where it can; --preview also while they are made.",
)
@options.as_json
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the answer to FILE; further images or sounds to FILE-2, FILE-3 ….",
)
def generate(
    prompt: str | None,
    personality: str | None,
    model: str | None,
    binding: str | None,
    system: str | None,
    url: str | None,
    api_key: str | None,
    config_dir: Path,
    generation_type: str,
    parameters: tuple[tuple[str, Any], ...],
    attachments: tuple[tuple[str | None, Path], ...],
    stream: bool,
    preview: bool | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print one answer, made for scripts and pipes.

    The question is PROMPT, the text of stdin (PROMPT left out or -), or PROMPT followed by the text of stdin.
    Only the answer goes to stdout, all else to stderr.
    """
    from .partner import open_partner

    if generation_type not in _TEXT_MAKERS and output is None and not as_json:
        _refuse_terminal("What this makes")
    if output is not None and not output.parent.is_dir():  # said now, not after the work
        raise click.BadParameter(f"there is no folder '{output.parent}'.", param_hint="--output")
    request = Conversation(personality, model, binding, system).ask(
        _question(prompt),
        media=tuple(_read_media(role, file) for role, file in attachments),
        generation_type=generation_type,
        parameters={
            **(_PREVIEWS if preview and generation_type in _PICTURE_MAKERS else {}),
            **dict(parameters),
        },
    )
    streaming = stream and not as_json and output is None
    answer, screen = Answer(), Screen(text=streaming, pictures=preview is not False)
    with open_partner(config_dir, url, api_key) as partner:
        try:
            answer.receive(partner.ask(request), screen.show)
        finally:
            screen.end()
    if as_json:
        _write(f"{format_json(_as_json(answer))}\n".encode(), output)
    elif answer.outputs:
        _write_outputs(answer, output, text_is_shown=streaming)
        for item in answer.outputs if output is not None else ():
            if item.type == "image" and isinstance(item.data, bytes):
                screen.picture(item.data)
    elif not streaming:
        _write((answer.text if answer.text.endswith("\n") else f"{answer.text}\n").encode(), output)


def _question(prompt: str | None) -> str:
    """The argument, then what stdin holds; raises UsageError if there is neither."""
    parts = [] if prompt in (None, "-") else [prompt]
    if prompt in (None, "-") or _stdin_is_piped():
        if prompt is None and sys.stdin.isatty():
            raise click.UsageError("There is no question: give PROMPT, or '-' to type it (Ctrl-D ends it).")
        parts.append("".join(read_lines(sys.stdin.buffer)).strip())
    return "\n\n".join(part for part in parts if part)


def _stdin_is_piped() -> bool:
    """Whether stdin is a pipe, file or socket: a device such as /dev/null has nothing to add."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_media(role: str | None, file: Path) -> Media:
    mime_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    kind = mime_type.partition("/")[0]
    if kind not in _MEDIA:
        kind = "document"
    return Media(kind, role or f"input_{kind}", file.read_bytes(), mime_type, {"filename": file.name})


# --- writing the answer -----------------------------------------------------------------------------------------


def _as_json(answer: Answer) -> dict[str, Any]:
    """The answer in the shape of a REST response, media as base64."""
    finished = answer.finished
    output: list[dict[str, Any]] = []
    if answer.text or answer.thoughts:
        output.append({"type": "text", "data": answer.text, "thoughts": answer.thoughts or None})
    for item in answer.outputs:
        data = base64.b64encode(item.data).decode() if isinstance(item.data, bytes) else item.data
        output.append(
            {"type": item.type, "data": data, "mime_type": item.mime_type, "metadata": item.metadata}
        )
    return {
        "output": output,
        "tool_calls": answer.tool_calls,
        "notices": answer.notices,
        "finish_reason": finished.reason if finished else None,
        "usage": finished.usage if finished else None,
        "metadata": finished.metadata if finished else {},
    }


def _write_outputs(answer: Answer, output: Path | None, *, text_is_shown: bool) -> None:
    """Write each output to its file, or a single one to stdout; a text beside them goes to stderr."""
    if answer.text and not text_is_shown:
        click.echo(answer.text, err=True)
    if output is None and len(answer.outputs) > 1:
        raise InvalidRequest(
            f"There are {len(answer.outputs)} outputs.", hint="Name a file for them with --output."
        )
    for number, item in enumerate(answer.outputs, start=1):
        data = _bytes_of(item)
        if output is None:
            if isinstance(item.data, bytes):
                _refuse_terminal(f"The answer ({item.mime_type or item.type})")
            _write(data, None)
            continue
        file = output if number == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")
        _write(data, file)
        click.echo(f"{file}: {item.mime_type or item.type}, {len(data)} bytes", err=True)


def _bytes_of(item: Output) -> bytes:
    return item.data if isinstance(item.data, bytes) else f"{format_json(item.data)}\n".encode()


def _refuse_terminal(what: str) -> None:
    if sys.stdout.isatty():
        raise click.UsageError(
            f"{what} is not text for a terminal: name a file with --output, or use --json."
        )


def _write(data: bytes, file: Path | None) -> None:
    if file is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        raise LollmsError(
            f"{file} cannot be written: {error.strerror}.", hint="Choose another --output."
        ) from None
