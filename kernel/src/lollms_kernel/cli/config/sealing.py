"""`lollms config encrypt` and `rotate-key`: secrets that nobody reads in the files."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from .. import options


@click.command()
@options.config_dir
def encrypt(config_dir: Path) -> None:
    """Encrypt every secret that stands in a file in clear.

    The key is that of LOLLMS_ENCRYPTION_KEY or security.encryption_key. Backups (NAME.bak) of the files that change are
    encrypted too.
    """
    from ...config.rotation import encrypt as encrypt_documents
    from ...config.rotation import open_all
    from ...config.store import save_all
    from ..opening import binding_settings

    documents = open_all(config_dir, binding_settings())
    counts = encrypt_documents(documents)
    save_all(documents)
    for path, count in counts.items():
        click.echo(f"{path}: {count} encrypted" if count else f"{path}: nothing to encrypt")


@click.command()
@options.config_dir
@click.option(
    "--key-from",
    type=click.File("r"),
    metavar="FILE",
    help="Use the key in this file ('-': stdin) instead of a new random one.",
)
def rotate_key(config_dir: Path, key_from: TextIO | None) -> None:
    """Encrypt all secrets with another key; the first time with a first one.

    The new key goes into security.encryption_key, unless the key comes from the environment: then it is printed, and
    LOLLMS_ENCRYPTION_KEY has to be set to it. All files change together. If the machine dies half-way, set
    LOLLMS_ENCRYPTION_KEY to NEW,OLD and do it again.
    """
    import os

    from ...config.encryption import VARIABLE, new_key
    from ...config.rotation import holds_key, rotate
    from ...config.store import open_main
    from ..opening import binding_settings

    key = key_from.read().strip() if key_from else new_key()
    if not holds_key(open_main(config_dir), os.environ) and key_from is None:
        # before anything is written, so that the key is not lost whatever happens
        click.echo(key)
        click.echo(f"This is the new key: set {VARIABLE} to it before the server starts again.", err=True)
    rotation = rotate(config_dir, binding_settings(), key)
    for path in rotation.files:
        click.echo(f"{path} is encrypted with the new key.", err=True)
    for path in rotation.old_backups:
        click.echo(f"{path} still holds what the old key decrypts: delete it if you can.", err=True)
    if rotation.key_in_main_file:
        click.echo(
            "The key is in security.encryption_key, beside what it protects; safer is to keep it in"
            f" {VARIABLE} and out of the file.",
            err=True,
        )
