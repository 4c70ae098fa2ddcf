"""Hindsight: what happened would have happened under another goal too.

Where the reward is a function of what was achieved and of the goal, and the dynamics know nothing
of the goal, one episode tells about all goals: write another one into the observations, compute the
rewards anew, and learn from that. A task that allows it names its ``goals``.

    with probability ``share``:
        goal    <- half of the time drawn as the task draws it,
                   else near where the batch's last observation has the cube
        rewards <- minus the distance to the goal, of every step

Of a window the encoder's memory stays what it was under the old goal, and so does the reward before
its first step. The trajectories that the contrast compares are left alone: it needs their returns
as they were.

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
    path, reward = _relabel_paths(path, batch.reward[:, None], goals, share, generator)
    observation, next_observation = path.unbind(dim=1)
    return batch._replace(
        observation=observation, next_observation=next_observation, reward=reward.squeeze(1)
    )


def relabel_episodes(
    episodes: Episodes, goals: Goals, share: float, generator: torch.Generator
) -> Episodes:
    """Episodes or windows with another goal, one for all steps, in about ``share`` of them."""
    observation, reward = _relabel_paths(
        episodes.observation, episodes.reward, goals, share, generator
    )
    return episodes._replace(observation=observation, reward=reward)


def _relabel_paths(
    path: Tensor, reward: Tensor, goals: Goals, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paths (B, T+1, S) and their rewards (B, T), some of them under a new goal."""
    chosen = torch.rand(len(path), 1, generator=generator) < share  # (B, 1)
    place = slice(goals.goal, goals.goal + 2)
    new = draw_goals(goals, path[:, -1, goals.achieved : goals.achieved + 2], generator)
    path = path.clone()
    path[..., place] = torch.where(chosen[..., None], new[:, None], path[..., place])
    return path, torch.where(chosen, goal_reward(goals, path[:, 1:]), reward)
