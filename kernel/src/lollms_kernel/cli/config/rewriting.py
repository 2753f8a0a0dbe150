"""`lollms config migrate` and `convert`: the same configuration in another shape."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options
from .target import instance, open_target, tell


@click.command()
@options.config_dir
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take over a main file from elsewhere, such as the config.toml of lollms_server 0.2.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def migrate(config_dir: Path, source: Path | None, dry_run: bool, yes: bool) -> None:
    """Bring files of lollms_server 0.2 and 0.3 up to date.

    Shows what changes, asks, and rewrites the files; the previous versions stay as NAME.bak. docs/migration.md says
    what happens to each key.
    """
    from ...config.store import save_all
    from ...config.upgrading import upgrade_files
    from ..opening import binding_settings

    upgrade = upgrade_files(config_dir, binding_settings(), source)
    if not upgrade.documents:
        click.echo("Everything is up to date.", err=True)
        return
    for note in upgrade.notes:
        click.echo(note)
    for document in upgrade.documents:
        click.secho(f"\n{document.path}", bold=True)
        tell(document.diff())
    if dry_run:
        return
    if not yes:
        click.confirm("\nWrite this?", abort=True)
    save_all(upgrade.documents)
    click.echo("The files are up to date; the previous versions are beside them as .bak.", err=True)


@click.command()
@click.argument("form", metavar="FORMAT", type=click.Choice(["yaml", "toml", "json", "sqlite"]))
@options.config_dir
@instance
@click.option("--all", "everything", is_flag=True, help="The main file and every instance file.")
def convert(form: str, config_dir: Path, instance: str | None, everything: bool) -> None:
    """Rewrite the main file as yaml, toml, json or sqlite.

    Values, references and encrypted secrets stay as they are; comments are lost. The old file stays as NAME.bak.
    """
    from ...config.conversion import convert_file
    from ...config.formats import format_named
    from ...config.rotation import open_all
    from ...errors import ConfigError
    from ..opening import binding_settings

    wanted = format_named(form)
    documents = (
        open_all(config_dir, binding_settings()) if everything else [open_target(config_dir, instance)]
    )
    for document in documents:
        if not document.exists:
            raise ConfigError(f"There is no {document.path}.", hint="Without a file the defaults hold.")
        if everything and document.path.suffix.lower() in wanted.extensions:
            continue
        click.echo(f"{document.path.name} is {convert_file(document, wanted)} now.", err=True)
