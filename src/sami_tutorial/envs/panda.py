"""Panda, the paper's task on a robot arm: bring a cube of unknown weight to a spot on a table.

``sami/Panda-v0`` is panda-gym's push task (Gallouédec et al., 2021, arXiv 2106.13687) with its
gripper set free, so that a cube can be pushed, rolled or picked up. Two features are hidden: the
cube's mass and the table's friction (arXiv 2406.04815, section 5 and appendix). The simulation,
:mod:`~sami_tutorial.envs.panda_physics`, needs PyBullet (``make panda``); task sets do not.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sami_tutorial.envs.context import (
    Context,
    ContextSampler,
    ContextSpace,
    Feature,
    Goals,
    Task,
    TaskSets,
)
from sami_tutorial.envs.panda_skills import Teacher

MAX_STEPS = 50
"""Steps per episode: two seconds."""
TOLERANCE = 0.05
"""Success: the cube's centre is nearer to the goal than this, m."""
LIFTED = 0.021
"""A cube whose centre is higher than this, m, has left the table or stands on an edge."""
GOALS = ("table", "air")
"""Where the goal may lie."""

_SPREAD = 0.3  # m, the square on the table that cube and goal are drawn from
_AIR = 0.2  # m, the highest goal in the air
_ON_TABLE = 0.3  # the share of the goals of "air" that lie on the table
_RESTING = 0.02  # m, the height of the centre of a cube on the table


def _grid(frictions: tuple[float, ...], masses: tuple[float, ...]) -> list[Context]:
    return [{"mass": mass, "friction": f} for f, mass in product(frictions, masses)]


PANDA = Task(
    id="sami/Panda-v0",
    entry_point="sami_tutorial.envs.panda:PandaEnv",
    max_episode_steps=MAX_STEPS,
    space=ContextSpace(
        # The nominal values are panda-gym's. The limits are our choice: wider than every task set.
        (
            Feature("mass", nominal=1.0, low=0.01, high=100.0, unit="kg"),
            Feature("friction", nominal=0.5, low=0.0, high=100.0),
        )
    ),
    # All three as in the paper. Training varies one feature at a time, moderate tasks are
    # combinations that it left out, and extreme ones have a mass or a friction of 30.
    task_sets=TaskSets(
        train=_grid((0.1,), (1, 5, 10)) + _grid((1, 5, 10), (1,)),
        moderate=_grid((1, 5, 10), (5, 10)),
        extreme=_grid((0.1, 1, 5, 10, 30), (30,)) + _grid((30,), (1, 5, 10)),
    ),
    ends_itself=True,
    side_by_side=16,  # a world of Bullet takes about 30 MB
    goals=Goals(achieved=7, goal=19, low=-_SPREAD / 2, high=_SPREAD / 2),
    teacher=Teacher,
)


class PandaEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One arm, one table, one cube.

    Observation, float32 of shape (22,), of which 0 to 18 are panda-gym's own:

    ====== =============================================== =====
    entry  what                                            unit
    ====== =============================================== =====
    0-2    position of the hand, between the finger tips   m
    3-5    its velocity                                    m/s
    6      gap between the fingers, at most 0.08           m
    7-9    position of the cube's centre                   m
    10-12  its orientation, Euler angles about x, y, z     rad
    13-15  its velocity                                    m/s
    16-18  its angular velocity                            rad/s
    19-21  position of the goal                            m
    ====== =============================================== =====

    Action, shape (4,), in [-1, 1] and clipped to it: where the hand should move along x, y and z
    (1 asks for 5 cm in a step), and whether the fingers open (positive) or close. Reward: minus the
    distance from cube to goal, m. An episode starts with the arm in its neutral pose, fingers
    closed, the cube and its goal each drawn from a square of 0.3 m. It lasts 50 steps of 0.04 s and
    never terminates (panda-gym stops at success; the paper does not).

    ``info`` holds ``context``; after a step also ``success``, whether the cube is within 0.05 m of
    its goal now (an episode succeeds if it is at its last step); and after the last step ``skill``,
    by the paper's rule: ``"pick"`` if at any step the cube was higher than 0.021 m, free of the
    table and touched by both fingers; else ``"roll"`` if it was ever higher than that; else
    ``"push"``, even where nothing moved.

    The ``friction`` of a context is the table's. Bullet multiplies it with the cube's 0.5 and
    counts no product above 10, so a table of 30 holds the cube no better than one of 20.

    Args:
        split: the task set from which each episode's context is drawn.
        goal: ``"table"`` (the paper's) or ``"air"``: seven of ten goals are up to 0.2 m above the
            table, as in panda-gym's task of picking and placing.
        render_mode: ``"rgb_array"`` or None.
        width, height: of pictures, in pixels.

    Raises:
        ModuleNotFoundError: if PyBullet is not installed.
        ContextError: for an unknown split, or a context that does not fit.
        ValueError: for another goal or render mode, a size below 1, or an action of another shape
            or with a value that is not finite.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self,
        split: str = "train",
        goal: str = "table",
        render_mode: str | None = None,
        width: int = 480,
        height: int = 270,
    ):
        if goal not in GOALS:
            raise ValueError(f"goal is {goal!r}; choose one of {GOALS}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; choose 'rgb_array' or None")
        for name, value in (("width", width), ("height", height)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a positive integer")
        self._sampler = ContextSampler.from_split(PANDA.space, PANDA.task_sets, split)
        self.context_features = PANDA.space.names
        self.max_episode_steps = MAX_STEPS
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (22,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (4,), np.float32)
        self.render_mode = render_mode
        self._size = int(width), int(height)
        self._in_air = goal == "air"

        from sami_tutorial.envs.panda_physics import World  # the only use of PyBullet

        self._world = World(drawn=render_mode is not None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        # Goal and cube come first, drawn as panda-gym draws them: a seed starts the same episode
        # there and here, in every context and split.
        self._goal, cube = self._draw_goal(), self._draw_spot(0.0)
        vector = self._sampler.from_options(options, self.np_random)
        context = PANDA.space.as_dict(vector)
        self._world.reset(cube, self._goal, context["mass"], context["friction"])
        self._context = vector.astype(np.float32)
        self._lifted = self._picked = False
        self._steps = 0
        return self._observe(), {"context": self._context.copy()}

    def _draw_spot(self, highest: float) -> NDArray[np.float64]:
        """Where a cube's centre may be: in the square, at most ``highest`` above the table."""
        half = _SPREAD / 2
        spot = self.np_random.uniform((-half, -half, 0.0), (half, half, highest))
        spot[2] += _RESTING
        return spot

    def _draw_goal(self) -> NDArray[np.float64]:
        if not self._in_air:
            return self._draw_spot(0.0)
        goal = self._draw_spot(_AIR)
        if self.np_random.random() < _ON_TABLE:
            goal[2] = _RESTING
        return goal

    def step(
        self, action: NDArray[np.floating]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        command = np.asarray(action, dtype=np.float32)
        if command.shape != (4,):
            raise ValueError(f"action has shape {command.shape}; give four numbers, shape (4,)")
        if not np.isfinite(command).all():
            raise ValueError(f"action is {action}; give finite numbers from -1 to 1")
        world = self._world
        world.step(np.clip(command, -1, 1))
        self._steps += 1
        if world.state[9] > LIFTED:
            self._lifted = True
            if not self._picked:
                self._picked = not world.cube_on_table() and world.cube_between_fingers()

        observation = self._observe()
        distance = np.linalg.norm(observation[7:10] - self._goal, axis=-1)
        info: dict[str, Any] = {
            "context": self._context.copy(),
            "success": bool(distance < TOLERANCE),
        }
        last = self._steps >= self.max_episode_steps
        if last:
            info["skill"] = "pick" if self._picked else "roll" if self._lifted else "push"
        return observation, -float(distance.astype(np.float32)), False, last, info

    def _observe(self) -> NDArray[np.float32]:
        return np.array((*self._world.state, *self._goal), dtype=np.float32)

    def render(self) -> NDArray[np.uint8] | None:
        """The scene as an RGB image, shape (height, width, 3), or None without a render mode.

        The heavier, the darker the cube (the agent is not shown its mass); the goal is a green mat.
        """
        return None if self.render_mode is None else self._world.draw(*self._size)

    def close(self) -> None:
        self._world.close()
