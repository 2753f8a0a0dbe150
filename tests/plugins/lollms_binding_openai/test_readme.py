"""The README says everything that there is to set."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from lollms_binding_openai import parameters
from lollms_binding_openai.image_parameters import IMAGE_PARAMETERS
from lollms_binding_openai.settings import DalleSettings, OpenAISettings, ServiceSettings
from lollms_binding_openai.speech import SPEECH_PARAMETERS, TRANSCRIPT_PARAMETERS

README = (Path(__file__).parents[3] / "plugins" / "lollms-binding-openai" / "README.md").read_text("utf-8")
NAMED = set(re.findall(r"`(\w+)`", README))
OF_EVERY_REQUEST = {"context_size", "max_tokens"}


@pytest.mark.parametrize("kind", [OpenAISettings, DalleSettings])
def test_every_setting_is_explained(kind: type[ServiceSettings]) -> None:
    fields = {field.name for field in msgspec.structs.fields(kind)} - {"type", "binding_instance_name"}

    assert fields - NAMED == set()


def test_every_parameter_is_explained() -> None:
    known = {*parameters._EVERYWHERE, *parameters._HANDLED, *IMAGE_PARAMETERS}
    known |= SPEECH_PARAMETERS | TRANSCRIPT_PARAMETERS
    known |= {name for names in parameters._EXTENDED.values() for name in names}

    assert known - NAMED - OF_EVERY_REQUEST == set()
