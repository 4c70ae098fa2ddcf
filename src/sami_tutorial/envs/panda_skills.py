"""Scripted hands for the Panda task: one pushes the cube, one grips it, and a teacher tries both.

They see what an agent sees and nothing of mass or friction. What they do depends on the observation
alone: each looks where hand and cube are, and takes the next step of its skill from there. So they
can take over at any time, and a network without memory can copy them.

Used in chapter 17, *Panda*.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

REACH = 0.05
"""m, what a command of 1 asks the hand for in a step."""
_ABOVE = 0.12  # m, where the hand travels, clear of the cube
_FLOOR = 0.015  # m, where it pushes, below the cube's centre
_BEHIND = 0.06  # m from the cube's centre, where it comes down to push
_NEAR = 0.03  # m from the goal, where the cube is left alone
_ADVISED = 0.45  # of the hand's full speed
_BRAKE = 0.1  # m from the goal, where the hand starts to slow down


def scripted_push(observation: ArrayLike, speed: ArrayLike = 1.0) -> NDArray[np.float32]:
    """Comes down behind the cube and pushes it to the goal, fingers closed.

    Args:
        observation: shape (..., 22) or longer, as the environment gives it.
        speed: of the push, as a share of what the hand can do; shape () or (...).

    Returns:
        Actions, shape (..., 4).
    """
    see = _Scene(observation)
    from_cube = (see.hand - see.cube)[..., :2]
    along = (from_cube * see.way).sum(axis=-1)  # m, negative behind the cube
    across = np.abs(from_cube[..., 0] * see.way[..., 1] - from_cube[..., 1] * see.way[..., 0])
    behind = (-0.09 < along) & (along < -0.02) & (across < 0.015)
    touching = behind & (see.hand[..., 2] < _FLOOR + 0.02)

    spot = see.cube[..., :2] - _BEHIND * see.way
    move = np.where(
        touching[..., None],
        see.towards_goal(speed, height=_FLOOR),
        see.to(spot, height=np.where(behind, _FLOOR, _ABOVE)),
    )
    return _action(move, fingers=np.full(move.shape[:-1], -1.0))


def scripted_grip(
    observation: ArrayLike, speed: ArrayLike = 1.0, lift: float = 0.03
) -> NDArray[np.float32]:
    """Comes down over the cube, closes the fingers, and carries or drags it to the goal.

    Args:
        observation: shape (..., 22) or longer, as the environment gives it.
        speed: of the way to the goal, as for :func:`scripted_push`.
        lift: how high the cube shall be carried, m; at 0 it is dragged.

    Returns:
        Actions, shape (..., 4).
    """
    see = _Scene(observation)
    over = np.linalg.norm((see.cube - see.hand)[..., :2], axis=-1) < 0.02
    around = over & (see.hand[..., 2] - see.cube[..., 2] < 0.01)
    held = around & (see.gap < 0.0415)  # the cube's 0.04 m and a little

    height = np.where(see.near, 0.02, 0.02 + lift)
    reach = see.to(see.cube[..., :2], height=np.where(over, see.cube[..., 2] - 0.005, _ABOVE))
    move = np.where(around[..., None], 0.0, reach)  # where the fingers close, the hand waits
    move = np.where(held[..., None], see.towards_goal(speed, height), move)
    return _action(move, fingers=np.where(around, -1.0, 1.0))


SCRIPTS: dict[str, Callable[..., NDArray[np.float32]]] = {
    "push": scripted_push,
    "carry": scripted_grip,
    "drag": partial(scripted_grip, lift=0.0),
}
"""The scripts by name, each called with an observation and a speed."""


class Teacher:
    """Fills a replay with tries: each environment's hand has a skill, a speed and a shakiness.

    Half of the hands push and half grip, at a speed from 0.2 to 1 (uniform in its logarithm), with
    Gaussian noise of standard deviation 0 to 0.3 on every action. They are drawn once for each
    episode, without regard to the task: a teacher that knows nothing of mass or friction.

    Asked what to do, in whatever state, it advises to grip.

    Args:
        num_envs: N.
        rng: draws the hands and their noise.
    """

    def __init__(self, num_envs: int, rng: np.random.Generator):
        self.grips = rng.random((num_envs, 1)) < 0.5
        self.speed = np.exp(rng.uniform(np.log(0.2), 0.0, num_envs))
        self.shakiness = rng.uniform(0, 0.3, (num_envs, 1))
        self.rng = rng

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """(N, S) -> (N, 4)."""
        action = np.where(
            self.grips,
            scripted_grip(observation, self.speed),
            scripted_push(observation, self.speed),
        )
        noise = self.shakiness * self.rng.standard_normal(action.shape)
        return np.clip(action + noise, -1, 1).astype(np.float32)

    @staticmethod
    def advise(observation: ArrayLike) -> NDArray[np.float32]:
        """What it would do with a calm hand, from this state on: (..., S) -> (..., 4)."""
        return scripted_grip(observation, speed=_ADVISED)


class _Scene:
    """The parts of an observation that a script looks at."""

    def __init__(self, observation: ArrayLike):
        observation = np.asarray(observation, np.float64)
        self.hand = observation[..., :3]
        self.gap = observation[..., 6]
        self.cube = observation[..., 7:10]
        way = (observation[..., 19:22] - self.cube)[..., :2]
        self.distance = np.linalg.norm(way, axis=-1)  # m, along the table
        self.way = way / np.maximum(self.distance, 1e-6)[..., None]  # towards the goal, length 1
        self.near = self.distance < _NEAR

    def to(self, spot: NDArray[np.float64], height: ArrayLike) -> NDArray[np.float64]:
        """The command that brings the hand to a spot on the table, at a height."""
        height = np.broadcast_to(height, self.distance.shape)
        return (np.concatenate([spot, height[..., None]], axis=-1) - self.hand) / REACH

    def towards_goal(self, speed: ArrayLike, height: ArrayLike) -> NDArray[np.float64]:
        """The command that moves cube and hand to the goal, slower close by, at a height."""
        pace = np.where(self.near, 0.0, speed * np.minimum(1, self.distance / _BRAKE))
        rise = (np.broadcast_to(height, self.distance.shape) - self.hand[..., 2]) / REACH
        return np.concatenate([pace[..., None] * self.way, rise[..., None]], axis=-1)


def _action(move: NDArray[np.float64], fingers: NDArray[np.float64]) -> NDArray[np.float32]:
    action = np.concatenate([move, fingers[..., None]], axis=-1)
    return np.clip(action, -1, 1).astype(np.float32)
