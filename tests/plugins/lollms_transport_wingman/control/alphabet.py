"""The little model that the tests of the llama.cpp binding write: it says the alphabet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "lollms_binding_llamacpp" / "conftest.py"


def alphabet(path: Path, n_ctx: int = 512) -> bytes:
    """The content of the model's file; it is written to `path` on the way."""
    spec = importlib.util.spec_from_file_location("alphabet_model", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: Path = module.write_model(path, n_ctx=n_ctx)
    return written.read_bytes()
