"""The README says everything that there is to set."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from lollms_binding_gemini.image_parameters import IMAGE_PARAMETERS
from lollms_binding_gemini.parameters import PARAMETERS
from lollms_binding_gemini.settings import GeminiImageSettings, GeminiSettings, ServiceSettings

README = (Path(__file__).parents[3] / "plugins" / "lollms-binding-gemini" / "README.md").read_text("utf-8")
NAMED = set(re.findall(r"`(\w+)`", README))


@pytest.mark.parametrize("kind", [GeminiSettings, GeminiImageSettings])
def test_every_setting_is_explained(kind: type[ServiceSettings]) -> None:
    fields = {field.name for field in msgspec.structs.fields(kind)} - {"type", "binding_instance_name"}

    assert fields - NAMED == set()


def test_every_parameter_is_explained() -> None:
    assert {*PARAMETERS, *IMAGE_PARAMETERS} - NAMED == set()
