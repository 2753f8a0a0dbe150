"""`lollms init`: the wizard, for people and for scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from . import options
from .assignments import assignments, split
from .carrying_out import carry_out

if TYPE_CHECKING:
    from ..wizard import Answers, Preset

FORMATS = ("yaml", "toml", "json", "db")

_MARKS = {"good": ("✓ ", "green"), "bad": ("✗ ", "yellow"), "plain": ("", None)}


@click.command()
@options.config_dir
@click.option("--preset", metavar="NAME", help="Take this preset instead of asking; --list shows all.")
@click.option("--list", "list_presets", is_flag=True, help="List the presets.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the main configuration, e.g. --set server.port=9700.",
)
@click.option(
    "--instance",
    "instance_settings",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="A setting of one of the preset's instances, e.g. --instance my_ollama_cpu.host=http://box:11434.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Format of new files (default yaml; a configuration that is there keeps its own).",
)
@click.option("--make-api-key", is_flag=True, help="Make an API key that clients have to send, and print it.")
@click.option(
    "--encrypt",
    type=click.Choice(("file", "environment")),
    help="Encrypt secrets with a new key, kept in the main file, or printed for LOLLMS_ENCRYPTION_KEY.",
)
@click.option("--start-over", is_flag=True, help="Take away what was configured before.")
@click.option("--no-check", is_flag=True, help="Do not ask the services whether they answer.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: take the preset, the options and the defaults.")
def init(
    config_dir: Path,
    preset: str | None,
    list_presets: bool,
    settings: tuple[str, ...],
    instance_settings: tuple[str, ...],
    form: str | None,
    make_api_key: bool,
    encrypt: Literal["file", "environment"] | None,
    start_over: bool,
    no_check: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Set up a configuration: choose a preset, answer a few questions, look at the changes, done.

    For scripts: `lollms init --preset NAME --yes`, with --set and --instance for what differs. Nothing is written
    before it was shown; what a file held before stays as NAME.bak.
    """
    from ..config.schema import MainConfig
    from ..wizard import PRESETS, Answers, find_preset
    from .opening import build_kernel

    if list_presets:
        for known in PRESETS:
            click.echo(known.name)
        return
    asking = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    if not asking and (preset is None or not (yes or dry_run)):
        raise click.UsageError("Nobody can be asked here: name a preset with --preset and add --yes.")
    types = build_kernel(config_dir).binding_types
    chosen = find_preset(preset) if preset is not None else None
    answers = Answers(
        preset=chosen,
        main=assignments(settings, MainConfig),
        instances=_instances(instance_settings, chosen, types),
        start_over=start_over,
    )
    setup = _Setup(config_dir, types, _extension(config_dir, form), checking=not no_check)
    collected = setup.ask(answers) if asking else setup.check(answers)
    if collected is None:
        click.echo("Nothing was written.", err=True)
        return
    setup.carry_out(collected, make_api_key, encrypt, dry_run=dry_run, asking=asking)


class _Setup:
    """One run of the wizard."""

    def __init__(self, config_dir: Path, types: Any, extension: str, *, checking: bool) -> None:
        from ..drafts import Draft

        self.config_dir = config_dir
        self.types = types
        self.extension = extension
        self.checking = checking
        self.present = Draft(config_dir, types, extension=extension)
        self._encryption: tuple[str, str] | None = None
        self._api_key: str | None = None

    def check(self, answers: Answers) -> Answers:
        """The answers, after their services were asked whether they answer."""
        from ..wizard.checks import check
        from ..wizard.plan import settings_of

        assert answers.preset is not None, "a script names one"
        self._tell_about(answers.preset)
        for part in answers.preset.parts if self.checking else ():
            result = check(part.type, settings_of(part, answers))
            if result is not None:
                _say(f"{part.name}: {result.text}", "good" if result.ok else "bad")
        return answers

    def ask(self, answers: Answers) -> Answers | None:
        """The answers, completed by a person; None if everything shall stay as it is."""
        import msgspec

        from ..wizard import questions

        if self.present.exists and not answers.start_over:
            wish = questions.ask_about_existing(str(self.config_dir), self.present.instances)
            if wish == "leave":
                return None
            answers = msgspec.structs.replace(answers, start_over=wish == "start over")
        if answers.preset is None:
            answers = msgspec.structs.replace(answers, preset=questions.ask_preset(self.types))
        assert answers.preset is not None
        self._tell_about(answers.preset)
        found = questions.ask_settings(answers, _say, checking=self.checking)
        main = dict(answers.main)
        fresh = answers.start_over or not self.present.exists
        if fresh and "server.port" not in main:
            port = questions.ask_port(9601)
            main |= {"server.port": port} if port != 9601 else {}
        if fresh:
            self._api_key = questions.ask_api_key()
        secret = any("key" in name for settings in found.values() for name in settings)
        if fresh and (secret or self._api_key) and not os.environ.get("LOLLMS_ENCRYPTION_KEY"):
            self._encryption = questions.ask_encryption()
        return msgspec.structs.replace(answers, instances=found, main=main)

    def carry_out(
        self, answers: Answers, make_api_key: bool, encrypt: str | None, *, dry_run: bool, asking: bool
    ) -> None:
        """Show, write and tell how it goes on."""
        import msgspec

        from ..config.api_keys import make_key
        from ..config.encryption import VARIABLE, new_key
        from ..drafts import Draft
        from ..wizard import fill

        key, where = self._encryption or ((new_key(), encrypt) if encrypt else (None, None))
        self._api_key = self._api_key or (make_key() if make_api_key else None)
        if key is not None and where == "environment":
            os.environ[VARIABLE] = key  # what is written now is encrypted with it
        answers = msgspec.structs.replace(
            answers, api_key=self._api_key, encryption_key=key if where == "file" else None
        )
        draft = Draft(self.config_dir, self.types, extension=self.extension)
        fill(draft, answers)
        done = carry_out(
            draft,
            config_dir=self.config_dir,
            api_key=os.environ.get("LOLLMS_API_KEY"),
            dry_run=dry_run,
            ask=_agreed if asking else None,
            before_writing=lambda: _tell_key(key if where == "environment" else None),
            instances=[part.name for part in answers.preset.parts] if answers.preset else [],
        )
        if done and self._api_key is not None:
            click.echo(self._api_key)
            click.echo("This is the API key; it is not shown again. Clients send it as X-API-Key.", err=True)

    def _tell_about(self, preset: Preset) -> None:
        for note in preset.notes:
            _say(note, "plain")
        for part in preset.parts:
            if part.type not in self.types:
                from ..drafts import PACKAGES

                package = PACKAGES[part.type]
                _say(f"{part.name} needs a package that is not installed: pip install {package}", "bad")


def _agreed() -> bool:
    from ..wizard import questions

    return questions.confirm("Write these files?")


def _say(text: str, kind: str) -> None:
    mark, colour = _MARKS[kind]
    click.secho(mark + text, fg=colour, err=True)


def _tell_key(key: str | None) -> None:
    if key is not None:
        click.echo(key)
        click.echo(
            "This is the encryption key: set LOLLMS_ENCRYPTION_KEY to it where the server runs."
            " It is not shown again.",
            err=True,
        )


def _extension(config_dir: Path, form: str | None) -> str:
    """The extension of new files. Raises ConfigError where there are files of another format already."""
    from ..config.formats import find_file, format_of
    from ..config.load import MAIN_FILE
    from ..errors import ConfigError

    wanted = f".{form or 'yaml'}"
    present = find_file(config_dir, MAIN_FILE)
    if form is not None and present is not None and wanted not in format_of(present).extensions:
        raise ConfigError(
            f"{present} is there already, in another format than {form}.",
            hint=f"Leave --format out, or do `lollms config convert {form}` first.",
        )
    return wanted


def _instances(texts: tuple[str, ...], preset: Preset | None, types: Any) -> dict[str, dict[str, Any]]:
    """The values of `--instance` by instance. Raises a usage error for one that the preset does not have."""
    known = {part.name: part.type for part in preset.parts} if preset else {}
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, value = split(text)
        name, dot, key = place.partition(".")
        if not dot or not key:
            raise click.UsageError(f"'{text}': write it as NAME.KEY=VALUE.")
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "name the preset with --preset"
            raise click.UsageError(f"The preset has no instance '{name}': {has}.")
        kind = types.get(known[name])
        found.setdefault(name, {}).update(assignments([f"{key}={value}"], kind.Settings if kind else None))
    return found
