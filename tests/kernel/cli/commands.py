"""Runs the real `lollms` command: in pipes, and on a terminal of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from lollms_kernel.testing.server_process import free_port

LIMIT = 60.0
"""Seconds that nothing here may take."""

COMMAND = [sys.executable, "-m", "lollms_kernel"]

_TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, sys.argv[1:])
"""
"""Makes stdin the controlling terminal, so that Ctrl-C typed there becomes SIGINT."""


class Workplace:
    """A folder with a configuration, where commands run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.configure()

    def configure(
        self,
        instances: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Write main_config.yaml and the instance files; without instances there is one dummy that echoes."""
        instances = instances or {"echo": {}}
        bindings = self.root / "lollms_configs" / "bindings"
        bindings.mkdir(parents=True, exist_ok=True)
        for name, settings in instances.items():
            (bindings / f"{name}.yaml").write_text(yaml.safe_dump({"type": "dummy_binding", **settings}))
        main = {
            "server": {"port": self.port},
            "bindings_map": {
                name: str(settings.get("type", "dummy_binding")) for name, settings in instances.items()
            },
            "defaults": {"ttt_binding": next(iter(instances)), "tti_binding": next(iter(instances))},
            **(config or {}),
        }
        (self.root / "lollms_configs" / "main_config.yaml").write_text(yaml.safe_dump(main))

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a command: no LOLLMS_* of the one who runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOLLMS_")}
        return {**kept, "LOLLMS_LOAD_PLUGINS": "", "TERM": "xterm", **(extra or {})}

    def lollms(
        self, *words: str, stdin: str | bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end through pipes."""
        done = subprocess.run(
            [*COMMAND, *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=self.root,
            env=self.environment(env),
            timeout=LIMIT,
        )
        out = done.stdout.decode(errors="surrogateescape")
        return subprocess.CompletedProcess(done.args, done.returncode, out, done.stderr.decode())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command whose output comes through pipes."""
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.root,
            env=self.environment(),
        )

    def terminal(self, *words: str, env: Mapping[str, str] | None = None) -> Terminal:
        """Start a command on a terminal."""
        return Terminal(words, self.root, self.environment(env))


class Terminal:
    """A command on a pseudo terminal: type keys, expect texts."""

    def __init__(self, words: tuple[str, ...], root: Path, env: Mapping[str, str]) -> None:
        self._master, slave = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *COMMAND, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=root,
            env=env,
            start_new_session=True,
        )
        os.close(slave)
        self._screen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Send keys; "\\x03" is Ctrl-C, "\\x04" Ctrl-D."""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str) -> str:
        """Wait until the pattern appears in what is new on the screen; what came up to its end."""
        deadline = time.monotonic() + LIMIT
        while (match := re.search(pattern, self._screen)) is None:
            assert self._read(deadline), f"{pattern!r} did not appear in {self._screen!r}"
        seen, self._screen = self._screen[: match.end()], self._screen[match.end() :]
        return seen

    @property
    def rest(self) -> str:
        """What has appeared and was not yet expected."""
        return self._screen

    def settle(self) -> None:
        """Wait until the command waits for keys. readline shows its prompt a moment before it does, and a signal in
        that moment is seen only with the next key."""
        deadline = time.monotonic() + LIMIT
        waits_in = Path(f"/proc/{self._process.pid}/wchan")
        while "select" not in (place := waits_in.read_text()) and "poll" not in place:
            assert time.monotonic() < deadline, f"the command does not wait for keys but is in {place!r}"

    def wait(self) -> int:
        """Wait for the end of the command; its exit code."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline):
            pass
        return self._process.wait(LIMIT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that nobody has the terminal open any more
            return False
        self._screen += piece.decode(errors="replace")
        return bool(piece)


def install(root: Path, name: str, source: str) -> dict[str, str]:
    """Put a plugin where Python finds it; the environment that does."""
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (root / f"{name}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lollms]\n{name} = {name}\n")
    path = os.pathsep.join([str(root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(
        os.pathsep
    )
    return {"PYTHONPATH": path, "LOLLMS_LOAD_PLUGINS": name}
