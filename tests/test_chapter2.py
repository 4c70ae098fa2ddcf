"""Chapter 2 builds soft actor-critic in plain code; the library must be the same algorithm."""

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial.envs import make_vec
from sami_tutorial.nets import tanh_gaussian_log_prob
from sami_tutorial.sac import SAC, SACConfig, Transitions

S, A, B = 5, 2, 64


@pytest.fixture(scope="module")
def chapter():
    return tagged_cells("02_soft_actor_critic", "from-scratch", "from-scratch-check")


def test_log_prob_is_the_librarys(chapter):
    u, mean, log_std = torch.randn(3, B, A, generator=torch.Generator().manual_seed(0)) * 3
    expected = tanh_gaussian_log_prob(u, mean, log_std)
    assert torch.allclose(chapter["log_prob"](u, mean, log_std), expected)


def test_twenty_updates_give_the_librarys_weights(chapter):
    config = SACConfig(hidden=(32, 32), discount=0.9, target_rate=0.1, initial_temperature=0.5)
    library = SAC(S, A, config, seed=3)
    plain = chapter["PlainSAC"](
        S, A, hidden=(32, 32), learning_rate=1e-3, gamma=0.9, tau=0.1, eta=0.5
    )
    chapter["copy_weights"](plain, library)
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        batch = (
            torch.randn(B, S, generator=g),
            torch.rand(B, A, generator=g) * 2 - 1,
            torch.randn(B, generator=g),
            torch.randn(B, S, generator=g),
            (torch.rand(B, generator=g) < 0.3).float(),
        )
        plain.update(*batch)
        library.update(Transitions(*batch))

    for k, network in enumerate((plain.q1, plain.q2)):
        linears = [layer for layer in network if hasattr(layer, "weight")]
        for ours, theirs in zip(linears, library.critic.q.layers, strict=True):
            assert torch.allclose(ours.weight, theirs.weight[k].T, atol=1e-5)
    for k, network in enumerate((plain.q1_target, plain.q2_target)):
        linears = [layer for layer in network if hasattr(layer, "weight")]
        for ours, theirs in zip(linears, library.target.q.layers, strict=True):
            assert torch.allclose(ours.weight, theirs.weight[k].T, atol=1e-5)
    linears = [layer for layer in plain.actor if hasattr(layer, "weight")]
    for ours, theirs in zip(linears, library.actor.mlp.layers, strict=True):
        assert torch.allclose(ours.weight, theirs.weight.T, atol=1e-5)
        assert torch.allclose(ours.bias, theirs.bias[0], atol=1e-5)
    assert torch.allclose(plain.log_eta, library.log_temperature, atol=1e-6)


def test_plain_loop_stores_the_true_end_of_an_episode(chapter):
    """In every stored transition the cube moves by its velocity, also in an episode's last one."""

    class Pusher:
        def sample_action(self, s):
            return torch.tensor([[0.7, -1.0]]).expand(len(s), 2), None

        def update(self, *batch):
            self.batch = batch

    env, agent = make_vec("sami/CubeMove-v0", 3, "nominal"), Pusher()
    rng = np.random.default_rng(0)
    # 2000 draws from 120 transitions: the last three are all but surely among them.
    success = chapter["plain_train"](agent, env, 3 * 40, 3, hold=1, batch_size=2000, rng=rng)
    s, _, _, s_next, _ = agent.batch
    assert len(success) == 1
    assert [tuple(each.shape[1:]) for each in agent.batch] == [(5,), (2,), (), (5,), ()]
    assert s_next[:, 4].max() > 0.5  # the cube got far, so a reset in between would show
    assert torch.allclose(s_next[:, 4] - s[:, 4], 0.05 * s_next[:, 1], atol=1e-6)


def test_plain_replay_keeps_the_newest(chapter):
    replay = chapter["PlainReplay"](3)
    for k in range(5):
        replay.add(np.float32(k), np.float32(10 * k))
    first, second = replay.sample(200, np.random.default_rng(0))
    assert set(first.tolist()) == {2.0, 3.0, 4.0}
    assert torch.equal(second, 10 * first)
