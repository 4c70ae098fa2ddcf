"""Chapter 4 builds belief, encoder, masks and TESAC's update in plain code; the library agrees."""

import numpy as np
import pytest
import torch
from notebook_cells import tagged_cells

from sami_tutorial.context_sac import ContextConfig, ContextSAC
from sami_tutorial.encoder import ContextEncoder, history
from sami_tutorial.envs import make_vec, task_sets
from sami_tutorial.envs.cube_physics import TOP, Cube, Features, move, observe
from sami_tutorial.replay import Episodes
from sami_tutorial.sac import SACConfig

CUBE = "sami/CubeMove-v0"


@pytest.fixture(scope="module")
def chapter():
    names = tagged_cells("04_context_encoder", "from-scratch", "from-scratch-check")
    names.update(TOP=TOP, Cube=Cube, Features=Features, move=move, observe=observe)
    return names


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def agent(**changes) -> ContextSAC:
    return ContextSAC(5, 2, SACConfig(hidden=(32, 32), **changes), ContextConfig(hidden=16), seed=3)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def random_actions(task: dict, seed: int):
    """Observations (T+1, S) and actions (T, A) of one episode of random actions."""
    env, rng = make_vec(CUBE, 1), np.random.default_rng(seed)
    observation, _ = env.reset(seed=[seed], options={"context": [task]})
    seen, actions, done = [observation[0]], [], False
    while not done:
        action = rng.uniform(-1, 1, (1, 2)).astype(np.float32)
        observation, _, _, truncated, info = env.step(action)
        done = bool(truncated[0])
        seen.append(info["final_obs"][0] if done else observation[0])
        actions.append(action[0])
    return np.array(seen), np.array(actions)


def test_the_beliefs_forecast_is_the_environment(chapter):
    task = task_sets(CUBE).train[7]
    seen, actions = random_actions(task, seed=4)
    assert np.abs(np.diff(seen, axis=0)).max() > 0.01  # something moved
    mass, friction = np.array([task["mass"]]), np.array([task["friction"]])
    for t, action in enumerate(actions):
        forecast = chapter["expected_next"](seen[t], action, mass, friction)
        assert np.allclose(forecast[0], seen[t + 1], atol=1e-5)


def test_belief_equals_bayes_rule_written_out(chapter):
    tasks = task_sets(CUBE).train
    mass = np.array([task["mass"] for task in tasks])
    friction = np.array([task["friction"] for task in tasks])
    seen, actions = random_actions(tasks[7], seed=4)
    belief = chapter["beliefs"](seen, actions, mass, friction, 0.05)
    assert np.allclose(belief[0], 1 / len(tasks))
    by_hand = np.full(len(tasks), 1 / len(tasks))
    for t in range(len(actions)):
        forecast = chapter["expected_next"](seen[t], actions[t], mass, friction)
        density = np.exp(-0.5 * ((seen[t + 1] - forecast) / 0.05) ** 2)
        by_hand = by_hand * density.prod(axis=1)
        by_hand /= by_hand.sum()
        assert np.allclose(belief[t + 1], by_hand, atol=1e-9)
    assert belief[-1, 7] > 2 / len(tasks)


def test_shift_is_the_librarys_history(chapter):
    draw = generator(1)
    episode = torch.randn(3, 6, 5, generator=draw), torch.randn(3, 5, 2, generator=draw)
    reward = torch.randn(3, 5, generator=draw)
    assert torch.equal(chapter["shift"](*episode, reward), history(*episode, reward))


def test_lstm_cell_by_hand_is_the_librarys_step_and_whole_sequence(chapter):
    library = ContextEncoder(5, 2, generator(), hidden=16)
    plain = chapter["plain_encoder"](library)
    s, a, r, _, _ = chapter["random_episodes"](6, 12, 0.0, generator(2))
    with torch.no_grad():
        whole, theirs = plain(s, a, r), library(s, a, r)
        assert torch.allclose(whole, theirs, atol=1e-6)
        assert theirs.std() > 1e-2
        memory = library.initial_memory(6)
        h = k = torch.zeros(6, 16)
        previous_action, previous_reward = torch.zeros(6, 2), torch.zeros(6)
        for t in range(13):
            c, memory = library.step(s[:, t], previous_action, previous_reward, memory)
            x = torch.cat([s[:, t], previous_action, previous_reward[:, None]], dim=-1)
            ours, h, k = plain.step(x, h, k)
            assert torch.allclose(ours, c, atol=1e-6)
            assert torch.allclose(ours, whole[:, t], atol=1e-6)
            if t < 12:
                previous_action, previous_reward = a[:, t], r[:, t]


def test_masked_mean_ignores_whatever_lies_in_the_padding(chapter):
    values = torch.tensor([[1.0, 2.0, 6.0], [5.0, float("nan"), float("inf")]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert chapter["masked_mean"](values, mask) == pytest.approx((1 + 2 + 6 + 5) / 4)


def test_sampled_steps_are_real_and_equally_likely(chapter):
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    e, t = chapter["sample_steps"](mask, 40_000, generator(5))
    assert mask[e, t].all()
    counts = torch.bincount(e * 4 + t, minlength=8)[[0, 1, 2, 4]] / 40_000
    # Five standard deviations of a share of 1/4: passes by chance all but once in a million.
    assert (counts - 0.25).abs().max() < 5 * (0.25 * 0.75 / 40_000) ** 0.5


@pytest.mark.parametrize("padding", [0.0, 1e6])
def test_update_by_hand_is_the_librarys(chapter, padding):
    """Same weights, same random numbers, twenty updates; the padding holds what it likes."""
    library = agent()
    plain = chapter["plain_tesac"](library)
    before = weights(library.encoder)
    for k in range(20):
        episodes = chapter["random_episodes"](8, 10, 0.0, generator(k))
        padded = chapter["random_episodes"](8, 10, padding, generator(k))
        library.update(Episodes(*episodes, torch.zeros(8, 0)), batch_size=64)
        plain.update(*padded, batch_size=64)
    for ours, theirs in (
        (plain.actor, library.actor),
        (plain.critic, library.critic),
        (plain.slow_critic, library.target),
        (plain.encoder, chapter["plain_encoder"](library.encoder)),
        (plain.slow_encoder, chapter["plain_encoder"](library.momentum_encoder)),
    ):
        assert torch.allclose(weights(ours), weights(theirs), atol=1e-5)
    assert plain.log_eta.item() == pytest.approx(library.log_temperature.item(), abs=1e-6)
    assert (weights(library.encoder) - before).abs().max() > 1e-3


def test_the_actors_loss_leaves_the_encoder_alone(chapter):
    plain = chapter["plain_tesac"](agent())
    moved = {}
    step = plain.step

    def watched(optimizer, loss):
        before = {name: weights(getattr(plain, name)) for name in ("encoder", "critic", "actor")}
        step(optimizer, loss)
        after = {name: weights(getattr(plain, name)) for name in before}
        moved[optimizer] = {name for name in before if not torch.equal(before[name], after[name])}

    plain.step = watched
    plain.update(*chapter["random_episodes"](8, 10, 0.0, generator()), batch_size=64)
    assert moved == {
        plain.critic_optimizer: {"critic", "encoder"},
        plain.actor_optimizer: {"actor"},
        plain.eta_optimizer: set(),
    }
