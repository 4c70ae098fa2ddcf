"""What the oracle sees: the context appended to the observation.

Built in chapter 3, *Why one policy is not enough*.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space


class ContextObservation(gym.Wrapper):
    """Appends ``info["context"]`` to a single environment's observation.

    Observation: shape (observation + features,). The features keep their order and units
    (``env.unwrapped.context_features``).
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = _with_context(
            env.observation_space, len(env.get_wrapper_attr("context_features"))
        )

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return _append(observation, info["context"]), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return _append(observation, info["context"]), reward, terminated, truncated, info


class VectorContextObservation(VectorWrapper):
    """:class:`ContextObservation` for a vector environment: (num_envs, observation + features)."""

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.single_observation_space = _with_context(
            env.single_observation_space,
            len(env.unwrapped.context_features),  # type: ignore[attr-defined]
        )
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return _append(observation, info["context"]), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        for i in np.flatnonzero(info.get("_final_obs", ())):
            # An episode's last observation belongs to the context of that episode, not the next.
            info["final_obs"][i] = _append(info["final_obs"][i], info["final_info"]["context"][i])
        return _append(observation, info["context"]), reward, terminated, truncated, info


def _append(observation: np.ndarray, context: np.ndarray) -> np.ndarray:
    return np.concatenate([observation, context.astype(observation.dtype)], axis=-1)


def _with_context(space: gym.Space, num_features: int) -> gym.spaces.Box:
    """The observation space with one unbounded entry per feature appended."""
    assert isinstance(space, gym.spaces.Box)
    unbounded = np.full(num_features, np.inf, dtype=space.dtype)
    return gym.spaces.Box(
        np.concatenate([space.low, -unbounded]),
        np.concatenate([space.high, unbounded]),
        dtype=space.low.dtype.type,
    )
