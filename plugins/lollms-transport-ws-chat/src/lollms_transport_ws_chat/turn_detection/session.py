"""An ONNX session that stays out of the way: one thread, no spinning, no memory kept for later."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def quiet_session(model: Path | bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU. Imports onnxruntime, which takes a tenth of a second."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
