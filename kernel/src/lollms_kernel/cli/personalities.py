"""`lollms personalities`: what there is, one in full, a new one, what is wrong with them, and trying one out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from ..errors import ConfigError, LollmsError, NotFound
from . import options
from .tables import format_json, show

if TYPE_CHECKING:
    from ..kernel import LocalKernel
    from .partner import Partner

FOUND, FAILED = 1, 1
"""Exit codes: `check` has found something, an example of `test` was not answered."""

_CONFIG = """\
name: {name}
author: {author}
version: "1.0"
language: english
personality_description: One sentence for those who choose a personality.
personality_conditioning: |
  You are {title}.
  Say here who the model is, what it does, and how its answers look.
welcome_message: Hello! What can I do for you?
disclaimer: ""
model_temperature: 0.7
# Texts that end an answer and never appear in it:
anti_prompts: []
# Functions of this server that the model may call; `lollms serve` lists them at /api/v1/list_functions:
functions: []
# `lollms personalities test {id}` runs these:
prompts_list:
  - Who are you?
"""

_SCRIPT = '''\
"""What {name} does with a prompt. It runs in a process of its own, with limits."""


async def run_workflow(prompt, params, context):
    """Return text, a dict, a list of outputs, or an async generator of chunks."""
    binding = context["binding"]
    outline = await binding.generate(f"Make an outline of an answer to: {{prompt}}", params)
    return binding.generate_stream(f"{{prompt}}\\n\\nFollow this outline:\\n{{outline}}", params)
'''


@click.group(invoke_without_command=True)
@options.config_dir
@options.as_json
@click.pass_context
def personalities(context: click.Context, config_dir: Path, as_json: bool) -> None:
    """List the enabled personalities.

    With a command: show, make, check or try out one.
    """
    if context.invoked_subcommand is None:
        _list(config_dir, as_json)
    elif context.get_parameter_source("config_dir") is ParameterSource.COMMANDLINE:
        context.default_map = {context.invoked_subcommand: {"config_dir": str(config_dir)}}


@personalities.command("list")
@options.config_dir
@options.as_json
def list_(config_dir: Path, as_json: bool) -> None:
    """List the enabled personalities."""
    _list(config_dir, as_json)


def _list(config_dir: Path, as_json: bool) -> None:
    found = _kernel(config_dir).personalities.values()
    cards = sorted((personality.card for personality in found), key=lambda card: card.id)
    rows = [{**msgspec.to_builtins(card), "script": _script(card)} for card in cards]
    scripted = ("script",) if any(row["script"] for row in rows) else ()
    show(
        rows,
        ("id", "name", "category", "language", "description", *scripted),
        as_json=as_json,
        empty="There is no personality; put a folder with a config.yaml into paths.personalities_folder.",
    )


@personalities.command("show")
@click.argument("name")
@options.config_dir
@options.as_json
def show_(name: str, config_dir: Path, as_json: bool) -> None:
    """Show all of one personality: NAME is an id, a name or a folder."""
    personality = _kernel(config_dir).find_personality(name)
    card = personality.card
    logo = personality.logo
    facts = {**msgspec.to_builtins(card), "script": _script(card), "logo": str(logo) if logo else None}
    if as_json:
        click.echo(format_json(facts))
        return
    for key, value in facts.items():
        if value not in (None, "", [], {}):
            text = value if isinstance(value, str) else format_json(value)
            click.echo(f"{click.style(key, bold=True)}: {_indented(text)}")


@personalities.command()
@click.argument("id_", metavar="ID")
@click.option("--name", help="The display name. Default: made of the folder's name.")
@click.option("--script", is_flag=True, help="With a workflow that generates in two steps.")
@options.config_dir
def new(id_: str, name: str | None, script: bool, config_dir: Path) -> None:
    """Make a personality to begin with: ID is a folder, or category/folder.

    It is written into paths.personalities_folder, and a running server finds it by itself.
    """
    root = Path(_kernel(config_dir).config.paths.personalities_folder)
    folder = _new_folder(root, id_)
    title = " ".join((name or "").split()) or folder.name.replace("_", " ").replace("-", " ").title()
    text = _CONFIG.format(name=_quoted(title), title=title, author=_quoted(_author()), id=id_)
    if script:
        text += "script_path: scripts/workflow.py\n"
    try:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(text, "utf-8")
        if script:
            (folder / "scripts").mkdir()
            (folder / "scripts" / "workflow.py").write_text(_SCRIPT.format(name=title), "utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}.", hint="See its rights.") from None
    click.echo(f"{folder / 'config.yaml'} is written: edit it, then run: lollms personalities test {id_}")
    if script:
        click.echo(f"Its script runs once personalities_config.{folder.name}.allow_scripts is true.")


@personalities.command()
@click.argument("name", required=False, metavar="[NAME|FOLDER]")
@options.config_dir
@options.as_json
def check(name: str | None, config_dir: Path, as_json: bool) -> None:
    """Say everything that is wrong with personalities, with the cure.

    NAME is an id, a name or a folder's name, FOLDER any folder on disk; without one all are checked. The exit code is
    1 where something was found.
    """
    kernel = _kernel(config_dir)
    rows = [{"id": id, "problem": problem} for id, problem in _problems(kernel, name)]
    show(rows, ("id", "problem"), as_json=as_json, empty="Nothing is wrong.")
    if rows:
        raise SystemExit(FOUND)


def _problems(kernel: LocalKernel, name: str | None) -> Iterator[tuple[str, str]]:
    unusable = kernel.unusable_personalities()
    if name is None:
        yield from sorted(unusable.items())
        for id, personality in sorted(kernel.personalities.items()):
            yield from ((id, problem) for problem in personality.card.problems)
        return
    if name in unusable:
        yield name, unusable[name]
        return
    folder = Path(name)
    if folder.is_dir():
        found = kernel.check_personality_folder(folder.absolute())
        if found is None:
            raise NotFound(f"{folder} holds no personality.", hint="One has a config.yaml or a SOUL.md.")
        yield from ((folder.name, problem) for problem in found)
        return
    card = kernel.find_personality(name).card
    yield from ((card.id, problem) for problem in card.problems)


@personalities.command()
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(min=1), default=5, show_default=True, help="Prompts to run at most."
)
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Run this instead of its own; repeatable."
)
@click.option("--model", metavar="NAME", help="Use this model of the binding.")
@click.option("--binding", metavar="NAME", help="Use this binding instance instead of the default one.")
@click.option("--url", metavar="URL", help="Ask the server at this address.")
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="LOLLMS_API_KEY",
    show_envvar=True,
    help="The key that the server asks for.",
)
@options.config_dir
def test(
    name: str,
    limit: int,
    prompts: tuple[str, ...],
    model: str | None,
    binding: str | None,
    url: str | None,
    api_key: str | None,
    config_dir: Path,
) -> None:
    """Run the example prompts of a personality and print its answers.

    The running server is asked, or else it is answered without one. The exit code is 1 if a prompt got no answer.
    """
    from .conversation import Conversation
    from .partner import open_partner

    card = _kernel(config_dir).find_personality(name).card
    asked = list(prompts or map(filled_in, card.prompts_list))[:limit]
    if not asked:
        click.echo(
            f"'{card.id}' has no example prompts (`prompts_list`); it is asked to introduce itself.", err=True
        )
        asked = ["Introduce yourself."]
    failed = 0
    with open_partner(config_dir, url, api_key) as partner:
        for prompt in asked:
            click.secho(f"> {prompt}", bold=True)
            request = Conversation(card.id, model, binding).ask(prompt)
            failed += not _answered(partner, request)
            click.echo()
    if failed:
        click.echo(f"{failed} of {len(asked)} prompts got no answer.", err=True)
        raise SystemExit(FAILED)


def _answered(partner: Partner, request: Any) -> bool:
    """Whether the prompt got an answer, which is shown."""
    from .answer import Answer, Screen

    answer, screen = Answer(), Screen()
    try:
        answer.receive(partner.ask(request), screen.show)
    except LollmsError as error:
        screen.end()
        click.echo(f"lollms: {error.detail}", err=True)
        return False
    screen.end()
    errors = [output for output in answer.outputs if output.type == "error"]
    for output in errors:
        click.echo(f"lollms: {output.data}", err=True)
    return not errors and bool(answer.text.strip() or answer.outputs or answer.tool_calls)


def filled_in(template: str) -> str:
    """An example prompt without its title, its slots filled with their first option or their name."""
    text = re.sub(r"^@<[^>]*>@", "", template)
    text = re.sub(r"\[([\w ]+)::options::([^,\]]+)[^\]]*\]", r"\2", text)
    return re.sub(r"\[([\w ]+)::[^\]]*\]", r"\1", text).strip()


def _kernel(config_dir: Path) -> LocalKernel:
    from .opening import build_kernel

    return build_kernel(config_dir)


def _script(card: Any) -> str:
    if not (card.is_scripted or card.legacy_script):
        return ""
    return ("legacy, " if card.legacy_script else "") + ("runs" if card.script_enabled else "does not run")


def _new_folder(root: Path, id: str) -> Path:
    parts = id.split("/")
    if len(parts) > 3 or not all(re.fullmatch(r"[^\W_][\w -]{0,99}", part) for part in parts):
        raise ConfigError(
            f"'{id}' is no id of a personality.",
            hint="Use letters, digits, blanks, - and _, in up to three parts: category/folder.",
        )
    folder = root.joinpath(*parts)
    if folder.exists():
        raise ConfigError(f"{folder} is there already.", hint="Choose another id, or edit that one.")
    return folder


def _quoted(text: str) -> str:
    """The text as a YAML value."""
    return text if re.fullmatch(r"[^\W\d][\w ]*", text) else msgspec.json.encode(text).decode()


def _author() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # there is nobody of this number
        return "Unknown"


def _indented(text: str) -> str:
    return "\n  " + text.strip().replace("\n", "\n  ") if "\n" in text else text
