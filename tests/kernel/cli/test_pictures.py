"""Pictures and progress on a terminal."""

from __future__ import annotations

import base64
import re

import pytest

from lollms_kernel.cli.answer import Screen, bar
from lollms_kernel.cli.inline_image import ROWS, in_line, protocol_of
from lollms_kernel.dummy import small_png
from lollms_kernel.types import Progress

from .commands import Workplace


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_terminals_that_show_pictures_are_known(environ: dict[str, str], protocol: str | None) -> None:
    assert protocol_of(environ) == protocol


def test_kitty_gets_a_png_in_pieces_that_make_the_file_again() -> None:
    picture = bytes(range(256)) * 40
    shown = in_line(b"\x89PNG\r\n\x1a\n" + picture, "kitty")
    assert shown is not None
    pieces = re.findall("\x1b_G([^;]*);([^\x1b]*)\x1b\\\\", shown)
    assert pieces[0][0] == f"a=T,f=100,r={ROWS},q=2,m=1"
    assert [head for head, _ in pieces[1:]] == ["m=1"] * (len(pieces) - 2) + ["m=0"]
    assert all(len(text) <= 4096 for _, text in pieces)
    assert base64.b64decode("".join(text for _, text in pieces)).endswith(picture)


def test_a_terminal_gets_nothing_that_it_cannot_show() -> None:
    assert in_line(b"\xff\xd8\xff a JPEG", "kitty") is None
    assert in_line(b"\xff\xd8\xff a JPEG", None) is None
    assert in_line(b"\xff\xd8\xff a JPEG", "iterm") is not None


@pytest.mark.parametrize(
    ("step", "total", "shown"),
    [
        (0, 20, "[" + "." * 24 + "] 0/20"),
        (10, 20, "[" + "#" * 12 + "." * 12 + "] 10/20"),
        (9, 0, "[" + "." * 24 + "] 9/0"),
    ],
)
def test_progress_is_a_bar(step: int, total: int, shown: str) -> None:
    assert bar(step, total) == shown


def test_previews_replace_each_other_under_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM_PROGRAM", "WezTerm")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("TMUX", raising=False)
    screen = Screen(pictures=True)
    for step in (1, 2):
        screen.show(Progress(step, 2, small_png(step), "image/png"))
    screen.end()
    said = capsys.readouterr().err
    assert said.count("\x1b]1337;File=inline=1") == 2
    assert said.count("\n" * (ROWS + 1)) == 1  # room is made once
    assert said.count("\x1b7") == said.count("\x1b8") == 2
    assert said.endswith(f"\x1b[{ROWS + 1}B\n")


@pytest.mark.parametrize("words", [[], ["--no-preview"]])
def test_a_finished_picture_is_shown_where_the_terminal_can(workplace: Workplace, words: list[str]) -> None:
    workplace.configure({"painter": {"output_modalities": ["image"]}})
    command = ("generate", "A cat", "--type", "tti", "-o", "cat.png", *words)
    with workplace.terminal(*command, env={"TERM": "xterm-kitty"}) as terminal:
        terminal.expect(r"cat\.png: image/png, \d+ bytes")
        if not words:
            terminal.expect("\x1b_Ga=T,f=100")
        assert terminal.wait() == 0
        assert "\x1b_G" not in terminal.rest
    assert (workplace.root / "cat.png").read_bytes().startswith(b"\x89PNG")
