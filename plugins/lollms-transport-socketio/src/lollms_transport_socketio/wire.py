"""What clients send, checked. Fields that a payload has beyond these are not used, as in lollms."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from lollms_kernel.errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

CHUNK = 0
"""The `type` of a `text_chunk` that adds to the answer; lollms never sent another one."""

SAMPLING = ("temperature", "top_k", "top_p", "repeat_penalty", "repeat_last_n", "seed")
"""Parameters that later clients send beside `parameters` rather than in it."""


class SelectBinding(msgspec.Struct, frozen=True):
    """Of `select_binding`."""

    binding_name: str


class SelectModel(msgspec.Struct, frozen=True):
    """Of `select_model`."""

    model_name: str


class AddPersonality(msgspec.Struct, frozen=True):
    """Of `add_personality`."""

    path: str


class ActivatePersonality(msgspec.Struct, frozen=True):
    """Of `activate_personality`."""

    id: int


class Place(msgspec.Struct, frozen=True):
    """Of the listings of personalities: where to look; None: everywhere."""

    language: str | None = None
    category: str | None = None


class Text(msgspec.Struct, frozen=True):
    """Of `tokenize` and `embed`."""

    prompt: str


class Tokens(msgspec.Struct, frozen=True):
    """Of `detokenize`."""

    prompt: list[int]


class GenerateText(msgspec.Struct, frozen=True, kw_only=True):
    """Of `generate_text`. Only `prompt` is needed."""

    prompt: str
    generation_type: Literal["ttt", "tti", "ttv", "ttm", "tts"] | None = None
    """None: text, or what the chosen binding makes instead."""
    personality: int | str | None = None
    n_predicts: int | None = None
    n_predict: int | None = None
    n_crop: int | None = None
    """Keep only so many tokens of the prompt, the last ones; -1: all."""
    parameters: dict[str, Any] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    seed: int | None = None

    def all_parameters(self) -> dict[str, Any]:
        """Everything that is asked for, under the kernel's names; -1 as seed or length means the default."""
        beside = {name: getattr(self, name) for name in SAMPLING}
        found = {
            "max_tokens": self.n_predicts,
            "n_predict": self.n_predict,
            **beside,
            **(self.parameters or {}),
        }
        return {
            name: value
            for name, value in found.items()
            if value is not None and not (name in ("seed", "max_tokens", "n_predict") and value == -1)
        }


def read(payload: Any, kind: type[T]) -> T:
    """The payload of an event; none at all is an empty one. Raises InvalidRequest that names the wrong place."""
    if payload is None:
        payload = {}
    if not isinstance(payload, dict):
        raise InvalidRequest(
            f"The payload is {_json_type(payload)}.",
            hint=f"It must be an object with {', '.join(kind.__struct_fields__)}.",
        )
    try:
        asked = msgspec.convert(payload, kind)
        msgspec.msgpack.encode(asked)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The payload is not valid: {error}.") from error
    except OverflowError:
        raise InvalidRequest("A number of the payload is too large.", hint="Integers have 64 bits.") from None
    return asked


def _json_type(value: Any) -> str:
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "no object")
