"""A live server in a process of its own, configured from dictionaries."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """Starts `python -m lollms_kernel serve` and waits until it is healthy; stops it on leaving.

    `config` is the main configuration, `instances` maps instance names to their settings; `bindings_map` is made
    from their `type`. Without instances the server starts as it does with no configuration at all. Ports of single
    protocols are opened only with `extra_ports`: several servers run at once in tests.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        instances: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        root: Path | None = None,
        env: Mapping[str, str] | None = None,
        extra_ports: bool = False,
    ) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="lollms-test-") if root is None else None
        self.root = Path(self._scratch.name) if self._scratch else Path(str(root))
        self.config_dir = self.root / "lollms_configs"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        only = {} if extra_ports else {"LOLLMS_MAIN_PORT_ONLY": "1"}
        self._env = {**os.environ, **only, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._write(dict(config or {}), instances or {})

    def _write(self, config: dict[str, Any], instances: Mapping[str, Mapping[str, Any]]) -> None:
        bindings = self.config_dir / "bindings"
        bindings.mkdir(parents=True, exist_ok=True)
        if instances:
            config["bindings_map"] = {name: settings["type"] for name, settings in instances.items()}
        for name, settings in instances.items():
            (bindings / f"{name}.yaml").write_text(yaml.safe_dump(dict(settings)))
        if config:
            (self.config_dir / "main_config.yaml").write_text(yaml.safe_dump(config))

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server is not started"
        return self._process.pid

    def log(self) -> str:
        """Everything that it has written so far."""
        path = self.root / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-m", "lollms_kernel", "serve", "--config-dir", str(self.config_dir)]
        with (self.root / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self.root,
                start_new_session=True,
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code. Kills a server that does not stop."""
        assert self._process is not None, "the server is not started"
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise AssertionError(f"the server did not stop within {STOP_TIMEOUT:g} s\n{self.log()}") from None
        finally:
            if self._scratch is not None and sys.exc_info()[0] is None:
                self._scratch.cleanup()

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with code {self._process.returncode}\n{self.log()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(f"the server was not healthy after {START_TIMEOUT:g} s\n{self.log()}")
