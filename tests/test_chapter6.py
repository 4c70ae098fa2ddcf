"""Chapter 6 builds CCM's batch, loss and momentum encoder in plain code; the library agrees."""

import math

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial.agents import get_method
from sami_tutorial.context_sac import ContextConfig
from sami_tutorial.encoder import ContextEncoder
from sami_tutorial.nets import soft_update
from sami_tutorial.replay import Replay
from sami_tutorial.sac import SACConfig
from sami_tutorial.sampling import contrastive_batch

ENVS, HORIZON, S, A = 6, 7, 3, 2


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells("06_ccm", "from-scratch")


@pytest.fixture
def replay():
    """Four finished rounds of three tasks, and one that still runs."""
    rng = np.random.default_rng(0)
    replay = Replay(5 * ENVS * HORIZON, ENVS, HORIZON, S, A, context_dim=1)
    for last in (False, False, False, False, True):
        replay.start_episodes(
            rng.normal(size=(ENVS, S)).astype(np.float32),
            rng.integers(3, size=(ENVS, 1)).astype(np.float32),
        )
        for _ in range(HORIZON - last):
            replay.add(
                rng.uniform(-1, 1, (ENVS, A)).astype(np.float32),
                rng.normal(size=ENVS),
                rng.normal(size=(ENVS, S)).astype(np.float32),
                np.zeros(ENVS),
            )
    return replay


@pytest.fixture
def agent(replay):
    settings = ContextConfig(hidden=8, embedding_dim=4)
    agent = get_method("ccm").make_agent(S, A, SACConfig(hidden=(8,)), settings, seed=0)
    # As in the middle of a run: standardised observations, psi* behind psi.
    agent.standardize.fit(2 * replay.observation.flatten(0, 1) + 1)
    other = ContextEncoder(S, A, torch.Generator().manual_seed(5), hidden=8, embedding_dim=4)
    soft_update(agent.momentum_encoder, other, rate=0.5)
    return agent


@pytest.mark.parametrize("seed", range(20))
def test_batch_by_plain_loops_is_the_librarys(chapter, replay, seed):
    slots = chapter["ccm_slots"](replay, 5, torch.Generator().manual_seed(seed))
    batch = contrastive_batch(replay, "ccm", 5, torch.Generator().manual_seed(seed))
    for ours, theirs in zip(slots, (batch.query, batch.positive, batch.negatives), strict=True):
        assert torch.equal(replay.observation[ours], theirs.observation)
        assert torch.equal(replay.reward[ours], theirs.reward)


def test_batch_has_the_right_tasks_and_only_finished_episodes(chapter, replay):
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        query, positive, negatives = chapter["ccm_slots"](replay, 5, generator)
        task = replay.context[query[0]]
        assert (replay.context[query] == task).all()
        assert (replay.context[positive] == task).all()
        assert (replay.context[negatives] != task).all()
        assert all(q != p for q, p in zip(query, positive, strict=True))
        assert replay.complete[[*query, *positive, *negatives]].all()


@pytest.mark.parametrize("seed", range(5))
def test_loss_by_plain_loops_is_the_librarys(chapter, replay, agent, seed):
    batch = contrastive_batch(replay, "ccm", 5, torch.Generator().manual_seed(seed))
    agent.generator.manual_seed(seed)
    theirs = agent.contrastive_loss(batch)
    agent.generator.manual_seed(seed)  # the library draws the number of steps first
    steps = int(torch.randint(1, HORIZON + 1, (), generator=agent.generator))
    ours = chapter["ccm_loss"](agent, batch, steps, agent.context.temperature)
    assert torch.isclose(ours, theirs, rtol=1e-5)

    weights = list(agent.encoder.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_only_the_query_learns(chapter, replay, agent):
    batch = contrastive_batch(replay, "ccm", 5, torch.Generator().manual_seed(0))
    agent.momentum_encoder.requires_grad_(True)
    loss = chapter["ccm_loss"](agent, batch, 4, 0.1)
    weights = list(agent.momentum_encoder.parameters())
    assert torch.autograd.grad(loss, weights, allow_unused=True) == (None,) * len(weights)


def test_cut_trajectories_are_prefixes(chapter, replay, agent):
    """c after t steps is the t-th of the whole episode's, whatever comes later."""
    episodes = replay.episodes(torch.arange(ENVS))
    whole = agent.encoder(agent.standardize(episodes.observation), episodes.action, episodes.reward)
    for steps in (0, 3, HORIZON):
        c = chapter["embed"](agent, agent.encoder, episodes, steps)
        assert torch.allclose(c, whole[:, steps], atol=1e-6)


def test_momentum_update_is_the_librarys(chapter, agent):
    generator = torch.Generator().manual_seed(0)
    encoders = [ContextEncoder(S, A, generator, hidden=8, embedding_dim=4) for _ in range(2)]
    ours = ContextEncoder(S, A, torch.Generator().manual_seed(7), hidden=8, embedding_dim=4)
    theirs = ContextEncoder(S, A, torch.Generator().manual_seed(7), hidden=8, embedding_dim=4)
    for encoder in encoders:
        chapter["follow"](ours, encoder, 0.05)
        soft_update(theirs, encoder, 0.05)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_loss_of_an_encoder_that_knows_half(chapter):
    """With M of 12 negatives like the positive the loss is log(1 + M), as the chapter computes."""
    generator = torch.Generator().manual_seed(0)
    query = torch.tensor([[1.0, 0.0]])
    own, other = torch.tensor([[50.0, 0.0]]), torch.tensor([[-50.0, 0.0]])

    class Fixed:
        standardize = staticmethod(lambda x: x)

        @staticmethod
        def encoder(observation, action, reward):
            return observation

        momentum_encoder = encoder

    def episodes(c):
        class Cut:
            observation = c[:, None].expand(-1, 2, -1)
            action = torch.zeros(len(c), 1, 1)
            reward = torch.zeros(len(c), 1)

        return Cut

    for alike in (0, 3, 12):
        keys = torch.cat([own] * alike + [other] * (12 - alike))
        keys = keys[torch.randperm(12, generator=generator)]

        class Batch:
            negatives = episodes(keys)

        Batch.query, Batch.positive = episodes(query), episodes(own)
        loss = chapter["ccm_loss"](Fixed, Batch, 1, 0.1)
        assert float(loss) == pytest.approx(math.log(1 + alike), abs=1e-5)
