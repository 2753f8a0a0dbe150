"""Images that come with a request, checked before any model sees them.

Pillow reads the header first, which costs nothing; the pixels are only decoded when type and size are as they may be.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lollms_kernel.errors import InvalidRequest, PayloadTooLarge, UnsupportedInput
from lollms_kernel.types import GenerateRequest, Media

if TYPE_CHECKING:
    from PIL import Image

FORMATS: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
MASK_ROLES: Final = frozenset(("mask_image", "mask"))
CONTROL_ROLES: Final = frozenset(("controlnet_image", "control_image"))
IMAGE_ROLES: Final = frozenset(("input_image", "image")) | MASK_ROLES | CONTROL_ROLES
"""Every role that an image may have."""
LEAST_EDGE: Final = 8


class InputImages(msgspec.Struct, frozen=True):
    """The images of a request by what they are for; `Image` objects in RGB, the mask in greyscale."""

    initial: Any = None
    mask: Any = None
    control: Any = None


def read_inputs(request: GenerateRequest, max_megapixels: float) -> InputImages:
    """Decode and check the images of a request. Raises InvalidRequest, UnsupportedInput or PayloadTooLarge."""
    initial: Any = None
    mask: Any = None
    control: Any = None
    own_mask: Any = None
    for item in request.media:
        role = "mask_image" if item.role in MASK_ROLES else item.role
        role = "controlnet_image" if role in CONTROL_ROLES else role
        if item.type != "image":
            raise UnsupportedInput(f"Inputs of type '{item.type}' cannot be used here.", hint="Send images.")
        picture = read_image(item, max_megapixels)
        if role == "mask_image":
            mask = _only_one(mask, _transparency(picture) or picture.convert("L"), "mask")
        elif role == "controlnet_image":
            control = _only_one(control, picture.convert("RGB"), "control image")
        else:
            initial = _only_one(initial, picture.convert("RGB"), "image to change")
            if item.metadata.get("alpha_is_mask"):
                own_mask = _transparency(picture)
    mask = own_mask if mask is None else mask
    if mask is not None and initial is None:
        raise InvalidRequest(
            "There is a mask but no image that it belongs to.",
            hint="Send the image with the role input_image.",
        )
    if mask is not None and mask.size != initial.size:
        raise InvalidRequest(
            f"The mask is {_size(mask)} and the image {_size(initial)}.",
            hint="Send a mask of the image's size.",
        )
    if request.generation_type == "i2i" and initial is None and control is None:
        raise InvalidRequest(
            "There is no image to change.", hint="Send one as input of type image with the role input_image."
        )
    return InputImages(initial, mask, control)


def read_image(item: Media, max_megapixels: float) -> Image.Image:
    """One image in RGB, or in RGBA where it says how transparent it is, turned as its camera says."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = f"The image with role '{item.role}'"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            picture = Image.open(io.BytesIO(item.data), formats=list(FORMATS))
    except Image.DecompressionBombError:
        raise _too_large(name, "far too many pixels", max_megapixels) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise UnsupportedInput(
            f"{name} is no image that can be read.", hint="Send PNG, JPEG, WebP, GIF or BMP."
        ) from None
    _check_type(name, item, FORMATS[str(picture.format)])
    if picture.width * picture.height > max_megapixels * 1e6:
        raise _too_large(name, f"{_size(picture)} pixels", max_megapixels)
    if min(picture.size) < LEAST_EDGE:
        raise InvalidRequest(f"{name} is {_size(picture)}.", hint=f"It needs {LEAST_EDGE} pixels at least.")
    try:
        picture.load()
        return ImageOps.exif_transpose(picture).convert("RGBA" if picture.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnsupportedInput(
            f"{name} is damaged: {str(error)[:100]}", hint="Send the whole file."
        ) from None


def _transparency(picture: Image.Image) -> Image.Image | None:
    """A mask of what is transparent, which is how OpenAI marks what to paint anew; None where nothing is."""
    from PIL import ImageOps

    if picture.mode != "RGBA":
        return None
    alpha = picture.getchannel("A")
    return None if alpha.getextrema() == (255, 255) else ImageOps.invert(alpha)


def _check_type(name: str, item: Media, found: str) -> None:
    said = (item.mime_type or found).partition(";")[0].strip().lower()
    said = {"image/jpg": "image/jpeg", "application/octet-stream": found, "image/*": found}.get(said, said)
    if said != found:
        raise UnsupportedInput(
            f"{name} is said to be '{said[:40]}' and is '{found}'.", hint="Correct its mime_type."
        )


def _only_one(before: Any, picture: Any, what: str) -> Any:
    if before is not None:
        raise InvalidRequest(f"There is more than one {what}.", hint="Send one in each request.")
    return picture


def _too_large(name: str, size: str, most: float) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{name} has {size}.", hint=f"At most {most:g} million pixels are taken (max_input_megapixels)."
    )


def _size(picture: Any) -> str:
    return f"{picture.width}×{picture.height}"
