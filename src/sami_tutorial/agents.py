"""The methods of the book, each a composition of the pieces below it.

| method   | what the policy sees                     | chapter |
|----------|------------------------------------------|---------|
| `sac`    | the observation                          | 2       |
| `oracle` | the observation and the hidden context   | 3       |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv

from sami_tutorial.envs import VectorContextObservation
from sami_tutorial.sac import SAC, SACConfig


@dataclass(frozen=True)
class Method:
    """What makes one method different from the others.

    Args:
        name: the key on the command line and in every table.
        sees_context: whether the hidden features are appended to the observation.
    """

    name: str
    sees_context: bool = False

    def wrap(self, env: VectorEnv) -> VectorEnv:
        """The environment as this method sees it."""
        return VectorContextObservation(env) if self.sees_context else env

    def make_agent(self, env: VectorEnv, config: SACConfig, seed: int) -> SAC:
        """A fresh agent for an environment that :meth:`wrap` returned."""
        observation_shape = env.single_observation_space.shape
        action_shape = env.single_action_space.shape
        assert observation_shape is not None and action_shape is not None
        return SAC(int(np.prod(observation_shape)), int(np.prod(action_shape)), config, seed)


METHODS = {method.name: method for method in (Method("sac"), Method("oracle", sees_context=True))}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {sorted(METHODS)}")
    return METHODS[name]
