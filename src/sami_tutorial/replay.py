"""The replay buffer: whole episodes, each with its task and its return.

One slot holds one episode, so no sample can cross the border of an episode or the write head. The
``num_envs`` episodes that run in lockstep fill ``num_envs`` slots together and replace the oldest.

Built in chapter 2, *Soft actor-critic from scratch*; whole episodes are sampled from chapter 4,
*A context encoder*, on.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sami_tutorial.sac import Transitions


class Episodes(NamedTuple):
    """A batch of episodes from their first step, padded behind their last."""

    observation: Tensor  # (E, T+1, S)
    action: Tensor  # (E, T, A)
    reward: Tensor  # (E, T)
    terminated: Tensor  # (E, T)
    mask: Tensor  # (E, T) bool: True where a step was taken, False in the padding
    context: Tensor  # (E, F) the hidden features; for the oracle and for probes only


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
        self.task = torch.zeros(slots, dtype=torch.int64)  # equal where the contexts are equal
        self.returns = torch.zeros(slots)  # undiscounted, so far
        self.length = torch.zeros(slots, dtype=torch.int64)
        self.head = -num_envs  # first slot of the episodes now running

    @property
    def complete(self) -> Tensor:
        """Which slots hold a finished episode, (slots,) bool."""
        finished = self.length > 0
        finished[self._live] = self.length[self._live] == self.horizon
        return finished

    @property
    def horizon(self) -> int:
        return self.reward.shape[1]

    def start_episodes(self, observation: np.ndarray, context: np.ndarray) -> None:
        """Opens ``num_envs`` slots with the first observations (N, S) and the contexts (N, F)."""
        self.head = (self.head + self.num_envs) % len(self.length)
        self.observation[self._live, 0] = torch.from_numpy(observation)
        self.context[self._live] = torch.from_numpy(context)
        self.task[self._live] = torch.tensor([_task_id(each) for each in context])
        self.returns[self._live] = 0
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
        self.returns[self._live] += self.reward[self._live, t]
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

    def sample_episodes(self, batch_size: int, generator: torch.Generator) -> Episodes:
        """``batch_size`` episodes, uniform over all that have begun, with replacement.

        Raises:
            ValueError: if nothing is stored yet.
        """
        stored = self.length.nonzero().squeeze(-1)
        if len(stored) == 0:
            raise ValueError("the replay is empty; add transitions before sampling")
        choice = torch.randint(len(stored), (batch_size,), generator=generator)
        return self.episodes(stored[choice])

    def episodes(self, slots: Tensor) -> Episodes:
        """The episodes in these slots, (E,) integers, in their order."""
        mask = torch.arange(self.horizon) < self.length[slots, None]
        return Episodes(
            observation=self.observation[slots],
            action=self.action[slots],
            reward=self.reward[slots],
            terminated=self.terminated[slots],
            mask=mask,
            context=self.context[slots],
        )


def _task_id(context: np.ndarray) -> int:
    """A number that two contexts share exactly if they are equal (64 bits of a hash)."""
    plus_zero = np.float32(context) + np.float32(0)  # -0 has other bits than 0
    digest = hashlib.blake2b(plus_zero.tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
