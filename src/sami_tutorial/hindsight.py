"""Hindsight: what happened would have happened under another goal too.

Where the reward is a function of what was achieved and of the goal, and the dynamics know nothing
of the goal, one episode tells about all goals: write another one into the observations, compute the
rewards anew, and learn from that. A task that allows it names its ``goals``.

    with probability ``share``:
        goal    <- half of the time drawn as the task draws it,
                   else near where the batch's last observation has the cube
        rewards <- minus the distance to the goal, of every step

Of a window the encoder's memory stays what it was under the old goal. The trajectories that the
contrast compares are left alone: it needs their returns as they were.

Source: Andrychowicz et al., *Hindsight Experience Replay* (NeurIPS 2017). Built in chapter 17,
*Panda*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sami_tutorial.envs.context import Goals
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import Transitions

_SPREAD = 2 / 3  # the largest standard deviation of near goals, in widths of the goals' range


def draw_goals(goals: Goals, achieved: Tensor, generator: torch.Generator) -> Tensor:
    """New goals, x and y: half of them anywhere, half near what was achieved: (N, 2) -> (N, 2)."""
    count, width = len(achieved), goals.high - goals.low
    anywhere = goals.low + width * torch.rand(count, 2, generator=generator)
    spread = _SPREAD * width * torch.rand(count, 1, generator=generator)
    near = achieved + spread * torch.randn(count, 2, generator=generator)
    drawn = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(drawn, anywhere, near).clamp(goals.low, goals.high)


def goal_reward(goals: Goals, observation: Tensor) -> Tensor:
    """Minus the distance from what was achieved to the goal: (..., S) -> (...)."""
    achieved = observation[..., goals.achieved : goals.achieved + 3]
    return -(achieved - observation[..., goals.goal : goals.goal + 3]).norm(dim=-1)


def relabel(
    batch: Transitions, goals: Goals, share: float, generator: torch.Generator
) -> Transitions:
    """The batch with another goal in about ``share`` of its transitions.

    Args:
        batch: observations as the environment gives them, not standardised.
        goals: of the task.
        share: from 0 to 1.
        generator: draws which transitions, and their goals.
    """
    path = torch.stack([batch.observation, batch.next_observation], dim=1)  # (B, 2, S)
    path, chosen = _exchange_goals(path, batch.next_observation, goals, share, generator)
    observation, next_observation = path.unbind(dim=1)
    return batch._replace(
        observation=observation,
        next_observation=next_observation,
        reward=torch.where(chosen, goal_reward(goals, next_observation), batch.reward),
    )


def relabel_episodes(
    episodes: Episodes, goals: Goals, share: float, generator: torch.Generator
) -> Episodes:
    """Episodes or windows with another goal, one for all steps, in about ``share`` of them."""
    path, mask = episodes.observation, episodes.mask
    last = path[torch.arange(len(path)), mask.sum(dim=1)]  # (E, S), before the padding
    path, chosen = _exchange_goals(path, last, goals, share, generator)
    changed = chosen[:, None] & mask  # (E, T)
    reward = torch.where(changed, goal_reward(goals, path[:, 1:]), episodes.reward)
    start = episodes.start
    if start is not None:
        follows = chosen & (start.reward != 0)  # before an episode's first step there is none
        start = start._replace(
            reward=torch.where(follows, goal_reward(goals, path[:, 0]), start.reward)
        )
    return episodes._replace(observation=path, reward=reward, start=start)


def _exchange_goals(
    path: Tensor, last: Tensor, goals: Goals, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paths (B, T+1, S), some under a new goal, and which: (B,). ``last`` (B, S) ends each."""
    chosen = torch.rand(len(path), 1, generator=generator) < share  # (B, 1)
    place = slice(goals.goal, goals.goal + 2)
    new = draw_goals(goals, last[:, goals.achieved : goals.achieved + 2], generator)
    path = path.clone()
    path[..., place] = torch.where(chosen[..., None], new[:, None], path[..., place])
    return path, chosen.squeeze(1)
