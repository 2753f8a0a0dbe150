"""What is installed of llama.cpp, found out without importing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from lollms_kernel.errors import BindingUnavailable, LollmsError

ENGINE = "llama-cpp-python==0.3.36"
"""What pip installs; the extra `engine` of this package says the same."""

_GPU_BACKENDS = ("cuda", "hip", "metal", "vulkan", "sycl", "musa", "opencl", "cann")


def missing_engine() -> LollmsError | None:
    """Why llama.cpp cannot be used here, with the cure; None if it is installed."""
    if importlib.util.find_spec("llama_cpp") is not None:
        return None
    return BindingUnavailable(
        "The engine llama-cpp-python is not installed.",
        hint="Run `make install` in the project folder after installing a C++ compiler (Debian, Ubuntu: `apt install "
        "g++`), or `pip install 'lollms-binding-llamacpp[engine]'`: it is compiled, about 4 minutes on 2 cores.",
    )


def engine_build() -> str | None:
    """A text that changes whenever another build of llama.cpp is installed; None if there is none."""
    library = next(_libraries("ggml-cpu"), None)
    try:
        version = metadata.version("llama-cpp-python")
        status = library.stat() if library else None
    except (metadata.PackageNotFoundError, OSError):
        return None
    return f"{version}-{status.st_size}-{status.st_mtime_ns}" if status else version


def has_gpu_backend() -> bool:
    """Whether the installed build can use a GPU at all."""
    return any(next(_libraries(f"ggml-{backend}"), None) is not None for backend in _GPU_BACKENDS)


def _libraries(name: str) -> Iterator[Path]:
    spec = importlib.util.find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from Path(folder, "lib").glob(f"*{name}.*")
