"""docs/cli.md says what the commands say."""

from __future__ import annotations

from pathlib import Path

from lollms_kernel.cli.group import MODULES
from lollms_kernel.cli.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `make docs`"


def test_the_page_has_every_built_in_command_with_its_options() -> None:
    page = reference()

    assert all(f"\n## `lollms {name}`\n" in page for name in MODULES)
    assert "--config-dir DIR" in page
    assert "LOLLMS_PORT" in page
