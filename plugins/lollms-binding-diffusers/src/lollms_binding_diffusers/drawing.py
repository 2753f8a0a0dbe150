"""Runs a pipeline for one job, or for several that can be drawn at once. For the engine's thread only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import torch

from lollms_kernel.errors import NotSupported
from lollms_kernel.types import Notice, Progress

from .job import Job, Made, Order, Result
from .library import ModelSource
from .loading import LoadedModel
from .plan import Plan, guidance_name, make_plan
from .previews import is_shown, preview
from .settings import DiffusersSettings
from .tasks import accepted
from .truncation import truncations
from .without_effect import ignored, unused_parameters

BLACK_OUT = "The safety checker hid {hidden} of {count} images; they are black."


class Stopped(Exception):
    """Nobody wants the pictures any more."""


class Item(msgspec.Struct, frozen=True):
    """One picture of a job."""

    job: Job
    seed: int


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
    blind = False
    started = time.perf_counter()
    for number, group in enumerate(groups):
        watch = Watch(plan, group, number, len(groups), closing)
        watch.check()
        called_with = {
            **plan.arguments,
            **_each(plan, model.source, group),
            **watch.arguments(plan.pipeline),
        }
        try:
            with torch.inference_mode():
                answer = plan.pipeline(**called_with)
        finally:
            model.tasks.put_away()
        for item, piece in zip(group, _pieces(answer, model.source, group, plan.frames), strict=True):
            made[item.job].append(_resized(piece, plan.final_size))
        blind = blind or watch.blind
    seconds = time.perf_counter() - started
    rate = _sampling_rate(plan.pipeline) if model.source.kind.output == "audio" else None
    unused = {job: unused_parameters(model, plan, job.order, blind=blind) for job in jobs}
    return {
        job: Result(
            made=made[job],
            facts={**plan.facts, **_negative(job.order, unused[job]), **_together(len(items), job)},
            notices=_notices(plan, job.order, made[job], unused[job]),
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
        self._checked = getattr(plan.pipeline, "safety_checker", None) is not None
        self.blind = False
        """Whether there was a preview to show, and the pipeline had no picture for it."""

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
        self.blind = True
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
            done, everything = self._done * total, self._groups * total
            if (
                item.job.order.want_progress
                and not self._checked
                and self._step < total
                and is_shown(done + self._step, everything, wanted.previews, wanted.partial_images)
            ):
                picture = preview(pipeline, latents, place, self._plan.drawn_size)
                self.blind = picture is None
            item.job.report(
                Progress(done + self._step, everything, picture, "image/jpeg" if picture else None)
            )
        return values


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
    if guidance_name(known) == "true_cfg_scale" and "negative_prompt" in known:
        # Without a negative prompt such a pipeline has no guidance at all; its makers use a space.
        found["negative_prompt"] = [text or " " for text in negative]
    elif any(negative) and "negative_prompt" in known and known.get("true_cfg_scale") != 1.0:
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


def _notices(plan: Plan, order: Order, made: list[Made], unused: dict[str, str]) -> list[Notice]:
    """Everything that was done differently from what an order asked for."""
    texts = {"prompt": order.wanted.prompt, **_negative(order, unused)}
    lost = truncations(plan.pipeline, texts)
    return [*plan.notices, *lost, *ignored(order, unused), *_hidden(made)]


def _negative(order: Order, unused: dict[str, str]) -> dict[str, str]:
    """The negative prompt, if it had an effect."""
    text = order.wanted.negative_prompt
    return {"negative_prompt": text} if text and "negative_prompt" not in unused else {}


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
