"""Says what a picture shows by plain image analysis: colours by nearness, the shape by overlap with its outline."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .pictures import COLOURS, POSITIONS, SHAPES, Pixels, Scene, coverage

NEAR: Final = 70.0  # how far a colour may be from its name's, as a distance in RGB
ALIKE: Final = 0.78  # how much of shape and outline together must be shared (intersection over union)
UNKNOWN: Final = "unknown"


def read(picture: Any) -> Scene:
    """The scene in a `(height, width, 3)` picture of 0 to 255; what cannot be told is `"unknown"`."""
    pixels = np.asarray(picture, np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    away = np.linalg.norm(pixels - ground, axis=2)
    if away.max() < NEAR:
        return Scene(UNKNOWN, UNKNOWN, name_of(ground), UNKNOWN)
    ink = np.median(pixels[away > 0.8 * np.quantile(away, 0.98)], axis=0)
    if np.median(np.linalg.norm(pixels[away > np.linalg.norm(ink - ground) / 2] - ink, axis=1)) > NEAR:
        return Scene(UNKNOWN, UNKNOWN, name_of(ground), UNKNOWN)  # no single colour, as in noise
    covered = _connected(away > np.linalg.norm(ink - ground) / 2)
    shape = shape_of(covered)
    return Scene(shape, name_of(ink), name_of(ground), position_of(covered))


def name_of(colour: Any) -> str:
    """The name of the nearest known colour, if it is near at all."""
    name, distance = min(
        ((name, float(np.linalg.norm(colour - np.array(value)))) for name, value in COLOURS.items()),
        key=lambda pair: pair[1],
    )
    return name if distance < NEAR else UNKNOWN


def shape_of(covered: Any) -> str:
    """The shape whose outline, stretched over the covered part, shares most with it."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if len(rows) < 8 or len(columns) < 8:
        return UNKNOWN
    part = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if not 0.7 < part.shape[0] / part.shape[1] < 1.4:
        return UNKNOWN
    grid = _outline_grid(part)
    shares = {shape: _shared(grid, outline) for shape, outline in OUTLINES.items()}
    best = max(shares, key=lambda shape: shares[shape])
    return best if shares[best] > ALIKE else UNKNOWN


def position_of(covered: Any) -> str:
    """Where the middle of the covered part's box lies."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    height, width = covered.shape
    x = ((columns[0] + columns[-1] + 1) / 2 / width - 0.5) * 64
    y = ((rows[0] + rows[-1] + 1) / 2 / height - 0.5) * 64
    return min(POSITIONS, key=lambda name: (POSITIONS[name][0] - x) ** 2 + (POSITIONS[name][1] - y) ** 2)


def _connected(covered: Any) -> Any:
    """The part of the covered pixels that hangs together with the row that has most of them: no stray pixels."""
    row = int(covered.sum(axis=1).argmax())
    seen = np.zeros_like(covered)
    seen[row] = covered[row]
    while True:
        grown = seen.copy()
        for axis in (0, 1):
            for shift in (1, -1):
                grown |= np.roll(seen, shift, axis)
        grown &= covered
        if (grown == seen).all():
            return seen
        seen = grown


def _outline_grid(part: Any, side: int = 32) -> Any:
    """The part stretched to `side` × `side`."""
    rows = ((np.arange(side) + 0.5) * part.shape[0] / side).astype(int)
    columns = ((np.arange(side) + 0.5) * part.shape[1] / side).astype(int)
    return part[rows][:, columns]


def _shared(first: Any, second: Any) -> float:
    return float((first & second).sum() / (first | second).sum())


def _outline(shape: str) -> Any:
    drawn: Pixels = coverage(shape, 64, 64, 60, size=128)
    covered = drawn > 0.5
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    return _outline_grid(covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


OUTLINES: Final = {shape: _outline(shape) for shape in SHAPES}
