"""The pictures that the repository draws itself: one coloured shape on a coloured background."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from zlib import crc32

import numpy as np

Pixels = np.ndarray[Any, np.dtype[Any]]

SIZE: Final = 64
SHAPES: Final = ("circle", "square", "triangle", "diamond", "cross", "ring")
COLOURS: Final = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (250, 220, 40),
    "orange": (245, 140, 30),
    "purple": (140, 50, 170),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
POSITIONS: Final = {
    "centre": (0.0, 0.0),
    "left": (-11.0, 0.0),
    "right": (11.0, 0.0),
    "top": (0.0, -11.0),
    "bottom": (0.0, 11.0),
}
RADIUS: Final = 19.0
SOFT: Final = 3.0  # width of an edge in pixels: 8×8 latents cannot hold sharper ones
HELD_OUT_SHARE: Final = 10  # one in ten combinations of shape, colour and background is never trained on


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the words of its caption."""

    shape: str
    colour: str
    background: str
    position: str = "centre"

    @property
    def held_out(self) -> bool:
        """Whether training never sees this combination of shape, colour and background."""
        return crc32(f"{self.shape} {self.colour} {self.background}".encode()) % HELD_OUT_SHARE == 0

    @property
    def caption(self) -> str:
        """The plain caption: "a red circle on white, at the top"."""
        place = {
            "centre": "", "left": ", on the left", "right": ", on the right",
            "top": ", at the top", "bottom": ", at the bottom",
        }  # fmt: skip
        article = "an" if self.colour == "orange" else "a"
        return f"{article} {self.colour} {self.shape} on {self.background}{place[self.position]}"


def all_scenes() -> list[Scene]:
    """Every shape in every colour on every other colour, at every position."""
    return [
        Scene(shape, colour, background, position)
        for shape, colour, background, position in product(SHAPES, COLOURS, COLOURS, POSITIONS)
        if colour != background
    ]


def coverage(shape: str, x: float, y: float, radius: float, size: int = SIZE) -> Pixels:
    """How much of each pixel the shape covers, 0 to 1: `(size, size)`, smooth at its edge."""
    axis = np.arange(size, dtype=np.float32) + 0.5
    across, down = axis[None, :] - np.float32(x), axis[:, None] - np.float32(y)
    distance = _distance(shape, across, down, radius)
    covered: Pixels = np.clip(0.5 - distance / SOFT, 0, 1).astype(np.float32)
    return covered


def _distance(shape: str, x: Pixels, y: Pixels, radius: float) -> Pixels:
    """Signed distance to the edge in pixels, negative inside."""
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.74 * radius) - 0.26 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius
    if shape == "diamond":
        return (np.abs(x) + np.abs(y) - radius) * np.float32(0.7071)
    if shape == "cross":
        wide = np.maximum(np.abs(x) - radius, np.abs(y) - 0.32 * radius)
        high = np.maximum(np.abs(x) - 0.32 * radius, np.abs(y) - radius)
        return np.minimum(wide, high)
    if shape == "triangle":
        side = (2 * np.abs(x) - (y + radius)) / np.float32(5**0.5)
        return np.maximum(side, y - 0.85 * radius)
    raise ValueError(f"There is no shape {shape!r}; known: {', '.join(SHAPES)}.")


@dataclass(frozen=True)
class Shake:
    """How far a drawing may differ from its scene: in pixels, and in values of 0 to 255."""

    place: float
    radius: float
    colour: float


WIDE: Final = Shake(1.0, 1.0, 6)
SLIGHT: Final = Shake(0.75, 1.0, 4)


def draw(scene: Scene, dice: random.Random | None = None, shake: Shake = WIDE) -> Pixels:
    """The scene as `(SIZE, SIZE, 3)` values 0 to 255; `dice` shakes place, size and colours a little."""
    x, y = (SIZE / 2 + shift for shift in POSITIONS[scene.position])
    radius, colours = (
        RADIUS,
        [np.array(COLOURS[name], np.float32) for name in (scene.colour, scene.background)],
    )
    if dice is not None:
        x, y = x + dice.uniform(-shake.place, shake.place), y + dice.uniform(-shake.place, shake.place)
        radius = dice.uniform(radius - shake.radius, radius + shake.radius)
        colours = [colour + dice.uniform(-shake.colour, shake.colour) for colour in colours]
    alpha = coverage(scene.shape, x, y, radius)[:, :, None]
    picture = alpha * colours[0] + (1 - alpha) * colours[1]
    drawn: Pixels = np.clip(picture, 0, 255).astype(np.float32)
    return drawn
