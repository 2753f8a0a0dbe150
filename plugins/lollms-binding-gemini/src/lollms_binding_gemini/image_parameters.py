"""Generation parameters of an image request."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import ModelInfo, Notice, Parameters

from .parameters import ignored_parameters, one_of, wrong
from .settings import GeminiImageSettings

RATIOS = ("1:1", "3:4", "4:3", "9:16", "16:9")
"""What every model makes; those that are not Imagen make more."""
MORE_RATIOS = (*RATIOS, "2:3", "3:2", "4:5", "5:4", "21:9")
_SIZES = ("1K", "2K", "4K")
_PERSONS = ("ALLOW_ADULT", "DONT_ALLOW", "ALLOW_ALL")
_KERNEL = ("max_tokens", "context_size")
IMAGE_PARAMETERS = {
    *_KERNEL,
    *"n number_of_images aspect_ratio size width height image_size person_generation".split(),
}
_PIXELS = re.compile(r"([1-9]\d{1,4})x([1-9]\d{1,4})")
MOST = 4


class ImageWishes(msgspec.Struct, frozen=True, kw_only=True):
    """What images are wanted."""

    count: int
    aspect_ratio: str | None
    image_size: str | None
    person_generation: str | None
    notices: list[Notice]

    def predict_body(self, prompt: str) -> dict[str, Any]:
        """The body of Imagen's `predict`."""
        named = {
            "sampleCount": self.count,
            "aspectRatio": self.aspect_ratio,
            "sampleImageSize": self.image_size,
            "personGeneration": self.person_generation.lower() if self.person_generation else None,
            "includeRaiReason": True,
        }
        parameters = {name: value for name, value in named.items() if value is not None}
        return {"instances": [{"prompt": prompt}], "parameters": parameters}

    @property
    def image_config(self) -> dict[str, Any]:
        """The `imageConfig` of models that answer with images."""
        named = {"aspect_ratio": self.aspect_ratio, "image_size": self.image_size}
        return {name: value for name, value in named.items() if value is not None}


def read_image_wishes(given: Parameters, model: ModelInfo, settings: GeminiImageSettings) -> ImageWishes:
    """What the parameters and the instance's settings say; the request wins. Raises InvalidRequest."""
    given = {name: value for name, value in given.items() if value is not None}
    notices = ignored_parameters(given, IMAGE_PARAMETERS)
    imagen = "imagen" in model.name
    ratio = _ratio(given, RATIOS if imagen else MORE_RATIOS, notices)
    size = one_of("image_size", given["image_size"], _SIZES) if "image_size" in given else None
    persons = None
    if "person_generation" in given:
        persons = one_of("person_generation", given["person_generation"], _PERSONS)
    if "gemini-2.0" in model.name:
        if ratio or size:
            message = f"Model '{model.name}' chooses width and height itself."
            notices.append(Notice("image_size_ignored", message))
        ratio = size = None
    else:
        ratio = ratio or settings.default_aspect_ratio
    if not imagen and persons:
        message = "Only Imagen lets the request say whether it shows people."
        notices.append(Notice("person_generation_ignored", message))
    return ImageWishes(
        count=_count(given, settings.default_number_of_images),
        aspect_ratio=ratio,
        image_size=size,
        person_generation=(persons or settings.default_person_generation) if imagen else None,
        notices=notices,
    )


def _count(given: Parameters, default: int) -> int:
    name = "number_of_images" if "number_of_images" in given else "n"
    count = given.get(name, default)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise wrong(name, count, f"a number from 1 to {MOST}")
    return count


def _ratio(given: Parameters, possible: tuple[str, ...], notices: list[Notice]) -> str | None:
    """The aspect ratio that was asked for, or the nearest one to a size in pixels."""
    if "aspect_ratio" in given:
        return one_of("aspect_ratio", given["aspect_ratio"], possible)
    pixels = _pixels(given)
    if pixels is None:
        return None
    width, height = pixels
    nearest = min(possible, key=lambda ratio: abs(math.log(width / height) - math.log(_value(ratio))))
    message = f"Google's models know aspect ratios, not pixels: {width}x{height} was asked for as {nearest}."
    notices.append(Notice("size_as_aspect_ratio", message, {"aspect_ratio": nearest}))
    return nearest


def _pixels(given: Parameters) -> tuple[int, int] | None:
    if "size" in given:
        found = _PIXELS.fullmatch(str(given["size"]))
        if found is None:
            raise wrong("size", given["size"], "a width and a height such as 1024x1024")
        return int(found[1]), int(found[2])
    if "width" not in given and "height" not in given:
        return None
    width: int = given.get("width") or given["height"]
    height: int = given.get("height") or width
    if width < 1 or height < 1:
        raise InvalidRequest(
            "parameters.width or parameters.height is no size.", hint="Both must be positive."
        )
    return width, height


def _value(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return int(width) / int(height)
