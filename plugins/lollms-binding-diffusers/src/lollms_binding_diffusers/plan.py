"""What a pipeline is called with for an order: task, sizes, images, lengths. For the engine's thread only."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Notice

from .job import Order
from .library import ModelSource
from .loading import LoadedModel
from .parameters import DEFAULT_GUIDANCE, DEFAULT_STEPS, Wanted
from .settings import DiffusersSettings
from .tasks import Task, accepted
from .without_effect import ignored_settings


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline is called with, the same for every picture of a batch."""

    pipeline: Any
    arguments: dict[str, Any]
    facts: dict[str, Any]
    notices: list[Notice]
    drawn_size: tuple[int, int] | None = None
    """Width and height of what the pipeline makes; None: sounds have none."""
    final_size: tuple[int, int] | None = None
    """What pictures are enlarged or reduced to afterwards."""
    frames: int | None = None
    """Frames that are kept of a video."""


def make_plan(model: LoadedModel, order: Order, settings: DiffusersSettings) -> Plan:
    """What the pipeline is called with. Raises what the model cannot do."""
    wanted, inputs, source = order.wanted, order.inputs, model.source
    notices = ignored_settings(model, settings)
    task: Task = "text2image"
    if inputs.initial is not None:
        task = "image2image" if inputs.mask is None else "inpaint"
    if source.kind.output != "image":
        if inputs.control is not None:
            raise NotSupported(
                f"'{source.name}' cannot be led by a control image.", hint="Use a model that draws pictures."
            )
        pipeline, controlnet = model.tasks.base, None
    else:
        controlnet = (
            model.tasks.controlnet_name(wanted.controlnet_model) if inputs.control is not None else None
        )
        pipeline = model.tasks.get(task, controlnet)
    if task == "inpaint":
        _check_inpainting(pipeline, source)
    scheduler, replaced = model.tasks.new_scheduler(wanted.scheduler, source.facts.scheduler)
    notices += replaced
    steps = wanted.steps or source.facts.steps or DEFAULT_STEPS
    if scheduler is not None:
        _check_steps(scheduler, steps)
        pipeline.scheduler = scheduler
    if model.loras:
        scales = [*settings.lora_scales, *[1.0] * len(model.loras)][: len(model.loras)]
        factor = 1.0 if wanted.lora_scale is None else wanted.lora_scale
        names = [f"lora{number}" for number in range(len(model.loras))]
        model.tasks.base.set_adapters(names, [scale * factor for scale in scales])
    known = accepted(pipeline)
    given = (wanted.guidance_scale, source.facts.guidance_scale, model.tasks.native_guidance)
    guidance = next((value for value in given if value is not None), DEFAULT_GUIDANCE)
    facts: dict[str, Any] = {
        "model": source.name,
        "steps": steps,
        "guidance_scale": guidance,
        "scheduler": type(scheduler).__name__ if scheduler is not None else None,
        "device": model.choice.device,
        "dtype": model.choice.dtype,
        "threads": model.choice.threads,
    }
    arguments: dict[str, Any] = {"num_inference_steps": steps, guidance_name(known): guidance}
    size = final_size = None
    if source.kind.output in ("image", "video"):
        size, final_size = _sizes(model, order, settings, notices)
        arguments |= {"width": size[0], "height": size[1]}
        facts |= {"width": (final_size or size)[0], "height": (final_size or size)[1]}
        facts["size"] = f"{facts['width']}x{facts['height']}"
        arguments |= _images(order, size, controlnet, known, notices)
    if inputs.initial is not None:
        _check_images(pipeline, source, {**arguments, "image": inputs.initial}, known)
    if inputs.initial is not None and "strength" in known:
        if int(steps * wanted.strength) < 1:
            raise InvalidRequest(
                f"parameters.strength is {wanted.strength:g}: of {steps} steps it leaves none.",
                hint=f"With so many steps it must be at least {math.ceil(1000 / steps) / 1000:g}.",
            )
        arguments["strength"] = facts["strength"] = wanted.strength
    if controlnet is not None:
        arguments["controlnet_conditioning_scale"] = facts["controlnet_scale"] = wanted.controlnet_scale
        facts["controlnet_model"] = controlnet
    arguments |= _lasting(model, wanted, facts)
    arguments = {name: value for name, value in arguments.items() if name in known}
    return Plan(
        pipeline=pipeline,
        arguments=arguments,
        facts=facts,
        notices=notices,
        drawn_size=size,
        final_size=final_size,
        frames=wanted.frames,
    )


def _check_inpainting(pipeline: Any, source: ModelSource) -> None:
    """Raise NotSupported for a UNet that takes neither 4 channels (pictures alone) nor 9 (with mask and picture)."""
    channels = getattr(getattr(getattr(pipeline, "unet", None), "config", None), "in_channels", 4)
    if channels not in (4, 9):
        raise NotSupported(
            f"'{source.name}' cannot paint a part of an image anew.",
            hint="Send the image without a mask and without transparent parts, or use another model.",
        )


def _check_steps(scheduler: Any, steps: int) -> None:
    """Raise InvalidRequest for steps that the scheduler cannot make: PNDM may begin with some of Runge-Kutta, and LCM
    picks them from those that its networks learnt."""
    least = getattr(scheduler, "pndm_order", 1) if not scheduler.config.get("skip_prk_steps", True) else 1
    if steps < least:
        raise InvalidRequest(
            f"parameters.num_inference_steps is {steps}: {type(scheduler).__name__} needs {least}.",
            hint=f"Use at least {least} steps, or another scheduler.",
        )
    most = scheduler.config.get("original_inference_steps") or steps
    if steps > most:
        raise InvalidRequest(
            f"parameters.num_inference_steps is {steps}: {type(scheduler).__name__} makes {most} at most.",
            hint="4 to 8 steps are usual with it.",
        )


def guidance_name(known: dict[str, Any]) -> str:
    """What a pipeline calls the weight of the prompt against the negative one; some keep the usual name unused."""
    unused = "true_cfg_scale" in known and known.get("guidance_scale") is None
    return "true_cfg_scale" if unused else "guidance_scale"


def _sizes(
    model: LoadedModel, order: Order, settings: DiffusersSettings, notices: list[Notice]
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """The size to draw, and the size to bring that to where the model has only one."""
    wanted, initial = order.wanted, order.inputs.initial
    native, step = model.tasks.native_size or (512, 512), model.tasks.step_of_sizes
    if initial is None:
        size = (wanted.width or native[0], wanted.height or native[1])
    elif wanted.width or wanted.height:
        size = _like(initial.size, wanted, settings.max_size, step)
    else:
        size = _fitting(initial.size, settings.max_size, step)
    edge = model.source.facts.fixed_size
    if edge is None:
        _check_size(size, step, model.source)
    if edge is None or size == (edge, edge):
        return size, None
    if wanted.width is None and wanted.height is None:
        return (edge, edge), None
    notices.append(
        Notice(
            "image_resized",
            f"'{model.source.name}' draws {edge}×{edge} pixels only; the result was resized to {size[0]}×{size[1]}.",
        )
    )
    return (edge, edge), size


def _check_size(size: tuple[int, int], step: int, source: ModelSource) -> None:
    """Raise InvalidRequest for a size that the model cannot draw."""
    for name, edge in (("width", size[0]), ("height", size[1])):
        if edge % step:
            below = edge // step * step
            raise InvalidRequest(
                f"parameters.{name} is {edge}: '{source.name}' draws multiples of {step} only.",
                hint=f"Use {below or step}" + (f" or {below + step}." if below else "."),
            )


def _like(image: tuple[int, int], wanted: Wanted, most: int, step: int) -> tuple[int, int]:
    """The wanted size; an edge that is left out follows from the image's shape. Raises InvalidRequest if too large."""
    width = wanted.width or _following(wanted.height, image[0] / image[1], step)
    height = wanted.height or _following(wanted.width, image[1] / image[0], step)
    if max(width, height) > most:
        raise InvalidRequest(
            f"The image's shape makes that {width}×{height} pixels.",
            hint=f"Ask for less: at most {most} are drawn each way. Or give width and height.",
        )
    return width, height


def _following(edge: int | None, ratio: float, step: int) -> int:
    return max(step, round((edge or 0) * ratio / step) * step)


def _fitting(size: tuple[int, int], most: int, step: int) -> tuple[int, int]:
    """The size of an input image, brought into the limits and to multiples of `step`."""
    scale = min(1.0, most / max(size))
    wide, high = (max(step, int(edge * scale) // step * step) for edge in size)
    return wide, high


def _check_images(pipeline: Any, source: ModelSource, given: dict[str, Any], known: dict[str, Any]) -> None:
    """Raise NotSupported where the pipeline has no place for an input image."""
    for name in ("image", "mask_image"):
        if name in given and name not in known:
            raise NotSupported(
                f"The pipeline of '{source.name}' ({type(pipeline).__name__}) takes no input '{name}' here.",
                hint="Use another model for it.",
            )


def _images(
    order: Order, size: tuple[int, int], controlnet: str | None, known: dict[str, Any], notices: list[Notice]
) -> dict[str, Any]:
    """The input images in the size that is drawn."""
    inputs = order.inputs
    found: dict[str, Any] = {}
    for name, picture in (
        ("image", inputs.initial),
        ("mask_image", inputs.mask),
        ("control", inputs.control),
    ):
        if picture is None:
            continue
        if picture.size != size:
            old = f"{picture.width}×{picture.height}"
            notices.append(
                Notice("input_resized", f"The input ({name}) was resized from {old} to {size[0]}×{size[1]}.")
            )
            picture = picture.resize(size)
        found[name] = picture
    control = found.pop("control", None)
    if control is not None:
        found["control_image" if "control_image" in known else "image"] = control
    return found


def _lasting(model: LoadedModel, wanted: Wanted, facts: dict[str, Any]) -> dict[str, Any]:
    """Lengths of videos and sounds, under every name that pipelines have for them."""
    source = model.source
    found: dict[str, Any] = {}
    if source.kind.output == "video":
        found["frame_rate"] = wanted.fps
    if source.kind.output == "video" and wanted.frames is not None:
        step = model.tasks.step_of_frames
        found["num_frames"] = -(-(wanted.frames - 1) // step) * step + 1  # what is too much is cut off
        facts["num_frames"] = wanted.frames
    if source.kind.output == "audio" and wanted.seconds is not None:
        found |= {"audio_length_in_s": wanted.seconds, "audio_end_in_s": wanted.seconds}
        facts["seconds"] = wanted.seconds
    return found
