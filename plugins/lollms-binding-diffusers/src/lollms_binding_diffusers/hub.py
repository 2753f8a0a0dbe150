"""Models of the Hugging Face hub: what its cache on this machine holds, and fetching what diffusers needs of them.

Once a model is there, its folder in the cache is read like any other and the hub is not asked again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from lollms_kernel.errors import LollmsError, ModelLoadFailed

from .paths import reason
from .weights import choose_weights

logger = logging.getLogger(__name__)

LOG_EVERY: float = 5.0
"""Seconds between two lines of the log that say how far a download is."""
_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}")
_CONFIGURATION: Final = (".json", ".txt", ".model", ".jinja")


class Progress:
    """How far a model is that is being fetched; `moved` hears that it gets on."""

    def __init__(self, moved: Callable[[], None]) -> None:
        self._moved = moved
        self.done = 0
        """Bytes of weights that are here."""
        self.total = 0
        """Bytes of all weights; 0: not known yet."""

    def reach(self, done: int) -> None:
        """So many bytes are here now."""
        self.done = done
        self._moved()


class LargeFile(msgspec.Struct, frozen=True):
    """A file of a repository at one commit whose content is not in git itself."""

    name: str
    size: int
    sha256: str


def cached(repo: str, file: str) -> Path | None:
    """The folder of the cache that has this file of a repository; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, file)
    except HFValidationError:  # no repository is called so, which is told when it is asked for
        return None
    return Path(found).parent if isinstance(found, str) else None


def fetch_descriptions(repo: str, files: Sequence[str]) -> Path:
    """The folder of the cache with those of `files` that the repository has. Raises ModelLoadFailed."""
    return _fetched(repo, None, list(files))


async def fetch_model(
    repo: str, folder: Path, parts: Collection[str], *, half: bool, progress: Progress
) -> list[str]:
    """Have what a model of these parts is loaded from in its folder of the cache, and nothing else; the files' names.

    Weights are fetched by the kernel, since huggingface_hub begins a file anew that was interrupted. After a call that
    was cancelled or broke off the next one goes on there. Raises ModelLoadFailed, also for a model with its own code.
    """
    names = await asyncio.to_thread(_names, repo, folder)
    code = next((name for name in names if name.endswith(".py") and name.partition("/")[0] in parts), None)
    if code is not None:
        raise ModelLoadFailed(
            f"Model '{repo}' is not loaded: it brings its own code ({code}), which is not run."
        )
    _, weights = choose_weights(names, parts, half=half)
    missing = [name for name in weights if not (folder / name).is_file()]
    if missing:
        files = await asyncio.to_thread(_large_files, repo, folder, missing)
        progress.total = sum(file.size for file in files)
        for file in files:
            await _fetch_weights(repo, folder, file, progress)
    wanted = [*weights, *(name for name in names if _configures(name, parts))]
    await asyncio.to_thread(_fetched, repo, folder, wanted)
    return wanted


async def _fetch_weights(repo: str, folder: Path, file: LargeFile, progress: Progress) -> None:
    """Put a large file where huggingface_hub looks for its content, `blobs/CHECKSUM` of the repository's cache."""
    import huggingface_hub

    from lollms_kernel.downloads import Download
    from lollms_kernel.downloads.single import fetch_file

    before, told = progress.done, time.monotonic()

    def tell(download: Download) -> None:
        nonlocal told
        progress.reach(before + download.downloaded)
        if time.monotonic() - told >= LOG_EVERY:
            told = time.monotonic()
            done, total = progress.done / 1e6, progress.total / 1e6
            logger.info("Model %s: %.0f of %.0f MB are fetched.", repo, done, total)

    blob = folder.parent.parent / "blobs" / file.sha256
    wanted = Download(
        repo=repo, file=file.name, status="downloading", total=file.size, revision=folder.name, sha256=file.sha256
    )  # fmt: skip
    try:
        await fetch_file(
            huggingface_hub.constants.ENDPOINT, huggingface_hub.get_token(), wanted, blob,
            blob.with_name(f"{file.sha256}.lollms.incomplete"), tell=tell,
        )  # fmt: skip
    except LollmsError as error:
        logger.warning("Model %s: %s", repo, error.detail)
        raise ModelLoadFailed(
            f"Model '{repo}' cannot be fetched: {reason(error, folder.parents[2])}",
            hint=f"{error.hint or 'Try again later.'} What was fetched is kept.",
        ) from error
    except OSError as error:
        raise _explained(error, repo) from error
    progress.reach(before + file.size)


def fetch_configuration(repo: str) -> Path:
    """The folder of the cache with the configuration of a repository's model, without weights.

    Raises ModelLoadFailed.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = [f"*{suffix}" for suffix in _CONFIGURATION]
    try:
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        return _fetched(repo, None, patterns)


def _configures(name: str, parts: Collection[str]) -> bool:
    part = name.rpartition("/")[0]
    return name.endswith(_CONFIGURATION) and (not part or part in parts)


def _names(repo: str, folder: Path) -> list[str]:
    """The files of a repository at the commit of a folder; those in the folder where the hub cannot be asked."""
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return [file.path for file in huggingface_hub.get_cached_repo_tree(repo, revision=folder.name)]
    except CachedRepoTreeNotFoundError:
        pass
    try:
        return huggingface_hub.HfApi().list_repo_files(repo, revision=folder.name)
    except Exception as error:
        here = [path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file()]
        if any(name.endswith(".safetensors") for name in here):
            logger.info("The hub does not tell the files of %s; those in the cache are used.", repo)
            return here
        raise _explained(error, repo) from error


def _large_files(repo: str, folder: Path, names: Collection[str]) -> list[LargeFile]:
    """Those of the files that are large, with what the hub says of them at the commit of the folder."""
    import huggingface_hub

    try:
        entries = huggingface_hub.HfApi().list_repo_tree(repo, recursive=True, revision=folder.name)
        known = {entry.path: getattr(entry, "lfs", None) for entry in entries}
    except Exception as error:
        raise _explained(error, repo) from error
    large = ((name, known.get(name)) for name in names)
    return [
        LargeFile(name, lfs.size, lfs.sha256)
        for name, lfs in large
        if lfs and _CHECKSUM.fullmatch(lfs.sha256)
    ]


def _fetched(repo: str, folder: Path | None, patterns: list[str]) -> Path:
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if folder is not None and all((folder / name).is_file() for name in patterns):
        return folder
    disable_progress_bars()
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repo,
                revision=None if folder is None else folder.name,
                allow_patterns=patterns,
                library_name="lollms",
            )
        )
    except Exception as error:  # the library raises its own errors and those of its HTTP library
        raise _explained(error, repo) from error


def _explained(error: Exception, repo: str) -> ModelLoadFailed:
    """The error for what huggingface_hub raises, which names its causes in several layers."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    what = f"Model '{repo}' cannot be fetched"
    if "HFValidationError" in names:
        return ModelLoadFailed(
            f"{what}: no repository is called so.", hint="Correct `hub_models`: OWNER/NAME, as on the hub."
        )
    if isinstance(error, OSError) and error.strerror:
        return ModelLoadFailed(f"{what}: {error.strerror}.", hint="Is there room where HF_HOME says?")
    if "GatedRepoError" in names:
        return ModelLoadFailed(
            f"{what}: its owner wants to be asked first.",
            hint="Ask for access on its page on the hub, and set HF_TOKEN to your token where the server starts.",
        )
    if "RepositoryNotFoundError" in names:
        return ModelLoadFailed(
            f"{what}: the hub does not have it, or it is private.",
            hint="Compare `hub_models` with the hub; for private ones set HF_TOKEN where the server starts.",
        )
    if "OfflineModeIsEnabled" in names:
        return ModelLoadFailed(f"{what}: HF_HUB_OFFLINE is set.", hint="Unset it where the server starts.")
    logger.warning("%s", what, exc_info=error)
    return ModelLoadFailed(
        f"{what}: the hub did not answer as it should ({type(causes[-1]).__name__}).",
        hint="Is this machine connected? What was fetched is kept; try again. The server's log has the details.",
    )
