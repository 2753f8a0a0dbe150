"""Generation parameters of an image request, checked against what the family of the model can do."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Parameters

from .parameters import extra_fields, wrong
from .settings import DalleSettings

_SIZE = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
_CLASSIC_SIZES = ("auto", "1024x1024", "1536x1024", "1024x1536")
_GPT_ONLY = {
    "output_format": ("png", "jpeg", "webp"),
    "background": ("transparent", "opaque", "auto"),
    "moderation": ("low", "auto"),
    "input_fidelity": ("low", "high"),
}
IMAGE_PARAMETERS = frozenset(
    "size image_size width height n quality style output_compression partial_images user extra_body max_tokens "
    "context_size output_format background moderation input_fidelity".split()
)
MAX_PARTIAL = 3
MAX_EDGE = 3840
STEP = 16


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What a family of image models can do; empty `sizes` or `qualities`: the service knows."""

    sizes: tuple[str, ...] = ()
    free_size: bool = False
    """Any size whose edges are multiples of 16, at most 3840 long and at most 3:1."""
    qualities: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    most: int = 10
    edits: bool = True
    only_base64: bool = False
    """It sends nothing else and refuses `response_format`."""
    previews: bool = False


_DALLE_2 = Family(sizes=("256x256", "512x512", "1024x1024"), qualities=("standard",))
_DALLE_3 = Family(
    sizes=("1024x1024", "1792x1024", "1024x1792"),
    qualities=("standard", "hd"),
    styles=("vivid", "natural"),
    most=1,
    edits=False,
)
_GPT_IMAGE_1 = Family(
    sizes=_CLASSIC_SIZES, qualities=("auto", "low", "medium", "high"), only_base64=True, previews=True
)
_GPT_IMAGE_2 = msgspec.structs.replace(_GPT_IMAGE_1, free_size=True)
_GPT_IMAGE_25 = msgspec.structs.replace(_GPT_IMAGE_2, qualities=(*_GPT_IMAGE_1.qualities, "xhigh", "max"))
_OTHER = Family(styles=())


def family_of(model: str) -> Family:
    """What a model can do, told by its name."""
    name = model.lower()
    if "dall-e-2" in name:
        return _DALLE_2
    if "dall-e-3" in name:
        return _DALLE_3
    version = re.search(r"gpt-image-(\d+(\.\d+)?)", name)
    if version is None:
        return _GPT_IMAGE_1 if "chatgpt-image" in name else _OTHER
    number = float(version[1])
    return _GPT_IMAGE_1 if number < 2 else _GPT_IMAGE_2 if number < 2.5 else _GPT_IMAGE_25


def image_body(given: Parameters, model: str, settings: DalleSettings) -> dict[str, Any]:
    """The fields beside prompt and images. Raises InvalidRequest for what the model cannot do.

    Defaults of the instance that do not suit the model are left out: they were set for another one.
    """
    given = {name: value for name, value in given.items() if value is not None}
    family = family_of(model)
    body: dict[str, Any] = {"model": model, "n": _count(given, family, model)}
    size, named = _size(given)
    if size is not None:
        _check_size(named, size, family, model)
        body["size"] = size
    elif _suits(settings.default_size, family):
        body["size"] = settings.default_size
    for name, known, default in (
        ("quality", family.qualities, settings.default_quality),
        ("style", family.styles, settings.default_style),
    ):
        if name in given and family is not _OTHER and given[name] not in known:
            raise _unsuitable(name, given[name], model, known)
        value = given.get(name, default if default in known else None)
        if value is not None and known != ("standard",):  # DALL·E 2 has one quality and refuses to hear of it
            body[name] = _text(name, value)
    if family.only_base64:
        body |= _gpt_fields(given)
    else:
        body["response_format"] = "b64_json"
    if "user" in given:
        body["user"] = _text("user", given["user"])
    return {**body, **extra_fields(settings.extra_body), **extra_fields(given.get("extra_body", {}))}


def ignored_for(model: str) -> frozenset[str]:
    """Parameters that only other families know."""
    return (
        frozenset()
        if family_of(model).only_base64
        else frozenset((*_GPT_ONLY, "output_compression", "partial_images"))
    )


def _count(given: Parameters, family: Family, model: str) -> int:
    count = given.get("n", 1)
    if not 1 <= count <= family.most:
        allowed = "1" if family.most == 1 else f"from 1 to {family.most}"
        raise InvalidRequest(f"parameters.n is {count}.", hint=f"Model '{model}' makes {allowed} at a time.")
    return int(count)


def _size(given: Parameters) -> tuple[Any, str]:
    """The wanted size and the parameter that says it."""
    for name in ("size", "image_size"):
        if name in given:
            return given[name], name
    if "width" in given or "height" in given:
        width, height = given.get("width", given.get("height")), given.get("height", given.get("width"))
        return f"{width}x{height}", "width"
    return None, ""


def _check_size(name: str, size: Any, family: Family, model: str) -> None:
    if not isinstance(size, str) or not (size == "auto" or _SIZE.fullmatch(size)):
        raise wrong(name, size, "WIDTHxHEIGHT in pixels, such as 1024x1024")
    if not _suits(size, family):
        free = (
            f" or edges that are multiples of {STEP}, at most {MAX_EDGE} long and 3:1"
            if family.free_size
            else ""
        )
        raise InvalidRequest(
            f"parameters.{name} is '{size}'.", hint=f"Model '{model}' makes {', '.join(family.sizes)}{free}."
        )


def _suits(size: str, family: Family) -> bool:
    if not family.sizes or size in family.sizes:
        return family is not _OTHER or size != "auto"
    found = _SIZE.fullmatch(size)
    if not family.free_size or found is None:
        return False
    short, long = sorted((int(found[1]), int(found[2])))
    return short % STEP == long % STEP == 0 and long <= MAX_EDGE and long <= 3 * short


def _gpt_fields(given: Parameters) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, known in _GPT_ONLY.items():
        if name in given:
            if given[name] not in known:
                raise wrong(name, given[name], f"one of {', '.join(known)}")
            fields[name] = given[name]
    for name, most in (("output_compression", 100), ("partial_images", MAX_PARTIAL)):
        if name in given:
            value = given[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise wrong(name, value, f"an integer from 0 to {most}")
            fields[name] = value
    if fields.get("partial_images"):
        fields["stream"] = True
    else:
        fields.pop("partial_images", None)
    return fields


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    return value


def _unsuitable(name: str, value: Any, model: str, known: tuple[str, ...]) -> InvalidRequest:
    cure = (
        f"Model '{model}' knows {', '.join(known)}."
        if known
        else f"Model '{model}' does not know it; leave it out."
    )
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=cure)
