"""docs/schema is what the code says, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lollms_kernel.config.json_schema import formatted, json_schema, main_schema
from lollms_kernel.contracts import InstanceSettings, Secret

FILE = Path(__file__).parents[3] / "docs" / "schema" / "main_config.schema.json"


class Settings(InstanceSettings, frozen=True, kw_only=True):
    folder: Path = Path("m")
    size: Annotated[int, msgspec.Meta(ge=1, description="How large.")] = 1
    api_key: Secret | None = None


def test_the_committed_schema_is_the_generated_one() -> None:
    assert FILE.read_text("utf-8") == formatted(main_schema()) + "\n", "run `make docs`"


def test_every_section_and_key_is_there() -> None:
    schema = json.loads(FILE.read_text("utf-8"))

    assert "__version__" in schema["properties"]
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]["ServerConfig"]["properties"]) >= {"host", "port", "allowed_origins"}
    assert schema["properties"]["server"]["anyOf"][1] == {"type": "null"}
    assert "\\A" not in json.dumps(schema).replace("\\\\", "\\")


def test_references_may_stand_for_numbers() -> None:
    port = main_schema()["$defs"]["ServerConfig"]["properties"]["port"]

    assert port["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 65535}
    assert port["anyOf"][1]["type"] == "string"
    assert port["default"] == 9601


def test_a_bindings_settings_have_a_schema_too() -> None:
    schema: dict[str, Any] = json_schema(Settings, "Mine")

    assert schema["title"] == "Mine"
    assert schema["properties"]["folder"]["type"] == "string"
    assert schema["properties"]["size"]["description"] == "How large."
    assert set(schema["required"]) == {"type", "binding_instance_name"}
