"""A sandboxed process as the server sees it: its start, what it prints, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress

import msgspec

from ..errors import GenerationFailed, Unavailable
from ..workers.frames import MAX_FRAME
from .limits import Limits
from .peer import Peer

logger = logging.getLogger(__name__)

START_TIMEOUT = 30.0
MAX_PRINTED = 64 * 1024
"""Bytes of what it prints that go to the log; the rest is dropped."""
PATIENCE = 5.0
"""Seconds that a killed process gets to be gone."""

_CONTROLS = {code: None for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code != 0x09}
"""What it prints must not be able to steer a terminal that shows the log."""
_INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "SYSTEMROOT")
"""Environment variables that it gets: others hold keys of services."""
_NEVER = frozenset({"LOLLMS_ENCRYPTION_KEY"})


class SandboxProcess:
    """One process that runs `target` (`module:function`) under `limits`. `start` it once, then `kill` it.

    With `inherit` it has the server's environment variables (but for the encryption key) and working directory, else a
    few variables and an empty folder, which is gone with it. `on_print` gets every line that it prints,
    instead of the log.
    """

    def __init__(
        self,
        name: str,
        target: str,
        limits: Limits,
        *,
        max_frame: int = MAX_FRAME,
        max_total: int | None = None,
        inherit: bool = False,
        on_print: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._target = target
        self._limits = limits
        self._on_print = on_print
        self._inherit = inherit
        self.peer = Peer(max_frame=max_frame, max_total=max_total)
        self._process: asyncio.subprocess.Process | None = None
        self._scratch: str | None = None
        self._reading: asyncio.Task[None] | None = None
        self.last_words = ""
        """The last line that it printed."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        """Start it and wait until it answers. Raises Unavailable; nothing is left behind then."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._spawn()
                for missing in await self.peer.call("hello"):
                    logger.warning("%s: on this system %s", self.name, missing)
        except (OSError, TimeoutError, GenerationFailed) as error:
            await self.kill()
            reason = self.last_words or str(error) or "it did not answer in time"
            raise Unavailable(f"The process of {self.name} did not start: {reason}") from error
        except BaseException:
            await self.kill()
            raise

    async def wait(self) -> str:
        """How it ended, in words."""
        assert self._process is not None, "it is not started"
        status = await self._process.wait()
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1)
        if status >= 0:
            return f"ended with exit code {status}"
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"

    async def kill(self) -> None:
        """End it and everything that it started, then everything that it had asked for; returns when it is gone."""
        try:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
        finally:
            try:
                await self.peer.close()
            finally:
                await self._gone()

    async def _gone(self) -> None:
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._process.wait()
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # what it started in its last moment
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
            self._reading = None
        if self._scratch is not None:
            scratch, self._scratch = self._scratch, None
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    async def _spawn(self) -> None:
        if sys.platform == "win32":
            raise OSError("processes of scripts need Linux or macOS; on Windows use WSL")
        self._scratch = tempfile.mkdtemp(prefix="lollms-sandbox-")
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                command = [sys.executable, "-P", "-m", "lollms_kernel.sandbox.child"]
                options = ["--fd", str(theirs.fileno()), "--target", self._target, "--name", self.name]
                limits = ["--limits", msgspec.json.encode(self._limits).decode()]
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    *options,
                    *limits,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    cwd=None if self._inherit else self._scratch,
                    env=self._environment(),
                    start_new_session=True,
                )
                self._reading = asyncio.create_task(self._read_lines(), name=f"lines of {self.name}")
                loop = asyncio.get_running_loop()
                await loop.create_unix_connection(lambda: self.peer.channel, sock=ours)
            except BaseException:
                ours.close()
                raise

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if (name not in _NEVER if self._inherit else name in _INHERITED)
        }
        paths = [entry for entry in sys.path if entry and os.path.isabs(entry)]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._scratch),
            "OMP_NUM_THREADS": "1",
        }

    async def _read_lines(self) -> None:
        """Hand on what it prints, a bounded amount; the rest is read and dropped, so that it never waits for us."""
        assert self._process is not None and self._process.stdout is not None
        left = MAX_PRINTED
        rest = b""
        while data := await self._process.stdout.read(16 * 1024):
            if left <= 0:
                continue
            *lines, rest = (rest + data).split(b"\n")
            left -= len(data)
            for line in lines:
                self._print(line)
            if left <= 0:
                self._print(b"(it prints more; the rest is dropped)")
        if rest and left > 0:
            self._print(rest)

    def _print(self, line: bytes) -> None:
        text = line.decode(errors="replace").translate(_CONTROLS).rstrip()[:2000]
        if not text:
            return
        self.last_words = text
        if self._on_print is not None:
            self._on_print(text)
        else:
            logger.info("%s: %s", self.name, text)
