"""Generation parameters of a request, checked against the settings before any model is loaded."""

from __future__ import annotations

import re
import secrets
from typing import Any, Final, TypeVar, get_args

import msgspec

from lollms_kernel.errors import InvalidRequest
from lollms_kernel.types import Parameters

from .settings import DiffusersSettings, SchedulerName

DEFAULT_STEPS: Final = 30
DEFAULT_GUIDANCE: Final = 7.5
LEAST_SIZE: Final = 64
STEP_OF_SIZES: Final = 8
MAX_SEED: Final = 2**63 - 1
MAX_PROMPT: Final = 20_000
SCHEDULERS: Final[tuple[str, ...]] = get_args(SchedulerName)

_SIZE = re.compile(r"(\d{1,5})\s*[x×]\s*(\d{1,5})")
KNOWN = frozenset(
    "width height size image_size num_inference_steps steps guidance_scale cfg_scale negative_prompt seed n "
    "num_images strength controlnet_scale controlnet_model scheduler previews lora_scale num_frames fps "
    "video_format audio_length_in_s duration partial_images".split()
)
_IRRELEVANT = frozenset(
    "temperature top_k top_p repeat_penalty repeat_last_n min_p max_tokens context_size stop".split()
)  # what personalities and the server set for texts; nobody expects them to shape an image

T = TypeVar("T")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants; None: the model's own default."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int
    count: int = 1
    strength: float
    controlnet_scale: float
    controlnet_model: str | None = None
    scheduler: str | None = None
    previews: int = 0
    """A preview after every so many steps; 0: none."""
    partial_images: int = 0
    """So many previews, spread over the steps: OpenAI's way to say it."""
    lora_scale: float | None = None
    frames: int | None = None
    fps: int = 8
    video_format: str = "webp"
    seconds: float | None = None
    given: frozenset[str] = frozenset()
    """The names that the client gave values to, known or not, without those that only texts have."""


def read_parameters(given: Parameters, prompt: str, settings: DiffusersSettings) -> Wanted:
    """The wanted values. Raises InvalidRequest that names parameter, value and what would do."""
    given = {name: value for name, value in given.items() if value is not None}
    if not prompt.strip():
        raise InvalidRequest("There is nothing to draw.", hint="Say it in the prompt.")
    if len(prompt) > MAX_PROMPT:
        raise InvalidRequest(
            f"The prompt has {len(prompt)} characters.", hint=f"At most {MAX_PROMPT} are read."
        )
    width, height = _size(given, settings.max_size)
    seed = _integer(given, ("seed",), -1, MAX_SEED)
    nothing = {name for name in ("previews", "partial_images") if given.get(name) == 0}
    return Wanted(
        prompt=prompt,
        negative_prompt=_text(given, "negative_prompt"),
        width=width,
        height=height,
        steps=_integer(given, ("num_inference_steps", "steps"), 1, settings.max_steps),
        guidance_scale=_number(given, ("guidance_scale", "cfg_scale"), 0, 100),
        seed=secrets.randbelow(2**32) if seed is None or seed < 0 else seed,
        count=_integer(given, ("n", "num_images"), 1, settings.max_images) or 1,
        strength=_or(_number(given, ("strength",), 0, 1), settings.default_strength),
        controlnet_scale=_or(_number(given, ("controlnet_scale",), 0, 2), settings.default_controlnet_scale),
        controlnet_model=_text(given, "controlnet_model"),
        scheduler=_one_of(given, "scheduler", SCHEDULERS),
        previews=_integer(given, ("previews",), 0, settings.max_steps) or 0,
        partial_images=_integer(given, ("partial_images",), 0, settings.max_steps) or 0,
        lora_scale=_number(given, ("lora_scale",), -4, 4),
        frames=_integer(given, ("num_frames",), 1, 256),
        fps=_integer(given, ("fps",), 1, 60) or 8,
        video_format=_one_of(given, "video_format", ("webp", "gif")) or "webp",
        seconds=_number(given, ("audio_length_in_s", "duration"), 0.01, 600),
        given=frozenset(given.keys() - _IRRELEVANT - nothing),
    )


def _size(given: Parameters, most: int) -> tuple[int | None, int | None]:
    widths: dict[str, int] = {}
    heights: dict[str, int] = {}
    for name, edges in (("width", widths), ("height", heights)):
        if name in given:
            edges[name] = _edge(name, given[name], most)
    for name in ("size", "image_size"):
        value = given.get(name)
        if value is None or value == "auto":
            continue
        found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise _wrong(name, value, "WIDTHxHEIGHT in pixels, such as 512x512")
        widths[name], heights[name] = (_edge(name, int(edge), most) for edge in found.groups())
    return _agreed(widths, given), _agreed(heights, given)


def _edge(name: str, value: Any, most: int) -> int:
    fits = isinstance(value, int) and LEAST_SIZE <= value <= most and value % STEP_OF_SIZES == 0
    if not fits or isinstance(value, bool):
        raise _wrong(name, value, f"a multiple of {STEP_OF_SIZES} from {LEAST_SIZE} to {most}")
    return int(value)


def _integer(given: Parameters, names: tuple[str, ...], least: int, most: int) -> int | None:
    said: dict[str, int] = {}
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _wrong(name, value, f"an integer from {least} to {most}")
        said[name] = int(value)
    return _agreed(said, given)


def _number(given: Parameters, names: tuple[str, ...], least: float, most: float) -> float | None:
    said: dict[str, float] = {}
    for name in names:
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise _wrong(name, value, f"a number from {least:g} to {most:g}")
        said[name] = float(value)
    return _agreed(said, given)


def _agreed(said: dict[str, T], given: Parameters) -> T | None:
    """What the names of one thing say, None where none is given. Raises InvalidRequest where they differ."""
    names = list(said)
    for name in names[1:]:
        if said[name] != said[names[0]]:
            raise InvalidRequest(
                f"parameters.{names[0]} is {given[names[0]]!r} and parameters.{name} is {given[name]!r}: "
                "both say the same thing.",
                hint="Give one of them.",
            )
    return said[names[0]] if names else None


def _text(given: Parameters, name: str) -> str | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > MAX_PROMPT):
        raise _wrong(name, value, f"a text of at most {MAX_PROMPT} characters")
    return value or None


def _one_of(given: Parameters, name: str, known: tuple[str, ...]) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    for candidate in known:
        if value in (candidate, candidate.removesuffix("Scheduler")):
            return candidate
    raise _wrong(name, value, f"one of {', '.join(known)}")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _wrong(name: str, value: Any, allowed: str) -> InvalidRequest:
    return InvalidRequest(f"parameters.{name} is {str(value)[:80]!r}.", hint=f"It must be {allowed}.")
