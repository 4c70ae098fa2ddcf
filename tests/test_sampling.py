"""Which trajectories are compared: ranks against sorting by hand, roles against definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sami_tutorial.replay import Replay
from sami_tutorial.sampling import (
    CONTRASTS,
    NotEnoughTrajectories,
    contrastive_batch,
    split_by_return,
)

HORIZON = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def replay_of(tasks: list[list[int]], returns: list[list[float]]) -> Replay:
    """Rounds of episodes with the given tasks and returns; the observation holds the slot."""
    num_envs = len(tasks[0])
    replay = Replay(len(tasks) * num_envs * HORIZON, num_envs, HORIZON, 1, 1, 1)
    for number, (contexts, totals) in enumerate(zip(tasks, returns, strict=True)):
        slots = np.arange(num_envs)[:, None] + number * num_envs
        observation = slots.astype(np.float32)
        replay.start_episodes(observation, np.array(contexts, np.float32)[:, None])
        for _ in range(HORIZON):
            reward = np.array(totals) / HORIZON
            action = np.zeros((num_envs, 1), np.float32)
            replay.add(action, reward, observation, np.zeros(num_envs, bool))
    return replay


def slots(episodes) -> list[int]:
    return episodes.observation[:, 0, 0].int().tolist()


TASKS = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]] * 2
RETURNS = [[float((7 * i + 3 * j) % 24) for j in range(3)] for i in range(8)]


@settings(max_examples=60, deadline=None)
@given(
    returns=st.lists(st.integers(-3, 3), min_size=2, max_size=12),
    fraction=st.floats(0.05, 0.5),
)
def test_split_against_sorting_by_hand(returns, fraction):
    count = int(fraction * len(returns))
    values = torch.tensor(returns, dtype=torch.float32)
    if count == 0:
        with pytest.raises(ValueError, match="larger fraction or more trajectories"):
            split_by_return(values, fraction)
        return
    best_first = sorted(range(len(returns)), key=lambda i: (-returns[i], i))
    positives, negatives = split_by_return(values, fraction)
    assert positives.tolist() == best_first[:count]
    assert negatives.tolist() == best_first[::-1][:count]
    assert not set(positives.tolist()) & set(negatives.tolist())


def test_ties_go_by_index_however_many_there_are():
    """From 17 numbers on a sort that is not stable mixes equal ones."""
    positives, negatives = split_by_return(torch.zeros(1000))
    assert positives.tolist() == list(range(500))
    assert negatives.tolist() == list(range(999, 499, -1))


@pytest.mark.parametrize(
    ("returns", "fraction", "named"),
    [
        (torch.zeros(1), 0.5, r"shape \(1,\)"),
        (torch.zeros(2, 2), 0.5, r"shape \(2, 2\)"),
        (torch.tensor([0.0, float("nan")]), 0.5, "NaN or infinity"),
        (torch.zeros(4), 0.0, "fraction is 0.0"),
        (torch.zeros(4), 0.6, "fraction is 0.6"),
        (torch.zeros(4), 0.1, "larger fraction"),
    ],
)
def test_bad_returns_are_named(returns, fraction, named):
    with pytest.raises(ValueError, match=named):
        split_by_return(returns, fraction)


@pytest.mark.parametrize("method", CONTRASTS)
def test_every_role_is_what_the_method_says(method):
    """Each slot that may be drawn is drawn, and no other: 300 batches of 8."""
    replay = replay_of(TASKS, RETURNS)
    task = [e for row in TASKS for e in row]
    total = [r for row in RETURNS for r in row]
    good, bad = set(), set()
    for e in range(3):
        ranked = sorted((i for i in range(24) if task[i] == e), key=lambda i: (-total[i], i))
        good |= set(ranked[:4])
        bad |= set(ranked[-4:])
    draw = generator()
    seen: dict[str, set[int]] = {"query": set(), "positive": set(), "negatives": set()}
    for _ in range(300):
        batch = contrastive_batch(replay, method, 8, draw)
        roles = {name: slots(getattr(batch, name)) for name in seen}
        assert all(len(members) == 8 for members in roles.values())
        (e,) = {task[i] for i in roles["query"] + roles["positive"]}  # one task
        assert all(q != p for q, p in zip(roles["query"], roles["positive"], strict=True))
        if method == "satesac":
            assert {task[i] for i in roles["negatives"]} == {e}
        if method == "ccm":
            assert e not in {task[i] for i in roles["negatives"]}
        gap = np.mean([total[i] for i in roles["query"]])
        gap -= np.mean([total[i] for i in roles["negatives"]])
        assert float(batch.reward_gap) == pytest.approx(gap / HORIZON, abs=1e-5)
        for name, members in roles.items():
            seen[name] |= set(members)
    everything = set(range(24))
    assert seen["query"] == seen["positive"] == (everything if method == "ccm" else good)
    assert seen["negatives"] == (everything if method == "ccm" else bad)


def test_saccm_takes_negatives_from_every_task():
    replay = replay_of(TASKS, RETURNS)
    task = [e for row in TASKS for e in row]
    batch = contrastive_batch(replay, "saccm", 200, generator())
    assert {task[i] for i in slots(batch.negatives)} == {0, 1, 2}


def test_a_worker_is_not_a_task():
    replay = replay_of(TASKS, RETURNS)
    task = [e for row in TASKS for e in row]
    batch = contrastive_batch(replay, "ccm", 50, generator(), same_task="worker")
    assert len({i % 3 for i in slots(batch.query) + slots(batch.positive)}) == 1
    assert not {i % 3 for i in slots(batch.negatives)} & {i % 3 for i in slots(batch.query)}
    assert {task[i] for i in slots(batch.query)} == {0, 1, 2}  # the notion is only approximate


def test_shuffled_returns_mean_nothing():
    """Every trajectory of the task can be good or bad; with true returns only half of them."""
    replay = replay_of([[0, 0]] * 4, [[float(i), float(i)] for i in range(4)])
    queries, negatives = set(), set()
    draw = generator()
    for _ in range(200):
        batch = contrastive_batch(replay, "satesac", 2, draw, shuffle_returns=True)
        queries |= set(slots(batch.query))
        negatives |= set(slots(batch.negatives))
    assert queries == negatives == set(range(8))


def test_chance_ranks_a_task_once_for_each_batch():
    """No negative is a query: with ranks drawn anew for each, a query would be its own opposite."""
    replay = replay_of(TASKS, RETURNS)
    draw = generator()
    for method in ("satesac", "saccm"):
        for _ in range(100):
            batch = contrastive_batch(replay, method, 12, draw, shuffle_returns=True)
            alike = slots(batch.query) + slots(batch.positive)
            assert not set(alike) & set(slots(batch.negatives))


def test_fraction_leaves_the_middle_out():
    replay = replay_of([[0, 0]] * 4, [[2.0 * i, 2.0 * i + 1] for i in range(4)])
    batch = contrastive_batch(replay, "satesac", 100, generator(), fraction=0.25)
    assert set(slots(batch.query)) == {6, 7}
    assert set(slots(batch.negatives)) == {0, 1}


def test_running_episodes_are_never_drawn():
    replay = replay_of([[0, 1]] * 4 + [[0, 1]], [[1.0, 2.0]] * 5)
    replay.start_episodes(np.full((2, 1), 99, np.float32), np.array([[0.0], [1.0]], np.float32))
    zeros = np.zeros(2)
    replay.add(np.zeros((2, 1), np.float32), zeros, np.full((2, 1), 99, np.float32), zeros > 0)
    for method in CONTRASTS:
        batch = contrastive_batch(replay, method, 100, generator())
        for episodes in batch[:3]:
            assert 99 not in slots(episodes)


def test_too_few_trajectories():
    alone = replay_of([[0, 0]] * 3, [[1.0, 2.0]] * 3)
    contrastive_batch(alone, "satesac", 2, generator())
    with pytest.raises(NotEnoughTrajectories, match="collect more episodes"):
        contrastive_batch(alone, "ccm", 2, generator())  # no other task
    three = replay_of([[0, 1]] * 3, [[1.0, 2.0]] * 3)
    with pytest.raises(NotEnoughTrajectories, match="finds 0 tasks"):
        contrastive_batch(three, "satesac", 2, generator())  # one good trajectory per task


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"method": "tesac"}, "method is 'tesac'; choose one of"),
        ({"same_task": "seed"}, "same_task is 'seed'; choose"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    values = {"method": "ccm", "batch_size": 2, "generator": generator(), **arguments}
    with pytest.raises(ValueError, match=named):
        contrastive_batch(replay_of(TASKS, RETURNS), **values)
