"""What is installed of the engine, found out without importing it."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

from lollms_kernel.errors import BindingUnavailable, LollmsError

NEEDED = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "PIL")
_GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")  # NVIDIA, AMD, either of them seen from WSL 2
CURE = (
    "Run `make images` in the project folder, or `pip install 'lollms-binding-diffusers[engine]'` "
    "(with the torch build of your GPU installed first; for the CPU: `pip install torch==2.13.0`)."
)


def missing_engine() -> LollmsError | None:
    """Why diffusers cannot be used here, with the cure; None if everything is installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    names = ", ".join("Pillow" if name == "PIL" else name for name in missing)
    verb = "is" if len(missing) == 1 else "are"
    return BindingUnavailable(f"The image engine is not installed: {names} {verb} missing.", hint=CURE)


def broken_engine(error: Exception) -> LollmsError:
    """What to say where everything is installed and cannot be imported."""
    words = (str(error).strip().splitlines() or [""])[0][:300]
    return BindingUnavailable(
        f"The image engine cannot be imported: {type(error).__name__}: {words}",
        hint=f"Its libraries are broken or do not fit each other or this machine; install them anew. {CURE}",
    )


def torch_uses_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether the installed torch can be expected to use a GPU of this machine; neither is asked."""
    try:
        build = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    if build.endswith("+cpu"):
        return False
    return sys.platform == "darwin" or any(any(devices.glob(name)) for name in _GPU_DEVICES)
