"""Models that `--hf-repo` names."""

from __future__ import annotations

from pathlib import Path

from lollms_kernel.errors import ConfigError


def fetched(repo: str, file: str | None, *, offline: bool) -> Path:
    """The model's file, downloaded if need be. Raises ConfigError."""
    raise ConfigError(
        f"--hf-repo {repo}: this version does not download models by itself.",
        hint="Download the GGUF file and name it with --model.",
    )
