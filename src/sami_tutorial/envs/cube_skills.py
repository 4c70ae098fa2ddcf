"""Which skill works where in CubeMove, in closed form, and scripted experts that prove it.

Both skills end with the same movement: from rest to rest over the distance to the goal, at a
limited speed, speeding up with at most ``a`` and slowing down with at most ``b`` (m/s^2). The
shortest time for it has a speed profile shaped like a trapezoid, or like a triangle if the way is
too short to reach the top speed ``V``. Reaching speed ``v`` and stopping again covers
``v^2/2 (1/a + 1/b)``, so with ``k = 1/a + 1/b``

* trapezoid, if ``d >= V^2 k / 2``: ``T = d / V + V k / 2``,
* triangle, else: the peak speed is ``sqrt(2 d / k)`` and ``T = sqrt(2 d k)``.

Push: the hand presses with ``F``, friction takes ``mu m g``, so ``a = F/m - mu g`` and
``b = F/m + mu g`` (friction helps to stop). Pushing needs ``a > 0``, that is ``mu m g < F``.
Pick: in the air there is no friction, ``a = b = F_carry / m``; lifting needs ``m g < F_lift``.

Built in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sami_tutorial.envs.cube_physics import (
    CARRY_FORCE,
    CLEARANCE,
    CLOSING_STEPS,
    GOAL_DISTANCE,
    GRAVITY,
    LIFT_FORCE,
    PUSH_FORCE,
    SPEED,
    TIME_STEP,
    TOP,
)

STEP_BUDGET = 36
"""A skill counts as working if it ends within this many of the episode's 40 steps.

The other four are a reserve for the distractors, which slow the hand and blur what it sees.
"""

_BRAKE = 1.4
"""How hard the experts brake, m/s^2: what even the heaviest cube of the task sets allows.

They do not know the mass, so they brake alike in every task.
"""


def travel_steps(distance: ArrayLike, speed_up: ArrayLike, brake: ArrayLike) -> NDArray[np.float64]:
    """The shortest movement from rest to rest, in steps (not rounded).

    Args:
        distance: in m, positive.
        speed_up, brake: the accelerations available, m/s^2.

    Returns:
        Steps, infinite where ``speed_up`` is not positive.
    """
    with np.errstate(divide="ignore"):
        k = np.where(np.greater(speed_up, 0), np.divide(1, speed_up) + np.divide(1, brake), np.inf)
    trapezoid = np.divide(distance, SPEED) + SPEED * k / 2
    triangle = np.sqrt(2 * np.asarray(distance) * k)
    return np.where(np.greater_equal(distance, SPEED**2 * k / 2), trapezoid, triangle) / TIME_STEP


def push_steps(
    friction: ArrayLike, mass: ArrayLike, distance: ArrayLike = GOAL_DISTANCE[1]
) -> NDArray[np.float64]:
    """Steps that Push needs from closed fingers: open, then slide to the goal.

    Args:
        friction, mass: Coulomb coefficient and kg; they broadcast against each other.
        distance: to the goal, m, positive; by default the farthest.

    Returns:
        Steps, infinite where the cube does not move.
    """
    friction, mass = np.asarray(friction, np.float64), np.asarray(mass, np.float64)
    press, drag = PUSH_FORCE / mass, friction * GRAVITY
    return CLOSING_STEPS + np.ceil(travel_steps(distance, press - drag, press + drag))


def pick_steps(
    friction: ArrayLike, mass: ArrayLike, distance: ArrayLike = GOAL_DISTANCE[1]
) -> NDArray[np.float64]:
    """Steps that Pick needs from open fingers: close, lift clear, carry to the goal, put down.

    Arguments and result as for :func:`push_steps`. Friction makes no difference.
    """
    mass = np.broadcast_arrays(np.asarray(mass, np.float64), friction)[0]
    strength = np.maximum(1 - mass * GRAVITY / LIFT_FORCE, 0)
    per_step = SPEED * TIME_STEP
    with np.errstate(divide="ignore"):
        lift = np.floor(CLEARANCE / (per_step * strength)) + 1
    carry = np.ceil(travel_steps(distance, CARRY_FORCE / mass, CARRY_FORCE / mass))
    return CLOSING_STEPS + lift + carry + np.ceil(TOP / per_step)


def push_feasible(friction: ArrayLike, mass: ArrayLike) -> NDArray[np.bool_]:
    """Whether Push reaches every goal in time, however the fingers start."""
    return push_steps(friction, mass) <= STEP_BUDGET


def pick_feasible(friction: ArrayLike, mass: ArrayLike) -> NDArray[np.bool_]:
    """Whether Pick reaches every goal in time, however the fingers start."""
    return pick_steps(friction, mass) <= STEP_BUDGET


def optimal_skill(friction: ArrayLike, mass: ArrayLike) -> NDArray[np.str_]:
    """``"push"``, ``"pick"``, ``"both"`` or ``"none"``: the skills that solve a task surely.

    A skill solves a task if it brings the cube to every goal distance of the task, from open and
    from closed fingers, within ``STEP_BUDGET`` steps. Where both do, both earn success.

    Args:
        friction, mass: arrays that broadcast against each other.

    Returns:
        An array of strings of the broadcast shape (shape () for two numbers).
    """
    push, pick = push_feasible(friction, mass), pick_feasible(friction, mass)
    return np.where(push, np.where(pick, "both", "push"), np.where(pick, "pick", "none"))


def scripted_push(observation: ArrayLike) -> NDArray[np.float32]:
    """The Push expert: open the fingers and slide the cube to the goal, braking in time.

    Args:
        observation: shape (..., 5), as CubeMove gives it.

    Returns:
        Actions, shape (..., 2).
    """
    observation = np.asarray(observation)
    towards = _towards_goal(observation[..., 0])
    return np.stack([towards, np.full_like(towards, -1)], axis=-1)


def scripted_pick(observation: ArrayLike) -> NDArray[np.float32]:
    """The Pick expert: close the fingers, lift, carry to the goal, and put down at rest there.

    Arguments and result as for :func:`scripted_push`.
    """
    observation = np.asarray(observation)
    offset, velocity, height = np.moveaxis(observation, -1, 0)[:3]
    arrived = (np.abs(offset) < 0.02) & ((np.abs(velocity) < 0.05) | (height <= 0))
    return np.stack([_towards_goal(offset), np.where(arrived, -1, 1).astype(np.float32)], axis=-1)


def _towards_goal(offset: NDArray[np.floating]) -> NDArray[np.float32]:
    """The horizontal command: the speed from which ``_BRAKE`` still stops at the goal.

    Close by, where a step is too coarse for that, half of the remaining way per step.
    """
    distance = np.abs(offset)
    speed = np.minimum(np.sqrt(2 * _BRAKE * distance), distance / (2 * TIME_STEP))
    return (np.sign(offset) * np.minimum(speed / SPEED, 1)).astype(np.float32)
