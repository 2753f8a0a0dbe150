"""The package as the server sees it."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path

import pytest

import lollms_binding_llamacpp
from lollms_binding_llamacpp import LlamaCppBinding
from lollms_binding_llamacpp.installation import ENGINE
from lollms_binding_llamacpp.parameters import Sampling
from lollms_binding_llamacpp.threads import automatic_threads
from lollms_kernel.config.decode import convert
from lollms_kernel.errors import ConfigError
from lollms_kernel.plugins import load_plugins
from lollms_kernel.processors import physical_cores
from lollms_kernel.types import GenerateRequest


def in_a_fresh_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plugin_is_found_and_registers_its_binding() -> None:
    plugins = load_plugins(environ={"LOLLMS_LOAD_PLUGINS": "lollms-binding-llamacpp"})
    assert plugins.status("lollms-binding-llamacpp").state == "loaded"
    found: list[type] = []
    list(plugins.call_each("register_bindings", {"register": found.append}))
    assert LlamaCppBinding in found


def test_the_server_process_gets_neither_the_engine_nor_numpy() -> None:
    in_a_fresh_python(
        "import sys; from pathlib import Path\n"
        "from lollms_binding_llamacpp import LlamaCppBinding as B\n"
        "from lollms_kernel.contracts import BindingContext; from lollms_kernel.types import GenerateRequest\n"
        "s = B.Settings(type='llamacpp_binding', binding_instance_name='x')\n"
        "b = B(s, BindingContext(models_folder=Path('m'), root=Path('.')))\n"
        "b.gpu_need(GenerateRequest(id='1')); b.parallel; b.isolation; B.unavailable_reason()\n"
        "B.builtin_instances(); list(B.doctor_findings())\n"
        "assert not {'llama_cpp', 'numpy', 'torch', 'jinja2'} & set(sys.modules), sys.modules.keys()"
    )


def test_a_missing_engine_is_named_with_its_cure() -> None:
    said = in_a_fresh_python(
        "import sys; sys.modules['llama_cpp'] = None\n"
        "from lollms_binding_llamacpp import LlamaCppBinding as B\n"
        "reason = B.unavailable_reason(); sys.stdout.write(f'{reason.code} {reason.detail}')"
    )
    assert said.startswith("binding_unavailable")
    assert "lollms-binding-llamacpp[engine]" in said
    assert "make install" in said


def test_the_embedded_instance_is_there_without_configuration() -> None:
    instance = LlamaCppBinding.builtin_instances()["embedded"]
    settings = convert(dict(instance), LlamaCppBinding.Settings, where="builtin")
    assert settings.default_model == "lollms-guide"
    assert settings.n_ctx == 4096


def test_wrong_settings_are_refused() -> None:
    base = {"type": "llamacpp_binding", "binding_instance_name": "x"}
    for wrong in (
        {"n_ctx": -1},
        {"cache_type": "q2"},
        {"n_gpu_layers": -2},
        {"tensor_split": [-1.0]},
        {"nctx": 1},
    ):
        with pytest.raises(ConfigError):
            convert({**base, **wrong}, LlamaCppBinding.Settings, where="test")


async def test_settings_of_the_old_binding_are_accepted_with_a_warning(
    make_binding: Callable[..., Awaitable[LlamaCppBinding]], caplog: pytest.LogCaptureFixture
) -> None:
    await make_binding(
        server_path="/opt/llama-server", additional_args={"--mlock": ""}, model_path="gone.gguf"
    )
    text = caplog.text
    assert "server_path and additional_args" in text
    assert "gone.gguf" in text


async def test_llama_cpps_log_goes_to_ours_at_debug(
    make_binding: Callable[..., Awaitable[LlamaCppBinding]],
    make_model: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make_model()
    caplog.set_level(logging.DEBUG, "lollms_binding_llamacpp.native")
    await (await make_binding()).load("alphabet")
    lines = [record for record in caplog.records if record.name == "lollms_binding_llamacpp.native"]
    assert any("llama_model_loader" in record.message for record in lines)
    assert {record.levelno for record in lines} == {logging.DEBUG}
    captured = capfd.readouterr()
    assert "llama_model_loader" not in captured.out + captured.err


async def test_a_cpu_build_needs_no_gpu(make_binding: Callable[..., Awaitable[LlamaCppBinding]]) -> None:
    request = GenerateRequest(id="1")
    assert (await make_binding(n_gpu_layers=0)).gpu_need(request).required is False


def test_threads_are_chosen_by_size_and_cores(tmp_path: Path) -> None:
    assert automatic_threads(3_000_000) == 1
    assert automatic_threads(3_000_000_000) == physical_cores() >= 1
    assert physical_cores(tmp_path) >= 1


def test_the_readme_names_every_setting_and_every_parameter() -> None:
    readme = (Path(lollms_binding_llamacpp.__file__).parents[2] / "README.md").read_text()
    own = set(LlamaCppBinding.Settings.__struct_fields__) - {"type", "binding_instance_name"}
    missing = [name for name in sorted(own | set(Sampling.__struct_fields__)) if f"`{name}`" not in readme]
    assert missing == []


def test_the_cure_installs_what_the_package_asks_for() -> None:
    wanted = metadata.requires("lollms-binding-llamacpp") or []
    assert any(line.startswith(ENGINE) and "engine" in line for line in wanted)
