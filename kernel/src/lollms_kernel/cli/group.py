"""The group of all commands: built-in ones are imported when needed, those of plugins after them.

What a command raises ends here: a ConfigError is exit code 2, any other LollmsError 1, Ctrl-C 130, each with one
line on stderr that says what is wrong and what cures it.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from typing import Any, Never

import click

from ..errors import ConfigError, LollmsError

MODULES = {
    "init": "init",
    "serve": "serve",
    "chat": "chat",
    "generate": "generate",
    "plugins": "listings",
    "bindings": "listings",
    "pull": "pull",
    "models": "models",
    "ps": "running_models",
    "stop": "running_models",
    "personalities": "personalities",
    "config": "config",
    "keys": "keys",
    "doctor": "doctor",
}
"""Built-in command to the module here that holds it under the same name, in the order of the help page."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


class CommandGroup(click.Group):
    """A group that imports a built-in command when it is called and asks plugins only for what is left."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Built-in commands first, then those of plugins."""
        return [*MODULES, *sorted(self.plugin_commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; a built-in one never loads a plugin."""
        if cmd_name in MODULES:
            command = getattr(import_module(f".{MODULES[cmd_name]}", __package__), cmd_name)
            assert isinstance(command, click.Command)
            return command
        return self.plugin_commands.get(cmd_name)

    @cached_property
    def plugin_commands(self) -> dict[str, click.Command]:
        """What plugins add through `register_commands`; they cannot replace a built-in command."""
        from ..plugins import load_plugins

        found = click.Group()
        for plugin, _ in load_plugins().call_each("register_commands", {"cli": found}):
            for name in found.commands.keys() & MODULES.keys():
                del found.commands[name]
                click.echo(
                    f"lollms: plugin {plugin}: the command '{name}' exists already, ignored.", err=True
                )
        return dict(found.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it; an unknown name is answered with the nearest known one."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            near = get_close_matches(name, self.list_commands(ctx), n=1)
            advice = f"Did you mean '{near[0]}'?" if near else "'lollms --help' lists them."
            ctx.fail(f"No such command '{name}'. {advice}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and turn what it raises into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except LollmsError as error:
            _fail(error.detail, 2 if isinstance(error, ConfigError) else 1)
        except KeyboardInterrupt:
            click.echo(err=True)  # ends the line where the terminal shows ^C
            sys.exit(INTERRUPTED)


def _fail(message: str, code: int) -> Never:
    click.echo(f"lollms: {message}", err=True)
    sys.exit(code)


@click.command(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="lollms-kernel", prog_name="lollms")
def main() -> None:
    """A private server for local models: text, images, speech, and every client you already have.

    Start it with `lollms serve`, talk to it with `lollms chat`. Something does not work? `lollms doctor`.
    """
