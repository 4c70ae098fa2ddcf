"""CubeMove, the teaching task: bring a cube to its goal without knowing its weight or the table.

``sami/CubeMove-v0`` hides two features, the cube's mass and the table's friction, and offers two
skills: Push works where mass times friction is small, Pick where the mass is small
(:mod:`~sami_tutorial.envs.cube_physics`; which one works where follows in closed form in
:mod:`~sami_tutorial.envs.cube_skills`). The fingers start open or closed by chance, and a failed
try leaves no trace in the observation, so an agent has to *remember* what it tried.

The task carries the structure of the paper's Panda task (arXiv 2406.04815, section 5) in a form
that trains in about a minute. Built in chapter 1, *Tasks and skills*.

With ``trials=2`` an episode is two trials of the same hidden features: cube, goal and fingers start
afresh in the middle, so that only memory can carry what the first trial taught into the second.
Chapter 8, *SaNCE*, measures embeddings by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sami_tutorial.envs.context import SPLITS, Context, ContextSpace, Feature, Task, TaskSets
from sami_tutorial.envs.cube_physics import (
    CLEARANCE,
    GOAL_DISTANCE,
    MAX_STEPS,
    TOLERANCE,
    Array,
    Cube,
    Features,
    goal_distance,
    move,
    observe,
    reward,
)
from sami_tutorial.envs.cube_render import draw
from sami_tutorial.envs.vector import options_per_env, reseeded, seeds_per_env

SKILLS = ("none", "push", "pick")
"""How the cube left its start; the index is the code used inside the environments."""

TRIALS = (1, 2)
"""How many trials an episode may have."""

DISTRACTORS = (
    Feature("distractor_0", nominal=1.0, low=0.8, high=1.25),  # Features.speed_gain
    Feature("distractor_1", nominal=0.0, low=-0.01, high=0.01, unit="m"),  # position_bias
    Feature("distractor_2", nominal=0.0, low=-0.05, high=0.05, unit="m/s"),  # wind
    Feature("distractor_3", nominal=1.0, low=0.5, high=1.5),  # velocity_scale
    Feature("distractor_4", nominal=1.0, low=0.8, high=1.25),  # finger_speed
    Feature("distractor_5", nominal=1.0, low=0.5, high=1.5),  # height_scale
    Feature("distractor_6", nominal=0.0, low=-0.05, high=0.05),  # speed_bias
    Feature("distractor_7", nominal=0.0, low=-0.01, high=0.01, unit="m"),  # goal_bias
)
"""Distractor features in the order of :class:`~sami_tutorial.envs.cube_physics.Features`.

None of them touches a force, so none can make a cube movable that was not, or the other way round;
and each is small enough for every skill that works to end in time and within the tolerance.
"""

DISTRACTORS_OF = ("episode", "task")
"""What has distractors of its own: each episode, or each task."""

LIGHT, HEAVY = (0.4, 0.6, 0.8), (1.4, 1.7, 2.0)  # kg: can be lifted, cannot
SLIPPERY, ROUGH = (0.03, 0.06, 0.1), (1.2, 1.6, 2.0)  # friction: any of these slides, none does
LIGHTEST, HEAVIEST = 0.1, 2.6
SLIPPERIEST, ROUGHEST = 0.01, (3.0, 5.0)


def _plain_task_sets() -> TaskSets:
    """Three blocks of nine tasks, a chequerboard through each, and a ring outside.

    Light and slippery: both skills work. Heavy and slippery: only Push. Light and rough: only Pick.
    (Heavy and rough is impossible and left out.) The black fields of each block's chequerboard are
    trained on; the white ones, whose masses and frictions all occur in training but never together,
    are moderate. Extreme tasks have a mass or a friction outside the training range. Each set gives
    the three classes equal weight: 5 + 5 + 5, 4 + 4 + 4 and 7 + 7 + 7 tasks.
    """

    def contexts(masses: Sequence[float], frictions: Sequence[float]) -> list[Context]:
        return [{"mass": m, "friction": f} for m, f in product(masses, frictions)]

    blocks = [contexts(*b) for b in ((LIGHT, SLIPPERY), (HEAVY, SLIPPERY), (LIGHT, ROUGH))]
    extreme = [
        *contexts((LIGHTEST,), (SLIPPERIEST, *SLIPPERY)),
        *contexts(LIGHT, (SLIPPERIEST,)),
        *contexts((HEAVIEST,), (SLIPPERIEST, *SLIPPERY)),
        *contexts(HEAVY, (SLIPPERIEST,)),
        *contexts(LIGHT, ROUGHEST),
        *contexts((LIGHTEST,), ROUGHEST[1:]),
    ]
    return TaskSets(
        train=[context for block in blocks for context in block[0::2]],
        moderate=[context for block in blocks for context in block[1::2]],
        extreme=extreme,
    )


def context_space(distractors: int = 0) -> ContextSpace:
    """Mass, friction and the first ``distractors`` of :data:`DISTRACTORS`.

    Raises:
        ValueError: if there are not that many distractors.
    """
    if not isinstance(distractors, int | np.integer) or not 0 <= distractors <= len(DISTRACTORS):
        raise ValueError(
            f"distractors is {distractors!r}; give an integer from 0 to {len(DISTRACTORS)}"
        )
    return ContextSpace(
        (
            Feature("mass", nominal=0.6, low=0.05, high=10.0, unit="kg"),
            Feature("friction", nominal=0.1, low=0.0, high=10.0),
            *DISTRACTORS[:distractors],
        )
    )


def task_sets(distractors: int = 0, distractors_of: str = "episode", **others: Any) -> TaskSets:
    """The tasks under some options of the environment (any others change nothing).

    With ``distractors_of="task"`` each task has distractors of its own, drawn uniformly once and
    for all: how many there are does not change the values of the first.

    Raises:
        ValueError: for an impossible option.
    """
    space = context_space(distractors)
    if distractors_of not in DISTRACTORS_OF:
        raise ValueError(f"distractors_of is {distractors_of!r}; choose one of {DISTRACTORS_OF}")
    if distractors_of == "episode":
        return CUBE_MOVE.task_sets

    def with_distractors(split: str) -> list[Context]:
        contexts = [dict(context) for context in CUBE_MOVE.task_sets.split(split)]
        for column, feature in enumerate(space.features[2:]):
            rng = np.random.default_rng([SPLITS.index(split), column])
            values = rng.uniform(feature.low, feature.high, len(contexts))
            for context, value in zip(contexts, values, strict=True):
                context[feature.name] = float(value)
        return contexts

    return TaskSets(**{split: with_distractors(split) for split in SPLITS})


CUBE_MOVE = Task(
    id="sami/CubeMove-v0",
    entry_point="sami_tutorial.envs.cube:CubeMoveEnv",
    vector_entry_point="sami_tutorial.envs.cube:CubeMoveVectorEnv",
    max_episode_steps=MAX_STEPS,
    space=context_space(),
    task_sets=_plain_task_sets(),
    task_sets_with=task_sets,
    ends_itself=True,
)


class Episodes:
    """Turns random numbers into the features of episodes and the first state of each trial.

    An episode takes a fixed number of uniform random numbers, whether or not its context is given.
    So one seed gives the same goals and fingers in every context: a fair comparison. And its first
    trial is the same however many follow.
    """

    def __init__(self, split: str, distractors: int, distractors_of: str, trials: int):
        if trials not in TRIALS or isinstance(trials, bool):
            raise ValueError(f"trials is {trials!r}; choose one of {TRIALS}")
        self.space = context_space(distractors)
        tasks = task_sets(distractors, distractors_of).split(split)
        self.tasks = np.stack([self.space.vector(each) for each in tasks])  # (tasks, features)
        self.draw_distractors = split != "nominal" and distractors_of == "episode"
        self.trials = int(trials)
        self.steps = MAX_STEPS * self.trials
        # task, distance, side, fingers, distractors; distance, side, fingers of a second trial
        self.numbers = 4 + distractors + 3 * (self.trials - 1)

    def start(
        self, uniform: Array, given: Sequence[Context | None]
    ) -> tuple[NDArray[np.float32], Features, list[Cube]]:
        """Contexts as shown in ``info`` (n, features), the full features, each trial's first state.

        Args:
            uniform: numbers in [0, 1), shape (n, ``numbers``).
            given: for each environment its context, or None to draw one from the split.
        """
        vectors = self.tasks[(uniform[:, 0] * len(self.tasks)).astype(np.intp)]
        if self.draw_distractors:
            for column, feature in enumerate(self.space.features[2:]):
                spread = feature.high - feature.low
                vectors[:, 2 + column] = feature.low + spread * uniform[:, 4 + column]
        for i, context in enumerate(given):
            if context is not None:
                vectors[i] = self.space.vector(context)

        absent = [np.full(len(uniform), d.nominal) for d in DISTRACTORS[vectors.shape[1] - 2 :]]
        return (
            vectors.astype(np.float32),
            Features(*vectors.T.copy(), *absent),
            [first_state(uniform[:, 1:4]), first_state(uniform[:, -3:])][: self.trials],
        )


def first_state(uniform: Array) -> Cube:
    """The cube at rest at 0, the goal and the fingers drawn; ``uniform`` has shape (n, 3)."""
    near, far = GOAL_DISTANCE
    distance = near + (far - near) * uniform[:, 0]
    zeros = np.zeros(len(uniform))
    return Cube(
        position=zeros,
        velocity=zeros,
        height=zeros,
        closure=np.where(uniform[:, 2] < 0.5, 0.0, 1.0),
        goal=np.where(uniform[:, 1] < 0.5, -distance, distance),
    )


def skill_shown(skill: NDArray[np.int8], cube: Cube) -> NDArray[np.int8]:
    """Codes into ``SKILLS``, updated: Pick or Push once the cube has moved by the tolerance.

    The label stays what it was the first time; it says whether the cube was in the air just then.
    """
    moved = np.abs(cube.position) > TOLERANCE
    label = np.where(cube.height > CLEARANCE, np.int8(2), np.int8(1))
    return np.where((skill == 0) & moved, label, skill)


_OBSERVATION_SPACE = gym.spaces.Box(-2, 2, (5,), np.float32)
_ACTION_SPACE = gym.spaces.Box(-1, 1, (2,), np.float32)


def _commands(action: Any, num_envs: int) -> Array:
    """The action as float64 in [-1, 1], shape (num_envs, 2)."""
    commands = np.asarray(action, dtype=np.float64)
    if commands.shape != (num_envs, 2):
        raise ValueError(f"action has shape {commands.shape}; give {(num_envs, 2)}")
    if np.isnan(commands).any():
        row = commands[np.isnan(commands).any(axis=1)][0]
        raise ValueError(f"action holds {row}; give finite numbers, at best in [-1, 1]")
    return np.clip(commands, -1, 1)


class CubeMoveEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One CubeMove environment.

    Observation, float32 of shape (5,): goal offset (m, signed), velocity (m/s), height (share of
    the greatest), finger closure (0 open, 1 closed) and position (m). Action, shape (2,), in
    [-1, 1]: horizontal speed; close and lift (positive) or lower and open (negative). Reward: see
    :func:`~sami_tutorial.envs.cube_physics.reward`. A trial lasts 40 steps, an episode
    ``max_episode_steps`` = 40 ``trials``; it never terminates. The last step of a first trial
    returns its own reward and info, and the first observation of the second.

    ``info`` holds ``context``; after a step also ``success``, whether the cube stands on its goal
    now (a trial succeeds if it does at its last step); after the last step of a trial also
    ``skill``; and after the last step of an episode of two trials also ``trial_success`` and
    ``trial_skill``, arrays of shape (trials,).

    Args:
        split: task set from which each episode's context is drawn.
        distractors: how many of :data:`DISTRACTORS` vary, 0 to 8; in the split ``"nominal"`` and in
            a context that does not name them they have their nominal values.
        distractors_of: ``"episode"`` draws them uniformly for each episode; with ``"task"`` each
            task has its own (:func:`task_sets`), so that they give away which task it is.
        trials: 1, or 2 to let cube, goal and fingers start afresh after 40 steps, under the same
            hidden features.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        ContextError: for an unknown split, or a context that does not fit.
        ValueError: for an impossible number of distractors or trials, an unknown
            ``distractors_of``, or an action of another shape.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self,
        split: str = "train",
        distractors: int = 0,
        distractors_of: str = "episode",
        trials: int = 1,
        render_mode: str | None = None,
    ):
        self._episodes = Episodes(split, distractors, distractors_of, trials)
        self.max_episode_steps = self._episodes.steps
        self.context_features = self._episodes.space.names
        self.observation_space = _OBSERVATION_SPACE
        self.action_space = _ACTION_SPACE
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        given = (options or {}).get("context")
        uniform = self.np_random.random((1, self._episodes.numbers))
        self._context, self._features, self._firsts = self._episodes.start(uniform, [given])
        self._cube = self._firsts[0]
        self._skill = np.zeros(1, np.int8)
        self._finished: list[tuple[bool, str]] = []  # success and skill of each trial
        self._steps = 0
        return observe(self._cube, self._features)[0], {"context": self._context[0].copy()}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        commands = _commands(np.asarray(action)[np.newaxis], 1)
        self._cube = move(self._cube, commands, self._features)
        self._skill = skill_shown(self._skill, self._cube)
        self._steps += 1
        rewards = reward(self._cube, commands)
        success = bool(goal_distance(self._cube)[0] <= TOLERANCE)
        info = {"context": self._context[0].copy(), "success": success}
        last = self._steps >= self.max_episode_steps
        if self._steps % MAX_STEPS == 0:
            info["skill"] = SKILLS[self._skill[0]]
            self._finished.append((success, info["skill"]))
            if not last:
                self._cube = self._firsts[len(self._finished)]
                self._skill = np.zeros(1, np.int8)
            elif self._episodes.trials > 1:
                info["trial_success"] = np.array([success for success, _ in self._finished])
                info["trial_skill"] = np.array([s for _, s in self._finished], dtype=object)
        return observe(self._cube, self._features)[0], float(rewards[0]), False, last, info

    def render(self) -> NDArray[np.uint8] | None:
        """The scene as an RGB image, shape (height, width, 3), or None without a render mode."""
        if self.render_mode is None:
            return None
        cube = self._cube
        return draw(
            position=cube.position.item(),
            height=cube.height.item(),
            closure=cube.closure.item(),
            goal=cube.goal.item(),
            mass=self._features.mass.item(),
        )


class CubeMoveVectorEnv(VectorEnv):
    """``num_envs`` CubeMove environments in one set of arrays; ``make_vec`` builds it.

    Spaces, rewards and infos are those of :class:`CubeMoveEnv`, batched; environment ``i`` is
    bit-equal to a single one reset with ``seed + i``. All episodes have the same length, so all end
    together; the same step returns the first observations of the next ones (same-step autoreset).

    Args:
        num_envs: how many, at least 1.
        seed: for the first ``reset()`` that is given none.
        split, distractors, distractors_of, trials: as for :class:`CubeMoveEnv`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (Gymnasium's form)

    def __init__(
        self,
        num_envs: int,
        seed: int = 0,
        split: str = "train",
        distractors: int = 0,
        distractors_of: str = "episode",
        trials: int = 1,
    ):
        self._episodes = Episodes(split, distractors, distractors_of, trials)
        self.max_episode_steps = self._episodes.steps
        self.context_features = self._episodes.space.names
        self.num_envs = num_envs
        self.single_observation_space = _OBSERVATION_SPACE
        self.single_action_space = _ACTION_SPACE
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._first_seed: int | None = seed
        self._generators: list[np.random.Generator] = []
        self._all = np.ones(num_envs, dtype=np.bool_)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        seeds = seeds_per_env(self._first_seed if seed is None else seed, self.num_envs)
        self._first_seed = None
        self._generators = reseeded(self._generators, seeds)
        return self._start(options_per_env(options, self.num_envs))

    def _start(
        self, options: Sequence[Mapping[str, Any] | None]
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begins an episode everywhere."""
        uniform = np.empty((self.num_envs, self._episodes.numbers))
        for generator, row in zip(self._generators, uniform, strict=True):
            generator.random(out=row)
        given = [(each or {}).get("context") for each in options]
        self._context, self._features, self._firsts = self._episodes.start(uniform, given)
        self._cube = self._firsts[0]
        self._skill = np.zeros(self.num_envs, np.int8)
        self._finished: list[tuple[NDArray[np.bool_], NDArray[np.object_]]] = []
        self._steps = 0
        return observe(self._cube, self._features), self._info(context=self._context.copy())

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        if not self._generators:
            raise ResetNeeded("call reset() before step()")
        commands = _commands(actions, self.num_envs)
        self._cube = move(self._cube, commands, self._features)
        self._skill = skill_shown(self._skill, self._cube)
        self._steps += 1
        rewards = reward(self._cube, commands)
        never = np.zeros(self.num_envs, dtype=np.bool_)
        success = goal_distance(self._cube) <= TOLERANCE
        entries: dict[str, Any] = {"context": self._context.copy(), "success": success}
        if self._steps % MAX_STEPS:
            observation = observe(self._cube, self._features)
            return observation, rewards, never, never.copy(), self._info(**entries)

        entries["skill"] = np.array(SKILLS, dtype=object)[self._skill]
        self._finished.append((success, entries["skill"]))
        if self._steps < self.max_episode_steps:
            self._cube = self._firsts[len(self._finished)]
            self._skill = np.zeros(self.num_envs, np.int8)
            observation = observe(self._cube, self._features)
            return observation, rewards, never, never.copy(), self._info(**entries)

        if self._episodes.trials > 1:
            successes, skills = zip(*self._finished, strict=True)
            entries["trial_success"] = np.stack(successes, axis=1)
            entries["trial_skill"] = np.stack(skills, axis=1)
        final_obs = np.empty(self.num_envs, dtype=object)
        final_obs[:] = list(observe(self._cube, self._features))
        observation, info = self._start([None] * self.num_envs)
        info |= self._info(final_obs=final_obs, final_info=self._info(**entries))
        return observation, rewards, never, self._all.copy(), info

    def _info(self, **entries: Any) -> dict[str, Any]:
        """Gymnasium's form: beside each entry, which environments it holds for (here: all)."""
        return entries | {f"_{name}": self._all.copy() for name in entries}
