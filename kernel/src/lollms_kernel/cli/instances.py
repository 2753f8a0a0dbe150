"""`lollms bindings add|edit|remove|test|reload`: instances changed in the files, and in the server if it runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import BindingUnavailable, LollmsError, Unavailable
from . import options
from .assignments import assignments, split
from .carrying_out import carry_out, tell

if TYPE_CHECKING:
    from ..drafts import Draft
    from ..kernel import LocalKernel

Command = TypeVar("Command", bound=Callable[..., Any])

KINDS = ("ttt", "tti", "tts", "stt", "ttv", "ttm")
TEST_TIMEOUT = 60.0
"""Seconds that an instance may take to name its models; a worker starts in that time too."""

set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting, e.g. --set n_ctx=8192; values are read as YAML. '${NAME}' is an environment variable.",
)
grace_option = click.option(
    "--grace",
    type=click.FloatRange(0, 86400),
    show_default="300",
    metavar="SECONDS",
    help="How long answers under way may go on that use an instance which is changed or removed.",
)
secret_option = click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="KEY",
    help="Ask for this setting without showing it, or take it from a line of stdin.",
)


def _server(command: Command) -> Command:
    """How to reach a running server."""
    for option in reversed(
        (
            click.option(
                "--url",
                metavar="URL",
                help="The running server, if it is not at the address of the configuration.",
            ),
            click.option(
                "--api-key",
                metavar="KEY",
                envvar="LOLLMS_API_KEY",
                show_envvar=True,
                help="The key that it asks for.",
            ),
            options.config_dir,
        )
    ):
        command = option(command)
    return command


def _change(command: Command) -> Command:
    """How a change is made."""
    for option in reversed(
        (
            click.option("--dry-run", is_flag=True, help="Only show what would change."),
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
            grace_option,
        )
    ):
        command = option(command)
    return _server(command)


@click.command()
@click.argument("name")
@click.argument("type_name", metavar="TYPE")
@set_option
@secret_option
@click.option(
    "--default", "kinds", multiple=True, type=click.Choice(KINDS), help="Make it the default for this kind."
)
@_change
def add(name: str, type_name: str, settings: tuple[str, ...], kinds: tuple[str, ...], **how: Any) -> None:
    """Add a binding instance NAME of a binding TYPE.

    A running server takes it into service at once; if it does not open, nothing is changed. Where there is no default
    yet for what it makes, it becomes the default.
    """

    def plan(draft: Draft) -> None:
        kind = draft.require_type(type_name)
        draft.add(name, type_name, assignments(_with_secrets(settings, how), kind.Settings), kinds)

    _make(plan, name, **how)


@click.command()
@click.argument("name")
@set_option
@secret_option
@click.option(
    "--unset", multiple=True, metavar="KEY", help="Take a setting away, so that its default counts."
)
@click.option(
    "--default", "kinds", multiple=True, type=click.Choice(KINDS), help="Make it the default for this kind."
)
@_change
def edit(
    name: str, settings: tuple[str, ...], unset: tuple[str, ...], kinds: tuple[str, ...], **how: Any
) -> None:
    """Change settings of the binding instance NAME.

    A running server opens it anew and lets answers under way end on the old one; other instances go on untouched.
    """

    def plan(draft: Draft) -> None:
        draft.edit(name, assignments(_with_secrets(settings, how), draft.schema_of(name)), unset)
        draft.make_default(name, *kinds)

    _make(plan, name, **how)


@click.command()
@click.argument("name")
@_change
def remove(name: str, **how: Any) -> None:
    """Remove the binding instance NAME.

    Its settings stay as a backup beside the others. Defaults that name it are unset.
    """
    _make(lambda draft: draft.remove(name), None, **how)


@click.command()
@click.argument("name")
@_server
@options.as_json
def test(name: str, config_dir: Path, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Test the binding instance NAME: does it open, and does it name its models?

    A running server tests its own instance; without one it is opened for the test.
    """
    from .running import RunningServer
    from .tables import format_json

    server = RunningServer.find(config_dir, url, api_key)
    outcome = server.test(name) if server else asyncio.run(_test_here(config_dir, name))
    if as_json:
        click.echo(format_json(outcome))
    elif outcome["ok"]:
        models = outcome["models"]
        click.echo(
            f"{name} works: it names {models} model{'' if models == 1 else 's'} ({outcome['seconds']:.1f} s)."
        )
    if not outcome["ok"]:
        raise BindingUnavailable(f"{name} does not work: {outcome['error']}", hint=outcome["hint"])


@click.command()
@grace_option
@_server
def reload(grace: float | None, config_dir: Path, url: str | None, api_key: str | None) -> None:
    """Let the running server take over instances and defaults that were edited by hand.

    Only what has changed is touched; if anything is wrong the server stays as it is.
    """
    from .running import RunningServer

    server = RunningServer.find(config_dir, url, api_key)
    if server is None:
        raise Unavailable("No server runs with this configuration.", hint="`lollms serve` starts it.")
    tell(server.reload(grace))


def _make(
    plan: Callable[[Draft], None],
    name: str | None,
    *,
    config_dir: Path,
    url: str | None,
    api_key: str | None,
    dry_run: bool,
    yes: bool,
    grace: float | None,
    secrets: tuple[str, ...] = (),
) -> None:
    """Plan a change and carry it out; a person at a terminal is asked first."""
    from ..drafts import Draft
    from .opening import build_kernel

    draft = Draft(config_dir, build_kernel(config_dir).binding_types)
    plan(draft)
    asking = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    carry_out(
        draft,
        config_dir=config_dir,
        url=url,
        api_key=api_key,
        grace=grace,
        dry_run=dry_run,
        ask=(lambda: click.confirm("Write it?", default=True)) if asking else None,
        instances=[name] if name else [],
    )


def _with_secrets(settings: tuple[str, ...], how: dict[str, Any]) -> list[str]:
    """The assignments, and those whose values were asked for."""
    for text in settings:
        split(text)
    asked = [f"{key}={_ask(key)}" for key in how.pop("secrets", ())]
    return [*settings, *asked]


def _ask(key: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(key, hide_input=True))
    return sys.stdin.readline().rstrip("\r\n")


async def _test_here(config_dir: Path, name: str) -> dict[str, Any]:
    """What the server would answer, from an instance that is opened for this alone."""
    kernel = _kernel_of(config_dir, name)
    started = time.perf_counter()
    outcome: dict[str, Any] = {"name": name, "ok": False, "models": None, "error": None, "hint": None}
    async with kernel:
        try:
            async with asyncio.timeout(TEST_TIMEOUT):
                outcome |= {"models": len(await kernel.binding(name).list_models()), "ok": True}
        except LollmsError as error:
            outcome |= {"error": error.message, "hint": error.hint}
        except TimeoutError:
            outcome |= {
                "error": f"It did not name its models within {TEST_TIMEOUT:.0f} s.",
                "hint": "'lollms doctor' may know why.",
            }
    return {**outcome, "seconds": time.perf_counter() - started}


def _kernel_of(config_dir: Path, name: str) -> LocalKernel:
    """A kernel with no other configured instance."""
    import msgspec

    from ..config.load import load_config
    from ..kernel import LocalKernel
    from ..plugins import load_plugins
    from .opening import quiet

    quiet()
    loaded = load_config(config_dir)
    if name in loaded.main.bindings_map:
        only = {name: loaded.main.bindings_map[name]}
        loaded = msgspec.structs.replace(loaded, main=msgspec.structs.replace(loaded.main, bindings_map=only))
    kernel = LocalKernel(loaded, load_plugins())
    kernel.instance(name)
    return kernel
