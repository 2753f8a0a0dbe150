"""LoLLMs parameters as Ollama calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lollms_binding_ollama.parameters import _OPTIONS, Wishes, read_wishes
from lollms_binding_ollama.settings import OllamaSettings
from lollms_kernel.errors import InvalidRequest

README = Path(__file__).parents[3] / "plugins" / "lollms-binding-ollama" / "README.md"


def wishes(parameters: dict[str, Any], **settings: Any) -> Wishes:
    own = OllamaSettings(type="ollama_binding", binding_instance_name="mine", **settings)
    return read_wishes(parameters, own, default_context_size=4096)


def test_every_parameter_has_its_option() -> None:
    given = {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.1,
        "repeat_last_n": 7,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "mirostat": 1,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "seed": 42,
        "stop": ["\n"],
    }
    expected = {("num_predict" if name == "max_tokens" else name): value for name, value in given.items()}

    assert set(given) == set(_OPTIONS)
    assert wishes(given) == Wishes(options=expected)


def test_the_readme_lists_every_parameter() -> None:
    text = README.read_text("utf-8")

    assert [
        name
        for name in (*_OPTIONS, "context_size", "options", "keep_alive", "think", "format")
        if f"`{name}`" not in text
    ] == []


@pytest.mark.parametrize(
    ("parameters", "settings", "num_ctx"),
    [
        ({}, {}, None),
        ({"context_size": 4096}, {}, None),  # the kernel's default, not a wish
        ({"context_size": 8192}, {}, 8192),
        ({}, {"num_ctx": 16384}, 16384),
        ({"context_size": 4096}, {"num_ctx": 16384}, 16384),
        ({"context_size": 8192}, {"num_ctx": 16384}, 8192),
        ({"context_size": 8192, "options": {"num_ctx": 100}}, {"num_ctx": 16384}, 100),
        ({}, {"options": {"num_ctx": 7}}, 7),
    ],
)
def test_the_context_size_is_sent_only_where_somebody_chose_it(
    parameters: dict[str, Any], settings: dict[str, Any], num_ctx: int | None
) -> None:
    assert wishes(parameters, **settings).options.get("num_ctx") == num_ctx


def test_options_of_the_request_win_over_parameters_and_those_over_the_instance() -> None:
    result = wishes(
        {"temperature": 0.5, "top_k": 5, "options": {"top_k": 6, "numa": True, "seed": None}},
        options={"temperature": 0.1, "num_gpu": 20, "top_k": 4},
    )

    assert result.options == {"temperature": 0.5, "num_gpu": 20, "top_k": 6, "numa": True}


def test_any_seed_is_no_seed() -> None:
    assert wishes({"seed": -1}).options == {}
    assert wishes({"seed": 0}).options == {"seed": 0}


@pytest.mark.parametrize("value", ["10m", 0, -1, 2.5])
def test_keep_alive_of_the_request_wins(value: Any) -> None:
    assert wishes({"keep_alive": value}, keep_alive="5m").keep_alive == value
    assert wishes({}, keep_alive=value).arguments["keep_alive"] == value


@pytest.mark.parametrize("value", [True, False, "low", "medium", "high"])
def test_think_passes(value: Any) -> None:
    assert wishes({"think": value}).arguments["think"] == value


def test_unknown_parameters_are_named() -> None:
    assert wishes({"grammar": "x", "width": 3, "top_k": 1}).ignored == ("grammar", "width")


@pytest.mark.parametrize(
    "parameters",
    [
        {"options": [1]},
        {"keep_alive": True},
        {"keep_alive": [1]},
        {"think": "very"},
        {"think": 1.5},
        {"format": "yaml"},
        {"format": 5},
        {"json_schema": "{"},
        {"json_schema": [1]},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"parameters.{next(iter(parameters))} is") as raised:
        wishes(parameters)
    assert str(raised.value.hint).startswith("It must be ")
