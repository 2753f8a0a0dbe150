"""`/v1/images/generations` and `/v1/images/edits`, for every instance that makes images."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from typing import Any

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Media, Output, Progress

from .bodies import Form, Upload
from .call import Call
from .events import events
from .fields import Fields, wrong
from .media_out import Made, make, media_request
from .merge import answers
from .prompts import decode_base64, media_of
from .target import Target, choose

MAX_IMAGES = 10
MAX_PROMPT = 1 << 17
MAX_EDITED = 16
MAX_SIDE = 16_384
ALPHA = {"alpha_is_mask": True}
"""With OpenAI, what is transparent in an image is painted anew where no mask says otherwise."""
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_PASSED = (
    "quality",
    "style",
    "background",
    "output_format",
    "moderation",
    "input_fidelity",
    "negative_prompt",
    "scheduler",
    "controlnet_model",
)
_INTEGERS = {
    "output_compression": (0, 100),
    "num_inference_steps": (1, 1000),
    "steps": (1, 1000),
    "seed": (-1, 2**32 - 1),
    "width": (1, MAX_SIDE),
    "height": (1, MAX_SIDE),
    "previews": (0, 1000),
}
_NUMBERS = {
    "guidance_scale": (0.0, 1000.0),
    "cfg_scale": (0.0, 1000.0),
    "strength": (0.0, 1.0),
    "lora_scale": (-100.0, 100.0),
    "controlnet_scale": (0.0, 100.0),
}


async def generations(call: Call) -> None:
    """Images from a prompt."""
    fields = await call.json()
    await _answer(call, fields, "tti", ())


async def edits(call: Call) -> None:
    """Images from images: a form with files, or JSON with `images` as `data:` URLs."""
    if call.headers.get("content-type", "").lower().startswith("multipart/"):
        form = await call.form()
        fields, media = _of_form(form), _media_of_form(form)
    else:
        fields = await call.json()
        media = _media_of_json(fields)
    if not any(item.role == "input_image" for item in media):
        raise InvalidRequest("Field 'image': at least one image is needed.")
    await _answer(call, fields, "i2i", media)


async def _answer(call: Call, fields: Fields, kind: str, media: tuple[Media, ...]) -> None:
    prompt = fields.text("prompt", MAX_PROMPT)
    if not prompt:
        raise InvalidRequest("Field 'prompt': is required.")
    count = fields.integer("n", 1, MAX_IMAGES) or 1
    form = fields.choice("response_format", ("url", "b64_json")) or "b64_json"
    parameters = _parameters(fields)
    target = await choose(call, fields, kind)
    if "image" not in target.info.output_modalities:
        raise NotSupported(
            f"Binding instance '{target.instance}' (model '{target.info.name}') makes no images.",
            hint="Set defaults.tti_binding, or name an instance that does as `model`.",
        )
    previews = fields.integer("partial_images", 0, 10)
    if fields.flag("stream"):
        if count > 1:
            raise InvalidRequest("Field 'n': must be 1 where the answer is streamed.")
        if previews:
            parameters["partial_images"] = previews
        await _stream(call, target, kind, prompt, parameters, media)
        return
    if previews:
        raise InvalidRequest("Field 'partial_images': must be 0 where the answer is not streamed.")
    requests = [
        media_request(call, target, kind, prompt, _seeded(parameters, number), media)
        for number in range(count)
    ]
    made = await make(call, requests, "image")
    await call.send_json(await asyncio.to_thread(_object, made, form, count))


def _object(made: Made, form: str, count: int) -> dict[str, Any]:
    first = made.outputs[0]
    return {
        "created": int(time.time()),
        "data": [_image(output, form) for output in made.outputs[:count]],
        "output_format": (first.mime_type or "image/png").removeprefix("image/"),
        "usage": {
            "input_tokens": made.usage.prompt_tokens,
            "output_tokens": made.usage.completion_tokens,
            "total_tokens": made.usage.total_tokens,
            "input_tokens_details": {"text_tokens": made.usage.prompt_tokens, "image_tokens": 0},
        },
        **made.told(),
    }


def _image(output: Output, form: str) -> dict[str, Any]:
    text = base64.b64encode(output.data).decode()
    told: dict[str, Any] = {"b64_json": text}
    if form == "url":  # nothing is kept here, so the image itself is the address
        told = {"url": f"data:{output.mime_type or 'image/png'};base64,{text}"}
    revised = output.metadata.get("revised_prompt")
    return {**told, "revised_prompt": revised} if isinstance(revised, str) else told


async def _stream(
    call: Call, target: Target, kind: str, prompt: str, parameters: dict[str, Any], media: tuple[Media, ...]
) -> None:
    """Previews as they come, then the image."""
    name = "image_generation" if kind == "tti" else "image_edit"
    request = media_request(call, target, kind, prompt, parameters, media)
    made, previews = Made(), 0
    async with events(call, call.server.settings.ping_interval, done=False) as told:
        async with answers(call.kernel, [request]) as chunks:
            async for _, chunk in chunks:
                made.add(chunk)
                if isinstance(chunk, Progress) and chunk.preview is not None:
                    part = _event(f"{name}.partial_image", chunk.preview, chunk.mime_type)
                    await told.send({**part, "partial_image_index": previews}, part["type"])
                    previews += 1
        for output in made.outputs:
            if output.type == "image" and isinstance(output.data, bytes):
                usage = {"total_tokens": made.usage.total_tokens, "input_tokens": made.usage.prompt_tokens}
                last = _event(f"{name}.completed", output.data, output.mime_type)
                usage["output_tokens"] = made.usage.completion_tokens
                await told.send({**last, "usage": usage, **made.told()}, last["type"])


def _event(kind: str, data: bytes, mime_type: str | None) -> dict[str, Any]:
    return {
        "type": kind,
        "b64_json": base64.b64encode(data).decode(),
        "created_at": int(time.time()),
        "output_format": (mime_type or "image/png").removeprefix("image/"),
        "size": "auto",
        "quality": "auto",
        "background": "auto",
    }


def _parameters(fields: Fields) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in _PASSED:
        if (text := fields.text(name, 1 << 16)) is not None and text != "auto":
            given[name] = text
    for name, (low, high) in _INTEGERS.items():
        if (whole := fields.integer(name, low, high)) is not None:
            given[name] = whole
    for name, bounds in _NUMBERS.items():
        if (number := fields.number(name, *bounds)) is not None:
            given[name] = number
    size = fields.text("size", 20)
    if size not in (None, "", "auto"):
        sides = _SIZE.fullmatch(str(size))
        if sides is None or not all(1 <= int(side) <= MAX_SIDE for side in sides.groups()):
            raise wrong("size", "auto or WIDTHxHEIGHT in pixels, such as 1024x1024", size)
        for name, side in zip(("width", "height"), map(int, sides.groups()), strict=True):
            if given.setdefault(name, side) != side:
                raise wrong(name, "the same as in 'size', or left out", given[name])
    return given


def _seeded(parameters: dict[str, Any], number: int) -> dict[str, Any]:
    seed = parameters.get("seed", -1)
    return parameters if seed < 0 else {**parameters, "seed": (seed + number) % 2**32}


# --- forms ---

_NUMERIC = ("n", "partial_images", *_INTEGERS, *_NUMBERS)


def _of_form(form: Form) -> Fields:
    """The fields of a form, numbers and truth values read from their text."""
    raw: dict[str, Any] = dict(form.fields)
    for name in _NUMERIC:
        if name in raw:
            raw[name] = _number(name, raw[name])
    if "stream" in raw:
        raw["stream"] = raw["stream"].lower() == "true"
    return Fields(raw)


def _number(name: str, text: str) -> float:
    try:
        return float(text[:40])
    except ValueError:
        raise wrong(name, "a number", text) from None


def _media_of_form(form: Form) -> tuple[Media, ...]:
    found = [upload for name in ("image", "image[]") for upload in form.files.get(name, ())]
    masks = form.files.get("mask", [])
    if len(found) > MAX_EDITED or len(masks) > 1:
        raise InvalidRequest(f"At most {MAX_EDITED} images and one mask are taken.")
    return (
        *(_media(upload, "input_image", ALPHA) for upload in found),
        *(_media(upload, "mask_image") for upload in masks),
    )


def _media(upload: Upload, role: str, facts: dict[str, Any] | None = None) -> Media:
    if not upload.data:
        raise InvalidRequest("Field 'image': a file is empty.")
    known = media_of(upload.data).mime_type
    told = upload.content_type if upload.content_type.startswith("image/") else None
    return Media("image", role, upload.data, known or told, facts or {})


def _media_of_json(fields: Fields) -> tuple[Media, ...]:
    listed = fields.get("images") or fields.get("image") or []
    images = listed if isinstance(listed, list) else [listed]
    if len(images) > MAX_EDITED:
        raise InvalidRequest(f"At most {MAX_EDITED} images are taken.")
    media = [_of_url(image, "image", "input_image", ALPHA) for image in images]
    if "mask" in fields:
        media.append(_of_url(fields.get("mask"), "mask", "mask_image"))
    return tuple(media)


def _of_url(value: object, name: str, role: str, facts: dict[str, Any] | None = None) -> Media:
    url = value.get("image_url") if isinstance(value, dict) else value
    data = decode_base64(url, name)
    return Media("image", role, data, media_of(data).mime_type, facts or {})
