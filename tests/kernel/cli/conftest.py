"""Fixtures of the tests of the `lollms` command."""

from __future__ import annotations

from pathlib import Path

import pytest

from .commands import Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A folder with a configuration whose only binding echoes; no server runs at its port."""
    return Workplace(tmp_path)
