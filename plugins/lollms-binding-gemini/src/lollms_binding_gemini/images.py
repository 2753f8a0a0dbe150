"""The binding type `gemini_image_binding`: images from Imagen, and from Gemini models that answer with images."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, ClassVar

from lollms_kernel.contracts import BindingCard
from lollms_kernel.errors import GenerationFailed, InvalidRequest, LollmsError, NotSupported
from lollms_kernel.types import (
    Chunk,
    Finished,
    GenerateRequest,
    ModelInfo,
    Notice,
    Output,
    Progress,
    TextDelta,
    Usage,
)
from lollms_kernel.upstream import fetch_images

from .answer import Answer
from .contents import contents_of, system_of
from .image_parameters import ImageWishes, read_image_wishes
from .models import Models
from .sdk import Call
from .service import ServiceBinding, installed, missing
from .settings import GeminiImageSettings

if TYPE_CHECKING:
    from .genai import Genai

_UNUSABLE_ROLES = ("mask_image", "controlnet_image")


class GeminiImageBinding(ServiceBinding["Genai"]):
    """Images from words, and from other images where the model takes them."""

    type_name: ClassVar[str] = "gemini_image_binding"
    card: ClassVar[BindingCard] = BindingCard(
        display_name="Google Imagen and Gemini images",
        version="0.1.0",
        author="lollms",
        description="Makes images with Google's models: Gemini models that answer with images, and Imagen.",
        requirements=("google-genai>=3,<4",),
        supports_streaming=False,
        documentation_url="https://ai.google.dev/gemini-api/docs/image-generation",
        supported_input_modalities=("text", "image"),
        supported_output_modalities=("image",),
    )
    Settings = GeminiImageSettings
    settings: GeminiImageSettings

    @classmethod
    def unavailable_reason(cls) -> LollmsError | None:
        """Whether the library is missing; google-generativeai knows nothing of images that come out."""
        return None if installed("google-genai") else missing("google-genai")

    def supports_role(self, media_type: str, role: str) -> bool:
        """Images to start from, but neither masks nor control images."""
        return media_type == "image" and role not in _UNUSABLE_ROLES

    def make_sdk(self, key: str | None) -> Genai:
        """A client of google-genai."""
        from .genai import Genai

        return Genai(self.settings, self.url, key)

    def make_models(self, sdk: Genai) -> Models:
        """Models that make images."""
        return Models(
            sdk,
            self.upstream,
            ("imagen", "tti"),
            default=self.settings.default_model,
            untouched=self.untouched_default(),
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """The images, each as one output."""
        if request.generation_type not in ("tti", "i2i"):
            raise NotSupported(
                f"{self.service} is asked for images by this instance, not for '{request.generation_type}'.",
                hint="`gemini_binding` makes text.",
            )
        request = await fetch_images(request, self.settings.fetch_image_urls)
        model = await self.get_model_info(request.model)
        wishes = read_image_wishes(request.parameters, model, self.settings)
        if system_of(request):
            wishes.notices.append(Notice("system_ignored", "Image models are not sent the system text."))
        make = self._predicted if "imagen" in model.name else self._answered
        async with aclosing(make(request, model, wishes)) as chunks:
            async for chunk in chunks:
                yield chunk

    # --- Gemini models that answer with images ----------------------------------------------------------------------

    async def _answered(
        self, request: GenerateRequest, model: ModelInfo, wishes: ImageWishes
    ) -> AsyncGenerator[Chunk, None]:
        """One request for each image, because these models make one at a time."""
        config: dict[str, Any] = {"response_modalities": ["TEXT", "IMAGE"]}
        if wishes.image_config:
            config["image_config"] = wishes.image_config
        call = Call(
            model=model.name,
            contents=contents_of(request, wishes.notices, signs=bool(model.details.get("thinking"))),
            config=config,
            safety=self.settings.safety,
        )
        notices, usage = list(wishes.notices), Usage()
        for number in range(1, wishes.count + 1):
            images, words, used = await self._one_answer(call, request.id)
            usage = _sum(usage, used)
            while notices:  # only now, so that a request that fails at once streams nothing
                yield notices.pop(0)
            for image in images:
                said = {"text": words} if words else {}
                yield Output(
                    image.type, image.data, image.mime_type, {**_facts(request, model, wishes), **said}
                )
            if wishes.count > 1:
                yield Progress(number, wishes.count)
        yield Finished(usage=usage, metadata={"model": model.name})

    async def _one_answer(self, call: Call, request_id: str) -> tuple[list[Output], str, Usage]:
        """The images of one answer, what the model said about them, and its tokens. Raises LollmsError if there is
        none."""
        answer = Answer(self.service, call.model, request_id)
        chunks: list[Chunk] = []
        async with aclosing(self.upstream.stream(lambda: self.sdk.stream(call))) as pieces:
            async for piece in pieces:
                chunks += answer.read(piece)
        chunks += answer.finish()
        images = [chunk for chunk in chunks if isinstance(chunk, Output)]
        if not images:
            raise self._no_image(call.model, chunks[-1])
        words = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextDelta)).strip()
        usage = chunks[-1].usage if isinstance(chunks[-1], Finished) else None
        return images, words, usage or Usage()

    def _no_image(self, model: str, last: Chunk) -> LollmsError:
        if isinstance(last, Finished) and last.reason == "content_filter":
            return self.service.blocked()
        return GenerationFailed(
            f"Model '{model}' of {self.service} answered without an image.",
            hint="Say in plain words what the image should show, or use another model.",
        )

    # --- Imagen -----------------------------------------------------------------------------------------------------

    async def _predicted(
        self, request: GenerateRequest, model: ModelInfo, wishes: ImageWishes
    ) -> AsyncGenerator[Chunk, None]:
        prompt = request.prompt.strip()
        if not prompt:
            raise InvalidRequest("There is no picture described.", hint="Send a user prompt.")
        body = wishes.predict_body(prompt)
        answer = await self.upstream.ask(lambda: self.sdk.predict(model.name, body))
        predictions = answer.get("predictions") or []
        images = [image for item in predictions if (image := _image(item)) is not None]
        if not images:
            withheld = all(
                isinstance(item, dict) and "bytesBase64Encoded" not in item for item in predictions
            )
            raise self.service.blocked() if withheld else self.service.broken()
        for notice in wishes.notices:
            yield notice
        if len(images) < wishes.count:
            message = (
                f"{wishes.count - len(images)} of {wishes.count} images were held back for safety reasons."
            )
            yield Notice("images_filtered", message, {"asked": wishes.count, "made": len(images)})
        for data, mime_type in images:
            yield Output("image", data, mime_type, _facts(request, model, wishes))
        yield Finished(metadata={"model": model.name})


def _image(prediction: object) -> tuple[bytes, str] | None:
    """One image of Imagen's; None for one that was held back, or that is no base64."""
    if not isinstance(prediction, dict):
        return None
    try:
        data = base64.b64decode(prediction.get("bytesBase64Encoded") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        return None
    return (data, str(prediction.get("mimeType") or "image/png")[:100]) if data else None


def _facts(request: GenerateRequest, model: ModelInfo, wishes: ImageWishes) -> dict[str, Any]:
    """What the answer's metadata say of an image."""
    size = {"aspect_ratio": wishes.aspect_ratio} if wishes.aspect_ratio else {}
    return {"prompt_used": request.prompt, "model": model.name, **size}


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.cached_tokens + other.cached_tokens,
    )
