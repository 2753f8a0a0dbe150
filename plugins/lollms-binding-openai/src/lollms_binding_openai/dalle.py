"""The binding type `dalle_binding`: images from text, and images from images."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec

from lollms_kernel.contracts import BindingCard
from lollms_kernel.errors import GenerationFailed, InvalidRequest, NotSupported
from lollms_kernel.types import Chunk, Finished, GenerateRequest, Media, Output, Progress, Usage
from lollms_kernel.upstream import fetch_images

from .events import File, Form, encode, open_events
from .formats import image_mime_type, image_type
from .image_parameters import IMAGE_PARAMETERS, family_of, ignored_for, image_body
from .parameters import ignored_parameters, ignored_system
from .service import ServiceBinding
from .settings import DalleSettings, Kind

MASK_ROLES = frozenset(("mask", "mask_image"))
MAX_IMAGES = 16


class _Image(msgspec.Struct):
    b64_json: str | None = None
    revised_prompt: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class ImageEvent(msgspec.Struct):
    """The whole answer, or an event of one that shows previews."""

    type: str = ""
    data: list[_Image] | None = None
    b64_json: str | None = None
    partial_image_index: int | None = None
    usage: _Usage | None = None

    @property
    def is_preview(self) -> bool:
        """Whether more is to come."""
        return self.type.endswith("partial_image")

    @property
    def images(self) -> list[_Image]:
        """What it brings, previews or finished."""
        return [_Image(self.b64_json)] if self.b64_json is not None else self.data or []


class DalleBinding(ServiceBinding):
    """Images from OpenAI's models, GPT Image and DALL·E, or from a service with the same API."""

    type_name: ClassVar[str] = "dalle_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="DALL·E and GPT Image",
        version="1.0.1",
        author="lollms",
        description="Images from text and edited images, from OpenAI or any service that speaks its image API.",
        requirements=("openai>=3,<4",),
        supports_streaming=False,
        documentation_url="https://platform.openai.com/docs/guides/images",
        supported_input_modalities=("text", "image"),
        supported_output_modalities=("image",),
    )
    Settings = DalleSettings
    kinds: ClassVar[tuple[Kind, ...]] = ("tti",)
    settings: DalleSettings

    def supports_role(self, media_type: str, role: str) -> bool:
        """Images to edit and a mask; nothing here is led by a control image."""
        return role != "controlnet_image"

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """The images of `request.model`, previews first where they are asked for."""
        path, body, files = self._asked_for(await fetch_images(request, self.settings.fetch_image_urls))
        asked = Form(body, files) if files else await encode(body)
        outputs: list[Output] = []
        usage: _Usage | None = None
        stream = self.upstream(body).stream(lambda: open_events(self.client, path, asked, ImageEvent))
        async with aclosing(stream) as events:
            async for event in events:
                usage = event.usage or usage
                if event.is_preview:
                    yield self._preview(event, body)
                else:
                    outputs += self._outputs(event, body, request)
        if not outputs:
            raise self.service.broken()
        known = IMAGE_PARAMETERS - ignored_for(str(request.model))
        for notice in (*ignored_parameters(request.parameters, known), *ignored_system(request)):
            yield notice
        for output in outputs:
            yield output
        counted = Usage(usage.input_tokens or 0, usage.output_tokens or 0) if usage else None
        yield Finished(usage=counted)

    def _asked_for(self, request: GenerateRequest) -> tuple[str, dict[str, Any], list[File]]:
        """Path, fields and files of the request."""
        kind, model = request.generation_type, str(request.model)
        if kind not in ("tti", "i2i"):
            raise NotSupported(f"Binding instance '{self.name}' makes images, not '{kind}'.")
        if not request.prompt.strip():
            raise InvalidRequest("There is nothing to draw.", hint="Say it in the prompt.")
        body = {"prompt": request.prompt, **image_body(request.parameters, model, self.settings)}
        images = [item for item in request.media if item.type == "image" and item.role not in MASK_ROLES]
        masks = [item for item in request.media if item.type == "image" and item.role in MASK_ROLES]
        if kind == "tti" and not images and not masks:
            body.pop("input_fidelity", None)  # of edits only
            return "/images/generations", body, []
        if not family_of(model).edits:
            raise InvalidRequest(
                f"Model '{model}' cannot edit images.", hint="Use a GPT Image model, or send no image."
            )
        if not 1 <= len(images) <= MAX_IMAGES or len(masks) > 1:
            raise InvalidRequest(
                f"The request has {len(images)} images to edit and {len(masks)} masks.",
                hint=f"Send 1 to {MAX_IMAGES} images, and at most one with the role mask_image.",
            )
        body.pop("style", None)
        field = "image" if len(images) == 1 else "image[]"
        files = [(field, _upload(item, f"image-{number}")) for number, item in enumerate(images, start=1)]
        files += [("mask", _upload(item, "mask")) for item in masks]
        return "/images/edits", body, files

    def _preview(self, event: ImageEvent, body: dict[str, Any]) -> Progress:
        data = self._decoded(event.b64_json)
        total = int(body.get("partial_images", 0)) + 1
        return Progress((event.partial_image_index or 0) + 1, total, data, image_type(data))

    def _outputs(self, event: ImageEvent, body: dict[str, Any], request: GenerateRequest) -> Iterator[Output]:
        facts = {name: value for name, value in body.items() if name in ("model", "size", "quality", "style")}
        for image in event.images:
            data = self._decoded(image.b64_json)
            metadata: dict[str, Any] = {"prompt_used": request.prompt, **facts}
            if image.revised_prompt:
                metadata["revised_prompt"] = image.revised_prompt
            yield Output("image", data, image_type(data) or "image/png", metadata)

    def _decoded(self, text: str | None) -> bytes:
        if not text:
            raise GenerationFailed(
                f"{self.service} sent no image, perhaps an address instead of it.",
                hint="Set it to answer with `b64_json`; addresses that it makes are not followed.",
            )
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise self.service.broken() from None


def _upload(item: Media, stem: str) -> tuple[str, bytes, str]:
    """Name, content and type of an uploaded image; the name is ours, since the client's means nothing there."""
    mime_type = image_mime_type(item)
    return f"{stem}.{mime_type.removeprefix('image/')}", item.data, mime_type
