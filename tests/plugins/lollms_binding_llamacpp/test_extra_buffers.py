"""The trial that finds out whether llama.cpp survives its extra buffers, with real processes that live or die."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import GGMLQuantizationType as Quantization

from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.extra_buffers import TRIAL_COMMAND, ExtraBuffers, Verdict, amx_trap, has_amx
from lollms_binding_llamacpp.library import Headers, ModelFile
from lollms_kernel.types import Chunk, Finished, Notice

DIES = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
MUST_NOT_RUN = ("/does/not/exist",)
MakeBinding = Callable[..., Awaitable[LlamaCppBinding]]


@pytest.fixture
def with_amx(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile amx_int8\n")
    return path


@pytest.fixture
def without_amx(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo-plain"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n")
    return path


@pytest.fixture
def decider(tmp_path: Path, with_amx: Path) -> Callable[..., ExtraBuffers]:
    def make(
        command: Any = MUST_NOT_RUN, setting: bool | None = None, cpuinfo: Path = with_amx
    ) -> ExtraBuffers:
        return ExtraBuffers(
            setting, Headers(), folder=tmp_path / "verdicts", cpuinfo=cpuinfo, command=command
        )

    return make


@pytest.fixture
def file(make_model: Callable[..., Path]) -> ModelFile:
    return ModelFile("alphabet.gguf", (make_model(quantization=Quantization.Q8_0),))


def test_a_cpu_is_known_by_its_flags(with_amx: Path, without_amx: Path, tmp_path: Path) -> None:
    assert has_amx(with_amx)
    assert not has_amx(without_amx)
    assert not has_amx(tmp_path / "nothing")


async def test_a_model_that_kills_the_trial_is_loaded_without_and_that_is_remembered(
    decider: Callable[..., ExtraBuffers], file: ModelFile
) -> None:
    first = decider(DIES)
    assert first.known(file) is None
    verdict = await first.decide(file)
    assert verdict.use is False
    assert "SIGSEGV" in str(verdict.reason)
    assert first.known(file) == verdict
    assert await decider().decide(file) == verdict


async def test_a_model_that_survives_the_trial_keeps_them(
    decider: Callable[..., ExtraBuffers], file: ModelFile
) -> None:
    assert await decider(TRIAL_COMMAND).decide(file) == Verdict(True)
    assert await decider().decide(file) == Verdict(True)


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os; os.kill(os.getpid(), 9)"])
async def test_a_trial_that_ends_otherwise_says_nothing(
    decider: Callable[..., ExtraBuffers], file: ModelFile, code: str
) -> None:
    trying = decider((sys.executable, "-c", code))
    assert await trying.decide(file) == Verdict(True)
    assert trying.known(file) is None


async def test_without_a_trial_the_slow_way_is_the_safe_one(
    decider: Callable[..., ExtraBuffers], file: ModelFile
) -> None:
    verdict = await decider(MUST_NOT_RUN).decide(file)
    assert verdict.use is False
    assert "could not be started" in str(verdict.reason)


async def test_no_trial_where_nothing_can_happen(
    decider: Callable[..., ExtraBuffers], file: ModelFile, make_model: Callable[..., Path], without_amx: Path
) -> None:
    assert await decider(cpuinfo=without_amx).decide(file) == Verdict(True)
    for quantization in (Quantization.F32, Quantization.F16):
        harmless = ModelFile("h.gguf", (make_model("h.gguf", quantization=quantization),))
        assert await decider().decide(harmless) == Verdict(True)


async def test_the_setting_decides_without_a_trial(
    decider: Callable[..., ExtraBuffers], file: ModelFile
) -> None:
    assert (await decider(setting=True).decide(file)).use is True
    off = await decider(setting=False).decide(file)
    assert off.use is False
    assert "use_extra_bufts" in str(off.reason)


async def test_a_verdict_that_cannot_be_stored_still_counts(
    decider: Callable[..., ExtraBuffers], file: ModelFile, tmp_path: Path
) -> None:
    (tmp_path / "verdicts").write_text("in the way")
    trying = decider(DIES)
    assert (await trying.decide(file)).use is False
    assert trying.known(file) == await trying.decide(file)


async def test_the_user_gets_an_answer_and_the_reason_from_a_model_that_would_have_crashed(
    decider: Callable[..., ExtraBuffers],
    file: ModelFile,
    make_binding: MakeBinding,
    ask: Callable[..., Awaitable[list[Chunk]]],
) -> None:
    binding = await make_binding()
    binding.extra_buffers = decider(DIES)

    chunks = await ask(binding, raw_prompt="y")

    assert isinstance(chunks[-1], Finished)
    assert [chunk.code for chunk in chunks if isinstance(chunk, Notice)] == ["extra_buffers_off"]
    details = (await binding.get_model_info(file.name)).details
    assert details["extra_buffers"] is False
    assert "SIGSEGV" in details["extra_buffers_reason"]


async def test_a_q8_model_is_served_on_this_machine_whatever_its_cpu(
    file: ModelFile, make_binding: MakeBinding, ask: Callable[..., Awaitable[list[Chunk]]]
) -> None:
    binding = await make_binding()
    assert isinstance((await ask(binding, raw_prompt="y"))[-1], Finished)
    details = (await binding.get_model_info(file.name)).details
    assert details["extra_buffers"] is True or details["extra_buffers_reason"]


async def test_the_doctor_hears_of_it(
    decider: Callable[..., ExtraBuffers], file: ModelFile, tmp_path: Path, with_amx: Path, without_amx: Path
) -> None:
    verdicts = tmp_path / "verdicts"
    assert amx_trap(verdicts, without_amx) is None
    assert "tried once" in str(amx_trap(verdicts, with_amx))
    await decider(DIES).decide(file)
    assert "-fno-dse" in str(amx_trap(verdicts, with_amx))
