"""All files of a configuration at once: secrets encrypted, or moved to a new key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ..errors import ConfigError
from .atomic import Change, backup_of, replace_files
from .encryption import SETTING, VARIABLE, Keys, UndecryptableError, is_encrypted
from .faults import Fault, config_error
from .formats import EXTENSIONS
from .load import load_config
from .places import leaves
from .references import has_reference
from .store import Document, open_instance, open_main

Kinds = Mapping[str, type[msgspec.Struct]]
"""The settings of each binding type that is installed."""


def open_all(config_dir: Path, kinds: Kinds, environ: Mapping[str, str] | None = None) -> list[Document]:
    """The main file and every instance file that exist, the main file first. Raises ConfigError."""
    loaded = load_config(config_dir, environ, lenient=True)
    main = open_main(loaded.config_dir, environ)
    instances = [
        open_instance(loaded, name, kinds.get(kind), environ)
        for name, kind in loaded.main.bindings_map.items()
    ]
    return [document for document in (main, *instances) if document.exists]


class Rotation(msgspec.Struct, frozen=True):
    """What a change of keys did."""

    files: tuple[Path, ...]
    key_in_main_file: bool
    """Whether the main file holds the new key; else whoever sets the environment has to set it there."""
    old_backups: tuple[Path, ...]
    """Backups of files that are not there any more: they still hold what the old key decrypts."""


def holds_key(main: Document, environ: Mapping[str, str]) -> bool:
    """Whether the main file is where the key is kept, or will be if there is none yet."""
    try:
        configured = main.get(SETTING)
    except KeyError:
        configured = None
    return not environ.get(VARIABLE) and not (isinstance(configured, str) and has_reference(configured))


def rotate(config_dir: Path, kinds: Kinds, key: str, environ: Mapping[str, str] | None = None) -> Rotation:
    """Encrypt every secret anew with `key`. Raises ConfigError with nothing changed.

    All new contents are on the disk before the first file is replaced. Should the machine die between two files, each
    one can still be decrypted with one of the two keys: the main file, if it holds the key, holds both until the last
    file is done, and where the environment holds it, `NEW,OLD` there decrypts all. Rotating again finishes the work.
    """
    environ = os.environ if environ is None else environ
    main, *instances = open_all(config_dir, kinds, environ) or [open_main(config_dir, environ)]
    in_main = holds_key(main, environ)
    both = main.keys.before(key)
    if in_main:
        main.set(SETTING, both.text)
    changes = [_reencrypted(document, both) for document in (main, *instances) if document.exists or in_main]
    if in_main:
        main.saved(changes[0])
        main.set(SETTING, key)
        changes.append(main.change())
    # A backup shall not hold what the old key decrypts, nor that key: it may be the reason for the change.
    last = {change.path: change.data for change in changes}
    replace_files([msgspec.structs.replace(change, backup=last[change.path]) for change in changes])
    return Rotation(tuple(last), in_main, tuple(_old_backups(last)))


def _old_backups(files: Iterable[Path]) -> Iterator[Path]:
    for file in files:
        for extension in EXTENSIONS:
            backup = backup_of(file.with_suffix(extension))
            if extension != file.suffix and backup.exists():
                yield backup


def _reencrypted(document: Document, keys: Keys) -> Change:
    document.use(keys)
    faults = []
    for place, value in list(leaves(document.values)):
        if isinstance(value, str) and is_encrypted(value):
            try:
                document.set(place, keys.encrypt(keys.decrypt(value)))
            except UndecryptableError as error:
                faults.append(Fault(place, f"{error}."))
    if faults:
        raise config_error(
            str(document.path), faults, hint="Set the key that it was encrypted with; nothing was changed."
        )
    return document.change()


def encrypt(documents: Sequence[Document]) -> dict[Path, int]:
    """Encrypt the secrets that stand in these documents in clear, without saving; how many in each.

    Raises ConfigError if there is no key.
    """
    if not all(document.keys for document in documents):
        raise ConfigError(
            "There is no encryption key.",
            hint=f"Set {VARIABLE} or {SETTING}; `lollms config rotate-key` makes one and encrypts everything.",
        )
    return {document.path: document.encrypt() for document in documents}
