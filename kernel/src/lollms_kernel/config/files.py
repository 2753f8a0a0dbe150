"""Bytes and text of a configuration file, read with limits."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import ConfigError

MAX_BYTES = 1024 * 1024


def read_bytes(path: Path) -> bytes:
    """What a file holds. Raises ConfigError where it cannot be read or is larger than 1 MiB."""
    try:
        # A pipe or device would block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path} is not a regular file.", hint="Put a plain file there.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_BYTES // 1024} KiB.",
            hint="That is no configuration file; put the right file there.",
        )
    return data


def decoded(data: bytes, where: str) -> str:
    """The text of bytes in UTF-8, with or without byte order mark; `where` names it in errors."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{where}, line {line}: a byte that is not UTF-8.", hint="Save the file in the encoding UTF-8."
        ) from None


def unreadable(path: Path, error: OSError) -> ConfigError:
    """The error for a file or folder that the system does not let us read."""
    return ConfigError(
        f"{path} cannot be read: {error.strerror or type(error).__name__}.",
        hint="Check that it is what it should be and that the user who runs the server may read it.",
    )
