"""The replay against a brute-force list of every transition that was added."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_tutorial.replay import Replay


def fill(replay: Replay, lengths: list[int], num_envs: int) -> dict[float, tuple]:
    """Adds rounds of the given lengths; returns what is still stored, keyed by a unique reward.

    Every number identifies its place: observation = 1000 * episode + step.
    """
    slots = len(replay.length)
    rounds: list[list[tuple]] = []
    serial = 0.0
    for round_index, length in enumerate(lengths):
        episodes = np.arange(num_envs) + round_index * num_envs
        replay.start_episodes(
            (1000.0 * episodes)[:, None].astype(np.float32),
            episodes[:, None].astype(np.float32),
        )
        added = []
        for t in range(length):
            rewards = serial + np.arange(1, num_envs + 1)
            serial += num_envs
            ends = np.full(num_envs, t == length - 1)
            nxt = (1000.0 * episodes + t + 1)[:, None].astype(np.float32)
            replay.add(np.full((num_envs, 1), t / 100, np.float32), rewards, nxt, ends)
            added += [
                (rewards[i], 1000.0 * episodes[i] + t, t, 1000.0 * episodes[i] + t + 1, ends[i])
                for i in range(num_envs)
            ]
        rounds.append(added)
    kept = rounds[-(slots // num_envs) :]
    return {row[0]: row for added in kept for row in added}


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    horizon=st.integers(1, 6),
    capacity=st.integers(1, 60),
    data=st.data(),
)
def test_samples_are_stored_transitions_and_never_cross_an_episode(
    num_envs, horizon, capacity, data
):
    lengths = data.draw(st.lists(st.integers(1, horizon), min_size=1, max_size=8))
    replay = Replay(capacity, num_envs, horizon, 1, 1, 1)
    stored = fill(replay, lengths, num_envs)
    assert int(replay.length.sum()) == len(stored)
    batch = replay.sample(200, torch.Generator().manual_seed(0))
    assert batch.shown is None  # a teacher is asked later
    for obs, action, reward, nxt, ended in zip(*batch[:5], strict=True):
        _, expected_obs, t, expected_next, expected_end = stored[float(reward)]
        assert float(obs) == expected_obs
        assert float(nxt) == expected_next
        assert float(action) == pytest.approx(t / 100)
        assert bool(ended) == expected_end


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 4),
    horizon=st.integers(1, 6),
    capacity=st.integers(1, 60),
    data=st.data(),
)
def test_sampled_episodes_are_stored_ones_from_start_to_end(num_envs, horizon, capacity, data):
    """No episode is mixed with another, cut short, or continued across the write head."""
    lengths = data.draw(st.lists(st.integers(1, horizon), min_size=1, max_size=8))
    replay = Replay(capacity, num_envs, horizon, 1, 1, 1)
    stored = fill(replay, lengths, num_envs)
    steps_of: dict[float, int] = {}
    for _, observation, *_ in stored.values():
        number = observation // 1000
        steps_of[number] = steps_of.get(number, 0) + 1
    batch = replay.sample_episodes(50, torch.Generator().manual_seed(0))
    for e in range(50):
        number = float(batch.context[e, 0])
        steps = int(batch.mask[e].sum())
        assert steps == steps_of[number]
        assert batch.mask[e].tolist() == [t < steps for t in range(horizon)]
        times = [1000 * number + t for t in range(steps + 1)]
        assert batch.observation[e, : steps + 1, 0].tolist() == times
        for t in range(steps):
            _, now, _, later, ended = stored[float(batch.reward[e, t])]
            assert (now, later) == (times[t], times[t + 1])
            assert bool(batch.terminated[e, t]) == ended


def test_every_stored_episode_is_equally_likely():
    replay = Replay(12, 2, 3, 1, 1, 1)
    fill(replay, [3, 1, 2], 2)  # the first round was overwritten
    draws = 40_000
    context = replay.sample_episodes(draws, torch.Generator().manual_seed(0)).context[:, 0]
    counts = np.array([(context == number).sum() for number in (2, 3, 4, 5)])
    # Pearson's statistic has 3 degrees of freedom; P(> 16.3) = 0.001.
    assert ((counts - draws / 4) ** 2 / (draws / 4)).sum() < 16.3


def test_equal_contexts_are_one_task():
    replay = Replay(100, 3, 1, 1, 1, 2)
    contexts = np.array([[0.5, 1.0], [0.5, 2.0], [0.5, 1.0]], np.float32)
    for row in (contexts, contexts[::-1].copy(), np.array([[0, 0], [-0.0, 0], [0, 1]], np.float32)):
        replay.start_episodes(np.zeros((3, 1), np.float32), row)
        replay.add(np.zeros((3, 1), np.float32), np.zeros(3), np.zeros((3, 1)), np.zeros(3))
    stored = replay.context[:9]
    for i in range(9):
        for j in range(9):
            same = bool((stored[i] == stored[j]).all())
            assert (replay.task[i] == replay.task[j]) == same


def test_complete_means_finished():
    replay = Replay(12, 2, 3, 1, 1, 1)
    assert not replay.complete.any()
    fill(replay, [3], 2)
    assert replay.complete.tolist() == [True, True, False, False]
    zeros = np.zeros((2, 1), np.float32)
    replay.start_episodes(zeros, zeros)
    replay.add(zeros, np.ones(2), zeros, np.zeros(2))
    assert replay.complete.tolist() == [True, True, False, False]  # the second round still runs


def test_every_stored_transition_is_equally_likely():
    replay = Replay(12, 2, 3, 1, 1, 1)
    stored = fill(replay, [3, 1, 2], 2)  # the first round was overwritten
    draws = 60_000
    reward = replay.sample(draws, torch.Generator().manual_seed(0)).reward
    counts = np.array([(reward == key).sum() for key in stored])
    expected = draws / len(stored)
    # Pearson's statistic has len(stored) - 1 = 5 degrees of freedom; P(> 20.5) = 0.001.
    assert ((counts - expected) ** 2 / expected).sum() < 20.5


def test_returns_and_contexts_belong_to_their_episode():
    replay = Replay(12, 2, 3, 1, 1, 1)
    fill(replay, [3, 2], 2)
    # Rewards count 1, 2 | 3, 4 | 5, 6 over the first round and go on in the second.
    assert replay.returns.tolist() == [1 + 3 + 5, 2 + 4 + 6, 7 + 9, 8 + 10]
    assert replay.context.squeeze(-1).tolist() == [0, 1, 2, 3]
    fill(replay, [1], 2)  # takes the oldest slots; nothing of what was there may stay
    assert replay.returns.tolist() == [1, 2, 7 + 9, 8 + 10]
    assert replay.length.tolist() == [1, 1, 2, 2]
    assert replay.context.squeeze(-1).tolist() == [0, 1, 2, 3]


def test_a_running_episode_can_be_sampled():
    replay = Replay(100, 1, 50, 1, 1, 1)
    fill(replay, [3], 1)
    assert set(replay.sample(50, torch.Generator().manual_seed(0)).reward.tolist()) == {1, 2, 3}


def test_empty_replay_and_bad_sizes_say_what_to_do():
    with pytest.raises(ValueError, match="empty; add transitions"):
        Replay(10, 1, 5, 1, 1, 1).sample(1, torch.Generator())
    with pytest.raises(ValueError, match="empty; add transitions"):
        Replay(10, 1, 5, 1, 1, 1).sample_episodes(1, torch.Generator())
    for name in ("capacity", "num_envs", "horizon"):
        sizes = {"capacity": 10, "num_envs": 1, "horizon": 5, name: 0}
        with pytest.raises(ValueError, match=f"{name} is 0"):
            Replay(**sizes, observation_dim=1, action_dim=1, context_dim=1)
