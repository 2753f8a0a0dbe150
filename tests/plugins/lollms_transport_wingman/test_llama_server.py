"""`lollms llama-server` as whoever replaces llama.cpp's binary with it meets it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

from lollms_kernel.errors import ConfigError
from lollms_kernel.testing.fakes.hub import FakeHub
from lollms_kernel.testing.server_process import free_port
from lollms_transport_wingman.llama_server.command import llama_server
from lollms_transport_wingman.llama_server.configuration import (
    Flags,
    api_keys,
    configuration,
    instance_settings,
    sampling_defaults,
    transport_settings,
)
from lollms_transport_wingman.llama_server.flags import _SAMPLING, _SWITCHES, _VALUES, SAMPLING
from lollms_transport_wingman.llama_server.flags import flags as every_flag
from lollms_transport_wingman.llama_server.hub import fetched

MODEL = (
    Path(__file__).parents[3]
    / "plugins/lollms-binding-llamacpp/src/lollms_binding_llamacpp/models/lollms-guide.gguf"
)
LIMIT = 60.0


class Running:
    """One server process of the command."""

    def __init__(self, folder: Path, *flags: str, model: Path = MODEL) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        command = [
            sys.executable,
            "-m",
            "lollms_kernel",
            "llama-server",
            "-m",
            str(model),
            "--port",
            str(self.port),
        ]
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, *flags], stdout=log, stderr=log, cwd=folder)

    def wait_until_ready(self) -> set[tuple[int, str]]:
        """Every answer of /health on the way."""
        seen: set[tuple[int, str]] = set()
        deadline = time.monotonic() + LIMIT
        with httpx.Client(timeout=LIMIT) as client:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    answer = client.get(f"{self.url}/health")
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                seen.add((answer.status_code, answer.text))
                if answer.status_code == 200:
                    return seen
        raise AssertionError(f"not ready\n{self.log.read_text()}")

    def stop(self) -> tuple[int, float]:
        """The exit code after SIGTERM, and the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT), time.monotonic() - started


@contextmanager
def running(folder: Path, *flags: str, model: Path = MODEL) -> Iterator[Running]:
    server = Running(folder, *flags, model=model)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_a_drop_in_serves_the_model_and_nothing_else_and_stops_at_once(tmp_path: Path) -> None:
    flags = "-c 512 -np 2 --api-key one,two -n 6 --temp 0 --top-k 1 --mlock -fa on --metrics -a my-model,x".split()
    with running(tmp_path, *flags) as server:
        seen = server.wait_until_ready()
        with httpx.Client(
            base_url=server.url, headers={"Authorization": "Bearer two"}, timeout=LIMIT
        ) as client:
            listed = client.get("/v1/models").json()["data"]
            body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello"}]}
            chat = client.post("/v1/chat/completions", json=body).json()
            guide = client.post("/completion", json={"prompt": "Hello", "model": "lollms-guide"}).json()
            refused = httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code
            rest = client.get("/api/v1/list_bindings").status_code
            metrics = client.get("/metrics").status_code
        code, seconds = server.stop()
        log = server.log.read_text()

    others = {answer for answer in seen if answer[0] != 200}
    assert others <= {(503, '{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}')}
    assert [entry["id"] for entry in listed] == ["my-model,x"]
    assert chat["model"] == "my-model,x"
    assert chat["choices"][0]["message"]["content"]
    assert (chat["usage"]["completion_tokens"], chat["choices"][0]["finish_reason"]) == (6, "length")
    assert guide["tokens_predicted"] == 6
    assert (refused, rest, metrics) == (401, 404, 200)
    assert "llama-server: without effect here: --mlock, -fa" in log or "--flash-attn, --mlock" in log
    assert "server is listening on http://127.0.0.1" in log
    assert (code, seconds < 3) == (0, True), f"{seconds} s\n{log}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_a_model_that_cannot_be_loaded_ends_it_with_an_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 100)
    with running(tmp_path, model=bad) as server:
        assert server.process.wait(LIMIT) == 1
        assert "error loading model" in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "No model is named"),
        (["-m", "no/such.gguf"], "no/such.gguf is no file"),
        (["-m", str(MODEL), "--api-key-file", "no-such-file"], "no-such-file is no file"),
        (["-m", str(MODEL), "--lora", "no-such.gguf"], "--lora"),
        (["-m", str(MODEL), "-ngl", "many"], "--n-gpu-layers is 'many'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(llama_server, arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1


def test_a_flag_that_nobody_knows_is_refused() -> None:
    result = CliRunner().invoke(llama_server, ["-m", str(MODEL), "--no-such-flag"])
    assert result.exit_code == 2
    assert "--no-such-flag" in result.output


def test_every_other_flag_of_llama_server_is_taken_and_told_in_one_line() -> None:
    values = [word for flag in _VALUES for word in (flag, "-1")]
    result = CliRunner().invoke(llama_server, [*_SWITCHES, *values])
    told, error = result.output.splitlines()
    assert told.startswith("llama-server: without effect here: ")
    assert set(told.partition("here: ")[2].split(", ")) == {*_SWITCHES, *_VALUES}
    assert "No model is named" in error


def flags(**given: Any) -> Flags:
    return Flags(model=MODEL, host="127.0.0.1", port=8080, **given)


def test_flags_become_settings_of_the_instance(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    settings = instance_settings(
        flags(
            ctx_size=256,
            parallel=3,
            batch_size=32,
            ubatch_size=16,
            threads=2,
            n_gpu_layers="all",
            pooling="last",
            kv_unified=True,
            cache_ram=0,
            context_shift=True,
            embeddings=True,
            reranking=True,
            lora=(file,),
            lora_scaled=(f"{file}:0.5",),
            mmproj=file,
            slot_save_path=tmp_path,
            chat_template="chatml",
            chat_template_file=file,
            reasoning_format="none",
            temperature=0.5,
            seed=7,
            n_predict=9,
            no_repack=True,
        )
    )

    assert {
        "model_path": str(MODEL),
        "n_ctx": 256,
        "parallel": 3,
        "batch_size": 32,
        "ubatch_size": 16,
        "threads": 2,
        "n_gpu_layers": -1,
        "pooling": "last",
        "kv_unified": True,
        "cache_ram": 0,
        "context_shift": True,
        "embeddings": True,
        "reranking": True,
        "lora": [{"path": str(file), "scale": 1.0}, {"path": str(file), "scale": 0.5}],
        "mmproj": str(file),
        "slot_save_path": str(tmp_path),
        "chat_template": "chatml",
        "chat_template_file": str(file),
        "reasoning_format": "none",
        "default_parameters": {"temperature": 0.5, "seed": 7, "max_tokens": 9},
        "use_extra_bufts": False,
        "verbose": False,
    } == settings
    with pytest.raises(ConfigError, match="--lora-scaled is") as wrong:
        instance_settings(flags(lora_scaled=(f"{file}:x",)))
    assert wrong.value.hint == "It must be FILE:SCALE."


def test_without_flags_the_model_decides() -> None:
    settings = instance_settings(flags())
    assert settings["n_ctx"] == 0
    assert "parallel" not in settings
    assert transport_settings(flags()).alias == MODEL.name
    assert settings["default_parameters"] == {"max_tokens": -1}


def test_sampling_flags_become_defaults_of_requests(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    given = [word for names, _ in _SAMPLING.values() for word in (names[-1], "1")]
    (tmp_path / "schema").write_text('{"type": "object"}')

    @click.command()
    @every_flag
    @click.pass_context
    def command(context: click.Context, /, **_: Any) -> None:
        seen.append(context.meta[SAMPLING])

    more = f"--dry-sequence-breaker x --dry-sequence-breaker y --ignore-eos -jf {tmp_path / 'schema'}".split()
    result = CliRunner().invoke(command, [*given, *more])
    assert result.exit_code == 0, result.output
    defaults = sampling_defaults(flags(sampling={**seen[0], "grammar": "", "sampler_letters": "kt"}))

    expected = set(_SAMPLING) - {"sampler_letters", "grammar"} | {
        "dry_sequence_breakers",
        "ignore_eos",
        "samplers",
    }
    assert expected <= defaults.keys()
    assert (defaults["top_k"], defaults["top_p"], defaults["samplers"]) == (1, 1.0, "kt")
    assert (defaults["dry_sequence_breakers"], defaults["ignore_eos"]) == (["x", "y"], True)
    with pytest.raises(ConfigError, match="repeat_last_n"):
        sampling_defaults(flags(sampling={"repeat_last_n": -7}))


def test_keys_come_from_the_flag_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("three\n\n one \n")
    assert api_keys(flags(api_key="one, two", api_key_file=file)) == ("one", "two", "three")
    assert configuration(flags(api_key="k")).main.server.allow_insecure_bind is False
    assert configuration(flags()).main.server.allow_insecure_bind is True


def test_a_model_of_a_hub_is_downloaded_once_and_then_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="--offline"):
        fetched("owner/tiny-GGUF:Q8_0", None, offline=True)
    with FakeHub() as hub:
        hub.add("owner/tiny-GGUF", {"tiny.Q8_0.gguf": MODEL.read_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        first = fetched("owner/tiny-GGUF:Q8_0", None, offline=False)
    named = fetched("owner/tiny-GGUF", "tiny.Q8_0.gguf", offline=True)
    best = fetched("owner/tiny-GGUF", None, offline=True)

    assert first.read_bytes() == MODEL.read_bytes()
    assert first.is_relative_to(tmp_path / "cache")
    assert first == named == best
    with pytest.raises(ConfigError, match="--offline"):
        fetched("owner/tiny-GGUF:Q4_0", None, offline=True)
