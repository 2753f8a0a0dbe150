"""Changes of the configuration's files: planned, shown, written as a whole, and taken back if they do not work.

    draft = Draft(config_dir, binding_types)
    draft.add("local", "llamacpp_binding", {"n_ctx": 8192})
    for change in draft.diff():
        ...
    undo = draft.write()

One way for the wizard, `lollms bindings` and the admin routes alike. Nothing is written before `write`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from .config.atomic import backup_of
from .config.changes import differences
from .config.decode import examine
from .config.describe import shown
from .config.faults import Fault, did_you_mean
from .config.load import LoadedConfig, check_main, instance_file, load_config
from .config.migrations import VERSION, VERSION_KEY, upgrade_instance, upgrade_main
from .config.places import Place, put, value_at
from .config.resolve import MASK, resolve
from .config.schema import InstanceName
from .config.secrets import masked, secret_places
from .config.snapshot import Snapshot
from .config.store import NO_KEYS, Document, open_instance, open_main, save_all
from .contracts import Binding
from .errors import BindingNotFound, ConfigError

MAIN_KINDS = {"text": "ttt", "image": "tti", "audio": "tts", "video": "ttv"}
"""What a binding makes to the kind of generation that it becomes the default of, where there is none."""

PACKAGES = {
    "llamacpp_binding": "lollms-binding-llamacpp",
    "ollama_binding": "lollms-binding-ollama",
    "openai_binding": "lollms-binding-openai",
    "dalle_binding": "lollms-binding-openai",
    "gemini_binding": "lollms-binding-gemini",
    "gemini_image_binding": "lollms-binding-gemini",
    "diffusers_binding": "lollms-binding-diffusers",
}
"""The published binding types and the packages that bring them."""


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a draft changes in one file; secrets are masked."""

    file: str
    """Relative to the configuration folder where it lies inside."""
    state: Literal["new", "changed", "removed"]
    lines: tuple[str, ...]
    """`- path: value` for what goes, `+ path: value` for what comes."""


class Draft:
    """Edits of one configuration folder. Every method raises ConfigError for what cannot be."""

    def __init__(
        self, config_dir: Path, types: Mapping[str, type[Binding]], *, extension: str = ".yaml"
    ) -> None:
        self._loaded = load_config(config_dir)
        self._types = types
        self.main = open_main(config_dir, extension=extension)
        self._instances: dict[str, Document] = {}
        self._removed: dict[str, Document] = {}

    # --- what is there ---

    @property
    def exists(self) -> bool:
        """Whether there is a main configuration file already."""
        return self.main.exists

    @property
    def instances(self) -> Mapping[str, str]:
        """Name to binding type of every configured instance, as the draft has it."""
        return self._planned().main.bindings_map

    def settings(self, name: str) -> dict[str, Any]:
        """The settings of an instance as its file has them, secrets masked. Raises BindingNotFound."""
        document = self._instance(name)
        found: dict[str, Any] = masked(document.values, document.schema)
        found.pop(VERSION_KEY, None)
        return found

    def schema_of(self, name: str) -> type[msgspec.Struct] | None:
        """What the settings of an instance are checked against, if its type is installed. Raises BindingNotFound."""
        return self._instance(name).schema

    def file_of(self, name: str) -> str:
        """The settings file of an instance, relative to the configuration folder."""
        return self._short(instance_file(self._planned(), name))

    def require_type(self, type_name: str) -> type[Binding]:
        """The class of a binding type. Raises ConfigError with the package to install."""
        kind = self._types.get(type_name)
        if kind is not None:
            return kind
        package = PACKAGES.get(type_name)
        known = ", ".join(sorted(self._types))
        guess = did_you_mean(type_name, self._types).removeprefix("; ").capitalize()
        raise ConfigError(
            f"No installed plugin has the binding type {shown(type_name)}.",
            hint=f"Install it: `pip install {package}`." if package else guess or f"There are: {known}.",
        )

    # --- edits ---

    def add(
        self, name: str, type_name: str, settings: Mapping[str, Any], default_for: Sequence[str] = ()
    ) -> None:
        """A new instance; it becomes the default of what it mainly makes where there is no default yet."""
        if name in self.instances:
            raise ConfigError(
                f"There is an instance {shown(name)} already.",
                hint="Choose another name, or change it with `lollms bindings edit`.",
            )
        _check_name(name)
        kind = self.require_type(type_name)
        self.place(name, type_name, settings)
        made = kind.card.supported_output_modalities[:1]
        wanted = [MAIN_KINDS[modality] for modality in made if modality in MAIN_KINDS]
        free = [one for one in wanted if getattr(self._planned().main.defaults, f"{one}_binding") is None]
        self.make_default(name, *default_for, *free)

    def make_default(self, name: str, *kinds: str) -> None:
        """Let an instance serve these kinds of generation (`ttt`, …) when a request names none."""
        for kind in kinds:
            self.main.set(("defaults", f"{kind}_binding"), name)

    def place(self, name: str, type_name: str, settings: Mapping[str, Any]) -> None:
        """An instance of this type with exactly these settings, whether there was one or not.

        A secret that is given as `***` keeps its value, or is left out where there is none. The type need not be
        installed.
        """
        _check_name(name)
        before = self.instances.get(name)
        if before != type_name:
            self.main.set(("bindings_map", name), type_name)
        document = self._instance(name, fresh=before not in (None, type_name))
        values = {"type": type_name, **settings}
        if values["type"] != type_name:
            raise ConfigError(
                f"The settings say type {shown(values['type'])}, but it is {shown(type_name)}.",
                hint="Leave `type` out of the settings.",
            )
        version = {VERSION_KEY: VERSION} if VERSION_KEY in document.values else {}
        document.become({**version, **_unmasked(values, document)})

    def edit(self, name: str, changes: Mapping[str, Any], unset: Sequence[str] = ()) -> None:
        """Set and take away single settings, by their paths. Raises BindingNotFound."""
        document = self._instance(name)
        for path, value in changes.items():
            document.set(path, value)
        for path in unset:
            try:
                document.remove(path)
            except KeyError:
                raise ConfigError(
                    f"The instance {shown(name)} does not set {path}.",
                    hint=f"It sets: {', '.join(document.values) or 'nothing'}.",
                ) from None

    def remove(self, name: str) -> None:
        """Take an instance away; defaults that name it are unset. Its file stays as `NAME.bak`."""
        document = self._instance(name)
        defaults = self._planned().main.defaults
        for key in defaults.__struct_fields__:
            if getattr(defaults, key) == name:
                self.main.remove(("defaults", key))
        self.main.remove(("bindings_map", name))
        self._instances.pop(name, None)
        if document.exists:
            self._removed[name] = document

    # --- the result ---

    @property
    def changed(self) -> bool:
        """Whether `write` would change anything."""
        return bool(self.diff())

    def diff(self) -> list[FileChange]:
        """What `write` changes, file by file, the main one first."""
        changes = [self._change(document) for document in (self.main, *self._instances.values())]
        gone = [
            FileChange(
                file=self._short(document.path),
                state="removed",
                lines=tuple(differences(masked(document.original_values, document.schema), {})),
            )
            for document in self._removed.values()
        ]
        return [*(change for change in changes if change is not None), *gone]

    def faults(self, name: str) -> list[Fault]:
        """What is wrong with the settings of an instance; [] too if its type is not installed."""
        document = self._instance(name)
        if document.schema is None:
            return []
        upgraded = upgrade_instance(document.values, str(document.path))
        values, _ = resolve(upgraded.values, NO_KEYS, {}, lenient=True)
        return examine({"binding_instance_name": name, **values}, document.schema)[1]

    def check(self) -> None:
        """Raise ConfigError for what `write` would refuse."""
        self.main.check()
        for document in self._instances.values():
            document.check()

    def write(self) -> Callable[[], None]:
        """Check and write everything, or nothing; gives what takes it back."""
        # the main file comes last, so that it never names an instance whose file is not there yet
        documents = [*self._instances.values(), self.main]
        paths = [document.path for document in (*documents, *self._removed.values())]
        before = Snapshot([*paths, *map(backup_of, paths)])
        self.main.check()  # also where only an instance changes
        save_all([document for document in documents if self._change(document) is not None])
        for document in self._removed.values():
            os.replace(document.path, backup_of(document.path))
        return before.restorer()

    # --- inside ---

    def _planned(self) -> LoadedConfig:
        """The configuration as it will be; what cannot be resolved in this environment passes."""
        document = self.main
        where = str(document.path)
        main, _ = check_main(upgrade_main(document.values, where), where, os.environ, lenient=True)
        return msgspec.structs.replace(self._loaded, main=main, file=document.path)

    def _instance(self, name: str, *, fresh: bool = False) -> Document:
        if name in self._instances and not fresh:
            return self._instances[name]
        planned = self._planned()
        if name not in planned.main.bindings_map:
            known = ", ".join(sorted(planned.main.bindings_map)) or "none"
            raise BindingNotFound(f"Binding instance {shown(name)} not found.", hint=f"Configured: {known}.")
        kind = self._types.get(planned.main.bindings_map[name])
        document = open_instance(planned, name, kind.Settings if kind else None)
        inline = self._loaded.inline_instances.get(name)
        if inline is not None and not document.exists and not fresh:
            document.become(inline)
        self._instances[name] = document
        return document

    def _change(self, document: Document) -> FileChange | None:
        lines = tuple(document.diff())
        state: Literal["new", "changed"] = "changed" if document.exists else "new"
        if not document.changed:
            return None
        return FileChange(file=self._short(document.path), state=state, lines=lines)

    def _short(self, path: Path) -> str:
        folder = self._loaded.config_dir
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def folder_id(config_dir: Path) -> str:
    """A text that tells configuration folders apart without naming them."""
    return hashlib.sha256(str(config_dir).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _check_name(name: str) -> None:
    try:
        msgspec.convert(name, InstanceName)
    except msgspec.ValidationError:
        raise ConfigError(
            f"{shown(name)} is no name for an instance.",
            hint="Use letters, digits, `_`, `-` and `.`, and begin with a letter or digit.",
        ) from None


def _unmasked(values: Mapping[str, Any], document: Document) -> dict[str, Any]:
    """The values with the document's own secrets where they say `***`."""
    result: dict[str, Any] = {**values}
    for place, value in list(secret_places(result, document.schema)):
        if value == MASK:
            _put_back(result, place, document)
    return result


def _put_back(values: dict[str, Any], place: Place, document: Document) -> None:
    try:
        put(values, place, value_at(document.original_values, place))
    except KeyError:
        raise ConfigError(
            f"{'.'.join(map(str, place))} is `{MASK}`, which stands for the present secret, and there is none.",
            hint="Give the secret, or leave it out.",
        ) from None
