"""What a request or the settings ask for and the drawing does not use: it is told, never passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from lollms_kernel.types import Notice

from .job import Order
from .loading import LoadedModel
from .parameters import KNOWN
from .settings import DiffusersSettings
from .tasks import accepted

if TYPE_CHECKING:
    from .plan import Plan

_GUIDANCE: Final = frozenset(("guidance_scale", "true_cfg_scale"))
_STEPS: Final = frozenset(("num_inference_steps",))
_LENGTH: Final = frozenset(("audio_length_in_s", "audio_end_in_s"))
_CONTROL: Final = frozenset(("controlnet_conditioning_scale",))
_CARRIED: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    "num_inference_steps": (_STEPS, "the model has no steps"),
    "steps": (_STEPS, "the model has no steps"),
    "guidance_scale": (_GUIDANCE, "the model takes none"),
    "cfg_scale": (_GUIDANCE, "the model takes none"),
    "strength": (frozenset(("strength",)), "only where a model changes an image"),
    "controlnet_scale": (_CONTROL, "only with a control image"),
    "controlnet_model": (_CONTROL, "only with a control image"),
    "num_frames": (frozenset(("num_frames",)), "only of videos"),
    "audio_length_in_s": (_LENGTH, "only of sounds"),
    "duration": (_LENGTH, "only of sounds"),
}
"""Parameters by the arguments of pipelines that carry them, and what it means that none of these is there."""


def unused_parameters(model: LoadedModel, plan: Plan, order: Order, *, blind: bool) -> dict[str, str]:
    """Parameters that had no effect on what was drawn, each with the reason; `blind`: nothing could be shown."""
    output = model.source.kind.output
    found = {name: why for name, (carriers, why) in _CARRIED.items() if not carriers & plan.arguments.keys()}
    if output == "audio":
        found |= dict.fromkeys(("width", "height", "size", "image_size"), "not of sounds")
    if output != "video":
        found |= dict.fromkeys(("fps", "video_format"), "only of videos")
    if plan.facts["scheduler"] is None:
        found["scheduler"] = "the model has none"
    if not model.loras:
        found["lora_scale"] = "there are no LoRAs"
    if order.wanted.previews:
        found["partial_images"] = "previews says it already"
    if (reason := _no_previews(plan, order, blind=blind)) is not None:
        found |= dict.fromkeys(("previews", "partial_images"), reason)
    if (reason := _no_negative(plan)) is not None:
        found["negative_prompt"] = reason
    return found


def _no_previews(plan: Plan, order: Order, *, blind: bool) -> str | None:
    if getattr(plan.pipeline, "safety_checker", None) is not None:
        return "the safety checker looks at finished pictures only"
    if not order.want_progress:
        return "the answer is not streamed"
    return "the model has no pictures on the way" if blind else None


def _no_negative(plan: Plan) -> str | None:
    """It has no effect where guidance is an input of the network, as in Flux, and where guidance is not computed."""
    known = accepted(plan.pipeline)
    if "negative_prompt" not in known or known.get("true_cfg_scale") == 1.0:
        return "the model takes none"
    guided = plan.facts["guidance_scale"] > 1
    if "true_cfg_scale" not in known:  # else it is about another kind of guidance
        guided = getattr(plan.pipeline, "do_classifier_free_guidance", guided)
    return None if guided else "only with guidance_scale above 1"


def ignored(order: Order, unused: Mapping[str, str]) -> list[Notice]:
    """One notice of every parameter of an order that is unknown or unused, with the reason; none without any."""
    names = sorted(name for name in order.wanted.given if name in unused or name not in KNOWN)
    if not names:
        return []
    told = ", ".join(f"{name} ({unused.get(name, 'unknown')})" for name in names)
    return [Notice("parameters_ignored", f"Without effect here: {told}.", {"names": names})]


def ignored_settings(model: LoadedModel, settings: DiffusersSettings) -> list[Notice]:
    """One notice of the settings that ask for what this model's answers do not get; none without any."""
    found = {}
    if settings.enable_safety_checker and not model.safety_checker:
        found["enable_safety_checker"] = f"'{model.source.name}' has no safety checker"
    if settings.use_compel:
        found["use_compel"] = "prompts are taken as they are"
    if not found:
        return []
    told = ", ".join(f"{name} ({reason})" for name, reason in found.items())
    return [Notice("settings_ignored", f"Settings without effect here: {told}.", {"names": list(found)})]
