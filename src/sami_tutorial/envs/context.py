"""Contexts as data: what may vary from episode to episode, and which values form a task set.

A *context* assigns a value to every environmental feature of a task (mass, friction, a crippled
joint). It changes the dynamics, never the observation, the actions or the reward: paper, section 3,
"contextual MDP". Built in chapter 1, *Tasks and skills*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Context = dict[str, float]
"""One task: feature name to value. Features left out take their nominal value."""

SPLITS = ("train", "moderate", "extreme")
"""The three task sets of every environment; ``"nominal"`` names the one unmodified task."""


class ContextError(ValueError):
    """A context, a feature name or a split that the environment does not know."""


@dataclass(frozen=True)
class Feature:
    """One environmental feature.

    Args:
        name: the key used in contexts, e.g. ``"mass"``.
        nominal: the value of the unmodified environment.
        low, high: the values accepted, both included (wider than any task set).
        unit: for axis labels; empty for a scale factor or a flag.
    """

    name: str
    nominal: float
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True)
class ContextSpace:
    """The features of one environment in fixed order; turns contexts into vectors and back."""

    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def nominal(self) -> Context:
        return {feature.name: feature.nominal for feature in self.features}

    def vector(self, context: Mapping[str, float]) -> NDArray[np.float64]:
        """The context as a vector in feature order, shape (features,).

        Raises:
            ContextError: for an unknown feature, or a value that is not a finite number in range.
        """
        if not isinstance(context, Mapping):
            raise ContextError(
                f"context must be a mapping from feature name to value, got {context!r}; "
                f"for example {self.nominal}"
            )
        unknown = sorted(set(context) - set(self.names))
        if unknown:
            raise ContextError(
                f"context names unknown feature {unknown[0]!r}; this environment has {self.names}"
            )
        values = []
        for feature in self.features:
            given = context.get(feature.name, feature.nominal)
            try:
                value = float(given)
            except (TypeError, ValueError):
                value = float("nan")
            if not feature.low <= value <= feature.high:
                raise ContextError(
                    f"context[{feature.name!r}] is {given!r}; "
                    f"give a number from {feature.low:g} to {feature.high:g}"
                )
            values.append(value)
        return np.array(values, dtype=np.float64)

    def as_dict(self, vector: Sequence[float] | NDArray[np.floating]) -> Context:
        """The inverse of :meth:`vector`."""
        if len(vector) != len(self.features):
            raise ContextError(
                f"vector has {len(vector)} entries; expected {len(self.features)}: {self.names}"
            )
        return {name: float(value) for name, value in zip(self.names, vector, strict=True)}


@dataclass(frozen=True)
class TaskSets:
    """The tasks an agent trains on and the two sets on which it is tested without any update.

    ``moderate`` holds unseen values or combinations near the training range, ``extreme`` values
    outside it (paper, section 5 and appendix).
    """

    train: list[Context]
    moderate: list[Context]
    extreme: list[Context]

    def split(self, name: str) -> list[Context]:
        """The tasks of one split; ``"nominal"`` is the single unmodified task.

        Raises:
            ContextError: for a name that is no split.
        """
        if name == "nominal":
            return [{}]
        if name not in SPLITS:
            raise ContextError(f"split is {name!r}; choose one of {(*SPLITS, 'nominal')}")
        return getattr(self, name)


@dataclass(frozen=True)
class ContextSampler:
    """Draws the context of the next episode: uniform over the tasks of a split."""

    space: ContextSpace
    vectors: NDArray[np.float64]  # (tasks, features)

    @classmethod
    def from_split(cls, space: ContextSpace, task_sets: TaskSets, split: str) -> ContextSampler:
        vectors = np.stack([space.vector(context) for context in task_sets.split(split)])
        return cls(space, vectors)

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        return self.vectors[rng.integers(len(self.vectors))].copy()

    def from_options(
        self, options: Mapping[str, Any] | None, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """The context that ``reset(options=...)`` asks for, else a draw from the split.

        It draws in both cases, so that the random numbers that follow, and with them the first
        state of the episode, depend on the seed and not on whether the context was given.
        """
        drawn = self.draw(rng)
        if options and options.get("context") is not None:
            return self.space.vector(options["context"])
        return drawn


@dataclass(frozen=True)
class Goals:
    """Where observations hold what is to be achieved, for tasks whose reward is a distance to it.

    Args:
        achieved, goal: the first of three entries, x, y, z in m: where the thing to be moved is,
            and where it should be. The reward is minus the distance between the two.
        low, high: of the goals' x and y, m.
    """

    achieved: int
    goal: int
    low: float
    high: float


class Teacher(Protocol):
    """A script that shows an agent what can be tried; made anew for each round of episodes."""

    def __init__(self, num_envs: int, rng: np.random.Generator): ...

    def act(self, observation: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N, S) -> (N, A)."""

    @staticmethod
    def advise(observation: NDArray[np.floating]) -> NDArray[np.float32]:
        """What an agent that does not know better should do: (..., S) -> (..., A)."""


@dataclass(frozen=True)
class Task:
    """Everything needed to register one environment: a page of data, no physics.

    ``entry_point`` and ``vector_entry_point`` are ``"module:Class"`` strings, so that looking up a
    task set never imports a simulator. ``max_episode_steps`` is the length of an episode without
    options. Where options change it, the environment ends its episodes itself (``ends_itself``)
    instead of by Gymnasium's wrapper. Under its options, a vector environment tells the length in
    ``env.unwrapped.max_episode_steps``.

    ``side_by_side`` is how many episodes an evaluation may run at once: fewer where one takes much
    memory. ``chaotic`` says that a difference in the last bit of an action grows until the episodes
    are others: contacts of many links do that, and only means can then be compared between
    computers.

    ``task_sets_with`` is given where options of the environment change its tasks: it takes them and
    returns the task sets. ``goals`` and ``teacher`` are what a recipe may use where a task has
    them: goals that can be exchanged in hindsight, and a script that makes the first tries.
    """

    id: str
    entry_point: str
    max_episode_steps: int
    space: ContextSpace
    task_sets: TaskSets
    vector_entry_point: str | None = None
    ends_itself: bool = False
    side_by_side: int = 256
    chaotic: bool = False
    task_sets_with: Callable[..., TaskSets] | None = None
    goals: Goals | None = None
    teacher: type[Teacher] | None = None
