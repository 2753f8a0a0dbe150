"""Which built-in instance serves a request that names none while nothing is configured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from lollms_kernel.config.load import load_config
from lollms_kernel.contracts import BindingCard, Register
from lollms_kernel.dummy import DummyBinding
from lollms_kernel.errors import BindingUnavailable, LollmsError, NoBindingConfigured
from lollms_kernel.hookspecs import hookimpl
from lollms_kernel.kernel import LocalKernel
from lollms_kernel.plugins import load_plugins
from lollms_kernel.types import GenerateRequest


def card(*makes: str) -> BindingCard:
    return BindingCard(
        display_name="d", version="1", author="a", description="d", supported_output_modalities=makes
    )


class Painter(DummyBinding):
    type_name: ClassVar[str] = "a_painter"
    card: ClassVar[BindingCard] = card("image", "video")

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        return {"brush": {"type": cls.type_name, "binding_instance_name": "brush"}}


class Writer(DummyBinding):
    type_name: ClassVar[str] = "b_writer"

    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        return {"pen": {"type": cls.type_name, "binding_instance_name": "pen"}}


class Missing(Painter):
    @classmethod
    def builtin_instances(cls) -> Mapping[str, Mapping[str, Any]]:
        return {}

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        return BindingUnavailable("There is no canvas.", hint="Buy one.")


def kernel_with(folder: Path, *kinds: type[DummyBinding]) -> LocalKernel:
    @hookimpl
    def register_bindings(register: Register) -> None:
        for kind in kinds:
            register(kind)

    plugin = SimpleNamespace(register_bindings=register_bindings)
    return LocalKernel(load_config(folder), load_plugins([("p", plugin)], {"LOLLMS_LOAD_PLUGINS": ""}))


def test_each_kind_of_generation_has_the_built_in_instance_made_for_it(tmp_path: Path) -> None:
    kernel = kernel_with(tmp_path, Painter, Writer)
    chosen = {kind: kernel.default_binding(kind) for kind in ("ttt", "stt", "tti", "i2i", "ttv", "tts")}
    assert chosen == {"ttt": "pen", "stt": "pen", "tti": "brush", "i2i": "brush", "ttv": None, "tts": None}


def test_where_what_makes_images_is_missing_the_refusal_says_how_to_get_it(tmp_path: Path) -> None:
    kernel = kernel_with(tmp_path, Missing, Writer)
    with pytest.raises(NoBindingConfigured) as refused:
        kernel.choose_instance(GenerateRequest(id="1", generation_type="tti"))
    assert refused.value.hint is not None
    assert refused.value.hint.endswith("For a_painter: Buy one.")


def test_what_is_configured_wins_over_what_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "main_config.yaml").write_text(
        "bindings_map: {own: b_writer}\ndefaults: {ttt_binding: own}\n"
    )
    kernel = kernel_with(tmp_path, Painter, Writer)
    assert (kernel.default_binding("ttt"), kernel.default_binding("tti")) == ("own", None)
