"""The seam's other side, in an environment of its own: google-generativeai would pin the protobuf of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lollms_binding_gemini.proto_schema import simplified

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LIMIT = 300.0
"""Seconds for installing; a full download of everything included."""


def run(*command: str | Path, limit: float = LIMIT) -> str:
    """What a command prints; its whole output is the message when it fails."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "LOLLMS_", "GOOGLE_")
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith(hidden)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.long
def test_given_the_extra_is_installed_when_the_seam_is_tested_then_it_holds(tmp_path: Path) -> None:
    python = tmp_path / "env/bin/python"
    kernel, plugin = f"{ROOT}/kernel[testing]", f"{ROOT}/plugins/lollms-binding-gemini[generativeai]"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", kernel, plugin)

    # Its own warnings about its end are no errors here.
    quiet = ("-p", "no:cacheprovider", "-W", "ignore::FutureWarning")
    output = run(python, "-m", "pytest", "--quiet", *quiet, HERE / "generativeai_seam.py")

    assert " passed" in output
    assert "skipped" not in output


def test_given_json_schemas_then_the_simpler_form_says_whether_it_is_complete() -> None:
    whole = {
        "$schema": "x",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "enum": ["a", "b"]},
            "sizes": {"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 1},
        },
        "required": ["name"],
    }

    assert simplified(whole) == (
        {
            "type": "OBJECT",
            "properties": {
                "name": {"type": "STRING", "enum": ["a", "b"]},
                "sizes": {"type": "ARRAY", "items": {"type": "INTEGER", "nullable": True}, "min_items": 1},
            },
            "required": ["name"],
        },
        True,
    )
    lossy: tuple[Any, ...] = (
        {"anyOf": [{"type": "string"}]},
        {"type": ["string", "integer"]},
        {"enum": [1]},
        "no schema",
        {},
    )
    assert [simplified(schema)[1] for schema in lossy] == [False] * 5


def test_given_a_schema_that_nests_for_ever_then_it_is_cut() -> None:
    schema: dict[str, object] = {"type": "array"}
    schema["items"] = schema

    assert simplified(schema)[1] is False
