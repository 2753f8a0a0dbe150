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

from .pipeline_kinds import IMAGES, Kind, kind_of

logger = logging.getLogger(__name__)

PACKAGED = Path(__file__).parent / "models"
DEMONSTRATION = "lollms-shapes"
"""The name of the packaged demonstration model."""
INDEX = "model_index.json"
OWN_FACTS = "lollms_model.json"
"""A file in a model's folder with what diffusers has no field for; see `Facts`."""

_PICKLED = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
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
    class_name: str | None = None
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
        if wanted is not None and wanted.lower().endswith(_PICKLED):
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

    def _all(self) -> Iterator[ModelSource]:
        yield from sorted(_scan(self.folder, "", depth=1), key=lambda source: source.name.casefold())
        for name in self.hub_models:
            yield ModelSource(name=name, where="hub")
        yield from sorted(_scan(self.packaged, "", depth=0), key=lambda source: source.name)


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
        return ModelSource(name=name, where="folder", path=path, problem=f"{INDEX} cannot be read: {error}")
    class_name = index.get("_class_name")
    problem = _problem(path, index)
    class_name = class_name if isinstance(class_name, str) else None
    return ModelSource(
        name=name,
        where="folder",
        path=path,
        class_name=class_name,
        kind=kind_of(class_name or ""),
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
    for part, value in index.items():
        if part.startswith("_") or not isinstance(value, list) or len(value) != 2:
            continue
        if value[0] is not None and any((path / part).glob("*.py")):
            return f"its part '{part}' brings its own code, which is not run"
    return None


def weight_files(path: Path) -> list[Path]:
    """The weights of a folder, or the file itself."""
    return [path] if path.is_file() else sorted(path.glob("**/*.safetensors"))


def weights_of(path: Path) -> tuple[int, int]:
    """Bytes of all weights, and of the largest part (subfolder) alone."""
    parts: dict[Path, int] = {}
    for file in weight_files(path):
        parts[file.parent] = parts.get(file.parent, 0) + file.stat().st_size
    return sum(parts.values()), max(parts.values(), default=0)


def has_pickles_only(path: Path) -> bool:
    """Whether the folder has pickled weights and no other."""
    if weight_files(path):
        return False
    return any(file.suffix in _PICKLED for file in path.glob("**/*"))


def describe(source: ModelSource) -> ModelInfo:
    """What is known of a model from its files alone."""
    details: dict[str, Any] = {"pipeline": source.class_name, "source": source.where}
    if source.facts.description:
        details["description"] = source.facts.description
    for name in ("fixed_size", "steps", "guidance_scale"):
        value = getattr(source.facts, name)
        if value is not None:
            details[name] = value
    if source.problem:
        details["error"] = source.problem
    size = modified = None
    if source.path is not None:
        try:
            size = weights_of(source.path)[0]
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
