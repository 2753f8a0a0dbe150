"""The models that an instance offers: the packaged one, folders and .safetensors files of a folder, permitted hub ids.

A request's model name is only ever compared with the names of this listing, never joined to a path, so no name
leads out of the folder. Pickled weights are never opened: reading one may run any program.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from lollms_kernel.errors import ModelLoadFailed, ModelNotFound
from lollms_kernel.types import ModelInfo

from . import hub
from .pipeline_kinds import IMAGES, Kind, kind_of
from .weights import PICKLED, choose_weights

logger = logging.getLogger(__name__)

PACKAGED = Path(__file__).parent / "models"
DEMONSTRATION = "lollms-shapes"
"""The name of the packaged demonstration model."""
INDEX = "model_index.json"
OWN_FACTS = "lollms_model.json"
"""A file in a model's folder with what diffusers has no field for; see `Facts`."""

_MAX_JSON = 1 << 20


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults of one model, and what it says of itself."""

    description: str = ""
    license: str | None = None
    fixed_size: int | None = None
    """It draws squares of this edge only; other sizes are enlarged or reduced afterwards."""
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """One model: where its files lie and what kind of pipeline it is."""

    name: str
    where: Literal["folder", "file", "hub"]
    path: Path | None = None
    """Of a hub's model its folder in the cache; None: nothing of it was fetched yet, so its kind is not known."""
    class_name: str | None = None
    parts: tuple[str, ...] = ()
    """The folders of a folder that its pipeline is made of."""
    kind: Kind = IMAGES
    facts: Facts = Facts()
    problem: str | None = None
    """Why it cannot be loaded."""


class Library:
    """The models of one instance. Its methods read files: call them in a thread."""

    def __init__(
        self, folder: Path, hub_models: tuple[str, ...] = (), default: str | None = None,
        packaged: Path = PACKAGED,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.hub_models = hub_models
        self.default = default
        self.packaged = packaged

    def sources(self) -> list[ModelSource]:
        """Every model: those of the folder in alphabetical order, permitted hub ids, the packaged ones."""
        found: dict[str, ModelSource] = {}
        for source in self._all():
            found.setdefault(source.name, source)
        return list(found.values())

    def find(self, name: str | None) -> ModelSource:
        """The model called `name`, by default the instance's own, else the first. Raises ModelNotFound."""
        wanted, sources = name or self.default, self.sources()
        for candidate in (wanted, f"{wanted}.safetensors"):
            for source in sources:
                if wanted is None or source.name == candidate:
                    return source
        if wanted is not None and wanted.lower().endswith(PICKLED):
            raise ModelLoadFailed(
                f"'{wanted[:80]}' is a pickle: opening it may run any program, so it is not opened.",
                hint="Use the model's .safetensors file, or convert it on a machine that you can lose.",
            )
        known = ", ".join(source.name for source in sources[:5]) or "none"
        raise ModelNotFound(
            f"There is no image model '{str(wanted)[:80]}'.",
            hint=f"Known: {known}. Put a diffusers folder or a .safetensors file into {self.folder.name}/; "
            "hub ids need `allow_downloads` and a place in `hub_models`.",
        )

    def obtain(self, name: str | None) -> ModelSource:
        """As `find`; of a hub's model that is not here its description is fetched. Raises ModelLoadFailed too."""
        source = self.find(name)
        if source.where != "hub" or source.path is not None:
            return source
        if not (hub.fetch_descriptions(source.name, (INDEX, OWN_FACTS)) / INDEX).is_file():
            raise ModelLoadFailed(
                f"'{source.name}' is no model of diffusers: it has no {INDEX}.",
                hint="Name a repository in the format of diffusers in `hub_models`.",
            )
        return _of_hub(source.name)

    def _all(self) -> Iterator[ModelSource]:
        yield from sorted(_scan(self.folder, "", depth=1), key=lambda source: source.name.casefold())
        for name in self.hub_models:
            yield _of_hub(name)
        yield from sorted(_scan(self.packaged, "", depth=0), key=lambda source: source.name)


def _of_hub(name: str) -> ModelSource:
    folder = hub.cached(name, INDEX)
    if folder is None:
        return ModelSource(name=name, where="hub")
    return msgspec.structs.replace(read_folder(folder, name), where="hub")


def _scan(folder: Path, prefix: str, depth: int) -> Iterator[ModelSource]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("The models folder %s cannot be read: %s", folder, error.strerror)
        return
    for entry in entries:
        path, name = folder / entry.name, prefix + entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if (path / INDEX).is_file():
                yield read_folder(path, name)
            elif depth and not entry.name.endswith(CONFIG_SUFFIX):
                yield from _scan(path, f"{name}/", depth - 1)
        elif entry.name.lower().endswith(".safetensors"):
            facts = read_folder(config, name) if (config := config_folder(path)).is_dir() else None
            yield ModelSource(
                name=name,
                where="file",
                path=path,
                class_name=facts.class_name if facts else None,
                kind=facts.kind if facts else IMAGES,
                problem=facts.problem if facts else None,
            )


CONFIG_SUFFIX = ".config"


def config_folder(file: Path) -> Path:
    """Where the configuration of a single-file checkpoint lies: `NAME.config/` beside `NAME.safetensors`."""
    return file.with_suffix(CONFIG_SUFFIX)


def read_folder(path: Path, name: str) -> ModelSource:
    """What a diffusers folder holds; one that cannot be loaded has the reason in `problem`."""
    try:
        index = _read_json(path / INDEX)
        facts = (
            msgspec.convert(_read_json(path / OWN_FACTS), Facts) if (path / OWN_FACTS).is_file() else Facts()
        )
    except (OSError, msgspec.MsgspecError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return ModelSource(name=name, where="folder", path=path, problem=f"{INDEX} cannot be read: {reason}")
    class_name = index.get("_class_name")
    problem = _problem(path, index)
    class_name = class_name if isinstance(class_name, str) else None
    return ModelSource(
        name=name,
        where="folder",
        path=path,
        class_name=class_name,
        kind=kind_of(class_name or ""),
        parts=tuple(_parts(index)),
        facts=facts,
        problem=problem,
    )


def _read_json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return msgspec.json.decode(file.read(_MAX_JSON), type=dict[str, Any])


def _problem(path: Path, index: dict[str, Any]) -> str | None:
    """Why a folder with this index is not loaded: it would run code that comes with it."""
    if not isinstance(index.get("_class_name"), str):
        return f"{INDEX} names no pipeline of diffusers; pipelines that bring their own code are not run"
    for part in _parts(index):
        if any((path / part).glob("*.py")):
            return f"its part '{part}' brings its own code, which is not run"
    return None


def _parts(index: dict[str, Any]) -> Iterator[str]:
    for part, value in index.items():
        if not part.startswith("_") and isinstance(value, list) and len(value) == 2 and value[0] is not None:
            yield part


def weight_files(source: ModelSource, *, half: bool = False) -> tuple[str | None, list[Path]]:
    """The variant of the weights and the files that a model is loaded from; see `choose_weights`."""
    if source.path is None or source.where == "file":
        return None, [] if source.path is None else [source.path]
    names = (file.relative_to(source.path).as_posix() for file in source.path.glob("**/*.safetensors"))
    variant, chosen = choose_weights(names, source.parts, half=half)
    return variant, [source.path / name for name in chosen]


def has_pickles(path: Path) -> bool:
    """Whether the folder has pickled weights."""
    return any(file.suffix in PICKLED for file in path.glob("**/*"))


def describe(source: ModelSource) -> ModelInfo:
    """What is known of a model from its files alone."""
    details: dict[str, Any] = {"pipeline": source.class_name, "source": source.where}
    if source.facts.description:
        details["description"] = source.facts.description
    for name in ("fixed_size", "steps", "guidance_scale"):
        value = getattr(source.facts, name)
        if value is not None:
            details[name] = value
    if source.where == "hub":
        details["fetched"] = bool(weight_files(source)[1])
        if source.path is None:
            details["description"] = (
                "Not fetched yet; what it makes is known when a request has asked for it."
            )
    if source.problem:
        details["error"] = source.problem
    size = modified = None
    if source.path is not None:
        try:
            size = sum(file.stat().st_size for file in weight_files(source)[1])
            time = datetime.fromtimestamp(source.path.stat().st_mtime, UTC)
            modified = time.isoformat(timespec="seconds").replace("+00:00", "Z")
        except OSError as error:
            details["error"] = f"It cannot be read: {error.strerror}"
    takes_images = source.kind.takes_images
    return ModelInfo(
        name=source.name,
        model_type=source.kind.model_type,
        size=size,
        modified_at=modified,
        format="safetensors",
        family=source.class_name,
        license=source.facts.license,
        input_modalities=("text", "image") if takes_images else ("text",),
        output_modalities=(source.kind.output,),
        supports_streaming=True,
        details={name: value for name, value in details.items() if value is not None},
    )
