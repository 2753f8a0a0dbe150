"""`python -m lollms_kernel.cli.reference` prints docs/cli.md: the help page of every built-in command."""

from __future__ import annotations

from collections.abc import Iterator

import click

from .group import MODULES, CommandGroup, main

WIDTH = 100

INTRODUCTION = """\
# The `lollms` command

Written by `make docs` from the commands themselves. Plugins may add more commands.

Every command ends with one of these exit codes: 0 it worked, 1 it failed, 2 the configuration or the command line
is wrong, 130 Ctrl-C. What is wrong goes to stderr as one line that starts with `lollms:` and names the cure.
"""


def reference() -> str:
    """The whole page as Markdown."""
    assert isinstance(main, CommandGroup)
    with click.Context(main, info_name="lollms", terminal_width=WIDTH, **main.context_settings) as context:
        pages = [page for name in MODULES for page in _pages(context, main, name)]
    return "\n".join([INTRODUCTION, *pages])


def _pages(parent: click.Context, group: click.Group, name: str) -> Iterator[str]:
    """The page of a command, and those of its subcommands."""
    command = group.get_command(parent, name)
    assert command is not None
    with click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH) as context:
        words = context.command_path.removeprefix("lollms ")
        yield "\n".join(_lines(words, command.get_help(context)))
        if isinstance(command, click.Group):
            for inner in command.commands:
                yield from _pages(context, command, inner)


def _lines(name: str, text: str) -> Iterator[str]:
    yield f"### lollms {name}" if " " in name else f"## `lollms {name}`"
    yield ""
    yield "```text"
    yield from (line.rstrip() for line in text.splitlines())
    yield "```"
    yield ""


if __name__ == "__main__":
    click.echo(reference(), nl=False)
