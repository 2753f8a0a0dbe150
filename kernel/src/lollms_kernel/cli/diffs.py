"""Shows what a draft changes: files as headings, what goes in red, what comes in green."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..drafts import FileChange

_STYLES = {"+": "green", "-": "red"}


def show_diff(changes: Sequence[FileChange]) -> None:
    """Print the changes, in colours on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for change in changes:
        console.print(Text(f"{change.file} ({change.state})", style="bold"), soft_wrap=True)
        for line in change.lines:
            console.print(Text(f"  {_harmless(line)}", style=_STYLES.get(line[0], "")), soft_wrap=True)


def _harmless(line: str) -> str:
    """The line without characters that would steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in line)
