"""Keeps a fault of some llama.cpp builds away from users: on CPUs with AMX they die when they repack weights.

gcc 12's `_tile_loadconfig` tells the optimizer too little, most of the AMX tile configuration gets lost, and the
process ends by SIGSEGV at the first step with a type of weights that has AMX code (llama.cpp pull request 26954
reports the same). Without llama.cpp's "extra buffers" the same weights work, only slower. So where that may happen
a model is first tried in a process of its own, and the verdict is remembered for this build and this file.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import platformdirs

from .gguf_header import GgufError
from .installation import ENGINE, engine_build
from .library import Headers, ModelFile

logger = logging.getLogger(__name__)

TRIAL_TIMEOUT = 300.0
TRIAL_COMMAND = (sys.executable, "-P", "-m", "lollms_binding_llamacpp.probe")
CPUINFO = Path("/proc/cpuinfo")
HARMLESS_TYPES = frozenset({"F64", "F32", "F16", "BF16", "Q5_0", "Q5_1", "I8", "I16", "I32", "I64"})
"""Weights that llama.cpp has no AMX code for; for all others a trial is made, which is never wrong."""

_CRASHES = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS)
_HEAD = 2**16
_CURE = (
    "For full speed reinstall it, built with the compiler option -fno-dse: "
    f"`CFLAGS=-fno-dse CXXFLAGS=-fno-dse pip install --force-reinstall --no-cache-dir {ENGINE}`."
)


class Verdict(msgspec.Struct, frozen=True):
    """Whether a model is loaded with extra buffers, and if not, why."""

    use: bool
    reason: str | None = None


class ExtraBuffers:
    """Decides for each model. `folder` remembers verdicts, by default one in the user's cache."""

    def __init__(
        self,
        setting: bool | None,
        headers: Headers,
        *,
        folder: Path | None = None,
        cpuinfo: Path = CPUINFO,
        command: Sequence[str] = TRIAL_COMMAND,
    ) -> None:
        self._setting = setting
        self._headers = headers
        self._folder = folder or verdict_folder()
        self._cpuinfo = cpuinfo
        self._command = tuple(command)
        self._verdicts: dict[str, Verdict] = {}

    def known(self, file: ModelFile) -> Verdict | None:
        """The verdict as far as it is known without a trial."""
        if self._setting is not None:
            return Verdict(
                self._setting, None if self._setting else "The instance sets use_extra_bufts: false."
            )
        if not has_amx(self._cpuinfo) or not self._at_risk(file):
            return Verdict(True)
        try:
            key = _key(file)
        except OSError:
            return None  # it has just gone away; whoever loads it reports that
        if key not in self._verdicts and (stored := _read(self._folder / f"{key}.json")) is not None:
            self._verdicts[key] = stored
        return self._verdicts.get(key)

    async def decide(self, file: ModelFile) -> Verdict:
        """The verdict, after a trial where one is needed (as long as loading the model takes)."""
        known = await asyncio.to_thread(self.known, file)
        if known is None:
            known = await self._try(file)
        if not known.use:
            logger.warning("'%s' is loaded without llama.cpp's extra buffers: %s", file.name, known.reason)
        return known

    async def _try(self, file: ModelFile) -> Verdict:
        logger.info("Trying '%s' in a process of its own, since this CPU has AMX.", file.name)
        nothing = asyncio.subprocess.DEVNULL
        try:
            trial = await asyncio.create_subprocess_exec(
                *self._command, str(file.path), stdin=nothing, stdout=nothing, stderr=nothing
            )
        except OSError as error:
            return Verdict(False, f"A trial could not be started: {error.strerror}.")
        try:
            code = await asyncio.wait_for(trial.wait(), TRIAL_TIMEOUT)
        except TimeoutError:
            return Verdict(True)  # very slow is not dead; what is wrong then shows when the model is loaded
        finally:
            if trial.returncode is None:
                trial.kill()
                await trial.wait()
        if code and -code not in _CRASHES:
            return Verdict(True)  # it cannot be loaded, or somebody ended the trial: that says nothing
        verdict = Verdict(True)
        if code:
            death = signal.Signals(-code).name
            verdict = Verdict(False, f"llama.cpp died by {death} when it used them in a trial. {_CURE}")
        await asyncio.to_thread(self._remember, file, verdict)
        return verdict

    def _remember(self, file: ModelFile, verdict: Verdict) -> None:
        key = _key(file)
        self._verdicts[key] = verdict
        _write(self._folder / f"{key}.json", verdict)

    def _at_risk(self, file: ModelFile) -> bool:
        try:
            return any(not self._headers(path).elements.keys() <= HARMLESS_TYPES for path in file.paths)
        except GgufError:
            return False  # it will not load at all


def has_amx(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this CPU has the matrix units that the fault is about."""
    try:
        with cpuinfo.open(encoding="ascii", errors="replace") as lines:
            flags = next((line.split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return False  # no Linux, no such file; the fault is known from Linux builds only
    return "amx_tile" in flags


def amx_trap(folder: Path | None = None, cpuinfo: Path = CPUINFO) -> str | None:
    """What `lollms doctor` says of the fault on this machine; None if it cannot happen here."""
    build = engine_build()
    if build is None or not has_amx(cpuinfo):
        return None
    stored = (folder or verdict_folder()).glob(f"{_digest(build)}-*.json")
    verdicts = [verdict for verdict in map(_read, stored) if verdict is not None]
    dead = sum(not verdict.use for verdict in verdicts)
    if dead:
        return f"llama.cpp crashes with this CPU's AMX units; {dead} model(s) run without them, more slowly. {_CURE}"
    if verdicts:
        return None
    return (
        "This CPU has AMX, with which some builds of llama.cpp crash. Each quantized model is tried once in a process "
        "of its own before it is used, and runs without AMX where it has to."
    )


def verdict_folder() -> Path:
    """Where verdicts are remembered."""
    return platformdirs.user_cache_path("lollms") / "llamacpp"


def _key(file: ModelFile) -> str:
    """The same for the same build of llama.cpp and the same file, wherever it lies."""
    with file.path.open("rb") as opened:
        head = hashlib.sha256(opened.read(_HEAD))
    head.update(str(file.size).encode())
    return f"{_digest(engine_build() or '')}-{head.hexdigest()[:24]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _read(path: Path) -> Verdict | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Verdict)
    except (OSError, msgspec.MsgspecError):
        return None  # not tried yet, or not readable: a trial answers it again


def _write(path: Path, verdict: Verdict) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(verdict))
        fresh.replace(path)
    except OSError as error:
        logger.warning("The verdict on a model cannot be remembered in %s: %s", path.parent, error.strerror)
