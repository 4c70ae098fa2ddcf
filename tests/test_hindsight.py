"""Hindsight: what an exchanged goal changes in a batch, and what it must leave alone."""

import numpy as np
import pytest
import torch

from sami_tutorial.encoder import Start
from sami_tutorial.envs import get_task
from sami_tutorial.envs.context import Goals
from sami_tutorial.hindsight import draw_goals, relabel, relabel_episodes
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import Transitions

GOALS = Goals(achieved=1, goal=4, low=-0.15, high=0.15)
WIDTH, STEPS = 8, 5
X_AND_Y = slice(4, 6)


def paths(count: int) -> Episodes:
    """Random walks whose rewards are those of their own goals."""
    generator = torch.Generator().manual_seed(0)
    observation = 0.1 * torch.randn(count, STEPS + 1, WIDTH, generator=generator)
    observation[..., 4:7] = observation[:, :1, 4:7]  # a goal stays where it is
    reward = -np.linalg.norm(observation[:, 1:, 1:4] - observation[:, 1:, 4:7], axis=-1)
    return Episodes(
        observation=observation,
        action=torch.randn(count, STEPS, 2, generator=generator),
        reward=torch.from_numpy(reward),
        terminated=torch.zeros(count, STEPS),
        mask=torch.ones(count, STEPS, dtype=torch.bool),
        context=torch.randn(count, 2, generator=generator),
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_paths_has_another_goal_and_the_reward_that_belongs_to_it(share):
    old = paths(4000)
    new = relabel_episodes(old, GOALS, share, torch.Generator().manual_seed(1))
    changed = (new.observation != old.observation).any(dim=-1)  # (E, T+1)
    assert (changed == changed[:, :1]).all()  # a path has one goal
    assert float(changed[:, 0].float().mean()) == pytest.approx(share, abs=0.03)
    goals = new.observation[..., X_AND_Y]
    assert (goals == goals[:, :1]).all()

    elsewhere = [i for i in range(WIDTH) if i not in (4, 5)]
    assert (new.observation[..., elsewhere] == old.observation[..., elsewhere]).all()
    for name in ("action", "terminated", "mask", "context"):
        assert getattr(new, name) is getattr(old, name)
    distance = np.linalg.norm(new.observation[:, 1:, 1:4] - new.observation[:, 1:, 4:7], axis=-1)
    assert np.allclose(new.reward, -distance, atol=1e-6)
    assert (new.reward == old.reward)[~changed[:, 0]].all()


def test_of_an_unfinished_episode_the_last_step_counts_and_the_padding_stays():
    old = paths(2000)
    taken = torch.arange(STEPS) < 2
    observation = old.observation.clone()
    observation[:, 2, 1:3] = 0.14  # achieved in the last step; zeros follow
    observation[:, 3:] = 0
    old = old._replace(
        observation=observation, reward=old.reward * taken, mask=taken.expand(2000, STEPS)
    )
    new = relabel_episodes(old, GOALS, 1.0, torch.Generator().manual_seed(1))
    expected = draws_near(torch.full((2000, 2), 0.14), torch.Generator().manual_seed(1))
    assert torch.equal(new.observation[:, 0, X_AND_Y], expected)
    assert (new.reward[:, 2:] == 0).all()


def draws_near(achieved: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The goals of a batch all of which is chosen."""
    torch.rand(len(achieved), 1, generator=generator)
    return draw_goals(GOALS, achieved, generator)


def test_the_reward_before_a_window_is_that_of_its_new_goal():
    old = paths(1000)
    before = -np.linalg.norm(old.observation[:, 0, 1:4] - old.observation[:, 0, 4:7], axis=-1)
    reward = torch.from_numpy(before).masked_fill(torch.arange(1000) % 4 == 0, 0.0)  # begins
    start = Start(torch.randn(1000, 2), reward, (torch.zeros(1000, 3), torch.zeros(1000, 3)))
    new = relabel_episodes(old._replace(start=start), GOALS, 0.5, torch.Generator().manual_seed(1))
    distance = np.linalg.norm(new.observation[:, 0, 1:4] - new.observation[:, 0, 4:7], axis=-1)
    assert new.start is not None
    assert (new.start.reward[::4] == 0).all()  # before its first step an episode has no reward
    inner = torch.arange(1000) % 4 > 0
    assert np.allclose(new.start.reward[inner], -distance[inner], atol=1e-6)
    assert 300 < int((new.start.reward != reward).sum()) < 450
    assert new.start.memory is start.memory and new.start.action is start.action


def test_transitions_are_paths_of_one_step():
    old = paths(1000)
    batch = Transitions(
        observation=old.observation[:, 0],
        action=old.action[:, 0],
        reward=old.reward[:, 0],
        next_observation=old.observation[:, 1],
        terminated=old.terminated[:, 0],
    )
    new = relabel(batch, GOALS, 0.5, torch.Generator().manual_seed(1))
    assert (new.observation[:, X_AND_Y] == new.next_observation[:, X_AND_Y]).all()
    moved = new.next_observation
    distance = np.linalg.norm(moved[:, 1:4] - moved[:, 4:7], axis=-1)
    assert np.allclose(new.reward, -distance, atol=1e-6)
    changed = new.reward != batch.reward
    assert 400 < int(changed.sum()) < 600
    assert (
        batch.observation == old.observation[:, 0]
    ).all()  # the replay's batch is not written to


def test_goals_are_drawn_from_everywhere_and_from_near_what_was_achieved():
    corner = torch.full((20_000, 2), 0.14)
    goals = draw_goals(GOALS, corner, torch.Generator().manual_seed(0))
    assert goals.min() >= -0.15 and goals.max() <= 0.15
    # Half are uniform: a quarter of those lie in the corner's quarter of the square. Of the near
    # ones a normal offset with standard deviation up to 0.2 keeps more than half there.
    quarter = (goals > 0).all(dim=1).float().mean()
    assert 0.4 < float(quarter) < 0.6
    assert (goals < -0.1).all(dim=1).float().mean() > 0.5 * (0.05 / 0.3) ** 2 * 0.9


def test_pandas_goals_are_where_its_observations_have_them():
    pytest.importorskip("pybullet", reason="needs PyBullet (`make panda`)")
    from sami_tutorial.envs.panda import PandaEnv
    from sami_tutorial.hindsight import goal_reward

    goals, env = get_task("sami/Panda-v0").goals, PandaEnv()
    assert goals is not None
    env.reset(seed=0)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        assert goals.low <= observation[goals.goal : goals.goal + 2].min()
        assert observation[goals.goal : goals.goal + 2].max() <= goals.high
        observation, reward, *_ = env.step(np.ones(4, np.float32))
        assert float(goal_reward(goals, torch.from_numpy(observation))) == pytest.approx(
            reward, abs=1e-6
        )
