"""What the engine's libraries read from the environment when they are imported; set before that, in the worker."""

from __future__ import annotations

import os


def prepare(*, offline: bool) -> None:
    """Set what nobody has set. Threads that wait do not spin: on busy cores that costs a hundredfold of the work."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it asks for torchvision, which is not needed
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
