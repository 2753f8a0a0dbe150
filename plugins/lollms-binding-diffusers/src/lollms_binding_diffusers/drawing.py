"""Runs a pipeline for one job, or for several that can be drawn at once. For the engine's thread only."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import torch

from lollms_kernel.errors import InvalidRequest, NotSupported
from lollms_kernel.types import Notice, Progress

from .job import Job, Made, Order, Result
from .library import ModelSource
from .loading import LoadedModel
from .memory import freeing
from .parameters import DEFAULT_GUIDANCE, DEFAULT_STEPS, Wanted
from .previews import preview
from .settings import DiffusersSettings
from .tasks import Task, accepted

BLACK_OUT = "The safety checker hid {hidden} of {count} images; they are black."


class Stopped(Exception):
    """Nobody wants the pictures any more."""


class Item(msgspec.Struct, frozen=True):
    """One picture of a job."""

    job: Job
    seed: int


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


def draw(
    model: LoadedModel, jobs: list[Job], settings: DiffusersSettings, closing: Callable[[], bool]
) -> dict[Job, Result]:
    """Draw everything that the jobs want; jobs that were stopped meanwhile are left out.

    Raises Stopped when nobody wants any of it, OutOfMemory, and what is wrong with the request.
    """
    plan = make_plan(model, jobs[0].order, settings)
    items = [
        Item(job, (job.order.wanted.seed + number) % 2**63)
        for job in jobs
        for number in range(job.order.wanted.count)
    ]
    groups = [items[first : first + settings.max_batch] for first in range(0, len(items), settings.max_batch)]
    made: dict[Job, list[Made]] = {job: [] for job in jobs}
    started = time.perf_counter()
    for number, group in enumerate(groups):
        watch = Watch(plan, group, number, len(groups), closing)
        watch.check()
        called_with = {
            **plan.arguments,
            **_each(plan, model.source, group),
            **watch.arguments(plan.pipeline),
        }
        with torch.inference_mode():
            answer = freeing("drawing", partial(plan.pipeline, **called_with))
        for item, piece in zip(group, _pieces(answer, model.source, group, plan.frames), strict=True):
            made[item.job].append(_resized(piece, plan.final_size))
    seconds = time.perf_counter() - started
    rate = _sampling_rate(plan.pipeline) if model.source.kind.output == "audio" else None
    return {
        job: Result(
            made=made[job],
            facts={**plan.facts, **_together(len(items), job)},
            notices=[*plan.notices, *_hidden(made[job])],
            load=None,
            generate=seconds,
            sampling_rate=rate,
        )
        for job in jobs
        if not job.stopped
    }


class Watch:
    """Follows a running pipeline: tells each job how far it is, and stops it when nobody wants it any more."""

    def __init__(
        self, plan: Plan, group: list[Item], number: int, groups: int, closing: Callable[[], bool]
    ) -> None:
        self._plan = plan
        self._group = group
        self._done = number
        self._groups = groups
        self._closing = closing
        self._step = 0

    def arguments(self, pipeline: Any) -> dict[str, Any]:
        """The pipeline's own way of calling back after each step."""
        known = accepted(pipeline)
        if "callback_on_step_end" in known:
            return {"callback_on_step_end": self.after_step}
        if "callback" in known:
            return {
                "callback": lambda step, time, latents: (
                    self.after_step(pipeline, step, time, {"latents": latents}) and None
                )
            }
        return {}

    def check(self) -> None:
        """Let go of jobs that were stopped. Raises Stopped if none is left."""
        for job in {item.job for item in self._group}:
            if job.stopped:
                job.finish(None)
        if self._closing() or all(item.job.stopped for item in self._group):
            raise Stopped

    def after_step(self, pipeline: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Called by the pipeline after each step, in its thread."""
        self.check()
        self._step += 1
        steps = getattr(pipeline, "num_timesteps", None) or self._plan.arguments["num_inference_steps"]
        total = max(steps, self._step)
        latents = values.get("latents")
        told = set()
        for place, item in enumerate(self._group):
            wanted = item.job.order.wanted
            if item.job in told or item.job.stopped:
                continue
            told.add(item.job)
            picture = None
            every = wanted.previews or (
                wanted.partial_images and max(1, total // (wanted.partial_images + 1))
            )
            shown = every and self._step % every == 0 and self._step < total
            if shown and item.job.order.want_progress:
                picture = preview(pipeline, latents, place, self._plan.drawn_size)
            item.job.report(
                Progress(
                    self._done * total + self._step,
                    self._groups * total,
                    picture,
                    "image/jpeg" if picture else None,
                )
            )
        return values


def make_plan(model: LoadedModel, order: Order, settings: DiffusersSettings) -> Plan:
    """What the pipeline is called with. Raises what the model cannot do."""
    wanted, inputs, source = order.wanted, order.inputs, model.source
    notices: list[Notice] = []
    task: Task = "text2image"
    if inputs.initial is not None:
        task = "image2image" if inputs.mask is None else "inpaint"
    if source.kind.output != "image":
        pipeline, controlnet = model.tasks.base, None
    else:
        controlnet = (
            model.tasks.controlnet_name(wanted.controlnet_model) if inputs.control is not None else None
        )
        pipeline = model.tasks.get(task, controlnet)
    scheduler = model.tasks.new_scheduler(
        wanted.scheduler or source.facts.scheduler or settings.scheduler_type,
        required=wanted.scheduler is not None,
    )
    if scheduler is not None:
        pipeline.scheduler = scheduler
    if model.loras:
        scales = [*settings.lora_scales, *[1.0] * len(model.loras)][: len(model.loras)]
        factor = 1.0 if wanted.lora_scale is None else wanted.lora_scale
        names = [f"lora{number}" for number in range(len(model.loras))]
        model.tasks.base.set_adapters(names, [scale * factor for scale in scales])
    known = accepted(pipeline)
    steps = wanted.steps or source.facts.steps or DEFAULT_STEPS
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
    arguments: dict[str, Any] = {"num_inference_steps": steps, _guidance_name(known): guidance}
    size = final_size = None
    if source.kind.output in ("image", "video"):
        size, final_size = _sizes(model, order, settings, notices)
        arguments |= {"width": size[0], "height": size[1]}
        facts |= {"width": (final_size or size)[0], "height": (final_size or size)[1]}
        facts["size"] = f"{facts['width']}x{facts['height']}"
        arguments |= _images(order, size, controlnet, known, notices)
    if inputs.initial is not None:
        _check_images(pipeline, source, {**arguments, "image": inputs.initial}, known)
        if int(steps * wanted.strength) < 1:
            raise InvalidRequest(
                f"parameters.strength is {wanted.strength:g}: of {steps} steps it leaves none.",
                hint=f"With so many steps it must be at least {1 / steps:.2g}.",
            )
        arguments["strength"] = facts["strength"] = wanted.strength
    if controlnet is not None:
        arguments["controlnet_conditioning_scale"] = facts["controlnet_scale"] = wanted.controlnet_scale
        facts["controlnet_model"] = controlnet
    arguments |= _lasting(model, wanted, facts)
    if wanted.negative_prompt and not _takes_negative(known):
        notices.append(Notice("negative_prompt_ignored", f"'{source.name}' takes no negative prompt."))
    return Plan(
        pipeline=pipeline,
        arguments={name: value for name, value in arguments.items() if name in known},
        facts=facts,
        notices=notices,
        drawn_size=size,
        final_size=final_size,
        frames=wanted.frames,
    )


def _guidance_name(known: dict[str, Any]) -> str:
    """What a pipeline calls the weight of the prompt against the negative one; some keep the usual name unused."""
    unused = "true_cfg_scale" in known and known.get("guidance_scale") is None
    return "true_cfg_scale" if unused else "guidance_scale"


def _takes_negative(known: dict[str, Any]) -> bool:
    """Whether a negative prompt has an effect: where guidance is an input of the network, as in Flux, it has none."""
    return "negative_prompt" in known and known.get("true_cfg_scale") != 1.0


def _sizes(
    model: LoadedModel, order: Order, settings: DiffusersSettings, notices: list[Notice]
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """The size to draw, and the size to bring that to where the model has only one."""
    wanted, initial = order.wanted, order.inputs.initial
    native, step = model.tasks.native_size or (512, 512), model.tasks.step_of_sizes
    if wanted.width or wanted.height:
        size = (wanted.width or native[0], wanted.height or native[1])
    else:
        size = native if initial is None else _fitting(initial.size, settings.max_size, step)
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


def _each(plan: Plan, source: ModelSource, group: list[Item]) -> dict[str, Any]:
    """What differs from picture to picture: each has a generator of its own, so company changes nothing."""
    known = accepted(plan.pipeline)
    if "prompt" not in known:
        raise NotSupported(f"The pipeline of '{source.name}' takes no prompt.", hint="Use another model.")
    generators = [torch.Generator("cpu").manual_seed(item.seed) for item in group]
    found: dict[str, Any] = {
        "prompt": [item.job.order.wanted.prompt for item in group],
        "generator": generators,
    }
    negative = [item.job.order.wanted.negative_prompt for item in group]
    if _guidance_name(known) == "true_cfg_scale" and "negative_prompt" in known:
        # Without a negative prompt such a pipeline has no guidance at all; its makers use a space.
        found["negative_prompt"] = [text or " " for text in negative]
    elif any(negative) and _takes_negative(known):
        found["negative_prompt"] = [text or "" for text in negative]
    for name in ("image", "mask_image", "control_image"):
        if name in plan.arguments and len(group) > 1:
            found[name] = [plan.arguments[name]] * len(group)
    return found


def _pieces(answer: Any, source: ModelSource, group: list[Item], frames: int | None) -> list[Made]:
    kind = source.kind.output
    contents = getattr(answer, {"image": "images", "video": "frames", "audio": "audios"}[kind])
    if kind == "video":
        contents = [film[:frames] for film in contents]
    hidden = getattr(answer, "nsfw_content_detected", None) or [False] * len(group)
    return [
        Made(content=content, seed=item.seed, hidden=bool(flag))
        for item, content, flag in zip(group, contents, hidden, strict=True)
    ]


def _resized(piece: Made, size: tuple[int, int] | None) -> Made:
    if size is None:
        return piece
    return msgspec.structs.replace(piece, content=piece.content.resize(size))


def _hidden(made: list[Made]) -> list[Notice]:
    hidden = sum(piece.hidden for piece in made)
    if not hidden:
        return []
    return [Notice("unsafe_images_hidden", BLACK_OUT.format(hidden=hidden, count=len(made)))]


def _together(count: int, job: Job) -> dict[str, Any]:
    return {"batched_with": count - job.order.wanted.count} if count > job.order.wanted.count else {}


def _sampling_rate(pipeline: Any) -> int:
    for part, place in (("vocoder", "config"), ("vae", "config")):
        rate = getattr(getattr(getattr(pipeline, part, None), place, None), "sampling_rate", None)
        if rate:
            return int(rate)
    return 16_000
