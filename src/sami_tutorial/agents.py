"""The methods of the book, each a composition of the pieces below it.

| method   | what the policy sees                     | chapter |
|----------|------------------------------------------|---------|
| `sac`    | the observation                          | 2       |
| `oracle` | the observation and the hidden context   | 3       |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import flatdim
from gymnasium.vector import VectorEnv
from safetensors.torch import load

from sami_tutorial.envs import VectorContextObservation
from sami_tutorial.nets import Actor
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
        return SAC(
            flatdim(env.single_observation_space), flatdim(env.single_action_space), config, seed
        )


METHODS = {method.name: method for method in (Method("sac"), Method("oracle", sees_context=True))}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: if there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {sorted(METHODS)}")
    return METHODS[name]


class FrozenPolicy:
    """A stored policy: the actor alone, for acting and never for learning.

    Args:
        content: what ``sami_tutorial.checkpoint.policy_bytes`` wrote.
        seed: of the sampled actions.
    """

    def __init__(self, content: bytes, seed: int = 0):
        weights = load(content)
        layers = len([name for name in weights if name.endswith(".weight")])
        # A file does not keep the order of its tensors, so the layers are asked for by number.
        matrices = [weights[f"mlp.layers.{i}.weight"] for i in range(layers)]  # each (in, out)
        observation_dim, *hidden = (len(matrix) for matrix in matrices)
        action_dim = matrices[-1].shape[1] // 2
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = Actor(observation_dim, action_dim, hidden, self.generator)
        self.actor.load_state_dict(weights)

    def act(self, observation: np.ndarray, deterministic: bool = False) -> np.ndarray:
        """As :meth:`sami_tutorial.sac.SAC.act`: (N, S) -> (N, A)."""
        return self.actor.act(observation, self.generator, deterministic)
