"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def _resolve(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path:
    from ..config.load import resolve_config_dir

    return resolve_config_dir(value, os.environ)


config_dir = click.option(
    "--config-dir",
    callback=_resolve,
    envvar="LOLLMS_CONFIG_DIR",
    show_default="lollms_configs",
    show_envvar=True,
    metavar="DIR",
    help="The folder of main_config.yaml; without any file the defaults hold.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def answerer(command: Command) -> Command:
    """Who answers: server or configuration, and which binding, model and personality there."""
    for option in reversed(
        (
            click.option("--personality", metavar="NAME", help="Answer as this personality."),
            click.option("--model", metavar="NAME", help="Use this model of the binding."),
            click.option(
                "--binding", metavar="NAME", help="Use this binding instance instead of the default one."
            ),
            click.option("--system", metavar="TEXT", help="Instructions that precede the conversation."),
            click.option(
                "--url",
                metavar="URL",
                help="Ask the server at this address. Default: the one of the configuration if it runs, "
                "else answer without a server.",
            ),
            click.option(
                "--api-key",
                metavar="KEY",
                envvar="LOLLMS_API_KEY",
                show_envvar=True,
                help="The key that the server asks for.",
            ),
            config_dir,
        )
    ):
        command = option(command)
    return command


def server(command: Command) -> Command:
    """Which running server is meant."""
    for option in (
        config_dir,
        click.option(
            "--api-key",
            metavar="KEY",
            envvar="LOLLMS_API_KEY",
            show_envvar=True,
            help="The key that the server asks for.",
        ),
        click.option(
            "--url", metavar="URL", help="The server at this address instead of the configuration's."
        ),
    ):
        command = option(command)
    return command
