"""The replay buffer: whole episodes, each with its task and its return.

One slot holds one episode, so no sample can cross the border of an episode or the write head. The
``num_envs`` episodes that run in lockstep fill ``num_envs`` slots together and replace the oldest.

Built in chapter 2, *Soft actor-critic from scratch*.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sami_tutorial.sac import Transitions


class Replay:
    """A ring of episodes in preallocated tensors.

    Args:
        capacity: in transitions; rounded up to whole rounds of ``num_envs`` episodes, at least two.
        num_envs: episodes that run in lockstep.
        horizon: the longest episode, in steps.
        observation_dim, action_dim, context_dim: widths.

    Raises:
        ValueError: if a size is not positive.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        horizon: int,
        observation_dim: int,
        action_dim: int,
        context_dim: int,
    ):
        for name, size in {"capacity": capacity, "num_envs": num_envs, "horizon": horizon}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a positive integer")
        rounds = max(2, -(-capacity // (num_envs * horizon)))
        slots = rounds * num_envs
        self.num_envs = num_envs
        self.observation = torch.zeros(slots, horizon + 1, observation_dim)
        self.action = torch.zeros(slots, horizon, action_dim)
        self.reward = torch.zeros(slots, horizon)
        self.terminated = torch.zeros(slots, horizon)
        self.context = torch.zeros(slots, context_dim)
        self.length = torch.zeros(slots, dtype=torch.int64)
        self.head = -num_envs  # first slot of the episodes now running

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of every slot, (slots,); 0 for an empty one."""
        steps = torch.arange(self.reward.shape[1])
        return (self.reward * (steps < self.length[:, None])).sum(dim=1)

    def start_episodes(self, observation: np.ndarray, context: np.ndarray) -> None:
        """Opens ``num_envs`` slots with the first observations (N, S) and the contexts (N, F)."""
        self.head = (self.head + self.num_envs) % len(self.length)
        self.observation[self._live, 0] = torch.from_numpy(observation)
        self.context[self._live] = torch.from_numpy(context)
        self.length[self._live] = 0

    def add(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        terminated: np.ndarray,
    ) -> None:
        """Appends one step to each running episode: (N, A), (N,), (N, S), (N,)."""
        t = int(self.length[self.head])
        self.action[self._live, t] = torch.from_numpy(action)
        self.reward[self._live, t] = torch.from_numpy(reward).float()
        self.observation[self._live, t + 1] = torch.from_numpy(next_observation)
        self.terminated[self._live, t] = torch.from_numpy(terminated).float()
        self.length[self._live] = t + 1

    @property
    def _live(self) -> slice:
        return slice(self.head, self.head + self.num_envs)

    def sample(self, batch_size: int, generator: torch.Generator) -> Transitions:
        """``batch_size`` transitions, uniform over all that are stored, with replacement.

        Raises:
            ValueError: if nothing is stored yet.
        """
        ends = self.length.cumsum(0)  # (slots,)
        total = int(ends[-1])
        if total == 0:
            raise ValueError("the replay is empty; add transitions before sampling")
        index = torch.randint(total, (batch_size,), generator=generator)
        slot = torch.searchsorted(ends, index, right=True)
        t = index - (ends[slot] - self.length[slot])
        return Transitions(
            observation=self.observation[slot, t],
            action=self.action[slot, t],
            reward=self.reward[slot, t],
            next_observation=self.observation[slot, t + 1],
            terminated=self.terminated[slot, t],
        )
