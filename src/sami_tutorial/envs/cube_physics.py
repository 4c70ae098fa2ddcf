"""The physics of CubeMove: one cube, one line, two fingers. Pure functions over arrays.

Every function works on ``n`` environments at once and keeps no state of its own, so the single
environment (``n = 1``) and the vector environment run the same lines.

The hand has two commands. The first sets the horizontal speed it aims for. The second, when
positive, closes the fingers and then lifts; when negative, it lowers and then opens them. Two
skills follow from this:

* **Push**: with the fingers fully open the hand slides the cube along the table. It presses with
  at most ``PUSH_FORCE``, so friction times weight must stay below that.
* **Pick**: with the fingers fully closed the hand lifts the cube, as long as it weighs less than
  ``LIFT_FORCE``, and carries it through the air, where there is no friction.

Fingers that are not fully open cannot push, and closed fingers do not drag a cube that still
touches the table. A try that fails therefore changes nothing that can be observed.

Built in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TIME_STEP = 0.05
"""Seconds per step."""
MAX_STEPS = 40
"""Steps per episode: two seconds."""
GRAVITY = 9.81
"""m/s^2."""
SPEED = 0.6
"""Top speed of the hand in every direction, m/s."""
PUSH_FORCE = 4.0
"""The hardest that open fingers press, N."""
LIFT_FORCE = 12.0
"""The heaviest weight that closed fingers lift, N; the nearer to it, the slower."""
CARRY_FORCE = 4.0
"""The hardest that the hand accelerates a lifted cube sideways, N."""
CLOSING_STEPS = 4
"""Steps from fully open to fully closed, and back."""
CLEARANCE = 0.02
"""Height above which the cube is free of the table, m."""
TOP = 0.06
"""Greatest height, m."""
TABLE = 1.0
"""Half the length of the table, m; the cube stops at its ends."""
GOAL_DISTANCE = (0.3, 0.5)
"""Range of the distance from start to goal, m; the goal lies left or right."""
TOLERANCE = 0.05
"""Success: at most this far from the goal, m."""
ACTION_COST = 0.01
"""Weight of the squared commands in the reward."""

OBSERVATION = ("goal offset", "velocity", "height", "closure", "position")
"""What the agent sees, in this order: m, m/s, share of ``TOP``, share of closed, m."""


class Cube(NamedTuple):
    """The state of ``n`` environments; each array has shape (n,)."""

    position: Array  # m, 0 at the start of an episode
    velocity: Array  # m/s
    height: Array  # m above the table
    closure: Array  # of the fingers: 0 open, 1 closed
    goal: Array  # m


class Features(NamedTuple):
    """What differs from episode to episode and is hidden; each array has shape (n,).

    The first two decide which skill works. The rest are distractors: they change the motion or the
    sensors a little, never the skill.
    """

    mass: Array  # kg
    friction: Array  # Coulomb coefficient between cube and table
    speed_gain: Array  # actuator: scales the commanded horizontal speed
    position_bias: Array  # sensor: added to the position seen, m
    wind: Array  # drift of a lifted cube, m/s
    velocity_scale: Array  # sensor: scales the velocity seen
    finger_speed: Array  # actuator: scales how fast the fingers close and open
    height_scale: Array  # sensor: scales the height seen
    speed_bias: Array  # actuator: added to the commanded speed, share of SPEED
    goal_bias: Array  # sensor: added to the goal's position seen, m


def move(cube: Cube, action: Array, features: Features) -> Cube:
    """The state one time step later.

    Args:
        cube: the state, arrays of shape (n,).
        action: commands in [-1, 1], shape (n, 2): horizontal, grip and lift.
        features: the hidden features, arrays of shape (n,).
    """
    mass, friction = features.mass, features.friction
    target = SPEED * (features.speed_gain * action[:, 0] + features.speed_bias)
    lift = action[:, 1]
    up = lift > 0

    # Fingers: close on "up", open on "down" once the cube stands on the table.
    turn = features.finger_speed / CLOSING_STEPS
    opening = np.where(cube.height <= 0, np.maximum(cube.closure - turn, 0), cube.closure)
    closure = np.where(up, np.minimum(cube.closure + turn, 1), opening)

    # Height: only closed fingers lift, more slowly the nearer the weight comes to their limit.
    strength = np.where(up, np.maximum(1 - mass * GRAVITY / LIFT_FORCE, 0), 1)
    climb = np.where(closure >= 1, TIME_STEP * SPEED * strength * lift, 0)
    height = np.clip(cube.height + climb, 0, TOP)

    # On the table: open fingers aim for the target speed, making up for friction as far as their
    # force allows; then friction takes its share of the speed, at most all of it.
    slowing = TIME_STEP * friction * GRAVITY
    wanted = target - cube.velocity + np.sign(target) * slowing
    limit = TIME_STEP * PUSH_FORCE / mass
    pushed = cube.velocity + np.where(closure <= 0, np.clip(wanted, -limit, limit), 0)
    sliding = pushed - np.clip(pushed, -slowing, slowing)

    # In the air: no friction, and the hand aims for the target speed with its own limit.
    limit = TIME_STEP * CARRY_FORCE / mass
    carried = cube.velocity + np.clip(target + features.wind - cube.velocity, -limit, limit)

    velocity = np.where(height > CLEARANCE, carried, sliding)
    position = cube.position + TIME_STEP * velocity
    off_table = np.abs(position) > TABLE
    return Cube(
        position=np.clip(position, -TABLE, TABLE),
        velocity=np.where(off_table, 0, velocity),
        height=height,
        closure=closure,
        goal=cube.goal,
    )


def goal_distance(cube: Cube) -> Array:
    """How far the cube is from standing on its goal, in m: along the table plus height."""
    return np.abs(cube.position - cube.goal) + cube.height


def reward(cube: Cube, action: Array) -> Array:
    """Reward of arriving in ``cube`` by ``action``, shape (n,).

    ``-(|position - goal| + height) / 0.5 m - 0.01 * |action|^2``: the distance in units of the
    farthest goal, plus a small price for effort. Being on the goal at rest pays 0, the maximum.
    """
    effort = action[:, 0] ** 2 + action[:, 1] ** 2
    return -goal_distance(cube) / GOAL_DISTANCE[1] - ACTION_COST * effort


def observe(cube: Cube, features: Features) -> NDArray[np.float32]:
    """What the agent sees, shape (n, 5), in the order of ``OBSERVATION``."""
    position = cube.position + features.position_bias
    columns = (
        cube.goal + features.goal_bias - position,
        cube.velocity * features.velocity_scale,
        cube.height / TOP * features.height_scale,
        cube.closure,
        position,
    )
    return np.stack(columns, axis=1, dtype=np.float32, casting="same_kind")
