"""Many ways to ask for one picture, and the words of all of them."""

from __future__ import annotations

import random
from typing import Final

from .pictures import COLOURS, POSITIONS, SHAPES, Scene

OPENINGS: Final = (
    "", "", "", "", "a picture of ", "an image of ", "a drawing of ", "please draw ", "draw ", "show me ",
    "paint ", "make ", "a photo of ", "there is ",
)  # fmt: skip
PLACES: Final = {
    "centre": ("", "", "", " in the middle", " in the centre", " in the center"),
    "left": (" on the left", " at the left", " on the left side", " to the left"),
    "right": (" on the right", " at the right", " on the right side", " to the right"),
    "top": (" at the top", " on top", " in the upper part", " above"),
    "bottom": (" at the bottom", " below", " in the lower part", " on the bottom"),
}
GROUNDS: Final = (
    " on {}", " on {}", " on a {} background", " on {} background", " in front of a {} background",
    " over {}", " against {}", ", {} background", ", background {}", " on a {} ground",
)  # fmt: skip
SYNONYMS: Final = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "dot", "ball"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "diamond": ("diamond", "diamond", "rhombus"),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "donut", "doughnut"),
    "purple": ("purple", "purple", "violet"),
}
FILLERS: Final = (
    "nice", "simple", "flat", "big", "small", "beautiful", "bright", "plain", "solid", "clean", "minimal",
    "icon", "style", "art", "high", "quality", "detailed", "digital", "vector", "shape", "colour", "color",
    "one", "single", "with", "and", "of", "is", "it", "me", "for", "large", "little", "cute", "very",
)  # fmt: skip


def caption(scene: Scene, dice: random.Random) -> str:
    """One caption of the scene, from plain to wordy; some leave out what the picture then chooses itself."""
    shape = dice.choice(SYNONYMS.get(scene.shape, (scene.shape,)))
    colour = dice.choice(SYNONYMS.get(scene.colour, (scene.colour,)))
    background = dice.choice(SYNONYMS.get(scene.background, (scene.background,)))
    if dice.random() < 0.3:
        return Scene(shape, colour, background, scene.position).caption.replace(
            "an orange", dice.choice(("a orange", "an orange"))
        )
    if dice.random() < 0.03:
        colour = ""
    filler = f"{dice.choice(FILLERS)} " if dice.random() < 0.12 else ""
    article = dice.choice(("a ", "a ", "one ", "the ", ""))
    ground = dice.choice(GROUNDS).format(background) if dice.random() > 0.03 else ""
    place = dice.choice(PLACES[scene.position])
    if dice.random() < 0.4:
        place = f",{place}" if place else place
    order = (ground, place) if dice.random() < 0.6 else (place, ground)
    text = f"{dice.choice(OPENINGS)}{article}{filler}{colour} {shape}{order[0]}{order[1]}"
    if dice.random() < 0.08:
        text += f", {dice.choice(FILLERS)} {dice.choice(FILLERS)}"
    if dice.random() < 0.1:
        text += dice.choice((".", "!", " .", ",")) if dice.random() < 0.7 else " please"
    return " ".join(text.split())


def words() -> list[str]:
    """Every word of every caption, once, in a fixed order: each gets a token of its own."""
    found: dict[str, None] = {}
    texts = [
        *OPENINGS,
        *GROUNDS,
        *FILLERS,
        *SHAPES,
        *COLOURS,
        *POSITIONS,
        "a an one the please in at to side",
    ]
    for group in (*PLACES.values(), *SYNONYMS.values()):
        texts.extend(group)
    for text in texts:
        for word in text.replace("{}", " ").replace(",", " ").split():
            found[word] = None
    return list(found)
