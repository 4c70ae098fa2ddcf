"""Many environments stepped in lockstep, equal to stepping them one by one.

``make_vec`` builds them. An environment that registers a batched implementation (CubeMove and the
MuJoCo bodies) runs that one; the others run side by side in one process. Both follow Gymnasium's
vector interface with same-step autoreset: when an episode ends, the observation returned already
belongs to the next episode and the true last one is in ``infos["final_obs"]``.

Built in chapter 2, *Soft actor-critic from scratch*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from sami_tutorial.envs.context import Context, ContextError


def make_vec(
    id: str, num_envs: int, split: str = "train", seed: int = 0, **kwargs: Any
) -> VectorEnv:
    """``num_envs`` copies of a task in lockstep, each drawing its own context from ``split``.

    Environment ``i`` is bit-equal to ``gym.make(id, split=split)`` reset with ``seed + i`` and
    given the same actions. ``reset(options={"context": ...})`` fixes the context of all
    environments, or of each one when given a list.

    Args:
        id: a Gymnasium id such as ``"sami/CubeMove-v0"``.
        num_envs: how many environments, at least 1.
        split: ``"train"``, ``"moderate"``, ``"extreme"`` or ``"nominal"``.
        seed: used by the first ``reset()`` that is given no seed of its own.
        **kwargs: further options of the task, e.g. ``distractors=4`` (CubeMove), ``threads=2``
            (MuJoCo), and ``max_episode_steps`` where a wrapper of Gymnasium ends the episodes.

    Returns:
        A vector environment with same-step autoreset; ``infos["context"]`` has shape
        (num_envs, features), and ``env.unwrapped.max_episode_steps`` is the length of an episode
        under the options given.

    Raises:
        ValueError: if ``num_envs`` is not a positive integer.
        ContextError: if the split is unknown.
    """
    if not isinstance(num_envs, int | np.integer) or num_envs < 1:
        raise ValueError(f"num_envs is {num_envs!r}; give a positive integer")
    spec = gym.spec(id)
    if spec.vector_entry_point is None:
        return LockstepVectorEnv(id, int(num_envs), seed=seed, split=split, **kwargs)
    batched: Any = spec.vector_entry_point
    if isinstance(batched, str):
        batched = load_env_creator(batched)
    return batched(num_envs=int(num_envs), seed=seed, split=split, **kwargs)


class LockstepVectorEnv(SyncVectorEnv):
    """Single environments stepped in turn, with a context for each at reset."""

    def __init__(self, id: str, num_envs: int, *, seed: int = 0, **kwargs: Any):
        super().__init__(
            [lambda: gym.make(id, disable_env_checker=True, **kwargs)] * num_envs,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self.context_features: tuple[str, ...] = self.envs[0].get_wrapper_attr("context_features")
        limit = self.envs[0].spec and self.envs[0].spec.max_episode_steps  # by Gymnasium's wrapper
        self.max_episode_steps: int = limit or self.envs[0].get_wrapper_attr("max_episode_steps")
        self._first_seed: int | None = seed

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        seeds = seeds_per_env(self._first_seed if seed is None else seed, self.num_envs)
        self._first_seed = None
        infos: dict[str, Any] = {}
        observations = []
        for i, each in enumerate(options_per_env(options, self.num_envs)):
            observation, info = self.envs[i].reset(seed=seeds[i], options=each)
            observations.append(observation)
            infos = self._add_info(infos, info, i)
        self._terminations[:] = False
        self._truncations[:] = False
        self._autoreset_envs[:] = False
        return np.stack(observations), infos  # (num_envs, observation)


def seeds_per_env(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """Gymnasium's rule: one integer seeds environment ``i`` with ``seed + i``.

    Raises:
        ValueError: for anything but None, an integer, or one of these for each environment.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + i for i in range(num_envs)]
    seeds: list[int | None] = []
    for each in seed if isinstance(seed, Sequence | np.ndarray) else [seed]:
        if each is not None and not isinstance(each, int | np.integer):
            raise ValueError(f"seed holds {each!r}; give integers from 0 up")
        seeds.append(None if each is None else int(each))
    if len(seeds) != num_envs:
        raise ValueError(
            f"seed lists {len(seeds)} seeds for {num_envs} environments; give one integer or "
            "one seed for each"
        )
    return seeds


def reseeded(
    generators: Sequence[np.random.Generator], seeds: Sequence[int | None]
) -> list[np.random.Generator]:
    """The environments' generators: new where a seed is given or where there was none, else old."""
    return [
        seeding.np_random(seed)[0] if seed is not None or not generators else generators[i]
        for i, seed in enumerate(seeds)
    ]


def options_per_env(
    options: Mapping[str, Any] | None, num_envs: int
) -> list[dict[str, Any] | None]:
    """Reset options of each environment: a single context is shared, a list is dealt out."""
    if options is None:
        return [None] * num_envs
    context: Context | Sequence[Context] | None = options.get("context")
    if context is None or isinstance(context, Mapping):
        return [dict(options)] * num_envs
    if len(context) != num_envs:
        raise ContextError(
            f"options['context'] lists {len(context)} contexts for {num_envs} environments; "
            "give one context for all, or a list with one for each"
        )
    return [{**options, "context": one} for one in context]
