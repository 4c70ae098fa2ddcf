"""A small picture of CubeMove: table, cube, hand and goal.

Drawn with Pillow at twice the size and then halved, for smooth edges.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 480, 160
"""Size of the picture in pixels."""

_OVERSAMPLING = 2
_PIXELS_PER_METRE = 320 * _OVERSAMPLING
_FLOOR = 120 * _OVERSAMPLING  # the row of the table's surface
_HALF_CUBE = 0.035  # m

_WALL, _TABLE, _EDGE = (247, 248, 250), (221, 208, 190), (160, 142, 118)
_GOAL, _HAND, _INK = (0, 158, 115), (96, 104, 116), (40, 44, 52)
_LIGHT, _HEAVY = np.array((160, 208, 240)), np.array((18, 60, 110))
_LIGHTEST, _HEAVIEST = 0.1, 2.6  # kg, the ends of the colour scale


def draw(
    position: float, height: float, closure: float, goal: float, mass: float
) -> NDArray[np.uint8]:
    """The scene as an RGB image, shape (160, 480, 3).

    Args:
        position, height, goal: in m.
        closure: of the fingers, 0 open to 1 closed.
        mass: in kg; the heavier, the darker the cube. (The agent is not shown it.)
    """
    size = (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING)
    image = Image.new("RGB", size, _WALL)
    canvas = ImageDraw.Draw(image)

    def box(left: float, bottom: float, right: float, top: float, **style: object) -> None:
        """A rectangle in metres: x from the table's middle, y from its surface."""
        canvas.rectangle(
            (
                size[0] / 2 + left * _PIXELS_PER_METRE,
                _FLOOR - top * _PIXELS_PER_METRE,
                size[0] / 2 + right * _PIXELS_PER_METRE,
                _FLOOR - bottom * _PIXELS_PER_METRE,
            ),
            **style,  # type: ignore[arg-type]
        )

    box(-2, -1, 2, 0, fill=_TABLE)
    box(-2, -0.006, 2, 0, fill=_EDGE)
    # The goal: a mat on the table and the outline of the cube in its place.
    box(goal - 0.06, -0.012, goal + 0.06, 0, fill=_GOAL)
    side = 2 * _HALF_CUBE
    box(goal - _HALF_CUBE, 0, goal + _HALF_CUBE, side, outline=_GOAL, width=2 * _OVERSAMPLING)

    share = np.clip(np.log(mass / _LIGHTEST) / np.log(_HEAVIEST / _LIGHTEST), 0, 1)
    colour = tuple(int(c) for c in np.round(_LIGHT + share * (_HEAVY - _LIGHT)))
    left, right = position - _HALF_CUBE, position + _HALF_CUBE
    box(left, height, right, height + side, fill=colour, outline=_INK, width=_OVERSAMPLING)

    # The hand: a wrist, a palm, and two fingers that touch the cube when closed.
    gap, finger = 0.035 * (1 - closure) + 0.003, 0.014
    palm = height + side + 0.03
    box(position - 0.012, palm, position + 0.012, 1, fill=_HAND)
    box(left - gap - finger, palm, right + gap + finger, palm + 0.02, fill=_HAND)
    for start in (left - gap - finger, right + gap):
        box(start, height + 0.012, start + finger, palm, fill=_HAND)

    return np.asarray(image.reduce(_OVERSAMPLING))
