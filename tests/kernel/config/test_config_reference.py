"""docs/configuration.md is what the schema says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml

from lollms_kernel.config import MainConfig, convert
from lollms_kernel.config.reference import description, reference

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def fields() -> list[tuple[str, Any]]:
    """Every key of the schema with its annotated type."""
    found = []
    struct: Any
    for section in msgspec.structs.fields(MainConfig):
        if isinstance(section.type, type):
            struct, prefix = section.type, f"{section.name}."
        else:
            found.append((section.name, section.type))
            _, struct = get_args(get_args(section.type)[0])
            prefix = f"{section.name}.NAME."
        if isinstance(struct, type) and issubclass(struct, msgspec.Struct):
            found += [(prefix + field.name, field.type) for field in msgspec.structs.fields(struct)]
    return found


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference().rstrip("\n") + "\n", "run `make docs`"


def test_the_module_prints_the_page() -> None:
    command = [sys.executable, "-m", "lollms_kernel.config.reference"]

    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    assert printed == PAGE.read_bytes()


@pytest.mark.parametrize(("key", "type_"), fields(), ids=[key for key, _ in fields()])
def test_every_key_has_a_description_in_one_line(key: str, type_: Any) -> None:
    text = description(type_)

    assert text.endswith(".")
    assert "\n" not in text


def test_the_example_is_a_valid_configuration() -> None:
    example = reference().split("```yaml\n")[1].split("```")[0]

    assert convert(yaml.safe_load(example), MainConfig, "x").server.port == 9700
