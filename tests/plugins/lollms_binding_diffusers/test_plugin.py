"""The package as the server sees it, and what it chooses on a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import lollms_binding_diffusers
from lollms_binding_diffusers import DiffusersBinding, installation
from lollms_binding_diffusers.device import automatic_threads, choose, place
from lollms_binding_diffusers.library import DEMONSTRATION
from lollms_kernel.config.decode import convert
from lollms_kernel.contracts import BindingContext
from lollms_kernel.errors import ConfigError, ModelLoadFailed
from lollms_kernel.plugins import load_plugins
from lollms_kernel.testing.binding_contract import make_binding
from lollms_kernel.types import GenerateRequest

PACKAGE = Path(lollms_binding_diffusers.__file__).parents[2]


def in_a_fresh_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plugin_is_found_and_registers_its_binding() -> None:
    plugins = load_plugins(environ={"LOLLMS_LOAD_PLUGINS": "lollms-binding-diffusers"})
    assert plugins.status("lollms-binding-diffusers").state == "loaded"
    found: list[type] = []
    list(plugins.call_each("register_bindings", {"register": found.append}))
    assert DiffusersBinding in found


def test_the_server_process_gets_no_engine() -> None:
    in_a_fresh_python(
        "import sys; from pathlib import Path\n"
        "from lollms_binding_diffusers import DiffusersBinding as B\n"
        "from lollms_kernel.contracts import BindingContext; from lollms_kernel.types import GenerateRequest\n"
        "s = B.Settings(type='diffusers_binding', binding_instance_name='x')\n"
        "b = B(s, BindingContext(models_folder=Path('m'), root=Path('.')))\n"
        "b.gpu_need(GenerateRequest(id='1')); b.parallel; b.isolation; B.unavailable_reason()\n"
        "b.library.sources(); B.builtin_instances()\n"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )


@pytest.mark.parametrize("module", ["torch", "diffusers", "peft", "PIL"])
def test_a_missing_engine_is_named_with_its_cure_and_has_no_instance(module: str) -> None:
    said = in_a_fresh_python(
        f"import sys; sys.modules[{module!r}] = None\n"
        "from lollms_binding_diffusers import DiffusersBinding as B\n"
        "reason, instances = B.unavailable_reason(), dict(B.builtin_instances())\n"
        "sys.stdout.write(f'{reason.code} {reason.detail} {instances}')"
    )
    assert said.startswith("binding_unavailable")
    assert ("Pillow" if module == "PIL" else module) in said
    assert "make images" in said
    assert "lollms-binding-diffusers[engine]" in said
    assert "torch==2.13.0" in said
    assert said.endswith("{}")


def test_the_built_in_instance_draws_with_the_packaged_model() -> None:
    instance = DiffusersBinding.builtin_instances()["images"]
    settings = convert(dict(instance), DiffusersBinding.Settings, where="builtin")
    assert settings.default_model == DEMONSTRATION
    assert settings.allow_downloads is False


def test_the_published_settings_are_there_with_their_defaults() -> None:
    settings = convert(
        {"type": "diffusers_binding", "binding_instance_name": "x"}, DiffusersBinding.Settings, where="test"
    )
    published: dict[str, Any] = {
        "default_model": None, "models_folder": "models/diffusers_models/",
        "controlnet_models_folder": "models/controlnet/", "device": "auto", "use_fp16": True, "use_bf16": False,
        "scheduler_type": "DPMSolverMultistepScheduler", "vae_path": None, "lora_paths": [],
        "controlnet_model_paths": [], "enable_safety_checker": None, "use_compel": False, "default_strength": 0.8,
        "default_controlnet_scale": 0.75,
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in published} == published


@pytest.mark.parametrize(
    "wrong",
    [{"device": "tpu"}, {"scheduler_type": "Magic"}, {"default_strength": 2}, {"max_batch": 0}, {"x": 1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    base = {"type": "diffusers_binding", "binding_instance_name": "x"}
    with pytest.raises(ConfigError):
        convert({**base, **wrong}, DiffusersBinding.Settings, where="test")


def test_requests_of_an_instance_share_one_lease_where_a_gpu_is_used() -> None:
    context = BindingContext(models_folder=Path("m"), root=Path())
    request = GenerateRequest(id="1", generation_type="tti")
    on_gpu = make_binding(DiffusersBinding, {"device": "cuda"}, context).gpu_need(request)
    assert (on_gpu.required, on_gpu.share) == (True, "diffusers:under_test")
    assert make_binding(DiffusersBinding, {"device": "cpu"}, context).gpu_need(request).required is False


@pytest.mark.parametrize(
    ("devices", "build", "uses"),
    [
        (["nvidia0"], "2.13.0", True),
        (["nvidia3"], "2.13.0", True),
        (["kfd"], "2.13.0+rocm7", True),
        (["dxg"], "2.13.0", True),
        (["nvidiactl", "null"], "2.13.0", False),
        (["nvidia0"], "2.13.0+cpu", False),
    ],
)
def test_a_gpu_is_seen_by_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[str], build: str, uses: bool
) -> None:
    for name in devices:
        (tmp_path / name).touch()
    monkeypatch.setattr("importlib.metadata.version", lambda _: build)
    monkeypatch.setattr("sys.platform", "linux")
    assert installation.torch_uses_gpu(tmp_path) is uses


GIB = 2**30


@pytest.mark.parametrize(
    ("device", "free", "weights", "largest", "chosen"),
    [
        ("cuda", 24 * GIB, 4 * GIB, 3 * GIB, ("device", False)),
        ("cuda", 8 * GIB, 5 * GIB, 4 * GIB, ("device", True)),
        ("cuda", 6 * GIB, 7 * GIB, 4 * GIB, ("model_offload", True)),
        ("cuda", 4 * GIB, 12 * GIB, 10 * GIB, ("sequential_offload", True)),
        ("cpu", 4 * GIB, 12 * GIB, 10 * GIB, ("device", True)),
        ("cpu", 64 * GIB, 4 * GIB, 3 * GIB, ("device", False)),
        ("mps", None, 4 * GIB, 3 * GIB, ("device", False)),
    ],
)
def test_weights_go_where_there_is_room(
    device: str, free: int | None, weights: int, largest: int, chosen: tuple[str, bool]
) -> None:
    assert place(device, free, weights, largest) == chosen


def fake_torch(*, cuda: bool, bf16: bool = True, free: int = 24 * GIB) -> Any:
    """What `choose` asks of torch, on a machine that is not here."""
    return SimpleNamespace(
        __version__="2.13.0",
        cuda=SimpleNamespace(
            is_available=lambda: cuda, is_bf16_supported=lambda: bf16, mem_get_info=lambda: (free, free)
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False)),
    )


def settings(**values: Any) -> Any:
    context = BindingContext(models_folder=Path("m"), root=Path())
    return make_binding(DiffusersBinding, values, context).settings


def test_precision_follows_device_and_settings() -> None:
    def dtype(torch_: Any, **values: Any) -> str:
        return choose(torch_, settings(**values), GIB, GIB).dtype

    assert dtype(fake_torch(cuda=True)) == "float16"
    assert dtype(fake_torch(cuda=True), use_bf16=True) == "bfloat16"
    assert dtype(fake_torch(cuda=True, bf16=False), use_bf16=True) == "float16"
    assert dtype(fake_torch(cuda=True), use_fp16=False) == "float32"
    assert dtype(fake_torch(cuda=False)) == "float32"


def test_the_limit_of_a_container_counts_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lollms_binding_diffusers.device.free_memory", lambda: GIB)
    assert choose(fake_torch(cuda=False), settings(), GIB, GIB).attention_slicing is True
    assert choose(fake_torch(cuda=True), settings(), GIB, GIB).attention_slicing is False


def test_a_device_that_is_not_there_is_refused_with_the_cure() -> None:
    with pytest.raises(ModelLoadFailed, match="cuda") as refused:
        choose(fake_torch(cuda=False), settings(device="cuda"), GIB, GIB)
    assert "device: auto" in str(refused.value.hint)
    assert choose(torch, settings(), 10**6, 10**6).device in ("cpu", "cuda", "mps")


def test_small_models_get_one_thread_and_large_ones_the_cores() -> None:
    assert automatic_threads(10**6) == 1
    assert automatic_threads(4 * GIB) >= 1
    assert choose(fake_torch(cuda=False), settings(threads=3), GIB, GIB).threads == 3


def test_waiting_threads_do_not_spin_in_the_worker() -> None:
    said = in_a_fresh_python(
        "import os; os.environ.pop('OMP_WAIT_POLICY', None)\n"
        "from lollms_binding_diffusers.environment import prepare; prepare(offline=True)\n"
        "import sys; sys.stdout.write(os.environ['OMP_WAIT_POLICY'] + os.environ['HF_HUB_OFFLINE'])\n"
        "assert 'torch' not in sys.modules"
    )
    assert said == "PASSIVE1"


def test_the_readme_names_every_setting_and_every_parameter() -> None:
    from lollms_binding_diffusers.parameters import KNOWN

    readme = (PACKAGE / "README.md").read_text()
    own = set(DiffusersBinding.Settings.__struct_fields__) - {"type", "binding_instance_name"}
    parameters = KNOWN - {"max_tokens", "context_size", "stop"}
    assert [name for name in sorted(own | parameters) if f"`{name}`" not in readme] == []
