"""The models that an instance offers: the packaged guide, the GGUF files of a folder, and one file by path.

A request's model name is only ever compared with the names of this listing, never joined to a path, so no name
leads out of the folder. Links that the operator put into the folder are followed. Subfolders are read three levels
deep, which is where downloads lie: `OWNER/REPO/FOLDER/FILE.gguf`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from lollms_kernel.errors import ModelNotFound
from lollms_kernel.quantization import quantization_of
from lollms_kernel.types import ModelInfo

from .gguf_header import FILE_TYPES, GgufError, GgufHeader, read_header
from .settings import LlamaCppSettings

logger = logging.getLogger(__name__)

PACKAGED = Path(__file__).parent / "models"
GUIDE = "lollms-guide"
"""The name of the packaged guide model."""

DEPTH = 3
"""Levels of subfolders that are read."""

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_NOT_GENERATING = ("adapter", "mmproj", "imatrix", "vocab")
"""Values of `general.type` whose files belong to a model but are none."""


class ModelFile(msgspec.Struct, frozen=True):
    """One model on disk. `paths` has several entries where it is split into shards; the first one is loaded."""

    name: str
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The file that llama.cpp opens."""
        return self.paths[0]

    @property
    def size(self) -> int:
        """Bytes on disk, all shards together."""
        return sum(path.stat().st_size for path in self.paths)


class Headers:
    """Headers of files, read again only when a file's size or time has changed."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], GgufHeader]] = {}
        self._lock = threading.Lock()

    def __call__(self, path: Path) -> GgufHeader:
        """The header of `path`. Raises GgufError if it has none that can be used."""
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            with self._lock:
                known = self._known.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, read_header(path))
                with self._lock:
                    self._known[path] = known
        except OSError as error:
            raise GgufError(f"It cannot be read: {error.strerror or error}.") from error
        return known[1]


class Library:
    """The models of one instance."""

    def __init__(self, folder: Path, extra: Path | None = None, packaged: Path = PACKAGED) -> None:
        self.folder = folder
        self.extra = extra
        self.packaged = packaged
        self.headers = Headers()

    def files(self) -> list[ModelFile]:
        """Every model: the one given by path, those of the folder in alphabetical order, the packaged ones."""
        found: dict[str, ModelFile] = {}
        for file in self._all():
            found.setdefault(file.name, file)
        return [file for file in found.values() if not self._is_part_of_another(file)]

    def find(self, name: str | None) -> ModelFile:
        """The model called `name`, by default the first. Raises ModelNotFound.

        `.gguf` may be left out. A download is also called `OWNER/REPO:QUANTIZATION`, or `OWNER/REPO` if it is the only
        one of its repository, and by the name of its file if no other file is called so.
        """
        files = self.files()
        for wanted in (name, f"{name}.gguf"):
            for file in files:
                if name is None or file.name == wanted:
                    return file
        short = [file for file in files if name is not None and _is_short_for(name, file.name)]
        if len(short) == 1:
            return short[0]
        known = ", ".join(file.name for file in files[:5]) or "none"
        raise ModelNotFound(
            f"There is no GGUF model '{name}'." if name else "There is no GGUF model.",
            hint=f"Known: {known}. Put GGUF files into the models folder, or set `model_path` in the instance file.",
        )

    def _all(self) -> Iterator[ModelFile]:
        if self.extra is not None:
            yield ModelFile(self.extra.name, _with_shards(self.extra))
        yield from sorted(_scan(self.folder, "", DEPTH), key=lambda file: file.name.casefold())
        for path in sorted(self.packaged.glob("*.gguf")):
            yield ModelFile(path.stem, (path,))

    def _is_part_of_another(self, file: ModelFile) -> bool:
        try:
            header = self.headers(file.path)
        except GgufError:
            return False  # listed with its error, so that somebody who misses it learns why
        return header.architecture == "clip" or header.text("general.type") in _NOT_GENERATING


def _is_short_for(name: str, whole: str) -> bool:
    folder, _, file = whole.rpartition("/")
    if not folder:
        return False
    repo, colon, quantization = name.partition(":")
    if colon:
        return repo == folder and quantization.upper() == quantization_of(file)
    return name in (folder, file, file[: -len(".gguf")])


def _scan(folder: Path, prefix: str, depth: int) -> Iterator[ModelFile]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("The models folder %s cannot be read: %s", folder, error.strerror)
        return
    for entry in entries:
        if entry.is_dir():
            if depth:
                # a link may lead back up here, so what it leads to is read, but no further
                deeper = 0 if entry.is_symlink() else depth - 1
                yield from _scan(folder / entry.name, f"{prefix}{entry.name}/", deeper)
        elif entry.name.lower().endswith(".gguf") and entry.is_file():
            shard = _SHARD.search(entry.name)
            if shard is None or int(shard[1]) == 1:
                yield ModelFile(prefix + entry.name, _with_shards(folder / entry.name))


def _with_shards(path: Path) -> tuple[Path, ...]:
    shard = _SHARD.search(path.name)
    if shard is None:
        return (path,)
    start, end = path.name[: shard.start()] + "-", f"-of-{shard[2]}.gguf"
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(start) and name.endswith(end)]
    except OSError:
        names = []  # whoever reads the first shard reports it
    others = sorted(name for name in names if name != path.name and _SHARD.search(name))
    return (path, *(path.with_name(name) for name in others))


def describe(file: ModelFile, headers: Headers, settings: LlamaCppSettings) -> ModelInfo:
    """What is known of a model from its file alone; a damaged one has the reason in `details["error"]`."""
    try:
        parts = [headers(path) for path in file.paths]
        size = file.size
        modified = datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
        _check_complete(file)
    except (GgufError, OSError) as error:
        return ModelInfo(name=file.name, format="gguf", details={"error": str(error)})
    header = parts[0]
    elements: Counter[str] = Counter()
    for part in parts:
        elements.update(part.elements)
    family = header.architecture
    return ModelInfo(
        name=file.name,
        size=size,
        modified_at=modified.isoformat(timespec="seconds").replace("+00:00", "Z"),
        quantization_level=_quantization(header, elements),
        format="gguf",
        family=family,
        families=(family,) if family else None,
        parameter_size=_in_words(elements.total()),
        context_size=context_size(header, settings),
        template=header.text("tokenizer.chat_template"),
        license=header.text("general.license"),
        homepage=header.text("general.url")
        or header.text("general.repo_url")
        or header.text("general.source.url"),
        capabilities=_capabilities_of(file, header, settings),
        details=_details(file, header),
    )


def context_size(header: GgufHeader, settings: LlamaCppSettings) -> int | None:
    """Tokens of context that the settings give: not more than the model was trained for, unless they stretch RoPE."""
    trained = header.own("context_length")
    if not trained or not settings.n_ctx:
        return settings.n_ctx or trained
    if settings.rope_freq_base:
        return settings.n_ctx
    return min(settings.n_ctx, int(trained * settings.compress_pos_emb))


ENCODERS = (
    "bert",
    "nomic-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "eurobert",
    "t5encoder",
)
"""Architectures that make embeddings and no text."""
_POOLINGS = ("none", "mean", "cls", "last", "rank")


def pooling_of(header: GgufHeader, settings: LlamaCppSettings) -> str | None:
    """How token embeddings become one vector: as the settings say, else as the file does."""
    if settings.reranking:
        return "rank"
    if settings.pooling is not None:
        return settings.pooling
    number = header.own("pooling_type")
    return _POOLINGS[number] if number is not None and number < len(_POOLINGS) else None


def embeds(header: GgufHeader, settings: LlamaCppSettings) -> bool:
    """Whether embeddings are served: if the settings say so, or by themselves for models made for it."""
    if pooling_of(header, settings) == "rank":
        return False
    if settings.embeddings is not None:
        return settings.embeddings
    return header.architecture in ENCODERS or header.own("pooling_type") is not None


def reranks(header: GgufHeader, settings: LlamaCppSettings) -> bool:
    """Whether documents are ranked: only by models with a head for it, whatever the settings say."""
    return header.classifies and settings.reranking is not False and pooling_of(header, settings) == "rank"


def capabilities(header: GgufHeader, settings: LlamaCppSettings) -> tuple[str, ...]:
    """What `ModelInfo.capabilities` lists."""
    template = settings.chat_template or header.text("tokenizer.chat_template") or ""
    found = []
    if header.architecture not in ENCODERS:
        found += ["chat", "tools", "tokens", "grammar", "json_schema", "logprobs"]
        if "<think>" in template or "enable_thinking" in template:
            found.append("thinking")
        if all(
            header.number(f"tokenizer.ggml.fim_{part}_token_id") is not None for part in ("pre", "suf", "mid")
        ):
            found.append("infill")
    else:
        found.append("tokens")
    if embeds(header, settings):
        found.append("embeddings")
    if reranks(header, settings):
        found.append("rerank")
    return tuple(found)


def _capabilities_of(file: ModelFile, header: GgufHeader, settings: LlamaCppSettings) -> tuple[str, ...]:
    """The same for a file. The guide knows this server and nothing else: offered functions, it would only stumble."""
    found = capabilities(header, settings)
    return tuple(name for name in found if name != "tools") if file.name == GUIDE else found


def projector_modalities(path: Path, headers: Headers) -> tuple[str, ...]:
    """What a projector's file lets a model take beside text; nothing if it cannot be read."""
    try:
        header = headers(path)
    except GgufError:
        return ()
    names = {"image": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
    return tuple(kind for kind, key in names.items() if header.values.get(key) is True)


def _check_complete(file: ModelFile) -> None:
    shard = _SHARD.search(file.path.name)
    if shard is not None and len(file.paths) != int(shard[2]):
        raise GgufError(f"Only {len(file.paths)} of its {int(shard[2])} files are there.")


def _quantization(header: GgufHeader, elements: Counter[str]) -> str | None:
    recipe = header.number("general.file_type")
    if recipe is not None and recipe < len(FILE_TYPES) and FILE_TYPES[recipe] != "-":
        return FILE_TYPES[recipe]
    return elements.most_common(1)[0][0] if elements else None


def _in_words(count: int) -> str | None:
    """7248023552 → "7.2B", as model listings write it."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.1f}{name}"
    return str(count) if count else None


def _details(file: ModelFile, header: GgufHeader) -> dict[str, object]:
    facts: dict[str, object] = {
        "title": header.text("general.name"),
        "description": header.text("general.description"),
        "context_length_trained": header.own("context_length"),
        "embedding_length": header.own("embedding_length"),
        "layers": header.own("block_count"),
        "vocabulary_size": header.lengths.get("tokenizer.ggml.tokens"),
        "shards": len(file.paths) if len(file.paths) > 1 else None,
    }
    return {key: value for key, value in facts.items() if value is not None}
