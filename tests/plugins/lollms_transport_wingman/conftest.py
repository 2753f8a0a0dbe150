"""Live servers with scripted bindings, on both ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from lollms_kernel.testing import ServerProcess
from lollms_kernel.testing.server_process import free_port

HERE = Path(__file__).parent
LIMIT = 60.0
KEY = "a-key-for-tests"
DUMMY = {"type": "dummy_binding"}
ENGINE = {"type": "scripted_engine"}
INSTANCES: dict[str, dict[str, Any]] = {
    "engine": ENGINE,
    "worker": {**ENGINE, "run_in": "process"},
    "unpooled": {**ENGINE, "pooled": False, "fetch_image_urls": True},
    "echo": {**DUMMY, "model": "echo-model", "context_size": 2048},
    "system": {**DUMMY, "model": "system-model", "echo_system": True, "input_modalities": ["text", "image"]},
    "thinker": {**DUMMY, "model": "thinking", "chunks": ["a <th", "ink>x", " y</TH", "INK> b"]},
    "painter": {
        **DUMMY,
        "model": "paint-model",
        "output_modalities": ["image"],
        "input_modalities": ["text", "image"],
    },
    "speaker": {**DUMMY, "model": "speak-model", "output_modalities": ["audio"]},
    "listener": {
        **DUMMY,
        "model": "hear-model",
        "reply": "I heard it.",
        "input_modalities": ["text", "audio"],
    },
    "mute": {**DUMMY, "model": "mute-model", "tokenizer": False},
    "failing": {**DUMMY, "model": "failing-model", "chunks": ["a", "b", "c"], "fail_after": 2},
    "slow": {
        **DUMMY,
        "model": "slow-model",
        "chunks": ["word "] * 1000,
        "stream_chunk_delay": 0.05,
        "requires_gpu": True,
    },
    "stuck": {**DUMMY, "model": "stuck-model", "delay": 3600, "requires_gpu": True},
    "quick": {**DUMMY, "model": "quick-model", "requires_gpu": True},
    "broken": {**DUMMY, "no_such_setting": 1},
}
CONFIG: dict[str, Any] = {
    "defaults": {
        "ttt_binding": "engine",
        "tti_binding": "painter",
        "tts_binding": "speaker",
        "stt_binding": "listener",
    },
    "resource_manager": {"gpu_strategy": "semaphore", "gpu_limit": 1, "queue_timeout": 20},
}


def environment(folder: Path) -> dict[str, str]:
    """The environment of a server that finds the scripted engine as a plugin."""
    info = folder / "scripted_engine-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lollms]\nscripted-engine = engine_binding\n")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(HERE), *([before] if before else [])])}


class Ports(NamedTuple):
    """A server and the addresses of its two ports."""

    server: ServerProcess
    main: str
    inference: str


@pytest.fixture(scope="session")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """One server without API keys for all tests."""
    folder = tmp_path_factory.mktemp("entry-point")
    port, control = free_port(), free_port()
    wingman = {
        "inference_port": port,
        "control_port": control,
        "home": str(folder / "home"),
        "ping_interval": 0.3,
    }
    config = {**CONFIG, "transports": {"wingman": wingman}}
    personality = folder / "personalities" / "pirate"
    personality.mkdir(parents=True)
    (personality / "config.yaml").write_text("name: Pirate\npersonality_conditioning: Talk like a pirate.\n")
    config["paths"] = {"personalities_folder": str(personality.parent)}
    with ServerProcess(config, INSTANCES, env=environment(folder), extra_ports=True) as server:
        yield Ports(server, server.url, f"http://127.0.0.1:{port}")


@pytest.fixture(params=["main", "inference"])
def client(request: pytest.FixtureRequest, ports: Ports) -> Iterator[httpx.Client]:
    """A client of either port: what it tests holds on both."""
    with httpx.Client(base_url=getattr(ports, request.param), timeout=LIMIT) as client:
        yield client


@pytest.fixture
def main(ports: Ports) -> Iterator[httpx.Client]:
    """A client of the main port."""
    with httpx.Client(base_url=ports.main, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def inference(ports: Ports) -> Iterator[httpx.Client]:
    """A client of the inference port."""
    with httpx.Client(base_url=ports.inference, timeout=LIMIT) as client:
        yield client
