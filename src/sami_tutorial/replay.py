"""The replay buffer: whole episodes, each with its task and its return.

One slot holds one episode, so no sample can cross the border of an episode or the write head. The
``num_envs`` episodes that run in lockstep fill ``num_envs`` slots together and replace the oldest.

Where episodes are long, an encoder is trained on windows of a few steps instead of whole episodes.
For them the replay keeps what the encoder carried when acting (its memory) at the start of each
window, so that a window begins as it did then.

Built in chapter 2, *Soft actor-critic from scratch*; whole episodes are sampled from chapter 4,
*A context encoder*, on; windows in chapter 10, *Making it fast*. Stored states: Kapturowski et al.,
*Recurrent Experience Replay in Distributed Reinforcement Learning* (R2D2, ICLR 2019).
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sami_tutorial.encoder import Memory, Start
from sami_tutorial.sac import Transitions


class Episodes(NamedTuple):
    """A batch of episodes from their first step, padded behind their last; or of windows."""

    observation: Tensor  # (E, T+1, S)
    action: Tensor  # (E, T, A)
    reward: Tensor  # (E, T)
    terminated: Tensor  # (E, T)
    mask: Tensor  # (E, T) bool: True where a step was taken, False in the padding
    context: Tensor  # (E, F) the hidden features; for the oracle and for probes only
    start: Start | None = None  # of windows: what went before
    shown: Tensor | None = None  # (E, T, A) what a teacher would have done here


class Replay:
    """A ring of episodes in preallocated tensors.

    Args:
        capacity: in transitions; rounded up to whole rounds of ``num_envs`` episodes, at least two.
        num_envs: episodes that run in lockstep.
        horizon: the longest episode, in steps.
        observation_dim, action_dim, context_dim: widths.
        window: steps from one stored memory to the next; 0 stores none.
        memory_dim: width of each of the encoder's two memory tensors.

    Raises:
        ValueError: if a size is not positive, or if windows do not fill the horizon.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        horizon: int,
        observation_dim: int,
        action_dim: int,
        context_dim: int,
        window: int = 0,
        memory_dim: int = 0,
    ):
        for name, size in {"capacity": capacity, "num_envs": num_envs, "horizon": horizon}.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; give a positive integer")
        if window < 0 or (window and horizon % window):
            raise ValueError(
                f"window is {window}; give a divisor of the horizon, {horizon} steps, or 0"
            )
        rounds = max(2, -(-capacity // (num_envs * horizon)))
        slots = rounds * num_envs
        self.num_envs = num_envs
        self.observation = torch.zeros(slots, horizon + 1, observation_dim)
        self.action = torch.zeros(slots, horizon, action_dim)
        self.reward = torch.zeros(slots, horizon)
        self.terminated = torch.zeros(slots, horizon)
        self.context = torch.zeros(slots, context_dim)
        self.task = torch.zeros(slots, dtype=torch.int64)  # equal where the contexts are equal
        self.window = window
        if window:
            self.memory = torch.zeros(slots, horizon // window, 2, memory_dim)
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

    def remember(self, memory: Memory) -> None:
        """Keeps what the encoder carried before the first state of a window: (N, H) twice."""
        t = int(self.length[self.head])
        self.memory[self._live, t // self.window] = torch.stack(memory, dim=1)

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

    def sample_windows(self, batch_size: int, generator: torch.Generator) -> Episodes:
        """``batch_size`` windows, uniform over all whose steps are all stored, with replacement.

        Raises:
            ValueError: if there is none yet.
        """
        ends = (self.length // self.window).cumsum(0)  # (slots,)
        total = int(ends[-1])
        if total == 0:
            raise ValueError("the replay holds no full window; add transitions before sampling")
        index = torch.randint(total, (batch_size,), generator=generator)
        slots = torch.searchsorted(ends, index, right=True)
        number = index - (ends[slots] - self.length[slots] // self.window)
        return self.windows(slots, number)

    def windows(self, slots: Tensor, number: Tensor) -> Episodes:
        """Window ``number`` (E,) of each episode in ``slots`` (E,), with what went before it."""
        first = number * self.window  # (E,)
        times = first[:, None] + torch.arange(self.window + 1)  # (E, L+1)
        row, steps = slots[:, None], times[:, :-1]  # (E, 1), (E, L)
        begins, before = first == 0, (first - 1).clamp(min=0)
        return Episodes(
            observation=self.observation[row, times],
            action=self.action[row, steps],
            reward=self.reward[row, steps],
            terminated=self.terminated[row, steps],
            mask=steps < self.length[row],
            context=self.context[slots],
            start=Start(
                action=self.action[slots, before].masked_fill(begins[:, None], 0.0),
                reward=self.reward[slots, before].masked_fill(begins, 0.0),
                memory=self.memory[slots, number].unbind(dim=1),
            ),
        )

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
