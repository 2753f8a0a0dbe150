"""`lollms plugins` and `bindings`: what there is, without a running server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from . import instances, options
from .tables import format_json, show

if TYPE_CHECKING:
    from ..contracts import Binding, InstanceStatus


@click.command()
@options.as_json
def plugins(as_json: bool) -> None:
    """List the plugins, broken ones with error and cure."""
    from ..plugins import load_plugins
    from .opening import quiet

    quiet()
    rows = [msgspec.to_builtins(plugin) for plugin in load_plugins().plugins]
    show(
        rows,
        ("name", "version", "state", "hooks", "error", "hint"),
        as_json=as_json,
        empty="There is no plugin.",
    )


@click.group(invoke_without_command=True)
@options.config_dir
@options.as_json
@click.pass_context
def bindings(context: click.Context, config_dir: Path, as_json: bool) -> None:
    """List the engines: binding types and configured instances.

    With a command: add, change, remove or test an instance, also while the server runs.
    """
    if context.invoked_subcommand is None:
        _list_bindings(config_dir, as_json)
    elif context.get_parameter_source("config_dir") is ParameterSource.COMMANDLINE:
        context.default_map = {context.invoked_subcommand: {"config_dir": str(config_dir)}}


for command in (instances.add, instances.edit, instances.remove, instances.test, instances.reload):
    bindings.add_command(command)


def _list_bindings(config_dir: Path, as_json: bool) -> None:
    from .opening import build_kernel

    kernel = build_kernel(config_dir)
    types = [_type_row(kind) for kind in kernel.binding_types.values()]
    configured = [_instance_row(instance) for instance in kernel.instances()]
    if as_json:
        click.echo(format_json({"types": types, "instances": configured}))
        return
    show(
        [{"kind": "type", **row} for row in types],
        ("kind", "name", "version", "state", "description", "error", "hint"),
        as_json=False,
        empty="No plugin brings a binding; 'lollms plugins' shows what is installed.",
    )
    show(
        [{"kind": "instance", **row} for row in configured],
        ("kind", "name", "type", "state", "default_model", "error", "hint"),
        as_json=False,
        empty="No instance is configured.",
    )


def _type_row(kind: type[Binding]) -> dict[str, Any]:
    from ..doctor.extensions import reason_against

    missing = reason_against(kind)
    return {
        "name": kind.type_name,
        **msgspec.to_builtins(kind.card),
        "state": "unavailable" if missing else "available",
        "error": missing.message if missing else None,
        "hint": missing.hint if missing else None,
    }


def _instance_row(instance: InstanceStatus) -> dict[str, Any]:
    row = msgspec.to_builtins(instance)
    state = "failed" if instance.state == "failed" else "configured"  # nothing was started to look
    return {**row, "state": state, "default_model": instance.settings.get("default_model")}
