"""All personalities of the configured folders, kept as they are on disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lollms_kernel.contracts import Kernel, Personality, PersonalitySource

from .cache import cache_file, read_cache, write_cache
from .folders import FILES, PersonalityFolder, find_folders
from .personality import FolderPersonality
from .records import Record, mark_of, read_record
from .scripting import ScriptRunner

if TYPE_CHECKING:
    from lollms_kernel.config.schema import MainConfig, PersonalityOverride

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the disk."""
SHARE = 50
"""A look that takes t seconds is followed by at least `SHARE` × t seconds of rest, so that it costs 2 % at most."""
WORTH_KEEPING = 0.25
"""Seconds of reading from which on records are kept for the next start."""

OWN = Path(__file__).parent / "own"
"""The personalities that come with this package."""


class Root:
    """One folder of personalities. `trusted`: it came with this package, scripts included."""

    def __init__(self, path: Path, *, trusted: bool = False) -> None:
        self.path = path
        self.trusted = trusted
        self.records: dict[str, Record] | None = None
        self.found: dict[str, FolderPersonality] = {}
        self._said: set[str] = set()

    def say(self, message: str) -> None:
        """Warn of something once, however often it is seen."""
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)


class Library(PersonalitySource):
    """Every enabled personality; one of a later root takes the place of an earlier one of the same id."""

    def __init__(self, config: MainConfig, roots: Sequence[Root], interval: float = INTERVAL) -> None:
        self._overrides = config.personalities_config or {}
        self._roots = roots
        self._interval = interval
        self._runner = ScriptRunner(config.scripts, config.resource_manager.queue_timeout)
        self._current: Mapping[str, Personality] = {}
        self._watching: asyncio.Task[None] | None = None

    def personalities(self) -> Mapping[str, Personality]:
        """See `contracts.PersonalitySource.personalities`."""
        return self._current

    def unusable(self) -> Mapping[str, str]:
        """See `contracts.PersonalitySource.unusable`."""
        records = [item for root in self._roots for item in (root.records or {}).items()]
        return {id: record.error for id, record in records if record.error is not None}

    def check(self, folder: Path) -> Sequence[str] | None:
        """See `contracts.PersonalitySource.check`."""
        file = next((folder / name for name in FILES if (folder / name).exists()), None)
        if file is None:
            return None
        where = PersonalityFolder(folder.name, folder, file)
        override = self._override(where)
        record = read_record(where, override.language if override else None)
        if record.card is None:
            return [str(record.error)]
        return FolderPersonality(folder, record, override, self._runner).card.problems

    async def open(self, kernel: Kernel) -> None:
        """Look again from time to time."""
        self._watching = asyncio.create_task(self._watch(), name="personalities")

    async def close(self) -> None:
        """Look no more, and end the processes of scripts."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._runner.close()

    async def _watch(self) -> None:
        while True:
            took = 0.0
            try:
                took = await asyncio.to_thread(self.look)
            except Exception:  # one look that fails must not end all later ones
                log.exception("the folders of personalities could not be looked at")
            await asyncio.sleep(max(self._interval, SHARE * took))

    def look(self) -> float:
        """Take over what has changed on disk; how many seconds that took. Blocks."""
        started = time.perf_counter()
        changed = [self._look_at(root) for root in self._roots]
        if any(changed):
            self._current = {id: item for root in self._roots for id, item in root.found.items()}
        return time.perf_counter() - started

    def _look_at(self, root: Root) -> bool:
        """Whether something below `root` is not as before."""
        first = root.records is None
        file = cache_file(root.path)
        kept = root.records or (read_cache(file, str(root.path)) if file is not None else {})
        reading = 0.0
        records: dict[str, Record] = {}
        found: dict[str, FolderPersonality] = {}
        for folder in find_folders(root.path, root.say):
            override = self._override(folder)
            # A disabled folder is not even read: switching it off is the cure when its file is broken.
            if override is not None and not override.enabled:
                continue
            language = override.language if override else None
            record = kept.get(folder.id)
            if not _is_current(record, folder, language):
                started = time.perf_counter()
                record = read_record(folder, language)
                reading += time.perf_counter() - started
            assert record is not None
            records[folder.id] = record
            before = root.found.get(folder.id)
            if before is not None and before.record is record:
                found[folder.id] = before
            else:
                self._say(root, folder, record)
                if record.card is not None:
                    found[folder.id] = FolderPersonality(
                        folder.path, record, override, self._runner, trusted=root.trusted
                    )
        same = found.keys() == root.found.keys() and all(found[id] is root.found[id] for id in found)
        root.records, root.found = records, found
        if file is not None and reading > WORTH_KEEPING:
            try:
                write_cache(file, str(root.path), records)
            except OSError as error:
                log.debug("personalities are not kept for the next start: %s", error)
        return first or not same

    def _override(self, folder: PersonalityFolder) -> PersonalityOverride | None:
        return self._overrides.get(folder.id) or self._overrides.get(folder.name)

    @staticmethod
    def _say(root: Root, folder: PersonalityFolder, record: Record) -> None:
        if record.error is not None:
            root.say(f"Personality '{folder.id}' is left out. {record.error}")
        for problem in record.card.problems if record.card else ():
            root.say(f"Personality '{folder.id}', {folder.file}: {problem}")


def _is_current(record: Record | None, folder: PersonalityFolder, language: str | None) -> bool:
    return (
        record is not None
        and record.language == language
        and record.file == folder.file.name
        and record.mark == mark_of(folder, language)
    )
