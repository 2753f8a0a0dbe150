"""GET endpoints of a live server."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import httpx
import pytest

from lollms_kernel.testing import ServerProcess

from .conftest import INSTANCES

MODEL_KEYS = (
    "name size modified_at quantization_level format family families parameter_size context_size max_output_tokens "
    "template license homepage supports_vision supports_audio details"
).split()
CARD_KEYS = (
    "type_name display_name version author description requirements supports_streaming documentation_url "
    "supported_output_modalities supported_input_modalities"
).split()


def get(client: httpx.Client, path: str) -> Any:
    response = client.get(f"/api/v1/{path}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


@pytest.mark.parametrize("path", ["/health", "/api/v1/health"])
def test_given_a_server_when_asked_for_health_then_it_tells_version_and_key(
    client: httpx.Client, path: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    own = {"status": "ok", "version": version("lollms-kernel"), "api_key_required": False}
    told = response.json()
    assert {name: told[name] for name in own} == own
    # protocols may add to the page that other servers have too, and only to that
    assert path == "/health" or told == own


def test_given_types_when_listed_then_each_has_its_card(client: httpx.Client) -> None:
    types = get(client, "list_bindings")["binding_types"]
    assert list(types["dummy_binding"]) == CARD_KEYS
    assert types["dummy_binding"]["type_name"] == "dummy_binding"
    for name, card in types.items():
        assert card["type_name"] == name
        assert set(card) - set(CARD_KEYS) in (set(), {"available", "error", "hint"})


def test_given_instances_when_listed_then_all_are_there_and_the_broken_say_why(client: httpx.Client) -> None:
    instances = get(client, "list_bindings")["binding_instances"]
    assert instances.keys() == INSTANCES.keys()
    assert instances["echo"]["type"] == "dummy_binding"
    assert instances["echo"]["binding_instance_name"] == "echo"
    assert instances["echo"]["context_size"] == 2048
    assert "state" not in instances["echo"]
    assert instances["misspelt"]["state"] == "failed"
    assert "contxt_size" in instances["misspelt"]["error"]
    assert instances["strange"]["state"] == "failed"
    assert "no_such_type" in instances["strange"]["error"]
    assert instances["strange"]["hint"]


def test_given_instances_when_active_ones_are_listed_then_only_those_that_serve_are_there(
    client: httpx.Client,
) -> None:
    active = get(client, "list_active_bindings")["bindings"]
    assert active.keys() == INSTANCES.keys() - {"misspelt", "strange"}
    assert active["echo"]["binding_instance_name"] == "echo"
    assert all("state" not in settings for settings in active.values())


def test_given_personalities_when_listed_then_each_has_the_documented_keys(client: httpx.Client) -> None:
    listed = get(client, "list_personalities")["personalities"]
    assert list(listed["lollms"]) == (
        "name author version description category language tags icon is_scripted path".split()
    )
    assert isinstance(listed["lollms"]["version"], str)
    assert not any(personality["path"].startswith("/") for personality in listed.values())


def test_given_functions_when_listed_then_their_names_are_sorted(client: httpx.Client) -> None:
    functions = get(client, "list_functions")["functions"]
    assert functions == sorted(functions)


def test_given_a_models_folder_when_listed_then_names_are_sorted_and_hidden_ones_left_out(
    client: httpx.Client, server: ServerProcess
) -> None:
    folder = server.root / "models" / "gguf"
    (folder / "zeta" / "inner").mkdir(parents=True, exist_ok=True)
    (folder / "alpha.gguf").touch()
    (folder / ".hidden").touch()
    models = get(client, "list_models")["models"]
    assert list(models) == "ttt tti ttv ttm tts stt audio2audio i2i gguf diffusers_models".split()
    assert models["gguf"] == ["alpha.gguf", "zeta"]
    assert models["tti"] == []


def test_given_a_folder_that_cannot_be_read_when_listed_then_the_error_names_it(
    client: httpx.Client, server: ServerProcess
) -> None:
    folder = server.root / "models" / "ttv"
    folder.rmdir()
    folder.touch()
    try:
        response = client.get("/api/v1/list_models")
    finally:
        folder.unlink()
        folder.mkdir()
    assert response.status_code == 500
    assert "'ttv'" in response.json()["detail"]
    assert str(server.root) not in response.text


def test_given_defaults_when_asked_then_nulls_are_kept(client: httpx.Client) -> None:
    assert get(client, "get_default_bindings") == {
        "defaults": {
            "ttt_binding": "echo",
            "tti_binding": "painter",
            "tts_binding": "speaker",
            "stt_binding": None,
            "ttv_binding": None,
            "ttm_binding": None,
            "default_context_size": 4096,
            "default_max_output_tokens": 77,
        }
    }


def test_given_an_old_client_when_it_asks_for_the_context_length_then_it_gets_a_number(
    client: httpx.Client,
) -> None:
    assert get(client, "get_default_ttt_context_length") == {"context_length": 2048}


def test_given_an_instance_when_its_models_are_listed_then_all_16_keys_are_there(
    client: httpx.Client,
) -> None:
    listed = get(client, "list_available_models/vision")
    assert listed["binding_instance_name"] == "vision"
    [model] = listed["models"]
    assert list(model) == MODEL_KEYS
    assert model["name"] == "dummy-model"
    assert (model["supports_vision"], model["supports_audio"]) == (True, False)


def test_given_an_instance_when_asked_for_its_model_then_the_documented_keys_are_there(
    client: httpx.Client,
) -> None:
    info = get(client, "get_model_info/echo")
    assert list(info) == (
        "binding_instance_name model_name model_type context_size max_output_tokens supports_vision supports_audio "
        "supports_streaming details".split()
    )
    assert (info["binding_instance_name"], info["model_name"], info["model_type"]) == (
        "echo",
        "echo-model",
        "ttt",
    )
    assert (info["context_size"], info["supports_streaming"]) == (2048, True)
    assert info["details"]["format"] == "dummy"
    assert get(client, "get_model_info/echo?model_name=echo-model") == info
    assert get(client, "get_model_info/echo?model_name=") == info


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("list_available_models/nobody", 404, "Binding instance 'nobody' not found."),
        ("list_available_models/strange", 503, "Binding instance 'strange' not available or failed to load."),
        ("get_model_info/nobody", 404, "Binding instance 'nobody' not found."),
        ("get_model_info/strange", 503, "Binding instance 'strange' not available or failed to load."),
        ("get_model_info/echo?model_name=other", 404, "'other'"),
    ],
)
def test_given_an_unknown_name_when_asked_then_the_error_names_it(
    client: httpx.Client, path: str, status: int, words: str
) -> None:
    response = client.get(f"/api/v1/{path}")
    assert response.status_code == status
    assert words in response.json()["detail"]
