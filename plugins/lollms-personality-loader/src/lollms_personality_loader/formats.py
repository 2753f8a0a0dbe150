"""The two published file formats of a personality, both read into `Fields` with the keys of config.yaml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lollms_kernel.errors import ConfigError

from .fields import Fields
from .yaml_text import read_mapping

MAX_BYTES = 1024 * 1024

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<yaml>(?:.*\n)*?)---[ \t]*(?:\n|$)")

_SOUL_KEYS = {"description": "personality_description", "temperature": "model_temperature"}
"""What SOUL.md calls differently."""


def read_file(file: Path) -> Fields:
    """The fields of a config.yaml or SOUL.md. Raises ConfigError with file, line and cure."""
    text = _read_text(file)
    return _read_soul(text, file) if file.suffix == ".md" else _read_config(text, file)


def read_mapping_file(file: Path) -> dict[str, Any]:
    """The keys and values of any YAML file of a personality. Raises ConfigError with file, line and cure."""
    return read_mapping(_read_text(file), str(file))


def _read_config(text: str, file: Path) -> Fields:
    fields = Fields(read_mapping(text, str(file)))
    if not fields.has("name") and not fields.has("personality_conditioning"):
        raise ConfigError(
            f"{file} has neither `name` nor `personality_conditioning`.",
            hint="Add them, or move the file out of the personalities folder if it is no personality.",
        )
    return fields


def _read_soul(text: str, file: Path) -> Fields:
    front = _FRONT_MATTER.match(text)
    if front is None:
        if text.startswith("---"):
            raise ConfigError(
                f"{file}, line 1: the front matter has no end.",
                hint="Close it by a line that holds only `---`.",
            )
        return Fields({"personality_conditioning": text.strip()})
    raw = read_mapping(front["yaml"], str(file), first_line=2) if front["yaml"].strip() else {}
    named = {_SOUL_KEYS.get(key, key): value for key, value in raw.items()}
    return Fields({**named, "personality_conditioning": text[front.end() :].strip()})


def _read_text(file: Path) -> str:
    if not file.is_file():  # a pipe of this name would be waited for without end
        raise ConfigError(f"{file} is not a regular file.", hint="Replace it by one, or remove it.")
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}.", hint="Make the file readable for the server."
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{file} is larger than {MAX_BYTES} bytes.", hint="Shorten its texts.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: not UTF-8.", hint="Save the file as UTF-8.") from error
    return text.replace("\r\n", "\n")
