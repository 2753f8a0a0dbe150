"""The command itself. Only what click needs is imported before it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .flags import ACCEPTED, SAMPLING, flags

HELP_HINT = "Name a GGUF file with --model, or a model of a hub with --hf-repo."


@click.command("llama-server", context_settings={"help_option_names": ["-h", "--help", "--usage"]})
@flags
@click.pass_context
def llama_server(context: click.Context, /, **given: Any) -> None:
    """Serve one GGUF model exactly where and how llama.cpp's llama-server would.

    All of its flags are taken; those without an effect here are told in one line. No configuration is read or written.
    Everything answers 503 until the model is loaded; SIGTERM stops at once.
    """
    from lollms_kernel.errors import ConfigError, LollmsError

    from .serving import serve

    accepted = context.meta.get(ACCEPTED)
    if accepted:
        click.echo(f"llama-server: without effect here: {', '.join(sorted(set(accepted)))}", err=True)
    try:
        code = serve(_model(given), {**given, "sampling": context.meta.get(SAMPLING, {})})
    except LollmsError as error:
        click.echo(f"error: {error.detail}", err=True)
        code = 2 if isinstance(error, ConfigError) else 1
    sys.exit(code)


def _model(given: dict[str, Any]) -> Path:
    """The model file. Raises ConfigError where none is named or it cannot be had."""
    from lollms_kernel.errors import ConfigError

    model, repo, file = given.pop("model"), given.pop("hf_repo"), given.pop("hf_file")
    offline = given.pop("offline")
    if model is not None:
        assert isinstance(model, Path)
        return model
    if repo is None:
        raise ConfigError("No model is named.", hint=HELP_HINT)
    from .hub import fetched

    return fetched(repo, file, offline=offline)
