"""Configuration files, opened for edits and saved as a whole.

    document = open_main(config_dir)
    document.set("server.port", 9700)
    document.save()

Values are as the file has them: `${NAME}` is a reference (`references.escape` takes a text as it is), `enc:…` is
encrypted. Saving keeps comments, encrypts secrets where a key is set, checks the result against the schema, keeps the
previous version as `NAME.bak`, and refuses to overwrite what somebody else wrote in the meantime.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError
from .api_keys import is_hash
from .atomic import Change, replace_files
from .changes import differences
from .decode import examine
from .encryption import SETTING, WHOLE_FILE, Keys, find_keys, is_encrypted
from .faults import config_error
from .files import read_bytes
from .formats import Editor, find_file, format_of, parse_mapping
from .load import (
    MAIN_FILE,
    LoadedConfig,
    check_main,
    configured_key,
    decrypted_file,
    instance_file,
    with_identity,
)
from .migrations import VERSION, VERSION_KEY, upgrade_instance, upgrade_main
from .places import Place, drop, parse_place, put, value_at
from .plain import bounded
from .references import BadReferenceError, expand
from .resolve import resolve
from .schema import MainConfig
from .secrets import masked, secret_places

Check = Callable[["Document"], None]

NO_KEYS = Keys(None, SETTING)


class Document:
    """One configuration file; nothing is written before `save`."""

    def __init__(
        self,
        path: Path,
        *,
        schema: type[msgspec.Struct] | None = None,
        keys: Callable[[Document], Keys] = lambda document: NO_KEYS,
        check: Check = lambda document: None,
    ) -> None:
        self.path = path
        self.schema = schema
        """What the values are meant for; None if that is not known."""
        self._keys = keys
        self._check = check
        self._before = read_bytes(path) if os.path.lexists(path) else None
        self.values: dict[str, Any] = {}
        data = self._before or b""
        self._load(decrypted_file(data, path, self.keys) if data.startswith(WHOLE_FILE) else data)

    def _load(self, data: bytes) -> None:
        self._original = data
        # a copy without shared parts: what an alias of YAML repeats is edited where it stands
        self.values = bounded(parse_mapping(data, self.path), str(self.path)) if data else {}
        self.original_values = deepcopy(self.values)
        self._editor: Editor | None = None

    @property
    def exists(self) -> bool:
        """Whether the file was there when it was read."""
        return self._before is not None

    @property
    def keys(self) -> Keys:
        """The keys that secrets of this file are encrypted with."""
        return self._keys(self)

    @property
    def changed(self) -> bool:
        """Whether saving would write something."""
        return not same(self.values, self.original_values)

    def get(self, path: str | Place) -> Any:
        """What the file has at a path. Raises KeyError where it has nothing."""
        return value_at(self.values, _place(path))

    def set(self, path: str | Place, value: Any) -> None:
        """Put a plain value at a path; sections on the way are created. Raises ConfigError."""
        place = _place(path)
        value = bounded(value, str(self.path))
        values = deepcopy(self.values)
        put(values, place, deepcopy(value))
        self._edit(lambda editor: editor.put(place, value), values)

    def remove(self, path: str | Place) -> None:
        """Take a value away, so that its default counts. Raises KeyError where nothing is."""
        place = _place(path)
        values = deepcopy(self.values)
        drop(values, place)
        self._edit(lambda editor: editor.drop(place), values)

    def become(self, values: Mapping[str, Any]) -> None:
        """Make whatever edits lead to these values."""
        self._approach((), self.values, values)

    def encrypt(self) -> int:
        """Encrypt every secret that stands there in clear, if there is a key; how many these were."""
        keys, count = self.keys, 0
        if not keys:
            return 0
        for place, text in list(secret_places(self.values, self.schema)):
            plain = _clear_text(text)
            if plain is not None and place != parse_place(SETTING):
                self.set(place, keys.encrypt(plain))
                count += 1
        return count

    def diff(self) -> list[str]:
        """What saving would change, line by line, with secrets masked."""
        return differences(masked(self.original_values, self.schema), masked(self.values, self.schema))

    def use(self, keys: Keys) -> None:
        """Encrypt with these keys from now on."""
        self._keys = lambda document: keys

    def sibling(self, path: Path) -> Document:
        """A document for the same thing at another path."""
        return Document(path, schema=self.schema, keys=self._keys, check=self._check)

    def check(self) -> None:
        """Raise ConfigError if the values do not fit the schema."""
        self._check(self)

    def save(self) -> None:
        """Write the file if something changed. Raises ConfigError, with nothing written."""
        save_all([self])

    def change(self) -> Change:
        """The new content, checked; secrets are encrypted by now."""
        self.encrypt()
        if not self.exists and VERSION_KEY not in self.values:
            self.values = {VERSION_KEY: VERSION, **self.values}
        self.check()
        return Change(path=self.path, data=self._content(), before=self._before, backup=self._backup())

    def saved(self, change: Change) -> None:
        """Go on from what was written."""
        self._before = change.data
        self._load(change.data)

    def _edit(self, edit: Callable[[Editor], None], values: dict[str, Any]) -> None:
        """Change text and values alike, where there is a text to keep."""
        form = format_of(self.path)
        if self._original and form.edit is not None:
            if self._editor is None:
                self._editor = form.edit(self._original, str(self.path))
            try:
                edit(self._editor)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise self._cannot_edit() from error
        self.values = values

    def _content(self) -> bytes:
        if self._editor is None:
            return self._original if not self.changed else format_of(self.path).write(self.values)
        try:
            data = self._editor.text().encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{self.path} cannot hold a text that is not valid Unicode.", hint="Correct that text."
            ) from None
        # What the edit made is what counts: read it as the server will.
        if not same(parse_mapping(data, self.path), self.values):
            raise self._cannot_edit()
        return data

    def _cannot_edit(self) -> ConfigError:
        return ConfigError(
            f"{self.path} is written in a way that cannot be edited automatically; nothing was written.",
            hint="Edit it by hand, or let `lollms config convert` write it anew.",
        )

    def _backup(self) -> bytes | None:
        """The previous version, its secrets encrypted too: they shall not outlive encryption in a backup."""
        if self._before is None or not self.keys:
            return None
        previous = Document(self.path, schema=self.schema, keys=lambda document: self.keys)
        if previous._before != self._before:
            return None  # somebody else was here; that is told when the file is replaced
        return previous._content() if previous.encrypt() else None

    def _approach(self, place: Place, old: Any, new: Mapping[str, Any]) -> None:
        for key in [key for key in old if key not in new]:
            self.remove((*place, key))
        for key, value in new.items():
            here = (*place, key)
            if key in old and isinstance(old[key], dict) and isinstance(value, Mapping) and value:
                self._approach(here, value_at(self.values, here), value)
            elif key not in old or not same(old[key], value):
                self.set(here, value)


def save_all(documents: Sequence[Document]) -> None:
    """Write several files, all or none, in this order; unchanged ones are left alone."""
    changes = [
        (document, document.change()) for document in documents if document.changed or not document.exists
    ]
    if not changes:
        return
    replace_files([change for _, change in changes])
    for document, change in changes:
        document.saved(change)


def read(path: Path) -> Document:
    """Any configuration file, without knowledge of what it is for."""
    return Document(path)


def open_main(
    config_dir: Path, environ: Mapping[str, str] | None = None, *, extension: str = ".yaml"
) -> Document:
    """The main configuration of a folder; where there is none, a new file with this extension."""
    environment = os.environ if environ is None else environ

    def keys(document: Document) -> Keys:
        return find_keys(configured_key(document.values, environment), environment)

    def check(document: Document) -> None:
        upgraded = upgrade_main(document.values, str(document.path))
        check_main(upgraded, str(document.path), environment, lenient=True)

    path = find_file(config_dir, MAIN_FILE) or config_dir / f"{MAIN_FILE}{extension}"
    return Document(path, schema=MainConfig, keys=keys, check=check)


def open_instance(
    loaded: LoadedConfig,
    name: str,
    settings: type[msgspec.Struct] | None,
    environ: Mapping[str, str] | None = None,
) -> Document:
    """The settings file of a binding instance, checked against the binding's `Settings` where these are known."""
    known_keys = loaded.keys(environ)
    path = instance_file(loaded, name)

    def check(document: Document) -> None:
        upgraded = upgrade_instance(document.values, str(path))
        values, _ = resolve(upgraded.values, NO_KEYS, {}, lenient=True)
        filled = with_identity(values, loaded, name, path)
        found = examine(filled, settings)[1] if settings is not None else []
        faults = [fault for fault in found if not (upgraded.older and fault.unknown)]
        if faults:
            raise config_error(str(path), faults)

    return Document(path, schema=settings, keys=lambda document: known_keys, check=check)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same, types included; the order of keys does not count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or one != one


def _place(path: str | Place) -> Place:
    return parse_place(path) if isinstance(path, str) else path


def _clear_text(text: Any) -> str | None:
    """The secret that a text of a file is in clear; None if it is encrypted, a hash or a reference."""
    if not isinstance(text, str) or not text or is_encrypted(text) or is_hash(text):
        return None
    try:
        return expand(text, {})
    except BadReferenceError:
        return None
